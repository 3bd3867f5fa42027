"""Files that appear in one step, fingerprints, and lists of names in messages."""

from __future__ import annotations

import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

CHUNK = 1 << 20


@contextmanager
def write_whole(path: Path, shared: bool = False) -> Iterator[Path]:
    """A temporary name beside ``path``, which takes its place when the block ends without error.

    What stands under ``path`` is never half-written, and an error leaves nothing behind. Folders
    that are missing are made.

    Where several processes may write the file at a time (``shared``) each gets a temporary name of
    its own. Otherwise the name is always the same: what a killed program left is overwritten by the
    next run.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    mark = f'.{uuid.uuid4().hex[:12]}' if shared else ''
    draft = path.with_name(f'.{path.name}{mark}.part')
    try:
        yield draft
        os.replace(draft, path)
    finally:
        draft.unlink(missing_ok=True)


def write_text(path: Path, text: str, shared: bool = False) -> None:
    """Write a text file (UTF-8) in one step; see :func:`write_whole`."""
    with write_whole(path, shared) as draft:
        draft.write_text(text, encoding='utf-8')


def file_digest(path: str | os.PathLike[str], algorithm: str = 'sha256') -> str:
    """Hexadecimal digest of a file's content; ``algorithm`` as in :mod:`hashlib`."""
    digest = hashlib.new(algorithm, usedforsecurity=False)
    with open(path, 'rb') as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def value_digest(value: Any, default: Callable[[Any], Any] = str) -> str:
    """SHA-256 of nested dicts, lists and plain values; the order of keys does not matter.

    ``default`` tells what stands for a value that JSON does not know.
    """
    text = json.dumps(value, sort_keys=True, default=default)
    return hashlib.sha256(text.encode()).hexdigest()


def first_few(
    names: Sequence[object], shown: int = 5, separator: str = ', ', rest: str = ' and {} more'
) -> str:
    """The first of some names, and how many more there are: 'a, b, c, d, e and 3 more'."""
    more = len(names) - shown
    return separator.join(map(str, names[:shown])) + (rest.format(more) if more > 0 else '')
