"""CLIP weights in the layout of mmpretrain's ``CLIP`` (``mmpretrain.models.multimodal.clip``).

Its image tower is mmpretrain's ``VisionTransformer`` with ``pre_norm=True`` and a
``CLIPProjection``; its text tower has OpenAI's names. The functions are pure.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

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


def is_mmpretrain_clip(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is of mmpretrain's ``CLIP`` or ``CLIPZeroShot``."""
    return _PROJECTION[1] in state and 'visual.patch_embed.projection.weight' in state


def from_mmpretrain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in OpenAI's layout, which open_clip reads, from mmpretrain's."""
    converted = {}
    for name, tensor in state.items():
        if name.startswith('data_preprocessor.'):
            continue
        name = _rename(name, inverse=True)
        converted[name] = tensor.flatten(0, _LEADING[name]) if name in _LEADING else tensor
    return converted


def to_mmpretrain(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in mmpretrain's layout from OpenAI's, or from those with split attention.

    Args:
        state: State dict of an open_clip model, or of ``CLIPDualEncoder.clip``.
    """
    converted = {}
    for name, tensor in pack_attention(state).items():
        for _ in range(_LEADING.get(name, 0)):
            tensor = tensor[None]
        converted[_rename(name, inverse=False)] = tensor
    return converted


def pack_attention(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Query, key and value weights that are tensors of their own, as one ``in_proj_weight``."""
    packed: dict[str, Tensor] = {}
    for name, tensor in state.items():
        prefix, split, _ = name.partition('q_proj_weight')
        if split:
            parts = [state[f'{prefix}{part}_proj_weight'] for part in 'qkv']
            packed[f'{prefix}in_proj_weight'] = torch.cat(parts)
        elif not name.endswith(('k_proj_weight', 'v_proj_weight')):
            packed[name] = tensor
    return packed


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
