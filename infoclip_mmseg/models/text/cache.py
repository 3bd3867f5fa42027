"""Text embeddings of vocabularies on disk, as safetensors files."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from mmengine.logging import print_log
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from infoclip_mmseg.models.text.prompts import PromptSet

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


def weights_key(parameters: Iterable[tuple[str, Tensor]], architecture: tuple[object, ...]) -> str:
    """Key of a text tower.

    Args:
        parameters: Names and values of its parameters.
        architecture: What else its output depends on, such as heads and activation.
    """
    named = (part for item in parameters for part in item)
    return digest(FORMAT, repr(architecture), *named)


def vocabulary_key(weights: str, prompts: PromptSet, tokens: Tensor, dtype: torch.dtype) -> str:
    """Key of a vocabulary encoded by a text tower.

    Args:
        weights: From :func:`weights_key`.
        prompts: The prompts, with what they contribute to.
        tokens: Their token ids (n, L), which stand for the tokenizer.
        dtype: What the tower computes in.
    """
    sizes = repr((prompts.num_classes, prompts.num_templates, str(dtype)))
    owners = torch.tensor(prompts.owners)
    return digest(weights, sizes, '\n'.join(prompts.texts), owners, tokens.to(torch.int32))


def recall(folder: str, key: str, encode: Callable[[], Tensor]) -> Tensor:
    """Embeddings from the cache, or from ``encode``, which are then added to it.

    A file that is damaged or holds something else is said to be so, and made again. A folder that
    cannot be written to costs a warning and nothing else.

    Args:
        folder: Folder of the cache; made where it is not there.
        key: From :func:`vocabulary_key`.
        encode: Computes them.

    Returns:
        (T, P, C), from the cache on the CPU.
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
    try:
        _write(path, key, embeddings)
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


def _write(path: Path, key: str, embeddings: Tensor) -> None:
    """Write to a temporary file beside ``path`` that takes its name only when it is complete."""
    embeddings = embeddings.detach().cpu().contiguous()
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix='.part')
    os.close(handle)
    try:
        metadata = dict(format=FORMAT, key=key, sha256=digest(embeddings))
        try:
            save_file({_NAME: embeddings}, temporary, metadata)
        except SafetensorError as error:  # a full disk, for example
            raise OSError(str(error)) from error
        os.chmod(temporary, 0o666 & ~_umask())
        os.replace(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def _warn(message: str) -> None:
    print_log(message, 'current', logging.WARNING)
