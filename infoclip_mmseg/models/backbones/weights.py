"""Pretrained CLIP weights: from a file or an open_clip tag to a state dict, with helpful errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import open_clip
import torch
from mmengine.logging import print_log
from open_clip.transformer import QuickGELU
from torch import Tensor, nn

from infoclip_mmseg.models.backbones.layouts import LAYOUTS, looks_like, without_prefixes
from infoclip_mmseg.models.backbones.names import split_qkv
from infoclip_mmseg.utils.checkpoint_files import is_torchscript, load_checkpoint_file
from infoclip_mmseg.utils.resources import find_file

FILE_SUFFIXES = ('.pt', '.pth', '.bin', '.safetensors')
# Entries of OpenAI's TorchScript archives that are not weights.
_OPENAI_EXTRAS = ('input_resolution', 'context_length', 'vocab_size')
ENTRIES = ('state_dict', 'model_state_dict', 'model')
"""Where training checkpoints have their weights."""
IMAGE_TOWER = 'visual.'
TOKEN_TABLE, TOKEN_ROWS = 'token_embedding.weight', 'token_embedding.rows'


def load_pretrained(clip: Any, model_name: str | dict, pretrained: str) -> None:
    """Load the weights that a config names, by a tag or a file, into an open_clip model."""
    name = model_name if isinstance(model_name, str) else 'custom CLIP'
    quick_gelu = any(isinstance(module, QuickGELU) for module in clip.visual.modules())
    path = find_weights(name, pretrained, quick_gelu)
    load_clip_weights(clip, name, path, quick_gelu)
    print_log(f'CLIP weights of {name} loaded from {path}', logger='current')


def load_image_weights(clip: Any, model_name: str | dict, path: str) -> None:
    """Load the weights of the image tower alone from a file, which may hold a text tower too.

    What is not there is a FileNotFoundError, weights of another tower are a ValueError.
    """
    name = model_name if isinstance(model_name, str) else 'custom CLIP'
    quick_gelu = any(isinstance(module, QuickGELU) for module in clip.visual.modules())
    file = find_weights(name, path if is_file_name(path) else f'./{path}', quick_gelu)
    load_clip_weights(clip, name, file, quick_gelu, IMAGE_TOWER)
    print_log(f'weights of the image tower of {name} loaded from {file}', logger='current')


def is_file_name(pretrained: str) -> bool:
    """Whether ``pretrained`` names a file rather than an open_clip tag."""
    return pretrained.endswith(FILE_SUFFIXES) or '/' in pretrained or '\\' in pretrained


def find_weights(model_name: str, pretrained: str, quick_gelu: bool) -> Path:
    """The local file with the weights; a tag is looked up in open_clip and downloaded if need be.

    A file that is not there or can't be downloaded is a FileNotFoundError; a tag that is not the
    model's, or of weights with the other GELU, a ValueError.
    """
    if is_file_name(pretrained):
        path = find_file(pretrained)
        if not path.is_file():
            raise FileNotFoundError(
                f'CLIP weights {str(path)!r} do not exist (working directory {Path.cwd()}). Put '
                'the file there, or set model.backbone.pretrained to a file (.pt, .safetensors, '
                f'.bin) or to one of the open_clip tags {_tags(model_name)}.'
            )
        return path
    config = open_clip.get_pretrained_cfg(model_name, pretrained)
    if not config:
        raise ValueError(
            f'model.backbone.pretrained={pretrained!r} is neither a file nor an open_clip tag of '
            f'{model_name!r}; its tags are {_tags(model_name)}.'
        )
    check_activation(model_name, f'tag {pretrained!r}', config.get('quick_gelu', False), quick_gelu)
    try:
        return Path(open_clip.download_pretrained(config))
    except Exception as error:  # whatever the network stack raises ends in one clear message
        hub = f'https://huggingface.co/{config.get("hf_hub", "").strip("/")}'
        source = config.get('url') or hub
        target = f'data/clip/{model_name}-{pretrained}.safetensors'
        raise FileNotFoundError(
            f'CLIP weights {pretrained!r} of {model_name!r} are not in the local cache and cannot '
            f'be downloaded ({type(error).__name__}). Fetch the file from {source} on a machine '
            f'with network, put it at {target} (keep its suffix: .pt, .bin or .safetensors) and '
            f"set model.backbone.pretrained='{target}' in the config."
        ) from error


def check_activation(model_name: str, source: str, wanted: bool, built: bool) -> None:
    """Refuse with a ValueError weights whose GELU is not the model's: outputs would be wrong."""
    if wanted != built:
        base = model_name.removesuffix('-quickgelu')
        names = {True: 'QuickGELU', False: 'GELU'}
        raise ValueError(
            f'{source} was trained with {names[wanted]} but model_name={model_name!r} builds '
            f'{names[built]}; set model.backbone.model_name='
            f'{base + "-quickgelu" if wanted else base!r}.'
        )


