"""Layouts of transformers' CLIP and SigLIP (pure functions)."""

from __future__ import annotations

import torch
from torch import Tensor

from infoclip_mmseg.models.backbones.names import SPLIT, Names, State, split_qkv

# transformers' CLIPModel: towers of the same parts, query, key and value each a linear layer, the
# two projections linear layers too, that is, transposed.
_CLIP = Names(
    blocks={
        'visual.transformer.resblocks.': 'vision_model.encoder.layers.',
        'transformer.resblocks.': 'text_model.encoder.layers.',
    },
    block={
        'ln_1.': 'layer_norm1.',
        'ln_2.': 'layer_norm2.',
        'mlp.c_fc.': 'mlp.fc1.',
        'mlp.c_proj.': 'mlp.fc2.',
        'attn.out_proj.': 'self_attn.out_proj.',
        **{f'attn.{part}': f'self_attn.{part.replace("_weight", ".weight")}' for part in SPLIT},
    },
    others={
        'visual.class_embedding': 'vision_model.embeddings.class_embedding',
        'visual.conv1.weight': 'vision_model.embeddings.patch_embedding.weight',
        'visual.positional_embedding': 'vision_model.embeddings.position_embedding.weight',
        'visual.ln_pre.': 'vision_model.pre_layrnorm.',
        'visual.ln_post.': 'vision_model.post_layernorm.',
        'visual.proj': 'visual_projection.weight',
        'token_embedding.weight': 'text_model.embeddings.token_embedding.weight',
        'positional_embedding': 'text_model.embeddings.position_embedding.weight',
        'ln_final.': 'text_model.final_layer_norm.',
        'text_projection': 'text_projection.weight',
        'logit_scale': 'logit_scale',
    },
)
_HF_TRANSPOSED = ('visual_projection.weight', 'text_projection.weight')
_HF_BIASES = tuple(f'self_attn.{part}_proj.bias' for part in 'qkv')


def is_transformers_clip(state: State) -> bool:
    """Whether a state dict is of transformers' ``CLIPModel``, both towers and projections."""
    telling = ('visual.conv1.weight', 'visual.proj', 'token_embedding.weight')
    return {_CLIP.others[name] for name in telling} <= set(state)


def from_transformers(
    state: State, names: Names = _CLIP, bias: str = 'attn.in_proj_bias'
) -> dict[str, Tensor]:
    """Weights in OpenAI's layout, split, from those of transformers' ``CLIPModel``.

    Other towers of transformers have other ``names`` and another name of the packed ``bias``.
    """
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith('position_ids') or name.endswith(_HF_BIASES[1:]):
            continue
        if name.endswith(_HF_BIASES[0]):
            block = name.removesuffix(_HF_BIASES[0])
            tensor = torch.cat([state[block + part] for part in _HF_BIASES])
            converted[names.rename(block, inverse=True) + bias] = tensor
        else:
            tensor = tensor.T if name in _HF_TRANSPOSED else tensor
            converted[names.rename(name, inverse=True)] = tensor
    return converted


def to_transformers(
    state: State, names: Names = _CLIP, bias: str = 'attn.in_proj_bias'
) -> dict[str, Tensor]:
    """The inverse of :func:`from_transformers`, also from packed weights."""
    converted: dict[str, Tensor] = {}
    for name, tensor in split_qkv(state).items():
        if name.endswith(bias):
            block = names.rename(name.removesuffix(bias))
            converted.update(zip([block + part for part in _HF_BIASES], tensor.chunk(3)))
        else:
            name = names.rename(name)
            converted[name] = tensor.T.contiguous() if name in _HF_TRANSPOSED else tensor
    return converted


# transformers' SiglipModel. The text tower is that of its CLIPModel, with a projection that has a
# bias; open_clip's image tower is timm's ViT with attention pooling.
_SIGLIP_IMAGE = Names(
    blocks={'visual.trunk.blocks.': 'vision_model.encoder.layers.'},
    block={
        'norm1.': 'layer_norm1.',
        'norm2.': 'layer_norm2.',
        'attn.proj.': 'self_attn.out_proj.',
        **{f'attn.qkv.{part}_weight': f'self_attn.{part}_proj.weight' for part in 'qkv'},
    },
    others={
        'visual.trunk.patch_embed.proj.': 'vision_model.embeddings.patch_embedding.',
        'visual.trunk.pos_embed': 'vision_model.embeddings.position_embedding.weight',
        'visual.trunk.norm.': 'vision_model.post_layernorm.',
        'visual.trunk.attn_pool.latent': 'vision_model.head.probe',
        'visual.trunk.attn_pool.proj.': 'vision_model.head.attention.out_proj.',
        'visual.trunk.attn_pool.norm.': 'vision_model.head.layernorm.',
        'visual.trunk.attn_pool.mlp.': 'vision_model.head.mlp.',
    },
)
_SIGLIP_TEXT = Names(
    blocks={'text.transformer.resblocks.': 'text_model.encoder.layers.'},
    block=_CLIP.block,
    others={
        'text.token_embedding.weight': 'text_model.embeddings.token_embedding.weight',
        'text.positional_embedding': 'text_model.embeddings.position_embedding.weight',
        'text.ln_final.': 'text_model.final_layer_norm.',
        'text.text_projection.': 'text_model.head.',
    },
)
_IMAGE_BIAS, _POSITIONS = 'attn.qkv.bias', 'visual.trunk.pos_embed'
# The pooling attends with one packed tensor there, with a query and a key-value layer here.
_PARTS = ('q', 'kv')
_POOLING, _HF_POOLING = 'visual.trunk.attn_pool.', 'vision_model.head.attention.in_proj_'


def is_siglip(state: State) -> bool:
    """Whether a state dict is of transformers' ``SiglipModel`` (SigLIP 2 too), both towers."""
    return {'vision_model.head.probe', 'text_model.head.weight', 'logit_bias'} <= set(state)


def from_siglip(state: State) -> dict[str, Tensor]:
    """Weights in open_clip's layout, split, from those of transformers' ``SiglipModel``."""
    image = {name: state[name] for name in state if name.startswith('vision_model.')}
    rest = {name: state[name] for name in state if name not in image}
    converted = from_transformers(image, _SIGLIP_IMAGE, _IMAGE_BIAS)
    converted[_POSITIONS] = converted[_POSITIONS][None]
    for kind in ('weight', 'bias'):
        packed = converted.pop(_HF_POOLING + kind)
        width = len(packed) // 3
        split = zip(_PARTS, packed.split([width, 2 * width]))
        converted.update((f'{_POOLING}{part}.{kind}', tensor) for part, tensor in split)
    return {**converted, **from_transformers(rest, _SIGLIP_TEXT)}


def to_siglip(state: State) -> dict[str, Tensor]:
    """The inverse of :func:`from_siglip`, also from packed weights."""
    image = {name: state[name] for name in state if name.startswith('visual.')}
    rest = {name: state[name] for name in state if name not in image}
    image[_POSITIONS] = image[_POSITIONS][0]
    pooling = {
        _HF_POOLING + kind: torch.cat([image.pop(f'{_POOLING}{part}.{kind}') for part in _PARTS])
        for kind in ('weight', 'bias')
    }
    return {
        **to_transformers(image, _SIGLIP_IMAGE, _IMAGE_BIAS),
        **pooling,
        **to_transformers(rest, _SIGLIP_TEXT),
    }
