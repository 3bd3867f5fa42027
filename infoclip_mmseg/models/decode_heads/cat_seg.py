"""CATSegHead: from dense image and text embeddings to a logit map for every class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from infoclip_mmseg.models.backbones.dual_encoder import ImageFeatures
from infoclip_mmseg.models.decode_heads.base import OpenVocabHead
from infoclip_mmseg.models.layers.aggregation import AggregationLayer, SpatialAggregation
from infoclip_mmseg.models.layers.cost_volume import ClassLogits, top_cost_volume
from infoclip_mmseg.models.layers.cpu_backward.support import is_supported
from infoclip_mmseg.models.layers.upsampling import (
    GuidedStage,
    GuidedUpsampling,
    Step,
    decode,
    decode_recomputing,
)
from infoclip_mmseg.utils.tensors import resize

# Positions of class maps (of all classes together) that a CPU works on at a time.
CPU_CHUNK = 4608


def _projection(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU())


def _three(channels: Sequence[int]) -> list[int]:
    if len(channels) != 3:
        raise ValueError(
            'guidance_channels names the channels of three maps, coarse to fine, such as '
            f'(1024, 512, 256) for a ResNet-50; got {channels!r}'
        )
    return list(channels)


@MODELS.register_module()
class CATSegHead(OpenVocabHead):
    """Cost aggregation (arXiv 2303.11797, section 3).

    The cost volume between dense image embeddings and text embeddings is embedded, aggregated over
    positions and over classes, and upsampled under the guidance of two earlier image blocks.

    Args:
        embed_dim: Channels of image and text embeddings.
        guidance_in_channels: Channels of the two block maps.
        guidance_channels: Channels of three guidance maps of another backbone, coarse to fine, as
            in the first version of CAT-Seg: the first guides aggregation, the others upsampling.
            The segmentor hands them over in place of the block maps
            (:class:`~infoclip_mmseg.models.AppearanceGuidance`); ``guidance_in_channels``
            and ``decoder_guidance_dims`` are then not used. None: CLIP guides itself.
        hidden_dim: Channels of the embedded cost volume.
        num_layers: Aggregation layers.
        num_heads: Attention heads.
        window_size: Side of a window of the spatial attention, in positions.
        pooling_size: Class attention runs on positions pooled by this in training; in evaluation on
            all of them.
        pad_len: At most this many classes of an image are decoded, those with the highest maximal
            similarity; shorter vocabularies are padded to it with learned classes. 0 turns both
            off.
        num_prompts: P, prompts of a class.
        text_proj_dim, appearance_proj_dim: Channels of the projected guidance in aggregation.
        decoder_dims: Output channels of the two upsampling stages, multiples of 16.
        decoder_guidance_dims: Channels of the two upsampled block maps.
        decoder_guidance_proj_dims: Channels of their projections.
        class_chunk: Class maps (of all images together) that are aggregated over positions and
            upsampled at a time; the result is the same. None: on a CPU what fits into its caches,
            elsewhere all. 0: all, and all positions of the class attention too.
        with_cp: Recompute activations in the backward pass: those of spatial aggregation, of class
            attention on all positions, and of upsampling what lies between the convolutions.
        loss_decode: Task loss, see :class:`~infoclip_mmseg.losses.CATSegBCELoss`; any mmseg loss on
            one logit map a class will do.
        ignore_index: Label value of pixels without a label.
        threshold: Probability above which a pixel belongs to the class when the vocabulary has
            only one.
        init_cfg: See ``mmengine.model.BaseModule``.

    Raises:
        ValueError: From :meth:`forward`, when the features do not fit these sizes.
    """

    def __init__(
        self,
        embed_dim: int,
        guidance_in_channels: int,
        hidden_dim: int = 128,
        num_layers: int = 2,
        num_heads: int = 4,
        window_size: int = 12,
        pooling_size: int = 2,
        pad_len: int = 256,
        num_prompts: int = 1,
        text_proj_dim: int = 128,
        appearance_proj_dim: int = 128,
        decoder_dims: Sequence[int] = (64, 32),
        decoder_guidance_dims: Sequence[int] = (256, 128),
        decoder_guidance_proj_dims: Sequence[int] = (32, 16),
        class_chunk: int | None = None,
        with_cp: bool = False,
        loss_decode: dict | None = None,
        ignore_index: int = 255,
        threshold: float = 0.5,
        guidance_channels: Sequence[int] | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(ignore_index, threshold, init_cfg)
        self.embed_dim = embed_dim
        self.block_channels = [guidance_in_channels] * 2
        self.guided_by_clip = guidance_channels is None
        self.num_prompts = num_prompts
        self.pooling_size = pooling_size
        self.pad_len = pad_len
        self.class_chunk = class_chunk
        self.with_cp = with_cp
        self.loss_decode = MODELS.build(loss_decode or dict(type='CATSegBCELoss'))

        appearance_channels, guidance_dims = self._build_guidance(
            guidance_in_channels, guidance_channels, decoder_guidance_dims
        )
        self.appearance_proj = _projection(appearance_channels, appearance_proj_dim)
        self.text_proj = nn.Sequential(nn.Linear(embed_dim, text_proj_dim), nn.ReLU())
        self.decoder_guidance_proj = nn.ModuleList(
            _projection(c, p) for c, p in zip(guidance_dims, decoder_guidance_proj_dims)
        )

        # Cost volume embedding and aggregation.
        self.cost_embed = nn.Conv2d(num_prompts, hidden_dim, 7, padding=3)
        self.layers = nn.ModuleList(
            AggregationLayer(
                hidden_dim, appearance_proj_dim, text_proj_dim, num_heads, window_size, pad_len
            )
            for _ in range(num_layers)
        )

        # Upsampling decoder.
        channels = (hidden_dim, *decoder_dims)
        self.decoder = nn.ModuleList(
            GuidedUpsampling(c_in, c_out, g)
            for c_in, c_out, g in zip(channels, decoder_dims, decoder_guidance_proj_dims)
        )
        self.conv_seg = nn.Conv2d(decoder_dims[1], 1, 3, padding=1)

    def _build_guidance(
        self, clip: int, other: Sequence[int] | None, upsampled: Sequence[int]
    ) -> tuple[int, Sequence[int]]:
        """Channels of appearance guidance and of the decoder's two guidance maps.

        Guidance is the dense embeddings and two image blocks brought to 2x and 4x the grid, or
        three maps of another backbone.
        """
        if other is not None:
            self.block_channels = _three(other)
            return self.block_channels[0], self.block_channels[1:]
        first, second = upsampled
        self.upsample1 = nn.ConvTranspose2d(clip, first, 2, stride=2)
        self.upsample2 = nn.ConvTranspose2d(clip, second, 4, stride=4)
        return self.embed_dim, upsampled

    def decode(self, features: ImageFeatures, text: Tensor) -> ClassLogits:
        """Logits of the classes that each image is most similar to, at most ``pad_len``.

        Args:
            features: Dense embeddings (B, C, H, W) and two block maps (B, width, H, W), or with
                ``guidance_channels`` three maps of any size.
            text: Text embeddings (T, P, C).

        Returns:
            Logits (B, k, 4H, 4W) and their classes. :meth:`forward` gives the others -100.
        """
        self._check(features, text)
        volume, text, classes = top_cost_volume(features.dense, text, self.pad_len)
        appearance, guidance = self.guide(features)
        x = self.aggregate(self.embed_cost(volume), appearance, text)
        return ClassLogits(self.upsample(x, guidance), classes)

    def embed_cost(self, volume: Tensor) -> Tensor:
        """Cost volume (B, T, P, H, W) to features (B, T, H, W, hidden_dim)."""
        x = self.cost_embed(volume.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        return x.permute(0, 2, 3, 1).unflatten(0, volume.shape[:2])

    def guide(self, features: ImageFeatures) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Maps that guide aggregation, at the grid, and upsampling, at 2x and 4x the grid."""
        if self.guided_by_clip:
            return features.dense, self.upsample_guidance(features.blocks)
        height, width = features.dense.shape[-2:]
        coarse, middle, fine = (
            resize(block, (scale * height, scale * width))
            for block, scale in zip(features.blocks, (1, 2, 4))
        )
        return coarse, (middle, fine)

    def aggregate(self, x: Tensor, appearance: Tensor, text: Tensor) -> Tensor:
        """Aggregation layers.

        Args:
            x: Embedded cost volume (B, T, H, W, hidden_dim); overwritten where no gradients are
                recorded.
            appearance: Guidance (B, G, H, W), as a rule the dense image embeddings.
            text: Text embeddings (B or 1, T, P, C).

        Returns:
            Features (B, T, H, W, hidden_dim).
        """
        appearance = self.appearance_proj(appearance).permute(0, 2, 3, 1)
        text_guidance = self.text_proj(F.normalize(text.mean(dim=2), dim=-1))
        pooling_size = self.pooling_size if self.training else 1
        for layer in self.layers:
            assert isinstance(layer, AggregationLayer)
            x = self._aggregate_positions(layer.spatial, x, appearance)
            if pooling_size == 1:
                classes = partial(self._run, layer.classes)
                x = self._run_chunks(classes, x, 2, text_guidance, pooling_size)
            else:
                x = layer.classes(x, text_guidance, pooling_size)
        return x

    def _aggregate_positions(
        self, spatial: SpatialAggregation, x: Tensor, appearance: Tensor
    ) -> Tensor:
        guided = spatial.guide(appearance)
        if self._recomputes() and is_supported(x):
            return spatial.recompute(x, *guided, self._chunk(x[:1], 1))
        return self._run_chunks(partial(self._run, spatial), x, 1, *guided)

    def upsample_guidance(self, blocks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Block maps (B, width, H, W) to guidance at 2x and 4x the grid."""
        return self.upsample1(blocks[0]), self.upsample2(blocks[1])

    def upsample(self, x: Tensor, guidance: Sequence[Tensor]) -> Tensor:
        """Features (B, T, H, W, C) and guidance at 2x and 4x the grid to logits (B, T, 4H, 4W)."""
        maps = [proj(g) for proj, g in zip(self.decoder_guidance_proj, guidance)]
        stages = [
            GuidedStage(stage, stage.guide(guide), stage.weight())
            for stage, guide in zip(cast(Iterable[GuidedUpsampling], self.decoder), maps)
        ]
        if self._recomputes() and is_supported(x):
            return decode_recomputing(x, stages, self.conv_seg, self._chunk(x[:1], 1))
        return self._run_chunks(partial(decode, run=self._run), x, 1, stages, self.conv_seg)

    def loss(self, features: ImageFeatures, text: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Task loss of a batch; see :meth:`forward` and :meth:`loss_by_feat`."""
        return self.loss_by_feat(self.forward(features, text), labels)

    def loss_by_feat(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Task loss of logits (B, T, h, w) resized to the labels (B, H, W)."""
        options: dict[str, Any] = dict(ignore_index=self.ignore_index)
        if getattr(self.loss_decode, 'resizes', False):
            options['resize'] = True
        else:
            logits = resize(logits.float(), (labels.shape[1], labels.shape[2]))
        return {self.loss_decode.loss_name: self.loss_decode(logits, labels, **options)}

    def _run_chunks(self, function: Step, x: Tensor, dim: int, *args: Any) -> Tensor:
        """Run ``function(x, *args)`` on parts of ``x`` (B, T, H, W, C) along T (1) or H (2)."""
        chunk = self._chunk(x, dim)
        if chunk >= x.shape[dim]:
            return function(x, *args)
        parts: list[Tensor] = []
        for part in x.split(chunk, dim):
            out = function(part, *args)
            # Without gradients features of the same size take the place of their input.
            if not torch.is_grad_enabled() and out.shape == part.shape:
                part.copy_(out)
            else:
                parts.append(out)
        return torch.cat(parts, dim) if parts else x

    def _chunk(self, x: Tensor, dim: int) -> int:
        if self.class_chunk == 0:
            return x.shape[dim]
        if dim == 1 and self.class_chunk is not None:
            return max(1, self.class_chunk // len(x))
        if x.device.type != 'cpu':
            return x.shape[dim]
        return max(1, CPU_CHUNK * x.shape[dim] // x[..., 0].numel())

    def _run(self, step: Step, *args: Any) -> Tensor:
        if self._recomputes():
            return checkpoint(step, *args, use_reentrant=False, preserve_rng_state=False)
        return step(*args)

    def _recomputes(self) -> bool:
        return self.with_cp and self.training and torch.is_grad_enabled()

    def _check(self, features: ImageFeatures, text: Tensor) -> None:
        widths = [block.shape[1] for block in features.blocks]
        got = (features.dense.shape[1], text.shape[-1], text.shape[1], widths)
        expected = (self.embed_dim, self.embed_dim, self.num_prompts, self.block_channels)
        if got != expected:
            raise ValueError(
                'CATSegHead got (image channels, text channels, prompts, block channels) '
                f'{got}, expected {expected}; set embed_dim, num_prompts and guidance_in_channels '
                '(with model.guidance: guidance_channels) of model.decode_head to those of the '
                'backbone and templates'
            )
