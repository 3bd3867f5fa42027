"""What a user passes as images: files, folders, addresses, arrays and videos, to pictures.

Legend: h w pixels.
"""

from __future__ import annotations

import glob
import itertools
import logging
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import cv2
import numpy as np
import requests
from mmengine.logging import print_log
from PIL import Image

from infoclip_mmseg.utils.files import first_few
from infoclip_mmseg.utils.images import (
    MAX_PIXELS,
    RGB,
    SUFFIXES,
    ImageError,
    array_to_rgb,
    check_pixels,
    read_image,
    to_rgb,
)

VIDEO_SUFFIXES = ('.mp4', '.avi', '.mov', '.mkv', '.webm', '.m4v', '.mpg', '.mpeg', '.wmv')
MAX_BYTES = 32 << 20
HEADERS = {'User-Agent': 'infoclip_mmseg', 'Accept-Encoding': 'identity'}
UNREADABLE = (ImageError, OSError)

OnError = str | Callable[[str, Exception], None]


class Source(NamedTuple):
    """One input: a file, an address, an array, a Pillow image.

    ``name`` is what results and errors call it: the path, the address or 'array 3'; ``stem`` names
    the files that are written for it, without suffix, and differs from all others.
    """

    name: str
    stem: str
    value: Any

    @property
    def is_video(self) -> bool:
        """Whether it is a video file."""
        return isinstance(self.value, Path) and self.value.suffix.lower() in VIDEO_SUFFIXES


class Picture(NamedTuple):
    """An image that was read: name and stem as in :class:`Source`, and RGB (h, w, 3), 0..255."""

    name: str
    stem: str
    image: RGB


@dataclass(frozen=True)
class Limits:
    """What is read at most: pixels of an image, bytes of a file from the web.

    Of a video every so-manieth frame is read, from the first on.
    """

    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES
    frame_step: int = 1

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            if value < 1:
                raise ValueError(f'{key} must be 1 or more, got {value}')


