"""ADE20K's full release (2021_17_01) as A-847, in the detectron2-style layout."""

from __future__ import annotations

import json
import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from functools import partial
from importlib.resources import files
from pathlib import Path, PurePosixPath
from typing import Any

import cv2
import numpy as np
from PIL import Image

from infoclip_mmseg.datasets.benchmarks import BENCHMARKS
from infoclip_mmseg.datasets.prepare.label_files import (
    PrepareError,
    Task,
    check_same_size,
    map_labels,
    write_image,
)
from infoclip_mmseg.datasets.vocabularies import load_vocabulary
from infoclip_mmseg.utils.unpickling import RefusedNameError, allow_list_unpickler, numpy_names

A847 = BENCHMARKS['ade847']
LAYOUT, IGNORED = A847.made, A847.ignore_index
INDEX_FILE = Path(LAYOUT.folder, 'index_ade20k.pkl')
SHORT_SIDE = 512
MAX_UNNAMED = 50
"""Classes that may be missing by name in the index before it counts as another release."""


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Stands for `_codecs.encode`, by which pickles of protocol 2 hold bytes."""
    if encoding not in ('latin1', 'latin-1'):
        raise RefusedNameError(f'the codec {encoding!r}')
    return text.encode('latin1')


_FROM_BUFFER: Any = np.zeros(1).__reduce_ex__(5)[0]
ALLOWED: dict[str, Any] = {
    **numpy_names(),
    'numpy.core.numeric._frombuffer': _FROM_BUFFER,
    'numpy._core.numeric._frombuffer': _FROM_BUFFER,
    'collections.OrderedDict': OrderedDict,
    '_codecs.encode': _encode_latin1,
    '__builtin__.bytes': bytes,  # as pickles of protocol 2 hold the empty string of bytes
}
"""What a dict of lists, strings and arrays needs, by the names of NumPy 1 and 2."""


def read_index(path: Path, fields: tuple[str, ...]) -> dict[str, list[str]]:
    """Read columns of names from index_ade20k.pkl; a PrepareError where that cannot be done.

    The file holds a dict of lists, strings and NumPy arrays. Any other class or function that it
    refers to is refused before it is looked up.
    """
    try:
        with open(path, 'rb') as file:
            index = allow_list_unpickler(ALLOWED)(file).load()
    except RefusedNameError as error:
        raise PrepareError(
            f'{path} refers to {error.name}, which the index of ADE20K does not contain: refused, '
            'nothing was run. Take the file from the official archive.'
        ) from None
    except FileNotFoundError as error:
        raise PrepareError(f'{path} is missing; it belongs to the full release') from error
    except Exception as error:  # damaged bytes make the unpickler raise almost anything
        raise PrepareError(
            f'{path} ({path.stat().st_size} bytes) is cut short or damaged: '
            f'{type(error).__name__}: {error}. Unpack it again.'
        ) from error
    if not isinstance(index, dict) or any(name not in index for name in fields):
        got = list(index) if isinstance(index, dict) else type(index).__name__
        raise PrepareError(f'{path} holds {got}; expected the columns {list(fields)} among others')
    columns = {name: list(index[name]) for name in fields}
    for name, column in columns.items():
        if not all(isinstance(value, str) for value in column):
            raise PrepareError(f'{path}: the column {name!r} must hold strings only')
    return columns


def read_ade847_objects() -> list[int]:
    """ADE20K's number (from 1) of each of the 847 classes, in label order.

    These numbers are those of release 2021_17_01, by which MaskFormer defined the benchmark.
    """
    path = files('infoclip_mmseg.datasets.prepare') / 'ade847_objects.json'
    return json.loads(path.read_text(encoding='utf-8'))


def number_classes(
    object_names: Sequence[str], class_names: Sequence[str], numbers: Sequence[int]
) -> list[int]:
    """ADE20K's number of each class, counted from 1.

    A class is looked up by its name in the index (case and punctuation do not count: the
    vocabulary writes 'crt screen' and 'c p u '). Where that name is missing or not unique,
    the published number decides. Class names and published numbers come in label order. An index
    of another release is a PrepareError.
    """
    numbers_of: dict[str, list[int]] = {}
    for number, name in enumerate(object_names, 1):
        numbers_of.setdefault(_plain(name), []).append(number)
    by_name = [numbers_of.get(_plain(name), []) for name in class_names]
    unnamed = [name for name, matches in zip(class_names, by_name) if not matches]
    if len(unnamed) > MAX_UNNAMED or max(numbers) > len(object_names):
        raise PrepareError(
            f'{len(unnamed)} of the {len(class_names)} classes, {unnamed[:3]} among them, are not '
            f'among the {len(object_names)} object names of {INDEX_FILE.name}. It is not the index '
            f'of the release {LAYOUT.folder}, which A-847 needs.'
        )
    return [m[0] if len(m) == 1 else number for m, number in zip(by_name, numbers)]


def label_table(numbers: Sequence[int], num_objects: int) -> dict[int, int]:
    """New label of each object number: the class of that number, 65535 for others and for 0."""
    table = dict.fromkeys(range(num_objects + 1), IGNORED)
    return {**table, **{number: label for label, number in enumerate(numbers)}}


def decode_objects(colours: np.ndarray) -> np.ndarray:
    """Object numbers (H, W), int32, from the colours (H, W, 3), uint8, of a `_seg.png`.

    R / 10 * 256 + G; B tells instances. 0 is no object.
    """
    red, green = colours[..., 0].astype(np.int32), colours[..., 1].astype(np.int32)
    return red // 10 * 256 + green


def resized_shape(height: int, width: int) -> tuple[int, int]:
    """Height and width after the benchmark's reduction to a short side of 512 pixels."""
    short = min(height, width)
    if short <= SHORT_SIDE:
        return height, width
    return round(height / short * SHORT_SIDE), round(width / short * SHORT_SIDE)


