"""CATSegHead: from dense image and text embeddings to a logit map for every class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar, cast

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from infoclip_mmseg.models.backbones.dual_encoder import ImageFeatures
from infoclip_mmseg.models.decode_heads.base import OpenVocabHead
from infoclip_mmseg.models.layers.aggregation import AggregationLayer, AggregationSizes
from infoclip_mmseg.models.layers.cost_volume import ClassLogits, cost_volume, top_cost_volume
from infoclip_mmseg.models.layers.upsampling import (
    GuidedUpsampling,
    UpsamplingSizes,
    conv_steps,
    decode,
)
from infoclip_mmseg.models.layers.vocabulary_selection import (
    NO_SLOT,
    ClassSelection,
    label_slots,
    present_classes,
    select_classes,
)
from infoclip_mmseg.utils.recompute import Recompute, check_recompute
from infoclip_mmseg.utils.tensors import resize


def _projection(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 3, padding=1), nn.ReLU())


Sizes = TypeVar('Sizes', AggregationSizes, UpsamplingSizes, ClassSelection)


def _take_sizes(kind: type[Sizes], part: dict | None, shorthand: dict[str, Any]) -> Sizes:
    """Sizes of a part of the head; takes its fields out of the shorthand."""
    fields = [field for field in kind._fields if field in shorthand]
    return kind(**{**{field: shorthand.pop(field) for field in fields}, **(part or {})})


@MODELS.register_module()
class CATSegHead(OpenVocabHead):
    """Cost aggregation (arXiv 2303.11797, section 3).

    The cost volume between dense image embeddings and text embeddings is embedded, aggregated over
    positions and over classes, and upsampled under the guidance of two earlier image blocks.

    Args:
        embed_dim: Channels of image and text embeddings.
        guidance_in_channels: Channels of the two block maps, or of the stages of a ConvNeXt, of
            which the last three guide, each at its own resolution (as SED, arXiv 2311.15537, does).
        guidance_channels: Channels of three guidance maps of another backbone, coarse to fine, as
            in the first version of CAT-Seg: the first guides aggregation, the others upsampling.
            The segmentor hands them over in place of the block maps
            (:class:`~infoclip_mmseg.models.AppearanceGuidance`); ``guidance_in_channels``
            and ``decoder_guidance_dims`` are then not used. None: CLIP guides itself.
        num_prompts: P, prompts of a class.
        pad_len: At most this many classes of an image are decoded, those with the highest maximal
            similarity; shorter vocabularies are padded to it with learned classes. 0 turns both
            off.
        aggregation: Sizes of the aggregation, fields of
            :class:`~infoclip_mmseg.models.layers.aggregation.AggregationSizes`.
        upsampling: Sizes of the decoder, fields of
            :class:`~infoclip_mmseg.models.layers.upsampling.UpsamplingSizes`.
        selection: Which classes of an image are decoded, in place of ``pad_len``'s rule, fields of
            :class:`~infoclip_mmseg.models.layers.vocabulary_selection.ClassSelection`:
            ``num_decoded`` in inference, ``num_decoded_train`` in training.
        class_chunk: Class maps (of all images together) that are aggregated over positions and
            upsampled at a time; the result is the same. None: on a CPU what fits into its caches,
            elsewhere all. 0: all, and all positions of the class attention too.
        with_cp: Recompute activations in the backward pass: those of spatial aggregation, of class
            attention on all positions, and of upsampling what lies between the convolutions.
            ``'selective'`` keeps the outputs of matrix products, convolutions and attention: no
            more of these than with False. On a CPU in float32 True and it are the same.
        loss_decode: Task loss, see :class:`~infoclip_mmseg.losses.CATSegBCELoss`; any mmseg loss on
            one logit map a class will do. A list is summed; losses of one ``loss_name`` have one
            key, as in mmseg.
        ignore_index, threshold, init_cfg: See :class:`OpenVocabHead`.
        sizes: Shorthand for fields of ``aggregation``, ``upsampling`` and ``selection``, such as
            ``hidden_dim=128``. Where both give a field, ``aggregation`` and so on win.
    """

    def __init__(
        self,
        embed_dim: int,
        guidance_in_channels: int | Sequence[int],
        guidance_channels: Sequence[int] | None = None,
        num_prompts: int = 1,
        pad_len: int = 256,
        aggregation: dict | None = None,
        upsampling: dict | None = None,
        selection: dict | None = None,
        class_chunk: int | None = None,
        with_cp: Recompute = False,
        loss_decode: dict | Sequence[dict] | None = None,
        ignore_index: int = 255,
        threshold: float = 0.5,
        init_cfg: dict | None = None,
        **sizes: Any,
    ) -> None:
        super().__init__(ignore_index, threshold, init_cfg)
        self.embed_dim, self.num_prompts, self.pad_len = embed_dim, num_prompts, pad_len
        self.guided_by_clip = guidance_channels is None
        self.guided_by_stages = self.guided_by_clip and not isinstance(guidance_in_channels, int)
        self.class_chunk, self.with_cp = class_chunk, check_recompute(with_cp)
        config = loss_decode or dict(type='CATSegBCELoss')
        several = not isinstance(config, dict)
        build = MODELS.build
        self.loss_decode = nn.ModuleList(map(build, config)) if several else build(config)

        aggregation_sizes = _take_sizes(AggregationSizes, aggregation, sizes)
        upsampling_sizes = _take_sizes(UpsamplingSizes, upsampling, sizes)
        self.selection = _take_sizes(ClassSelection, selection, sizes)
        self.selection.check([config] if isinstance(config, dict) else config)
        if sizes:
            fields = AggregationSizes._fields + UpsamplingSizes._fields + ClassSelection._fields
            known = ', '.join(fields)
            raise TypeError(f'CATSegHead has no argument {sorted(sizes)}; its sizes are {known}')
        self.pooling_size = aggregation_sizes.pooling_size
        guidance_dims = self._build_guidance(
            guidance_in_channels, guidance_channels, upsampling_sizes
        )
        self._build_layers(guidance_dims, aggregation_sizes, upsampling_sizes)

    def _build_guidance(
        self, clip: int | Sequence[int], other: Sequence[int] | None, sizes: UpsamplingSizes
    ) -> list[int]:
        """Channels of the three guidance maps, coarse to fine; see :meth:`guide`."""
        if other is None and not isinstance(clip, int):
            self.block_channels = list(clip)
            return self.block_channels[:-4:-1]
        if other is not None:
            if len(other) != 3:
                raise ValueError(
                    'guidance_channels names the channels of three maps, coarse to fine, such as '
                    f'(1024, 512, 256) for a ResNet-50; got {other!r}'
                )
            self.block_channels = list(other)
            return self.block_channels
        assert isinstance(clip, int)
        self.block_channels = [clip, clip]
        first, second = sizes.decoder_guidance_dims
        self.upsample1 = nn.ConvTranspose2d(clip, first, 2, stride=2)
        self.upsample2 = nn.ConvTranspose2d(clip, second, 4, stride=4)
        return [self.embed_dim, first, second]

    def _build_layers(
        self,
        guidance_dims: Sequence[int],
        aggregation: AggregationSizes,
        upsampling: UpsamplingSizes,
    ) -> None:
        """Layers in this order: random weights, and an optimizer's state, go by it."""
        appearance_dim, *decoder_guidance_dims = guidance_dims
        proj_dims = upsampling.decoder_guidance_proj_dims
        self.appearance_proj = _projection(appearance_dim, aggregation.appearance_proj_dim)
        self.text_proj = nn.Sequential(
            nn.Linear(self.embed_dim, aggregation.text_proj_dim), nn.ReLU()
        )
        self.decoder_guidance_proj = nn.ModuleList(
            map(_projection, decoder_guidance_dims, proj_dims)
        )
        self.cost_embed = nn.Conv2d(self.num_prompts, aggregation.hidden_dim, 7, padding=3)
        self.layers = nn.ModuleList(
            AggregationLayer(aggregation, self.pad_len) for _ in range(aggregation.num_layers)
        )
        channels = (aggregation.hidden_dim, *upsampling.decoder_dims)
        self.decoder = nn.ModuleList(map(GuidedUpsampling, channels, channels[1:], proj_dims))
        self.conv_seg = nn.Conv2d(channels[-1], 1, 3, padding=1)

    def select(self, dense: Tensor, text: Tensor, labels: Tensor | None = None) -> Tensor | None:
        """Classes (B, k) to be decoded of dense embeddings (B, C, H, W); None without a selection.

        Those of the label maps (B, h, w) come first.
        """
        k = self.selection.num_decoded_train if self.training else self.selection.num_decoded
        num_classes = text.shape[0]
        if not 0 < k < num_classes:
            return None
        first = None if labels is None else present_classes(labels, num_classes, self.ignore_index)
        return select_classes(dense, text, k, self.selection.vote_weights, first)

    def decode(
        self, features: ImageFeatures, text: Tensor, classes: Tensor | None = None
    ) -> ClassLogits:
        """Logits of ``classes`` (B, k), ascending; None: of those of :meth:`select`.

        Without a selection they are those that each image is most similar to, at most ``pad_len``.
        Features are dense embeddings (B, C, H, W) and two block maps (B, width, H, W), or with
        ``guidance_channels`` three maps of any size. Logits are (B, k, 4H, 4W), those of an image
        that was asked for its k classes only; :meth:`forward` gives the other classes -100.
        """
        self._check(features, text)
        if classes is None:
            classes = self.select(features.dense, text)
        if classes is None:
            volume, text, classes = top_cost_volume(features.dense, text, self.pad_len)
        else:
            text = text[classes]
            volume = cost_volume(features.dense, text)
        appearance, guidance = self.guide(features)
        x = self.aggregate(self.embed_cost(volume), appearance, text)
        return ClassLogits(self.upsample(x, guidance), classes)

    def embed_cost(self, volume: Tensor) -> Tensor:
        """Cost volume (B, T, P, H, W) to features (B, T, H, W, hidden_dim)."""
        x = self.cost_embed(volume.flatten(0, 1).contiguous(memory_format=torch.channels_last))
        return x.permute(0, 2, 3, 1).unflatten(0, volume.shape[:2])

    def guide(self, features: ImageFeatures) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Maps that guide aggregation, at the grid, and upsampling, at 2x and 4x the grid."""
        blocks = features.blocks
        if self.guided_by_stages:
            blocks = blocks[:-4:-1]
        elif self.guided_by_clip:
            coarse, fine = blocks
            return features.dense, (self.upsample1(coarse), self.upsample2(fine))
        height, width = features.dense.shape[-2:]
        coarse, middle, fine = (
            resize(block, (scale * height, scale * width))
            for block, scale in zip(blocks, (1, 2, 4))
        )
        return coarse, (middle, fine)

    def aggregate(self, x: Tensor, appearance: Tensor, text: Tensor) -> Tensor:
        """Aggregation layers: features (B, T, H, W, hidden_dim) to features.

        ``x`` is overwritten where no gradients are recorded; it is guided by ``appearance``
        (B, G, H, W), as a rule the dense image embeddings, and ``text`` (B or 1, T, P, C).
        """
        appearance = self.appearance_proj(appearance).permute(0, 2, 3, 1)
        text_guidance = self.text_proj(F.normalize(text.mean(dim=2), dim=-1))
        pooling_size = self.pooling_size if self.training else 1
        for layer in self.layers:
            x = layer(x, appearance, text_guidance, pooling_size, self.recomputes, self.class_chunk)
        return x

    def upsample(self, x: Tensor, guidance: Sequence[Tensor]) -> Tensor:
        """Features (B, T, H, W, C) and guidance at 2x and 4x the grid to logits (B, T, 4H, 4W)."""
        maps = [proj(guide) for proj, guide in zip(self.decoder_guidance_proj, guidance)]
        stages = cast(Iterable[GuidedUpsampling], self.decoder)
        steps = conv_steps(stages, maps, self.conv_seg)
        return decode(x, steps, self.recomputes, self.class_chunk)

    @property
    def recomputes(self) -> Recompute:
        """Which activations are recomputed in the backward pass."""
        return self.with_cp if self.training else False

    def loss(self, features: ImageFeatures, text: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Task loss of a batch; see :meth:`forward` and :meth:`loss_by_feat`.

        With a selection that of the k classes that are decoded, in which a pixel of another class
        counts as an ignored one. The others count as classes whose loss is 0, so that it is the
        mean over all T, or with ``undecoded='exclude'`` nothing: the mean over k.
        """
        classes = self.select(features.dense, text, labels)
        if classes is None:
            return self.loss_by_feat(self.forward(features, text), labels)
        logits = self.decode(features, text, classes).logits
        slots = label_slots(labels, classes, len(text), self.ignore_index)
        losses = self.loss_by_feat(logits, slots, NO_SLOT)
        share = self.selection.share(classes.shape[1], len(text))
        return {name: share * value for name, value in losses.items()}

    def loss_by_feat(
        self, logits: Tensor, labels: Tensor, ignore_index: int | None = None
    ) -> dict[str, Tensor]:
        """Task losses, by name, of logits (B, T, h, w) resized to the labels (B, H, W)."""
        ignored = self.ignore_index if ignore_index is None else ignore_index
        several = isinstance(self.loss_decode, nn.ModuleList)
        configured: Iterable[Any] = cast(Any, self.loss_decode) if several else [self.loss_decode]
        losses: dict[str, Tensor] = {}
        resized: Tensor | None = None
        for loss in configured:
            if getattr(loss, 'resizes', False):
                value = loss(logits, labels, ignore_index=ignored, resize=True)
            else:
                if resized is None:
                    resized = resize(logits.float(), (labels.shape[1], labels.shape[2]))
                value = loss(resized, labels, ignore_index=ignored)
            name = loss.loss_name
            losses[name] = losses[name] + value if name in losses else value
        return losses

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
