"""Text embeddings of vocabularies on disk, as safetensors files."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from mmengine.logging import print_log
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from infoclip_mmseg.models.text.prompts import PromptSet
from infoclip_mmseg.utils.files import write_whole

# Part of every key: raise it when the same inputs get other embeddings or another layout.
FORMAT = 'infoclip_mmseg text embeddings 1'
_NAME = 'embeddings'


def digest(*parts: str | Tensor) -> str:
    """SHA-256 of strings and of the bytes, dtypes and shapes of tensors, in hexadecimal digits."""
    total = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            total.update(f's{len(part)}:{part}'.encode())
            continue
        part = part.detach()
        total.update(f't{part.dtype}{tuple(part.shape)}'.encode())
        total.update(part.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def vocabulary_key(
    parameters: Iterable[tuple[str, Tensor]],
    architecture: tuple[object, ...],
    prompts: PromptSet,
    tokens: Tensor,
    dtype: torch.dtype,
) -> str:
    """Key of a vocabulary encoded by a text tower.

    It depends on names and values of the tower's parameters; on what else its output depends on,
    such as heads and activation; on the prompts and their token ids (n, L), which stand for the
    tokenizer; on what the tower computes in.
    """
    named = (part for item in parameters for part in item)
    weights = digest(FORMAT, repr(architecture), *named)
    sizes = repr((prompts.num_classes, prompts.num_templates, str(dtype)))
    owners = torch.tensor(prompts.owners)
    return digest(weights, sizes, '\n'.join(prompts.texts), owners, tokens.to(torch.int32))


def recall(folder: str, key: str, encode: Callable[[], Tensor]) -> Tensor:
    """Embeddings (T, P, C) from the cache (then on the CPU), or from ``encode`` and added to it.

    A file that is damaged or holds something else is said to be so, and made again. A folder that
    cannot be written to costs a warning and nothing else; one that is not there is made.
    """
    path = Path(folder, f'text_{key[:32]}.safetensors')
    if path.exists():
        try:
            embeddings = _read(path, key)
            print_log(f'text embeddings of {len(embeddings)} classes read from {path}', 'current')
            return embeddings
        except (SafetensorError, OSError, ValueError) as error:
            _warn(f'{path} cannot be used and is made again: {error}')
    embeddings = encode()
    stored = embeddings.detach().cpu().contiguous()
    metadata = dict(format=FORMAT, key=key, sha256=digest(stored))
    try:
        with write_whole(path, shared=True) as draft:
            draft.write_bytes(save({_NAME: stored}, metadata))
        print_log(f'text embeddings of {len(embeddings)} classes written to {path}', 'current')
    except OSError as error:
        _warn(f'text embeddings are not cached, {path} cannot be written: {error}')
    return embeddings


def _read(path: Path, key: str) -> Tensor:
    with safe_open(str(path), 'pt') as file:
        metadata = file.metadata() or {}
        if metadata.get('key') != key:
            raise ValueError('it belongs to other weights or prompts')
        embeddings = file.get_tensor(_NAME)
    if digest(embeddings) != metadata.get('sha256'):
        raise ValueError('its checksum is wrong, the file is damaged')
    return embeddings


def _warn(message: str) -> None:
    print_log(message, 'current', logging.WARNING)
