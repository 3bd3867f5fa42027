"""CLIP models of open_clip: building them, and which of their parameters are trained."""

from __future__ import annotations

import copy
from typing import Any

import open_clip
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from infoclip_mmseg.models.backbones.attention import SplitAttention, replace_modules

POLICIES = ('attention', 'image_attention', 'full', 'frozen')
# Trained by CAT-Seg and InfoCLIP: query and value projection weights of every block.
_ATTENTION_SUFFIXES = ('attn.q_proj_weight', 'attn.v_proj_weight')
# No segmentation loss reaches CLIP's contrastive scale and bias.
_NEVER_TRAINED = ('logit_scale', 'logit_bias')


def build_clip(model_name: str | dict) -> nn.Module:
    """An open_clip model with random weights and split attention projections.

    ``model_name`` is one of ``open_clip.list_models()``, or a dict in the form of open_clip's model
    configs (``embed_dim``, ``vision_cfg``, ``text_cfg``, ``quick_gelu``). An unknown name, and an
    architecture whose towers have no dense reading here, is a ValueError.
    """
    if isinstance(model_name, str):
        config: Any = open_clip.get_model_config(model_name)
        if config is None:
            raise ValueError(
                f'model.backbone.model_name={model_name!r} is not known to open_clip; '
                f'ViT models are {[n for n in open_clip.list_models() if n.startswith("ViT-")]}'
            )
    else:
        config = model_name
    config = copy.deepcopy(dict(config))
    if 'multimodal_cfg' in config or 'hf_model_name' in config['text_cfg']:
        raise ValueError(f'{model_name!r}: CoCa and Hugging Face text towers are not supported')
    if 'timm_model_name' in config['vision_cfg']:
        raise ValueError(f"{model_name!r}: its image tower is a timm model, not open_clip's ViT")
    custom_text = config.pop('custom_text', False)
    clip = (open_clip.CustomTextCLIP if custom_text else open_clip.CLIP)(**config)
    _check_towers(clip, model_name)
    replace_modules(clip, open_clip.transformer.QuickGELU, lambda _: QuickGELU())
    replace_modules(clip, nn.MultiheadAttention, SplitAttention)
    return clip


class QuickGELU(open_clip.transformer.QuickGELU):
    """x sigmoid(1.702 x), as one SiLU: a tensor is kept for the backward pass instead of two."""

    def forward(self, x: Tensor) -> Tensor:
        """Values of any shape."""
        return F.silu(1.702 * x) / 1.702


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


def apply_finetune_policy(model: nn.Module, policy: str) -> list[str]:
    """Set ``requires_grad`` of all parameters; returns the names of those left trainable.

    ``'attention'`` trains the query and value weights of every block of both towers (no biases, no
    position embeddings; CAT-Seg, section 3.4), ``'image_attention'`` those of the image tower only,
    so that text embeddings stay as they were, ``'full'`` everything but the logit scale,
    ``'frozen'`` nothing. Another policy is a ValueError.
    """
    if policy not in POLICIES:
        raise ValueError(f'finetune must be one of {POLICIES}, got {policy!r}')
    names = [name for name, _ in model.named_parameters()]
    attention = [name for name in names if name.endswith(_ATTENTION_SUFFIXES)]
    trained = {
        'attention': attention,
        'image_attention': [name for name in attention if name.startswith('visual.')],
        'full': [name for name in names if name.rsplit('.', 1)[-1] not in _NEVER_TRAINED],
        'frozen': [],
    }[policy]
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)
    return trained
