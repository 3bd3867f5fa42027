"""Toy-sized CLIPs around timm's ViTs, one of each kind of tower; importing it registers them."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

from timm.layers import HybridEmbed, LayerNorm
from timm.models import register_model
from timm.models.eva import Eva
from timm.models.vision_transformer import VisionTransformer
from torch import nn

SIZES = dict(img_size=32, patch_size=8, embed_dim=64, depth=4, num_heads=2)
SWIGLU = dict(mlp_ratio=4 * 2 / 3, swiglu_mlp=True, scale_mlp=True, scale_attn_inner=True)
ROTARY = dict(use_rot_pos_emb=True, ref_feat_shape=(3, 3))


def build(kind: type[nn.Module], **options: Any) -> Any:
    """A toy-sized timm model, from the options of its class and what ``create_model`` adds."""
    for name in ('pretrained_cfg', 'pretrained_cfg_overlay', 'cache_dir'):
        options.pop(name, None)
    model: Any = kind(**{**SIZES, **options})
    model.default_cfg = {}
    return model


@register_model
def toy_eva02(pretrained: bool = False, **kwargs: Any) -> Eva:
    """EVA02-B and -L: rotary positions, SwiGLU, sub-norms, separate query, key and value."""
    return build(Eva, **SWIGLU, **ROTARY, qkv_fused=False, **kwargs)


@register_model
def toy_eva02_e(pretrained: bool = False, **kwargs: Any) -> Eva:
    """EVA02-E: norms behind attention and MLP, fused query, key and value."""
    return build(Eva, use_post_norm=True, **kwargs)


@register_model
def toy_eva01(pretrained: bool = False, **kwargs: Any) -> Eva:
    """The first EVA, with layer scales: fused query, key and value with biases beside them."""
    return build(Eva, init_values=0.5, **kwargs)


@register_model
def toy_pe(pretrained: bool = False, **kwargs: Any) -> Eva:
    """Perception Encoder: rotary positions, class token and attention pooling."""
    options = dict(attn_type='rope', use_pre_transformer_norm=True, rope_grid_offset=1.0)
    options |= dict(rope_grid_indexing='xy', attn_pool_num_heads=4, attn_pool_mlp_ratio=4.0)
    return build(Eva, **ROTARY, **options, norm_layer=partial(LayerNorm, eps=1e-5), **kwargs)


@register_model
def toy_siglip(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """SigLIP: attention pooling, no class token."""
    return build(VisionTransformer, class_token=False, **kwargs)


@register_model
def toy_token(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """MobileCLIP2-L: timm's ViT with a class token, as OpenAI's."""
    return build(VisionTransformer, pre_norm=True, init_values=0.5, **kwargs)


def _stem(width: int) -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 16, 4, 4), nn.GELU(), nn.Conv2d(16, width, 2, 2))


@register_model
def toy_hybrid(pretrained: bool = False, **kwargs: Any) -> VisionTransformer:
    """ViTamin: convolutions before the blocks, no position embeddings, mean pooling."""
    embed = partial(HybridEmbed, backbone=_stem(64), proj=False)
    options = dict(class_token=False, pos_embed='none', global_pool='avg', patch_size=1)
    return build(VisionTransformer, **{**kwargs, **options}, embed_layer=embed)


TEXT = dict(context_length=77, vocab_size=49408, width=64, heads=2, layers=2)
SIGLIP_TEXT = dict(
    TEXT,
    context_length=16,
    no_causal_mask=True,
    proj_bias=True,
    pool_type='last',
    norm_kwargs=dict(eps=1e-6),
    act_kwargs=dict(approximate='tanh'),
)
KINDS = {  # pooling and projection as open_clip's configs have them
    'toy_eva02': ('token', None),
    'toy_eva02_e': ('token', None),
    'toy_eva01': ('token', None),
    'toy_pe': ('map', None),
    'toy_siglip': ('map', 'none'),
    'toy_token': ('token', None),
    'toy_hybrid': ('', 'linear'),
}
CLASS_TOKEN = [kind for kind, (pool, _) in KINDS.items() if pool == 'token']
MODES = {kind: 'maskclip_residual' if kind == 'toy_hybrid' else 'catseg' for kind in KINDS}


def clip_config(kind: str) -> dict:
    """Config, in the form of open_clip's, of a CLIP with a tower of ``KINDS``."""
    pool, proj = KINDS[kind]
    width = 64 if proj == 'none' else 32
    vision = dict(timm_model_name=kind, timm_pool=pool, timm_proj=proj, image_size=32)
    config = dict(embed_dim=width, vision_cfg=vision, text_cfg=copy.deepcopy(TEXT))
    config['custom_text'] = True
    if kind == 'toy_siglip':
        config.update(text_cfg=copy.deepcopy(SIGLIP_TEXT), init_logit_bias=-10)
    return config