def convert_image(image: Path, outputs: tuple[Path, Path], table: Mapping[int, int]) -> None:
    """Convert one image and its label map.

    As published: image by OpenCV's bilinear and label by its nearest-neighbour interpolation, where
    the short side is longer than 512; every image saved as JPEG of Pillow's quality 75. The
    `_seg.png` lies beside the image; the table is that of :func:`label_table`. A ValueError tells
    of a file that is missing or damaged, sizes that differ, or an object number that is too large.
    """
    source = image.with_name(f'{image.stem}_seg.png')
    colours, pixels = _read_rgb(source), _read_rgb(image)
    check_same_size(colours.shape[:2], source, image)
    label = map_labels(decode_objects(colours), table, source)
    height, width = resized_shape(*label.shape)
    if (height, width) != label.shape:
        pixels = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_LINEAR)
        label = cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST)
    write_image(outputs[0], pixels)
    write_image(outputs[1], label)


def find_tasks(root: Path) -> list[Task]:
    """Conversions of the validation images that the index lists; PrepareError for a bad index."""
    index = read_index(root / INDEX_FILE, ('filename', 'folder', 'objectnames'))
    names = index['objectnames']
    numbers = number_classes(names, load_vocabulary(A847.vocabulary), read_ade847_objects())
    table = label_table(numbers, len(names))
    tasks = []
    for folder, name in zip(index['folder'], index['filename']):
        if not name.startswith('ADE_val_'):
            continue
        parts = PurePosixPath(folder.replace('\\', '/'), name)
        if parts.is_absolute() or '..' in parts.parts:
            raise PrepareError(f'{root / INDEX_FILE} points outside of the data: {parts}; refused')
        outputs = (LAYOUT.image_file(parts.stem, root), LAYOUT.label_file(parts.stem, root))
        tasks.append(Task(outputs, partial(convert_image, root / parts, outputs, table)))
    return tasks


def _plain(name: str) -> str:
    return re.sub('[^a-z0-9]', '', name.lower())


def _read_rgb(path: Path) -> np.ndarray:
    """(H, W, 3), uint8."""
    try:
        with Image.open(path) as image:
            return np.asarray(image.convert('RGB'))
    except FileNotFoundError as error:
        raise ValueError(f'{path} is missing; unpack the archive again') from error
    except (OSError, SyntaxError) as error:
        raise ValueError(f'{path} is damaged ({error}); unpack it again') from error
