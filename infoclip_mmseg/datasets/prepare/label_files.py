"""Label maps as files: read, checked, converted, written in one step; what a full disk means."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path

import numpy as np
from PIL import Image

from infoclip_mmseg.utils.files import write_whole

Log = Callable[[str], None]
Advance = Callable[[int], None]
"""Told how many bytes, members or images were done since the last call."""

PNG_END = b'IEND\xaeB`\x82'


class PrepareError(RuntimeError):
    """A data set can't be prepared; the message says what to do."""


@contextmanager
def complete_file(path: Path) -> Iterator[Path]:
    """A draft of a file; see :func:`~infoclip_mmseg.utils.files.write_whole`.

    Raises:
        PrepareError: The disk is full.
    """
    try:
        with write_whole(path) as draft:
            yield draft
    except OSError as error:
        raise_if_disk_full(error, path)
        raise


def raise_if_disk_full(error: BaseException, path: Path) -> None:
    """Turn 'no space left' and 'quota exceeded' into a message.

    Raises:
        PrepareError: The error is one of the two.
    """
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise PrepareError(
            f'the disk is full ({error.strerror}) at {path}. Nothing half-written stands under a '
            'final name. Free some space and start the same command again: it goes on from here.'
        ) from error


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file in one step; see :func:`complete_file`."""
    with complete_file(path) as draft:
        draft.write_bytes(data)


def encode_label(label: np.ndarray, suffix: str) -> bytes:
    """A label map as a grey PNG or as a deflated TIFF.

    Args:
        label: (H, W), uint8 or uint16.
        suffix: '.png' or '.tif'.
    """
    buffer = BytesIO()
    image = Image.fromarray(label)
    if suffix == '.tif':
        image.save(buffer, 'TIFF', compression='tiff_adobe_deflate')
    else:
        image.save(buffer, 'PNG')
    return buffer.getvalue()


def read_indices(path: Path) -> np.ndarray:
    """Class indices of a one-channel label map: indexed, grey 8-bit or 16-bit.

    Returns:
        (H, W), uint8 or an integer type of more bits.

    Raises:
        ValueError: The file is damaged or holds colours.
    """
    try:
        data = path.read_bytes()
        with Image.open(BytesIO(data)) as image:
            mode = image.mode
            values = np.asarray(image)
        if image.format == 'PNG' and PNG_END not in data:  # Pillow does without it
            raise ValueError('cut short: its end mark is missing')
    except (OSError, SyntaxError, ValueError) as error:
        raise ValueError(
            f'label map {path} is damaged ({error}); unpack or copy it again'
        ) from error
    if mode not in ('P', 'L', 'I', 'I;16', 'I;16B'):
        raise ValueError(
            f'label map {path} has mode {mode}; expected one channel of class indices (an indexed '
            'or grey image), not colours'
        )
    return values


def image_size(path: Path) -> tuple[int, int]:
    """Height and width in pixels by the header of an image file, without EXIF rotation.

    Raises:
        ValueError: There is no such file, or it is no image.
    """
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except FileNotFoundError as error:
        raise ValueError(f'image {path} is missing') from error
    except (OSError, SyntaxError) as error:
        raise ValueError(f'image {path} is not readable ({error}); unpack it again') from error


def check_same_size(label: tuple[int, ...], label_path: Path, image_path: Path) -> None:
    """Check that a label map has the size of its image.

    Args:
        label: Height and width of the label map in pixels.
        label_path: Its file, for the message.
        image_path: The image.

    Raises:
        ValueError: Sizes differ, or the image can't be read.
    """
    image = image_size(image_path)
    if tuple(label) != image:
        raise ValueError(
            f'label map {label_path} is {label[0]} x {label[1]} pixels (height x width), its image '
            f'{image_path} is {image[0]} x {image[1]}: label files were swapped or belong to '
            'another release; unpack both archives again'
        )


def map_labels(values: np.ndarray, table: np.ndarray, path: Path, unknown: int) -> np.ndarray:
    """Replace each value by its entry in a table.

    Args:
        values: (H, W), non-negative integers.
        table: (N,), new label of each value.
        path: The file that the values come from, for the message.
        unknown: Mark in the table of values that may not occur.

    Returns:
        (H, W), of the table's type.

    Raises:
        ValueError: A value has no class.
    """
    seen = np.unique(values)
    wrong = [int(v) for v in seen if not 0 <= v < len(table) or int(table[v]) == unknown]
    if wrong:
        raise ValueError(
            f'label map {path} holds {wrong[:5]}, which no class of this data set has; it is '
            'damaged, swapped or of another release'
        )
    return table[values]


def read_list(path: Path) -> list[str]:
    """Names from a text file, one a line.

    Raises:
        PrepareError: It is missing or empty.
    """
    names = path.read_text(encoding='utf-8').split() if path.is_file() else []
    if not names:
        raise PrepareError(f'the list of images {path} is missing or empty; unpack it again')
    return names
