"""Layouts of CLIP weights: names, shapes and packing of tensors (pure functions).

The model holds OpenAI's layout, which is open_clip's too, but for the projections of attention:
there query, key and value weights are one tensor, here three (:func:`split_qkv`). ``LAYOUTS`` has
the layouts of other libraries; a function that reads one, a function that writes it and an entry
there are another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
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


class _Names(NamedTuple):
    """OpenAI's beginnings of names and those of another library."""

    blocks: dict[str, str]  # before the numbers of blocks
    block: dict[str, str]  # after the number of a block
    others: dict[str, str]  # of tensors that belong to no block

    def rename(self, name: str, inverse: bool = False) -> str:
        """OpenAI's name to the other library's, or back; of a block also its prefix alone."""
        for old, new in _pairs(self.blocks, inverse):
            if name.startswith(old):
                number, _, rest = name.removeprefix(old).partition('.')
                return f'{new}{number}.{_swap_start(rest, self.block, inverse)}'
        return _swap_start(name, self.others, inverse)


def _pairs(table: dict[str, str], inverse: bool) -> Iterable[tuple[str, str]]:
    return zip(table.values(), table) if inverse else table.items()


def _swap_start(name: str, table: dict[str, str], inverse: bool) -> str:
    for old, new in _pairs(table, inverse):
        if name.startswith(old):
            return new + name.removeprefix(old)
    return name


# mmpretrain's CLIP (mmpretrain.models.multimodal.clip). Its image tower is mmpretrain's
# VisionTransformer with pre_norm=True and a CLIPProjection; its text tower has OpenAI's names.
_MMPRETRAIN = _Names(
    blocks={'visual.transformer.resblocks.': 'visual.layers.'},
    block={
        'ln_1': 'ln1',
        'ln_2': 'ln2',
        'attn.in_proj_': 'attn.qkv.',
        'attn.out_proj': 'attn.proj',
        'mlp.c_fc': 'ffn.layers.0.0',
        'mlp.c_proj': 'ffn.layers.1',
    },
    others={
        'visual.class_embedding': 'visual.cls_token',
        'visual.positional_embedding': 'visual.pos_embed',
        'visual.conv1.weight': 'visual.patch_embed.projection.weight',
        'visual.ln_pre': 'visual.pre_norm',
        'visual.ln_post': 'visual.ln1',
        'visual.proj': 'visual_proj.proj',
    },
)
# Tensors that mmpretrain holds with leading dimensions of 1.
_LEADING = {'visual.class_embedding': 2, 'visual.positional_embedding': 1}


def is_mmpretrain_clip(state: State) -> bool:
    """Whether a state dict is of mmpretrain's ``CLIP`` or ``CLIPZeroShot``."""
    return {'visual_proj.proj', 'visual.patch_embed.projection.weight'} <= set(state)


def from_mmpretrain(state: State) -> dict[str, Tensor]:
    """Weights in OpenAI's layout from mmpretrain's."""
    converted = {}
    for name, tensor in state.items():
        if name.startswith('data_preprocessor.'):
            continue
        name = _MMPRETRAIN.rename(name, inverse=True)
        converted[name] = tensor.flatten(0, _LEADING[name]) if name in _LEADING else tensor
    return converted


def to_mmpretrain(state: State) -> dict[str, Tensor]:
    """Weights in mmpretrain's layout from OpenAI's, packed or split."""
    converted = {}
    for name, tensor in pack_qkv(state).items():
        for _ in range(_LEADING.get(name, 0)):
            tensor = tensor[None]
        converted[_MMPRETRAIN.rename(name)] = tensor
    return converted


# transformers' CLIPModel: towers of the same parts, query, key and value each a linear layer, the
# two projections linear layers too, that is, transposed.
_TRANSFORMERS = _Names(
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
        **{f'attn.{part}': f'self_attn.{part.replace("_weight", ".weight")}' for part in _SPLIT},
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
    return {_TRANSFORMERS.others[name] for name in telling} <= set(state)


def from_transformers(state: State) -> dict[str, Tensor]:
    """Weights in OpenAI's layout, split, from those of transformers' ``CLIPModel``."""
    converted: dict[str, Tensor] = {}
    for name, tensor in state.items():
        if name.endswith('position_ids') or name.endswith(_HF_BIASES[1:]):
            continue
        if name.endswith(_HF_BIASES[0]):
            block = name.removesuffix(_HF_BIASES[0])
            tensor = torch.cat([state[block + part] for part in _HF_BIASES])
            converted[_TRANSFORMERS.rename(block, inverse=True) + 'attn.in_proj_bias'] = tensor
        else:
            tensor = tensor.T if name in _HF_TRANSPOSED else tensor
            converted[_TRANSFORMERS.rename(name, inverse=True)] = tensor
    return converted


def to_transformers(state: State) -> dict[str, Tensor]:
    """Weights in the layout of transformers' ``CLIPModel`` from OpenAI's, packed or split."""
    converted: dict[str, Tensor] = {}
    for name, tensor in split_qkv(state).items():
        if name.endswith('in_proj_bias'):
            block = _TRANSFORMERS.rename(name.removesuffix('attn.in_proj_bias'))
            converted.update(zip([block + part for part in _HF_BIASES], tensor.chunk(3)))
        else:
            name = _TRANSFORMERS.rename(name)
            converted[name] = tensor.T.contiguous() if name in _HF_TRANSPOSED else tensor
    return converted


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
    """Another library's layout."""

    matches: Callable[[State], bool]  # whether a state dict is in it
    read: Callable[[State], dict[str, Tensor]]  # from it to OpenAI's layout, packed or split
    write: Callable[[State], dict[str, Tensor]]  # the way back, from either
    quick_gelu: bool  # whether the library's models have QuickGELU and no other activation


LAYOUTS = {
    # Its text tower knows no other activation.
    'mmpretrain': Layout(is_mmpretrain_clip, from_mmpretrain, to_mmpretrain, quick_gelu=True),
    'transformers': Layout(is_transformers_clip, from_transformers, to_transformers, False),
}
