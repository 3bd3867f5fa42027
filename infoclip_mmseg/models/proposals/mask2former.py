"""Mask2FormerProposals: masks and their queries from transformers' Mask2Former.

transformers is imported when a config builds proposals, and not before.

Legend: B images, Q queries, L = layers + 1 predictions, D hidden size, H W the grid of stride 4.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from infoclip_mmseg.losses.masks import normalised_soft_iou
from infoclip_mmseg.utils.tensors import at_least_float32, resize


class Proposals(NamedTuple):
    """Masks of every layer of the decoder, the learnable queries first, the last one last."""

    masks: tuple[Tensor, ...]  # logits, L times (B, Q, H, W)
    queries: tuple[Tensor, ...]  # normed hidden states, L times (B, Q, D)
    mask_features: Tensor  # (B, D, H, W)

    def nearest(self, masks: Tensor) -> Proposals:
        """Given masks (B, n, h, w), logits, each with the query of the best IoU with it."""
        ours, queries = self.masks[-1], self.queries[-1]
        masks = resize(masks, (ours.shape[-2], ours.shape[-1]))
        overlaps = map(normalised_soft_iou, (ours > 0).float(), (masks > 0).float())
        index = torch.stack([iou.argmax(dim=1) for iou, _ in overlaps])
        index = index[..., None].expand(-1, -1, queries.shape[-1])
        return Proposals((masks,), (queries.gather(1, index),), self.mask_features)


@MODELS.register_module()
class Mask2FormerProposals(BaseModule):
    """Pixel decoder with deformable attention and decoder with masked attention (arXiv 2112.01527).

    Args:
        in_channels: Channels of four feature maps, fine to coarse.
        num_queries: Q.
        hidden_dim: D, also of the mask features; a multiple of 32.
        num_heads: Heads of all attentions.
        encoder_layers, encoder_ffn: Of the pixel decoder.
        decoder_layers, decoder_ffn: Of the decoder; L is one more.
        init_cfg: See ``mmengine.model.BaseModule``; by default as Mask2Former begins.
    """

    def __init__(
        self,
        in_channels: Sequence[int],
        num_queries: int = 100,
        hidden_dim: int = 256,
        num_heads: int = 8,
        encoder_layers: int = 6,
        encoder_ffn: int = 1024,
        decoder_layers: int = 9,
        decoder_ffn: int = 2048,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if len(in_channels) != 4 or hidden_dim % 32:
            raise ValueError(
                'Mask2FormerProposals takes four maps, fine to coarse, and a hidden_dim that is a '
                f'multiple of 32; got in_channels={tuple(in_channels)}, hidden_dim={hidden_dim}. '
                'A ConvNeXt CLIP has such maps: leave in_channels and out_blocks out'
            )
        parts = _import_mask2former()
        config = parts.Mask2FormerConfig(
            feature_size=hidden_dim,
            mask_feature_size=hidden_dim,
            hidden_dim=hidden_dim,
            num_attention_heads=num_heads,
            encoder_layers=encoder_layers,
            encoder_feedforward_dim=encoder_ffn,
            decoder_layers=decoder_layers + 1,
            dim_feedforward=decoder_ffn,
            num_queries=num_queries,
            dropout=0.0,
        )
        self.num_queries, self.hidden_dim = num_queries, hidden_dim
        self.pixel_decoder = parts.Mask2FormerPixelDecoder(config, list(in_channels))
        self.decoder = parts.Mask2FormerTransformerModule(hidden_dim, config)
        self.reset_parameters()

    def forward(self, maps: Sequence[Tensor]) -> Proposals:
        """Proposals of four maps, fine to coarse; the pixel decoder in float32 or wider."""
        maps = tuple(maps)
        with torch.autocast(device_type=maps[0].device.type, enabled=False):
            maps = tuple(at_least_float32(x) for x in maps)
            pixels = self.pixel_decoder(maps, output_attentions=False, return_dict=True)
        found = self.decoder(list(pixels.multi_scale_features), pixels.mask_features)
        queries = tuple(x.transpose(0, 1) for x in found.intermediate_hidden_states)
        return Proposals(tuple(found.masks_queries_logits), queries, pixels.mask_features)

    def reset_parameters(self) -> None:
        """Weights as Mask2Former begins; transformers leaves that to its whole models."""
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                if module.kernel_size == (3, 3):  # FPN outputs and laterals begin as Caffe2's
                    nn.init.kaiming_uniform_(module.weight, a=1)
                else:
                    nn.init.xavier_uniform_(module.weight)
                if module.bias is not None:
                    nn.init.zeros_(module.bias)
            elif isinstance(module, nn.Embedding):
                nn.init.normal_(module.weight)
        for layer in (*self.pixel_decoder.encoder.layers, *self.decoder.decoder.layers):
            for parameter in layer.parameters():
                if parameter.dim() > 1:
                    nn.init.xavier_uniform_(parameter)
        for layer in self.pixel_decoder.encoder.layers:
            _reset_deformable(layer.self_attn)
        nn.init.normal_(self.pixel_decoder.level_embed)


def _import_mask2former() -> Any:
    try:
        from transformers.models.mask2former import modeling_mask2former
    except ImportError as error:
        raise ImportError(
            'mask proposals are built of transformers, which is not installed: '
            "pip install 'transformers>=4.49,<5'"
        ) from error
    return modeling_mask2former


def _reset_deformable(attention: Any) -> None:
    """Sampling points of each head in a direction of its own, one step further each."""
    heads, levels, points = attention.n_heads, attention.n_levels, attention.n_points
    angles = torch.arange(heads, dtype=torch.float32) * (2 * math.pi / heads)
    directions = torch.stack([angles.cos(), angles.sin()], -1)
    directions = directions / directions.abs().amax(-1, keepdim=True)
    steps = torch.arange(1, points + 1, dtype=torch.float32)[:, None]
    offsets = (directions[:, None, None] * steps).expand(heads, levels, points, 2)
    nn.init.zeros_(attention.sampling_offsets.weight)
    with torch.no_grad():
        attention.sampling_offsets.bias.copy_(offsets.reshape(-1))
    for linear in (attention.attention_weights,):
        nn.init.zeros_(linear.weight)
        nn.init.zeros_(linear.bias)
    for linear in (attention.value_proj, attention.output_proj):
        nn.init.xavier_uniform_(linear.weight)
        nn.init.zeros_(linear.bias)
