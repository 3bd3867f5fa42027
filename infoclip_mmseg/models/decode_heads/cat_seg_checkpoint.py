"""Published CAT-Seg checkpoints to this plugin's layout."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

import torch
from mmseg.registry import MODELS
from torch import Tensor

from infoclip_mmseg.models.backbones.names import split_qkv

_CLIP = 'sem_seg_head.predictor.clip_model.'
_HEAD = 'sem_seg_head.predictor.transformer.'
# Pattern and replacement for what follows _HEAD or stands at the top; the first match counts.
_RULES = {
    r'layers\.(\d+)\.swin_block\.(block_\d)\.mlp\.fc1\.': r'layers.\1.spatial.\2.mlp.0.',
    r'layers\.(\d+)\.swin_block\.(block_\d)\.mlp\.fc2\.': r'layers.\1.spatial.\2.mlp.2.',
    r'layers\.(\d+)\.swin_block\.': r'layers.\1.spatial.',
    r'layers\.(\d+)\.attention\.MLP\.': r'layers.\1.classes.mlp.',
    r'layers\.(\d+)\.attention\.': r'layers.\1.classes.',
    r'conv1\.': 'cost_embed.',
    r'guidance_projection\.': 'appearance_proj.',
    r'text_guidance_projection\.': 'text_proj.',
    r'decoder_guidance_projection\.': 'decoder_guidance_proj.',
    r'decoder1\.up\.': 'decoder.0.up.',
    r'decoder2\.up\.': 'decoder.1.up.',
    r'decoder1\.conv\.double_conv\.': 'decoder.0.',
    r'decoder2\.conv\.double_conv\.': 'decoder.1.',
    r'head\.': 'conv_seg.',
    r'(upsample[12])\.': r'\1.',
}
# Places of the layers inside a double convolution.
_DOUBLE_CONV = {'0': 'conv1', '1': 'norm1', '3': 'conv2', '4': 'norm2'}


class Conversion(NamedTuple):
    """Result of :func:`convert_catseg`."""

    state_dict: dict[str, Tensor]  # weights under this plugin's names
    model: dict  # config that they fit, as far as it can be read off the weights
    derived: list[str]  # source keys that follow from the window size and are not weights
    unplaced: list[str]  # source keys that have no place in the model


def rename_key(key: str) -> str | None:
    """A published key under this plugin's name; None where it has no place."""
    if key.startswith(_CLIP):
        return 'backbone.clip.' + key.removeprefix(_CLIP)
    if not key.startswith((_HEAD, 'upsample')):
        return None
    rest = key.removeprefix(_HEAD)
    rule = next((pattern for pattern in _RULES if re.match(pattern, rest)), None)
    if rule is None:
        return None
    rest = re.sub(rule, _RULES[rule], rest, count=1)
    stage = re.match(r'(decoder\.\d)\.(\d)\.', rest)
    if stage:
        rest = f'{stage[1]}.{_DOUBLE_CONV.get(stage[2], stage[2])}.{rest[stage.end() :]}'
    return 'decode_head.' + rest


def convert_catseg(source: dict[str, Any]) -> Conversion:
    """Convert a state dict of the published CAT-Seg layout.

    It has the keys ``sem_seg_head.predictor.clip_model.*``,
    ``sem_seg_head.predictor.transformer.*``, ``upsample1.*`` and ``upsample2.*``, and may be
    wrapped as ``{'model': ...}``. Weights of another model are a ValueError, which tells what is
    missing or of another shape.
    """
    source = source.get('model', source)
    source = {key.removeprefix('module.'): torch.as_tensor(v) for key, v in source.items()}
    derived = sorted(key for key in source if key.endswith('attn_mask'))
    names = {key: rename_key(key) for key in source if key not in derived}
    state = {name: source[key] for key, name in names.items() if name is not None}
    state = split_qkv(state)  # packed where all of CLIP was fine-tuned
    model = infer_model(state)
    with torch.device('meta'):
        expected = MODELS.build(model).state_dict()
    by_name = {name: key for key, name in names.items()}
    unplaced = [key for key, name in names.items() if name is None]
    unplaced += [by_name.get(name, name) for name in state if name not in expected]
    state = {name: value for name, value in state.items() if name in expected}
    check_complete(state, expected, 'a CAT-Seg model')
    return Conversion(state, model, derived, sorted(set(unplaced)))


