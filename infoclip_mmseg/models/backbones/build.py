"""Building open_clip models, and what their towers need at any image size."""

from __future__ import annotations

import copy
from typing import Any

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn


def build_clip(model_name: str | dict) -> nn.Module:
    """An open_clip model with random weights.

    Args:
        model_name: One of ``open_clip.list_models()``, or a dict in the form of open_clip's model
            configs (``embed_dim``, ``vision_cfg``, ``text_cfg``, ``quick_gelu``).

    Raises:
        ValueError: Unknown name, or an architecture whose towers have no dense reading here.
    """
    if isinstance(model_name, str):
        config = open_clip.get_model_config(model_name)
        if config is None:
            raise ValueError(
                f'model.backbone.model_name={model_name!r} is not known to open_clip; '
                f'ViT models are {[n for n in open_clip.list_models() if n.startswith("ViT-")]}'
            )
    else:
        config = dict(model_name)
    config = copy.deepcopy(dict(config))
    if 'multimodal_cfg' in config or 'hf_model_name' in config['text_cfg']:
        raise ValueError(f'{model_name!r}: CoCa and Hugging Face text towers are not supported')
    if 'timm_model_name' in config['vision_cfg']:
        raise ValueError(f"{model_name!r}: its image tower is a timm model, not open_clip's ViT")
    custom_text = config.pop('custom_text', False)
    clip = (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**config)
    _check_towers(clip, model_name)
    return _replace_quick_gelu(clip)


class QuickGELU(open_clip.transformer.QuickGELU):
    """x sigmoid(1.702 x), as one SiLU: a tensor is kept for the backward pass instead of two."""

    def forward(self, x: Tensor) -> Tensor:
        """Values of any shape."""
        return F.silu(1.702 * x) / 1.702


def _replace_quick_gelu(clip: nn.Module) -> nn.Module:
    for module in list(clip.modules()):
        for name, child in module.named_children():
            if isinstance(child, open_clip.transformer.QuickGELU):
                setattr(module, name, QuickGELU())
    return clip


def _check_towers(clip: Any, model_name: str | dict) -> None:
    visual = clip.visual
    if not isinstance(visual, VisionTransformer) or visual.attn_pool is not None:
        raise ValueError(
            f'{model_name!r}: the image tower must be a ViT with a class token and without '
            f'attentional pooling, got {type(visual).__name__}'
        )
    text = getattr(clip, 'text', clip)
    blocks = [*visual.transformer.resblocks, *text.transformer.resblocks]
    if getattr(text, 'cls_emb', None) is not None or not all(
        isinstance(block, ResidualAttentionBlock) for block in blocks
    ):
        raise ValueError(f'{model_name!r}: only plain CLIP transformer blocks are supported')


def interpolate_positions(
    embedding: Tensor, source: tuple[int, int], target: tuple[int, int]
) -> Tensor:
    """Position embeddings (1 + H*W, C) of grid ``source`` resized to grid ``target``.

    Bicubic, align_corners=False; the class token's embedding, in row 0, is kept.
    """
    if tuple(source) == tuple(target):
        return embedding
    cls, grid = embedding[:1], embedding[1:]
    grid = grid.T.unflatten(1, tuple(source))[None].float()
    grid = F.interpolate(grid, size=tuple(target), mode='bicubic', align_corners=False)
    return torch.cat([cls, grid[0].flatten(1).T.to(cls.dtype)])
