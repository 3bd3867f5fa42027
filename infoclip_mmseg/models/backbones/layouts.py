"""Layouts of CLIP weights: names, shapes and packing of tensors (pure functions).

The model holds OpenAI's layout, which is open_clip's too, but for the projections of attention:
there query, key and value weights are one tensor, here three (:func:`split_qkv`). ``LAYOUTS`` has
the layouts of other libraries; a function that reads one, a function that writes it and an entry
there are another.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch
from torch import Tensor

State = Mapping[str, Tensor]
_PACKED = 'in_proj_weight'
_SPLIT = ('q_proj_weight', 'k_proj_weight', 'v_proj_weight')


def split_qkv(state: State) -> dict[str, Tensor]:
    """Packed query, key and value weights (3C, C) as tensors (C, C) of their own, which are views.

    Tensors of other names stay as they are.
    """
    split: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith(_PACKED):
            prefix = name.removesuffix(_PACKED)
            split.update((prefix + part, weight) for part, weight in zip(_SPLIT, tensor.chunk(3)))
        else:
            split[name] = tensor
    return split


def pack_qkv(state: State) -> dict[str, Tensor]:
    """The inverse of :func:`split_qkv`: OpenAI's and open_clip's layout."""
    packed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        prefix, split, _ = name.partition(_SPLIT[0])
        if split:
            packed[prefix + _PACKED] = torch.cat([state[prefix + part] for part in _SPLIT])
        elif not name.endswith(_SPLIT):
            packed[name] = tensor
    return packed


# mmpretrain's CLIP (mmpretrain.models.multimodal.clip). Its image tower is mmpretrain's
# VisionTransformer with pre_norm=True and a CLIPProjection; its text tower has OpenAI's names.

# OpenAI's and open_clip's names below 'visual.', mmpretrain's below 'visual.'.
_IMAGE = {
    'class_embedding': 'cls_token',
    'positional_embedding': 'pos_embed',
    'conv1.weight': 'patch_embed.projection.weight',
    'ln_pre': 'pre_norm',
    'ln_post': 'ln1',
}
_BLOCK = {
    'ln_1': 'ln1',
    'ln_2': 'ln2',
    'attn.in_proj_': 'attn.qkv.',
    'attn.out_proj': 'attn.proj',
    'mlp.c_fc': 'ffn.layers.0.0',
    'mlp.c_proj': 'ffn.layers.1',
}
_BLOCKS = ('transformer.resblocks', 'layers')
_PROJECTION = ('visual.proj', 'visual_proj.proj')
# Tensors that mmpretrain holds with leading dimensions of 1.
_LEADING = {'visual.class_embedding': 2, 'visual.positional_embedding': 1}


def is_mmpretrain_clip(state: State) -> bool:
    """Whether a state dict is of mmpretrain's ``CLIP`` or ``CLIPZeroShot``."""
    return _PROJECTION[1] in state and 'visual.patch_embed.projection.weight' in state


def from_mmpretrain(state: State) -> dict[str, Tensor]:
    """Weights in OpenAI's layout from mmpretrain's."""
    converted = {}
    for name, tensor in state.items():
        if name.startswith('data_preprocessor.'):
            continue
        name = _rename(name, inverse=True)
        converted[name] = tensor.flatten(0, _LEADING[name]) if name in _LEADING else tensor
    return converted


def to_mmpretrain(state: State) -> dict[str, Tensor]:
    """Weights in mmpretrain's layout from OpenAI's, packed or split.

    Args:
        state: State dict of an open_clip model, or of ``CLIPDualEncoder.clip``.
    """
    converted = {}
    for name, tensor in pack_qkv(state).items():
        for _ in range(_LEADING.get(name, 0)):
            tensor = tensor[None]
        converted[_rename(name, inverse=False)] = tensor
    return converted


def _rename(name: str, inverse: bool) -> str:
    """OpenAI's name to mmpretrain's, or back."""
    if name in _PROJECTION:
        return _PROJECTION[0 if inverse else 1]
    if not name.startswith('visual.'):
        return name
    prefix, rest = 'visual.', name.removeprefix('visual.')
    match = re.match(rf'{_BLOCKS[1 if inverse else 0]}\.(\d+)\.', rest)
    if match:
        prefix = f'visual.{_BLOCKS[0 if inverse else 1]}.{match[1]}.'
        rest = rest[match.end() :]
    return prefix + _swap_start(rest, _BLOCK if match else _IMAGE, inverse)


# transformers' CLIPModel: towers of the same parts, query, key and value each a linear layer, the
# two projections linear layers too, that is, transposed.
_HF_TOP = {
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
}
_HF_TRANSPOSED = ('visual_projection.weight', 'text_projection.weight')
_HF_BLOCK = {
    'ln_1.': 'layer_norm1.',
    'ln_2.': 'layer_norm2.',
    'mlp.c_fc.': 'mlp.fc1.',
    'mlp.c_proj.': 'mlp.fc2.',
    'attn.out_proj.': 'self_attn.out_proj.',
    **{f'attn.{part}': f'self_attn.{part.replace("_weight", ".weight")}' for part in _SPLIT},
}
_HF_BLOCKS = {
    'visual.transformer.resblocks.': 'vision_model.encoder.layers.',
    'transformer.resblocks.': 'text_model.encoder.layers.',
}
_HF_BIASES = tuple(f'self_attn.{part}_proj.bias' for part in 'qkv')