def infer_model(state: dict[str, Tensor]) -> dict:
    """Model config whose tensors have the shapes of ``state`` (this plugin's names).

    Heads, windows and the activation leave no trace in the weights: CLIP's heads are 64 channels
    wide, the rest is CAT-Seg's default. Missing tensors are a ValueError.
    """
    try:
        clip, head = 'backbone.clip.', 'decode_head.'
        patch = state[clip + 'visual.conv1.weight']
        positions = state[clip + 'visual.positional_embedding'].shape[0] - 1
        text_width = state[clip + 'ln_final.weight'].shape[0]
        backbone = dict(
            embed_dim=state[clip + 'text_projection'].shape[1],
            quick_gelu=True,
            vision_cfg=dict(
                image_size=round(positions**0.5) * patch.shape[-1],
                layers=count_indices(state, clip + r'visual\.transformer\.resblocks\.(\d+)\.'),
                width=patch.shape[0],
                patch_size=patch.shape[-1],
            ),
            text_cfg=dict(
                context_length=state[clip + 'positional_embedding'].shape[0],
                vocab_size=state[clip + 'token_embedding.weight'].shape[0],
                width=text_width,
                heads=max(1, text_width // 64),
                layers=count_indices(state, clip + r'transformer\.resblocks\.(\d+)\.'),
            ),
        )
        proj = [state[f'{head}decoder_guidance_proj.{i}.0.weight'] for i in (0, 1)]
        decode_head = dict(
            type='CATSegHead',
            hidden_dim=state[head + 'cost_embed.weight'].shape[0],
            num_layers=count_indices(state, head + r'layers\.(\d+)\.'),
            pad_len=256 if head + 'layers.0.classes.padding_tokens' in state else 0,
            num_prompts=state[head + 'cost_embed.weight'].shape[1],
            text_proj_dim=state[head + 'text_proj.0.weight'].shape[0],
            appearance_proj_dim=state[head + 'appearance_proj.0.weight'].shape[0],
            decoder_dims=[state[f'{head}decoder.{i}.conv2.weight'].shape[0] for i in (0, 1)],
            decoder_guidance_dims=[weight.shape[1] for weight in proj],
            decoder_guidance_proj_dims=[weight.shape[0] for weight in proj],
        )
    except KeyError as error:
        raise ValueError(
            f'not a CAT-Seg checkpoint with a CLIP ViT: tensor {error} is missing. Supported are '
            'the published model_base.pth (ViT-B/16) and model_large.pth (ViT-L/14 at 336 pixels) '
            'and others of their layout; the first version of CAT-Seg with a ResNet or Swin '
            'backbone has another architecture'
        ) from error
    return dict(
        type='OpenVocabSegmentor',
        backbone=dict(type='CLIPDualEncoder', model_name=backbone),
        decode_head=decode_head,
    )


def count_indices(state: dict[str, Tensor], pattern: str) -> int:
    """One more than the highest index that a pattern finds in the keys; none is a KeyError."""
    indices = {int(m[1]) for m in map(re.compile(pattern).match, state) if m}
    if not indices:
        raise KeyError(pattern)
    return max(indices) + 1


def check_complete(state: dict[str, Tensor], expected: dict[str, Tensor], what: str) -> None:
    """Raise a ValueError unless weights have exactly the tensors and shapes of a model."""
    missing = sorted(expected.keys() - state.keys())
    wrong = [
        f'{name}: {tuple(state[name].shape)} in the file, {tuple(expected[name].shape)} expected'
        for name in sorted(expected.keys() & state.keys())
        if state[name].shape != expected[name].shape
    ]
    if missing or wrong:
        raise ValueError(
            f'the weights do not make up {what}: {len(missing)} tensors missing '
            f'{missing[:4]}, {len(wrong)} of another shape {wrong[:4]}'
        )
