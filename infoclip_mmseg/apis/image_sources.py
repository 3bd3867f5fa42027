"""What a user passes as images, to a list of sources."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from infoclip_mmseg.apis.web_images import check_scheme, is_url
from infoclip_mmseg.utils.files import first_few
from infoclip_mmseg.utils.images import SUFFIXES

VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv')


@dataclass(frozen=True)
class Source:
    """One input: a file, an address, an array, a Pillow image.

    Attributes:
        name: What results and errors call it: the path, the address or 'array 3'.
        stem: Name of the files that are written for it, without suffix; differs from all others.
        value: The input itself.
    """

    name: str
    stem: str
    value: Any = field(repr=False)

    @property
    def is_video(self) -> bool:
        """Whether it is a video file."""
        return isinstance(self.value, Path) and self.value.suffix.lower() in VIDEO_SUFFIXES


def list_sources(inputs: Any) -> list[Source]:
    """Sources of the inputs, in their order; those of a folder or pattern in natural order.

    Nothing is read or fetched here, so that a wrong path is found before any work.

    Args:
        inputs: A path, folder, glob pattern ('**' for all folders below), http(s) address, array
            (see :func:`array_to_rgb`) or Pillow image, or a list of these.

    Raises:
        FileNotFoundError: Paths that do not exist (all are named), a folder or pattern without
            images.
        ImageError: An address of another scheme.
        TypeError: Something else.
    """
    listed = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    if not listed:
        raise ValueError('no images were passed: the list is empty')
    missing: list[str] = []
    values = [value for item in listed for value in _expand(item, missing)]
    if missing:
        raise FileNotFoundError(
            f'{first_few(missing)}: no such file or folder, and no file matches it as a '
            f'pattern (working directory {Path.cwd()})'
        )
    return _name_all(values)


def _expand(item: Any, missing: list[str]) -> list[Any]:
    if isinstance(item, (np.ndarray, Image.Image)):
        return [item]
    if isinstance(item, str) and is_url(item):
        check_scheme(item)
        return [item]
    if not isinstance(item, (str, os.PathLike)):
        raise TypeError(
            'images must be paths, folders, patterns, http(s) addresses, NumPy arrays (BGR) or '
            f'Pillow images, or a list of these; got {type(item).__name__}'
            + ('; tensors go to model.segment' if type(item).__name__ == 'Tensor' else '')
        )
    path = Path(item).expanduser()
    if path.is_dir():
        return _images_in(path)
    if path.exists():
        return [path]
    matches = sorted(glob.glob(str(path), recursive=True), key=natural_key)
    if not matches:
        missing.append(str(item))
    files = [Path(name) for name in matches if Path(name).is_file()]
    if matches and not files:
        raise FileNotFoundError(f'{item}: the pattern matches folders only, no images')
    return files


def _images_in(folder: Path) -> list[Path]:
    entries = list(folder.iterdir())
    files = [
        e
        for e in entries
        if e.suffix.lower() in SUFFIXES and not e.name.startswith('.') and e.is_file()
    ]
    if not files:
        raise FileNotFoundError(
            f'{folder}: the folder has {len(entries)} entries but no image '
            f"({', '.join(SUFFIXES)}); for images in folders below it pass '{folder}/**/*.jpg'"
        )
    return sorted(files, key=lambda path: natural_key(path.name))


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Sorting key in which 'a10' comes after 'a2'."""
    parts = re.split(r'([0-9]+)', name)
    return [(1, int(p), p) if i % 2 else (0, 0, p) for i, p in enumerate(parts)]


def _name_all(values: list[Any]) -> list[Source]:
    sources: list[Source] = []
    used: set[str] = set()
    for index, value in enumerate(values):
        if isinstance(value, Path):
            name, stem = str(value), value.stem
        elif isinstance(value, str):
            name, stem = value, Path(value.split('?')[0].split('#')[0].rstrip('/')).stem
            stem = re.sub(r'[^\w.-]', '_', stem)
        else:
            name = getattr(value, 'filename', '') or f'array {index}'
            stem = Path(name).stem if not name.startswith('array ') else f'{index:08d}'
        sources.append(Source(name, _unused(stem[:120] or 'image', used), value))
    return sources


def _unused(stem: str, used: set[str]) -> str:
    """The stem, with a number where it was used; names that differ in case only are alike."""
    candidate, count = stem, 1
    while candidate.casefold() in used:
        count += 1
        candidate = f'{stem}-{count}'
    used.add(candidate.casefold())
    return candidate
