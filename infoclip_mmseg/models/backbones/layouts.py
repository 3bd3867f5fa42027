"""Layouts of CLIP weights: names and shapes of tensors in other libraries (pure functions).

``LAYOUTS`` has them all; a function that reads one, a function that writes it and an entry there
are another. What the model itself holds is in ``names.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor

from infoclip_mmseg.models.backbones.names import Names, State, pack_qkv
from infoclip_mmseg.models.backbones.transformers_layouts import (
    from_siglip,
    from_transformers,
    is_siglip,
    is_transformers_clip,
    to_siglip,
    to_transformers,
)

# mmpretrain's CLIP (mmpretrain.models.multimodal.clip). Its image tower is mmpretrain's
# VisionTransformer with pre_norm=True and a CLIPProjection; its text tower has OpenAI's names.
_MMPRETRAIN = Names(
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


# EVA-CLIP's own files, in whose layout CLIPSelf and DeCLIP write too: open_clip's text tower, and
# an image tower that is timm's Eva but for some names.
_EVA_BLOCK = {
    'attn.inner_attn_ln.': 'attn.norm.',
    'mlp.ffn_ln.': 'mlp.norm.',
    'mlp.w1.': 'mlp.fc1_g.',
    'mlp.w2.': 'mlp.fc1_x.',
    'mlp.w3.': 'mlp.fc2.',
}
# Where query, key and value are layers of their own, timm has the biases in them.
_EVA_BIASES = {'attn.q_bias': 'attn.q_proj.bias', 'attn.v_bias': 'attn.v_proj.bias'}
_EVA_COMPUTED = ('rope.freqs_cos', 'rope.freqs_sin', 'attn_mask')


def is_eva_clip(state: State) -> bool:
    """Whether a state dict is of EVA-CLIP: both towers, or the image tower alone."""
    names = {name.removeprefix('visual.') for name in state}
    return {'cls_token', 'patch_embed.proj.weight', 'blocks.0.norm1.weight'} <= names


def from_eva_clip(state: State) -> dict[str, Tensor]:
    """Weights in open_clip's layout from EVA-CLIP's; those of an image tower may lack 'visual.'."""
    prefix = 'visual.' if 'visual.cls_token' in state else ''
    names = _eva_names(prefix, state)
    kept = (name for name in state if not name.endswith(_EVA_COMPUTED))
    return {names.rename(name, inverse=True): state[name] for name in kept}


def to_eva_clip(state: State) -> dict[str, Tensor]:
    """Weights in EVA-CLIP's layout from open_clip's, packed or split."""
    names = _eva_names('visual.', state)
    return {names.rename(name): tensor for name, tensor in pack_qkv(state).items()}


def _eva_names(prefix: str, state: State) -> Names:
    split = any(name.endswith('attn.q_proj.weight') for name in state)
    block = {**_EVA_BLOCK, **(_EVA_BIASES if split else {})}
    return Names(
        blocks={'visual.trunk.blocks.': f'{prefix}blocks.'},
        block={timm: eva for eva, timm in block.items()},
        others={'visual.trunk.': prefix},
    )


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
    'vision_model.head.': "the image tower alone of transformers' SigLIP",
    'visual.trunk.': "open_clip's with an image tower of timm (EVA-02, SigLIP, ConvNeXt ...)",
    'visual.layer1.': "OpenAI's or open_clip's with a ResNet as image tower",
    'visual.attn_pool.': "open_clip's with attentional pooling (CoCa)",
    'vision_model.embeddings.': "the image tower alone of transformers' CLIP",
    'text_model.embeddings.': "the text tower alone of transformers' CLIP",
    'logit_bias': "open_clip's SigLIP, of another size or not whole",
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
    'transformers-siglip': Layout(is_siglip, from_siglip, to_siglip, False),
    'eva-clip': Layout(is_eva_clip, from_eva_clip, to_eva_clip, False),
}
