"""PASCAL VOC 2012 as PAS-20 (background ignored) and PAS-20b (background is class 20)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from infoclip_mmseg.datasets.prepare.files import (
    PrepareError,
    check_same_size,
    encode_label,
    map_labels,
    read_indices,
    write_bytes,
)
from infoclip_mmseg.datasets.prepare.parallel import Task

VOC2012 = Path('VOCdevkit/VOC2012')
VAL_LIST = VOC2012 / 'ImageSets/Segmentation/val.txt'
FOLDERS = {'voc20': 'annotations_detectron2', 'voc20b': 'annotations_detectron2_bg'}
SOURCE_FOLDERS = ('SegmentationClass', 'SegmentationClassAug')
NUM_CLASSES, IGNORED, UNKNOWN = 20, 255, 254


def label_table(background: int) -> np.ndarray:
    """New label of each of VOC's values: 1..20 become 0..19, 255 stays.

    Args:
        background: What 0 becomes.

    Returns:
        (256,), uint8; UNKNOWN for values that VOC does not use.
    """
    table = np.full(256, UNKNOWN, np.uint8)
    table[1 : NUM_CLASSES + 1] = np.arange(NUM_CLASSES)
    table[0], table[IGNORED] = background, IGNORED
    return table


def read_list(path: Path) -> list[str]:
    """Names from a text file, one a line.

    Raises:
        PrepareError: It is missing or empty.
    """
    names = path.read_text(encoding='utf-8').split() if path.is_file() else []
    if not names:
        raise PrepareError(f'the list of images {path} is missing or empty; unpack it again')
    return names


def convert_label(image: Path, sources: tuple[Path, ...], output: Path, background: int) -> None:
    """Convert one label map; the first source that exists is taken.

    Raises:
        ValueError: It is missing, damaged, of another size, or holds an unknown class.
    """
    source = next((path for path in sources if path.is_file()), None)
    if source is None:
        raise ValueError(f'label map {sources[0]} is missing; unpack the archive again')
    values = read_indices(source)
    check_same_size(values.shape, source, image)
    label = map_labels(values, label_table(background), source, UNKNOWN)
    write_bytes(output, encode_label(label, output.suffix))


def find_tasks(name: str, root: Path) -> list[Task]:
    """The conversions of 'voc20' or 'voc20b' below a data root."""
    folder = root / VOC2012
    background = IGNORED if name == 'voc20' else NUM_CLASSES
    tasks = []
    for stem in read_list(root / VAL_LIST):
        image = folder / 'JPEGImages' / f'{stem}.jpg'
        sources = tuple(folder / part / f'{stem}.png' for part in SOURCE_FOLDERS)
        output = folder / FOLDERS[name] / f'{stem}.png'
        tasks.append(Task((output,), partial(convert_label, image, sources, output, background)))
    return tasks