def list_sources(inputs: Any) -> list[Source]:
    """Sources of the inputs, in their order; those of a folder or pattern in natural order.

    Inputs are a path, folder, glob pattern ('**' for all folders below), http(s) address, array
    (see :func:`array_to_rgb`) or Pillow image, or a list of these. Nothing is read or fetched here,
    so that a wrong path is found before any work.

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
    sources: list[Source] = []
    used: set[str] = set()
    for index, value in enumerate(values):
        name, stem = _name(value, index)
        stem = candidate = stem[:120] or 'image'
        counts = itertools.count(2)
        while candidate.casefold() in used:  # names that differ in case only are alike
            candidate = f'{stem}-{next(counts)}'
        used.add(candidate.casefold())
        sources.append(Source(name, candidate, value))
    return sources


def read_pictures(
    sources: Sequence[Source],
    limits: Limits,
    check: Callable[[Picture], None] = lambda picture: None,
    on_error: OnError = 'raise',
) -> Iterator[Picture]:
    """Read sources one after the other.

    ``check`` raises an ImageError for a picture that is not wanted. ``on_error`` is 'raise', 'skip'
    (with a warning), or a function of the source's name and the error; of a video the frames before
    the bad one stay.
    """
    for source in sources:
        try:
            for picture in open_source(source, limits):
                check(picture)
                yield picture
        except UNREADABLE as error:
            if on_error == 'raise':
                raise
            if callable(on_error):
                on_error(source.name, error)
            else:
                print_log(f'skipped: {error}', logger='current', level=logging.WARNING)


def open_source(source: Source, limits: Limits) -> Iterator[Picture]:
    """Read a source: one picture, or the frames of a video."""
    name, stem, value = source
    if source.is_video:
        yield from _frames(source, limits)
        return
    if isinstance(value, np.ndarray):
        height, width = (*value.shape, 1, 1)[:2]
        check_pixels(height, width, limits.max_pixels, name)
        image = array_to_rgb(value, name)
    elif isinstance(value, Image.Image):
        check_pixels(value.height, value.width, limits.max_pixels, name)
        image = to_rgb(value, name)
    else:
        content = fetch(value, limits.max_bytes) if isinstance(value, str) else value
        image = read_image(content, limits.max_pixels, name)
    yield Picture(name, stem, image)


def count_pictures(sources: Sequence[Source], frame_step: int = 1) -> int:
    """How many pictures the sources hold; of videos what their headers say."""
    total = 0
    for source in sources:
        frames = 1
        if source.is_video:
            capture = cv2.VideoCapture(str(source.value))
            frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
            capture.release()
        total += max(1, -(-frames // frame_step))
    return total


def _expand(item: Any, missing: list[str]) -> list[Any]:
    """The values that an input stands for; what is not there is added to ``missing``."""
    if isinstance(item, (np.ndarray, Image.Image)):
        return [item]
    if isinstance(item, str) and '://' in item:
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
    matches = sorted(map(Path, _glob(path)), key=_natural_key)
    files = [match for match in matches if match.is_file()]
    if matches and not files:
        raise FileNotFoundError(f'{item}: the pattern matches folders only, no images')
    if not files:
        missing.append(str(item))
    return files


def _glob(pattern: Path) -> list[str]:
    """Matches of a pattern; brackets in the name of a folder that is there mean themselves."""
    base, *rest = pattern.parts
    while len(rest) > 1 and Path(base, rest[0]).is_dir():
        base = os.path.join(base, rest.pop(0))
    if not Path(base).is_dir():
        return glob.glob(str(pattern), recursive=True)
    return glob.glob(os.path.join(glob.escape(base), *rest), recursive=True)


def _images_in(folder: Path) -> list[Path]:
    """Images of a folder; what is left out is said."""
    entries = [entry for entry in folder.iterdir() if not entry.name.startswith('.')]
    files = [entry for entry in entries if entry.is_file()]
    images = [file for file in files if file.suffix.lower() in SUFFIXES]
    others = Counter(file.suffix.lower() or 'no suffix' for file in set(files) - set(images))
    left_out = ', '.join(f'{count} {suffix}' for suffix, count in sorted(others.items()))
    if not images:
        raise FileNotFoundError(
            f'{folder}: the folder has {len(entries)} entries but no image '
            f'({", ".join(SUFFIXES)}){left_out and f", only {left_out}"}; videos are passed by '
            f"name, images in folders below as '{folder}/**/*.jpg'"
        )
    if others:
        print_log(
            f'{folder}: {len(images)} images; left out: {left_out}. Videos are passed by name; '
            'rename .jfif to .jpg, convert .heic',
            logger='current',
            level=logging.WARNING,
        )
    return sorted(images, key=_natural_key)


def _natural_key(path: Path) -> list[tuple[int, int, str]]:
    """Sorting key in which 'a10' comes after 'a2'."""
    parts = re.split(r'([0-9]+)', str(path))
    return [(1, int(p), p) if i % 2 else (0, 0, p) for i, p in enumerate(parts)]


def _name(value: Any, index: int) -> tuple[str, str]:
    """Name and stem of a value."""
    if isinstance(value, Path):
        return str(value), value.stem
    if isinstance(value, str):
        stem = Path(value.split('?')[0].split('#')[0].rstrip('/')).stem
        return value, re.sub(r'[^\w.-]', '_', stem)
    file = getattr(value, 'filename', '')
    return (file, Path(file).stem) if file else (f'array {index}', f'{index:08d}')


def _frames(source: Source, limits: Limits) -> Iterator[Picture]:
    name, stem, path = source
    capture = cv2.VideoCapture(str(path))
    try:
        if not capture.isOpened():
            raise ImageError(
                f'{name}: the video cannot be opened; it is damaged or its codec is unknown to '
                'OpenCV'
            )
        sides = (cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FRAME_WIDTH)
        height, width = (int(capture.get(side)) for side in sides)
        check_pixels(height, width, limits.max_pixels, name)
        index = 0
        while capture.grab():
            if index % limits.frame_step == 0:
                good, frame = capture.retrieve()
                if not good:
                    break
                image = array_to_rgb(frame, f'{name}#{index}')
                yield Picture(f'{name}#{index}', f'{stem}_{index:06d}', image)
            index += 1
        if index == 0:
            raise ImageError(f'{name}: no frame of the video can be read; it is damaged')
    finally:
        capture.release()


def fetch(url: str, max_bytes: int = MAX_BYTES, timeout: float = 20.0) -> bytes:
    """Bytes of a file at an http or https address; redirections stay within these two.

    The server may be silent for ``timeout`` seconds. Another scheme, a larger file than
    ``max_bytes``, or no answer is an ImageError.
    """
    check_scheme(url)
    content = bytearray()
    try:
        with requests.get(url, headers=HEADERS, stream=True, timeout=timeout) as answer:
            answer.raise_for_status()
            for chunk in answer.iter_content(1 << 16):
                content += chunk
                if len(content) > max_bytes:
                    raise ImageError(
                        f'{url}: the file is larger than the limit of {max_bytes} bytes; download '
                        'it yourself, or raise max_bytes'
                    )
    except (requests.RequestException, UnicodeError) as error:
        raise ImageError(f'{url}: cannot be fetched ({error})') from error
    return bytes(content)


def check_scheme(url: str) -> None:
    """Raise an ImageError for an address that is neither http nor https."""
    scheme = urlsplit(url).scheme.lower()
    if scheme not in ('http', 'https'):
        raise ImageError(
            f'{url}: addresses of scheme {scheme!r} are not opened, only http and https; pass '
            'local files as paths'
        )