def is_transformers_clip(state: State) -> bool:
    """Whether a state dict is of transformers' ``CLIPModel``, both towers and projections."""
    return {_HF_TOP[name] for name in ('visual.conv1.weight', 'visual.proj')} <= set(state) and (
        _HF_TOP['token_embedding.weight'] in state
    )


def from_transformers(state: State) -> dict[str, Tensor]:
    """Weights in OpenAI's layout, split, from those of transformers' ``CLIPModel``."""
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith('position_ids') or name.endswith(_HF_BIASES[1:]):
            continue
        if name.endswith(_HF_BIASES[0]):
            block = name.removesuffix(_HF_BIASES[0])
            tensor = torch.cat([state[block + part] for part in _HF_BIASES])
            converted[_hf_rename(block, inverse=True) + 'attn.in_proj_bias'] = tensor
        else:
            tensor = tensor.T if name in _HF_TRANSPOSED else tensor
            converted[_hf_rename(name, inverse=True)] = tensor
    return converted


def to_transformers(state: State) -> dict[str, Tensor]:
    """Weights in the layout of transformers' ``CLIPModel`` from OpenAI's, packed or split."""
    converted: dict[str, Tensor] = {}
    for name, tensor in split_qkv(state).items():
        if name.endswith('in_proj_bias'):
            block = _hf_rename(name.removesuffix('attn.in_proj_bias'), inverse=False)
            converted.update(zip([block + part for part in _HF_BIASES], tensor.chunk(3)))
        else:
            name = _hf_rename(name, inverse=False)
            converted[name] = tensor.T.contiguous() if name in _HF_TRANSPOSED else tensor
    return converted


def _hf_rename(name: str, inverse: bool) -> str:
    """OpenAI's name to transformers', or back; of a block also its prefix alone."""
    for pair in _HF_BLOCKS.items():
        old, new = reversed(pair) if inverse else pair
        if name.startswith(old):
            number, _, rest = name.removeprefix(old).partition('.')
            return f'{new}{number}.{_swap_start(rest, _HF_BLOCK, inverse)}'
    return _swap_start(name, _HF_TOP, inverse)


def _swap_start(name: str, table: Mapping[str, str], inverse: bool) -> str:
    """Replace the beginning of a name that is among the keys (inverse: values) of a table."""
    for pair in table.items():
        old, new = reversed(pair) if inverse else pair
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


# What wrappers, trainers and whole models put before all names of a CLIP.
PREFIXES = ('model.', 'module.', '_orig_mod.', 'backbone.clip.', 'clip.')


def without_prefixes(state: State) -> dict[str, Tensor]:
    """Weights without the ``PREFIXES`` that all names share."""
    state = dict(state)
    while shared := [p for p in PREFIXES if state and all(n.startswith(p) for n in state)]:
        state = {name.removeprefix(shared[0]): tensor for name, tensor in state.items()}
    return state


# What a file that does not fit may be: a part of one of its names, and what that tells.
_TELLTALES = {
    'decode_head.': 'a whole segmentor (of mmseg or of this package); give it as the checkpoint of '
    'the run, or take its CLIP out with tools/export_clip.py',
    'sem_seg_head.': "a detectron2 segmentor such as CAT-Seg's; see tools/convert_catseg.py",
    'vision_model.head.': "transformers' SigLIP",
    'visual.trunk.': "open_clip's with an image tower of timm (EVA-02, SigLIP, ConvNeXt ...)",
    'visual.layer1.': "OpenAI's or open_clip's with a ResNet as image tower",
    'visual.attn_pool.': "open_clip's with attentional pooling (CoCa)",
    'vision_model.embeddings.': "the image tower alone of transformers' CLIP",
    'text_model.embeddings.': "the text tower alone of transformers' CLIP",
    'text.transformer.': "open_clip's with custom_text=True, or a Hugging Face text tower",
    'transformer.resblocks.': "OpenAI's and open_clip's ViT, of another size or not whole",
    'blocks.0.attn.': 'a ViT of timm without a text tower',
}


def looks_like(state: State) -> str | None:
    """What kind of model a state dict seems to be of, for an error; None where nothing tells."""
    tells = (text for part, text in _TELLTALES.items() if any(part in name for name in state))
    return next(tells, None)


class Layout(NamedTuple):
    """Another library's layout.

    Attributes:
        matches: Whether a state dict is in it.
        read: Weights from it to OpenAI's layout, packed or split.
        write: The way back, from either.
        quick_gelu: Whether models of the library have QuickGELU and no other activation.
    """

    matches: Callable[[State], bool]
    read: Callable[[State], dict[str, Tensor]]
    write: Callable[[State], dict[str, Tensor]]
    quick_gelu: bool


LAYOUTS = {
    # Its text tower knows no other activation.
    'mmpretrain': Layout(is_mmpretrain_clip, from_mmpretrain, to_mmpretrain, quick_gelu=True),
    'transformers': Layout(
        is_transformers_clip, from_transformers, to_transformers, quick_gelu=False
    ),
}