def load_clip_weights(
    model: nn.Module, model_name: str, path: Path, quick_gelu: bool, part: str = ''
) -> None:
    """Load a CLIP checkpoint file, or only what its names begin with, into an open_clip model.

    Reads OpenAI's TorchScript archives, open_clip's .pt / .bin / .safetensors files, training
    checkpoints (:data:`ENTRIES`) and other libraries' layouts (``LAYOUTS``), with or without a
    prefix that all names share; nothing in the file is executed. Weights of another model, and
    those that were trained with QuickGELU for a model without, are a ValueError.
    """
    state, from_openai = read_clip_state(path)
    if from_openai:
        check_activation(model_name, f'OpenAI archive {str(path)!r}', True, quick_gelu)
    for library, layout in LAYOUTS.items():
        if layout.matches(state):
            if layout.quick_gelu:
                check_activation(model_name, f'{library} CLIP {str(path)!r}', True, quick_gelu)
            state = layout.read(state)
    _check_config_beside(model_name, path, quick_gelu)
    if TOKEN_ROWS in state:
        embedding: Any = getattr(model, 'text', model)
        state = expand_token_table(state, embedding.token_embedding.num_embeddings)
    if hasattr(model, 'text'):
        state = open_clip.model.convert_to_custom_text_state_dict(state)
    for name in ('logit_scale', 'logit_bias'):
        if name in state and getattr(model, name) is not None:
            state[name] = state[name].reshape(cast(Any, getattr(model, name)).shape)
    open_clip.model.resize_pos_embed(state, model)
    state = {name: w for name, w in split_qkv(state).items() if name.startswith(part)}
    expected = {name: w for name, w in model.state_dict().items() if name.startswith(part)}
    _check_fit(expected, model_name, state, path)
    model.load_state_dict(state, strict=not part)


def _check_config_beside(model_name: str, path: Path, quick_gelu: bool) -> None:
    """What transformers' or open_clip's config beside weights says of the activation must hold."""
    config = _read_json(path.parent / 'config.json')
    wanted = None
    if config.get('model_type') == 'clip':
        activation = (config.get('vision_config') or {}).get('hidden_act', 'quick_gelu')
        beside, wanted = 'config.json', activation == 'quick_gelu'
    elif own := _read_json(path.parent / 'open_clip_config.json').get('model_cfg'):
        beside, wanted = 'open_clip_config.json', bool(own.get('quick_gelu', False))
    if wanted is not None:
        check_activation(model_name, f'{str(path)!r}, by its {beside},', wanted, quick_gelu)


def _read_json(path: Path) -> dict[str, Any]:
    return json.loads(path.read_text(encoding='utf-8')) if path.is_file() else {}


def read_clip_state(path: Path) -> tuple[dict[str, Tensor], bool]:
    """State dict of a CLIP file, and whether it is one of OpenAI's TorchScript archives."""
    if path.suffix == '.pt' and is_torchscript(path):
        state = dict(torch.jit.load(str(path), map_location='cpu').state_dict())
        from_openai = all(key in state for key in _OPENAI_EXTRAS)
    else:
        loaded: Any = load_checkpoint_file(path)
        entries = [loaded[key] for key in ENTRIES if isinstance(loaded.get(key), Mapping)]
        state, from_openai = dict((entries or [loaded])[0]), False
    state = without_prefixes(state)
    for key in _OPENAI_EXTRAS:
        state.pop(key, None)
    return state, from_openai


def expand_token_table(state: dict[str, Tensor], vocabulary_size: int) -> dict[str, Tensor]:
    """Fill up a token table that holds only some rows.

    Small CLIP files keep the rows of the tokens that the model was trained with, and name them in
    ``token_embedding.rows``. All other tokens get the mean of these rows: words that the model has
    never read are alike to it. Ids that fit neither rows nor vocabulary are a ValueError.
    """
    state = dict(state)
    rows, kept = state.pop(TOKEN_ROWS).long(), state[TOKEN_TABLE]
    low, high = int(rows.min()), int(rows.max())
    if rows.shape != kept.shape[:1] or not 0 <= low <= high < vocabulary_size:
        raise ValueError(
            f'{TOKEN_ROWS} holds {len(rows)} ids {low}..{high} for '
            f'{len(kept)} rows and a vocabulary of {vocabulary_size} tokens; the file is damaged '
            'or belongs to another tokenizer'
        )
    table = kept.float().mean(dim=0).to(kept.dtype).repeat(vocabulary_size, 1)
    table[rows] = kept
    return {**state, TOKEN_TABLE: table}


def _check_fit(
    weights: Mapping[str, Tensor], model_name: str, state: dict[str, Tensor], path: Path
) -> None:
    expected = {key: tuple(value.shape) for key, value in weights.items()}
    got = {key: tuple(value.shape) for key, value in state.items()}
    missing, unexpected = sorted(expected.keys() - got), sorted(got.keys() - expected)
    wrong = sorted(k for k in expected.keys() & got if expected[k] != got[k])
    if missing or unexpected or wrong:
        shapes = [f'{k}: file {got[k]}, model {expected[k]}' for k in wrong[:3]]
        kind = looks_like(state)
        seems = '' if kind is None else f'It looks like {kind}. '
        if got and not unexpected and not wrong and all(k.startswith(IMAGE_TOWER) for k in got):
            seems = (
                'It holds the image tower alone: give it as model.backbone.image_weights, and the '
                'CLIP that it was trained from as model.backbone.pretrained. '
            )
        raise ValueError(
            f'{str(path)!r} does not hold weights of {model_name!r}: {len(missing)} tensors '
            f'missing {missing[:3]}, {len(unexpected)} unknown {unexpected[:3]}, {len(wrong)} of '
            f'another shape {shapes}. {seems}Set model.backbone.model_name to the model of the '
            'file.'
        )


def _tags(model_name: str) -> list[str]:
    return open_clip.list_pretrained_tags_by_model(model_name)
