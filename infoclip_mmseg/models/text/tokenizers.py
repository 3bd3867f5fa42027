"""The tokenizer of an open_clip model: CLIP's own, or one of Hugging Face and its files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import open_clip
from torch import Tensor

Tokenizer = Callable[[list[str]], Tensor]
"""Prompt strings to token ids (n, L)."""


def build_tokenizer(
    model_name: str | dict, context_length: int, folder: str | None = None
) -> Tokenizer:
    """The tokenizer that a model was trained with.

    SigLIP and some others have one of Hugging Face. Its files are taken from ``folder`` or, with
    None, from Hugging Face's cache, else downloaded; none of these is a FileNotFoundError. A folder
    for a model with CLIP's own tokenizer is a ValueError.
    """
    config: Any = (
        open_clip.get_model_config(model_name) if isinstance(model_name, str) else model_name
    )
    text: Mapping[str, Any] = config['text_cfg']
    name = text.get('hf_tokenizer_name')
    if name is not None:
        return _from_hugging_face(name, context_length, folder, text.get('tokenizer_kwargs', {}))
    if folder is not None:
        raise ValueError(
            f'tokenizer_dir={folder!r}, but the tokenizer of {model_name!r} comes with open_clip: '
            'take tokenizer_dir out of model.backbone'
        )
    return open_clip.SimpleTokenizer(context_length=context_length)


def _from_hugging_face(
    name: str, context_length: int, folder: str | None, options: Mapping[str, Any]
) -> Tokenizer:
    errors = []
    for local in (True,) if folder else (True, False):
        try:
            return open_clip.tokenizer.HFTokenizer(
                folder or name, context_length, local_files_only=local, **options
            )
        except Exception as error:  # whatever the libraries raise ends in one clear message
            errors.append(f'{type(error).__name__}: {error}'.splitlines()[0])
    where = 'in the local cache and could not be downloaded' if folder is None else f'in {folder!r}'
    raise FileNotFoundError(
        f'the tokenizer {name!r} is not {where} ({"; ".join(errors)}). Fetch '
        f'tokenizer.json, tokenizer_config.json and special_tokens_map.json from '
        f'https://huggingface.co/{name} on a machine with network, put them in a folder, for '
        f'example data/clip/{name.rsplit("/", 1)[-1]}, and set model.backbone.tokenizer_dir to it.'
    )
