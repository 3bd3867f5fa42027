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
    for theirs, ours in (_BLOCK if match else _IMAGE).items():
        old, new = (ours, theirs) if inverse else (theirs, ours)
        if rest.startswith(old):
            return prefix + new + rest[len(old) :]
    return prefix + rest


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
}
