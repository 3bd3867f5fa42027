"""Sources to pictures: files, addresses, arrays, frames of videos.

Legend: h w pixels.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from mmengine.logging import print_log
from PIL import Image

from infoclip_mmseg.apis.image_sources import Source
from infoclip_mmseg.apis.web_images import MAX_BYTES, fetch
from infoclip_mmseg.utils.images import (
    MAX_PIXELS,
    RGB,
    ImageError,
    array_to_rgb,
    check_pixels,
    read_image,
    to_rgb,
)

OnError = str | Callable[[str, Exception], None]
UNREADABLE = (ImageError, OSError)


@dataclass(frozen=True)
class Limits:
    """What is read at most.

    Attributes:
        max_pixels: Height times width of an image.
        max_bytes: Size of a file that is fetched from the web.
        frame_step: Every so-manieth frame of a video is read, from the first on.
    """

    max_pixels: int = MAX_PIXELS
    max_bytes: int = MAX_BYTES
    frame_step: int = 1

    def __post_init__(self) -> None:
        for key, value in vars(self).items():
            if value < 1:
                raise ValueError(f'{key} must be 1 or more, got {value}')


@dataclass(frozen=True)
class Picture:
    """An image that was read: name and stem as in :class:`Source`, and RGB (h, w, 3), 0..255."""

    name: str
    stem: str
    image: RGB = field(repr=False)


def read_pictures(
    sources: Sequence[Source],
    limits: Limits,
    check: Callable[[Picture], None],
    on_error: OnError,
) -> Iterator[Picture]:
    """Read sources one after the other.

    Args:
        sources: What is read.
        limits: What is read at most.
        check: Raises an ImageError for a picture that is not wanted.
        on_error: 'raise', 'skip' (with a warning), or a function of the source's name and the
            error. Of a video the frames before the bad one stay.
    """
    for source in sources:
        pictures = open_source(source, limits)
        while True:
            try:
                picture = next(pictures, None)
                if picture is not None:
                    check(picture)
            except UNREADABLE as error:
                if on_error == 'raise':
                    raise
                if callable(on_error):
                    on_error(source.name, error)
                else:
                    print_log(f'skipped: {error}', logger='current', level=logging.WARNING)
                break
            if picture is None:
                break
            yield picture


def check_on_error(on_error: OnError) -> None:
    """Raise a ValueError for what is no way to handle errors."""
    if not callable(on_error) and on_error not in ('raise', 'skip'):
        raise ValueError(f"on_error must be 'raise', 'skip' or a function, got {on_error!r}")


def open_source(source: Source, limits: Limits) -> Iterator[Picture]:
    """Read a source: one picture, or the frames of a video.

    Raises:
        ImageError: It cannot be read; see :func:`read_image`.
    """
    value, name = source.value, source.name
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
    elif isinstance(value, str):
        image = read_image(fetch(value, limits.max_bytes), limits.max_pixels, name)
    else:
        image = read_image(value, limits.max_pixels, name)
    yield Picture(name, source.stem, image)


def count_pictures(sources: Sequence[Source], frame_step: int = 1) -> int:
    """How many pictures the sources hold; of videos what their headers say."""
    return sum(_count_frames(s.value, frame_step) if s.is_video else 1 for s in sources)


def _frames(source: Source, limits: Limits) -> Iterator[Picture]:
    capture = cv2.VideoCapture(str(source.value))
    try:
        if not capture.isOpened():
            raise ImageError(
                f'{source.name}: the video cannot be opened; it is damaged or its '
                'codec is unknown to OpenCV'
            )
        width = int(capture.get(cv2.CAP_PROP_FRAME_WIDTH))
        check_pixels(
            int(capture.get(cv2.CAP_PROP_FRAME_HEIGHT)), width, limits.max_pixels, source.name
        )
        index = 0
        while capture.grab():
            if index % limits.frame_step == 0:
                good, frame = capture.retrieve()
                if not good:
                    break
                name, stem = f'{source.name}#{index}', f'{source.stem}_{index:06d}'
                yield Picture(name, stem, array_to_rgb(frame, name))
            index += 1
        if index == 0:
            raise ImageError(f'{source.name}: no frame of the video can be read; it is damaged')
    finally:
        capture.release()


def _count_frames(path: Path, frame_step: int) -> int:
    capture = cv2.VideoCapture(str(path))
    frames = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) if capture.isOpened() else 0
    capture.release()
    return max(1, -(-frames // frame_step))
