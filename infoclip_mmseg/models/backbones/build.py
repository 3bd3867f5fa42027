"""CLIP models of open_clip: building them, and which of their parameters are trained."""

from __future__ import annotations

import copy
from typing import Any

import open_clip
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from infoclip_mmseg.models.backbones.attention import (
    SplitAttention,
    SplitLinear,
    replace_modules,
)
from infoclip_mmseg.models.backbones.convnext import build_trunk, is_convnext
from infoclip_mmseg.models.backbones.timm_vit import is_timm_vit

POLICIES = ('attention', 'image_attention', 'image_query', 'image', 'trunk', 'full', 'frozen')
# Trained by CAT-Seg and InfoCLIP: query and value projection weights of every block.
_ATTENTION_SUFFIXES = (
    *('attn.q_proj_weight', 'attn.v_proj_weight'),  # of open_clip's blocks
    *('attn.q_proj.weight', 'attn.v_proj.weight', 'attn.qkv.q_weight', 'attn.qkv.v_weight'),
)
# Trained by MAFT+.
_TRUNK_PREFIXES = ('visual.trunk.stem.', 'visual.trunk.stages.')
# No segmentation loss reaches CLIP's contrastive scale and bias.
_NEVER_TRAINED = ('logit_scale', 'logit_bias')


def build_clip(model_name: str | dict) -> nn.Module:
    """An open_clip model with random weights and split attention projections.

    ``model_name`` is one of ``open_clip.list_models()``, or a dict in the form of open_clip's model
    configs (``embed_dim``, ``vision_cfg``, ``text_cfg``, ``quick_gelu``); in its ``vision_cfg`` the
    key ``convnext``, beside the name of one of timm's, gives sizes of your own (see
    :func:`~infoclip_mmseg.models.backbones.convnext.build_trunk`). An unknown name, and an
    architecture whose towers have no dense reading here, is a ValueError.
    """
    if isinstance(model_name, str):
        config: Any = open_clip.get_model_config(model_name)
        if config is None:
            raise ValueError(
                f'model.backbone.model_name={model_name!r} is not known to open_clip, whose models '
                f'are {open_clip.list_models()}'
            )
    else:
        config = model_name
    config = copy.deepcopy(dict(config))
    if 'multimodal_cfg' in config:
        raise ValueError(f'{model_name!r}: CoCa, with its attentional pooling, is not supported')
    if 'hf_model_name' in config['text_cfg']:
        text = config['text_cfg']['hf_model_name']
        raise ValueError(f'{model_name!r}: its text tower, {text}, is not supported')
    sizes = config['vision_cfg'].pop('convnext', None)
    custom_text = config.pop('custom_text', False)
    clip: Any = (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**config)
    _check_towers(clip, model_name)
    if sizes is not None:
        build_trunk(clip.visual, sizes, config['embed_dim'])
    replace_modules(clip, open_clip.transformer.QuickGELU, lambda _: QuickGELU())
    replace_modules(clip, nn.MultiheadAttention, SplitAttention)
    if is_timm_vit(clip.visual):
        for block in clip.visual.trunk.blocks:
            if block.attn.qkv is not None:
                block.attn.qkv = SplitLinear(block.attn.qkv)
    return clip


class QuickGELU(open_clip.transformer.QuickGELU):
    """x sigmoid(1.702 x), as one SiLU: a tensor is kept for the backward pass instead of two."""

    def forward(self, x: Tensor) -> Tensor:
        """Values of any shape."""
        return F.silu(1.702 * x) / 1.702


def _check_towers(clip: Any, model_name: str | dict) -> None:
    visual, text = clip.visual, getattr(clip, 'text', clip)
    blocks = [*text.transformer.resblocks]
    if isinstance(visual, VisionTransformer) and visual.attn_pool is None:
        blocks += visual.transformer.resblocks
    elif not (is_convnext(visual) or is_timm_vit(visual)):
        raise ValueError(
            f"{model_name!r}: the image tower must be open_clip's ViT without attentional pooling, "
            f"one of timm's ViTs, or timm's ConvNeXt, got {_kind_of(visual)}"
        )
    plain = all(isinstance(block, ResidualAttentionBlock) for block in blocks)
    padded = getattr(text, 'use_pad_mask', False)
    if not plain or padded or getattr(text, 'cls_emb', None) is not None:
        raise ValueError(
            f'{model_name!r}: only plain CLIP transformer blocks are supported, and text towers '
            'without a class token and a mask for padding'
        )


def _kind_of(visual: Any) -> str:
    return ' around '.join(type(x).__name__ for x in (visual, getattr(visual, 'trunk', None)) if x)


def _is_query(name: str) -> bool:
    return '.q_proj' in name or name.endswith('.q_weight')


def apply_finetune_policy(model: nn.Module, policy: str) -> list[str]:
    """Set ``requires_grad`` of all parameters; returns the names of those left trainable.

    ``'attention'`` trains the query and value weights of every block of both towers (no biases, no
    position embeddings, nothing of an attention pooling; CAT-Seg, section 3.4),
    ``'image_attention'`` those of the image tower only, so that text embeddings stay as they were,
    ``'image_query'`` the query weights of these alone, ``'image'`` the whole image tower,
    ``'trunk'`` stem and stages of a ConvNeXt (MAFT+), ``'full'`` everything but the logit scale and
    bias, ``'frozen'`` nothing. Another policy, and one that is not for the image tower, is a
    ValueError.
    """
    if policy not in POLICIES:
        raise ValueError(f'finetune must be one of {POLICIES}, got {policy!r}')
    names = [name for name, _ in model.named_parameters()]
    attention = [name for name in names if name.endswith(_ATTENTION_SUFFIXES)]
    trained = {
        'attention': attention,
        'image_attention': [name for name in attention if name.startswith('visual.')],
        'image_query': [n for n in attention if n.startswith('visual.') and _is_query(n)],
        'image': [name for name in names if name.startswith('visual.')],
        'trunk': [name for name in names if name.startswith(_TRUNK_PREFIXES)],
        'full': [name for name in names if name.rsplit('.', 1)[-1] not in _NEVER_TRAINED],
        'frozen': [],
    }[policy]
    if policy != 'frozen' and not any(name.startswith('visual.') for name in trained):
        visual = getattr(model, 'visual', None)
        fits = ('full', 'frozen', 'trunk' if is_convnext(visual) else 'attention')
        raise ValueError(
            f'finetune={policy!r} trains nothing of this image tower ({_kind_of(visual)}); for it '
            f'there are {fits}'
        )
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    return trained
