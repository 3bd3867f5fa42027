"""PASCAL VOC 2012 as PAS-20 (background ignored) and PAS-20b (background is class 20)."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from infoclip_mmseg.datasets.benchmarks import BENCHMARKS, VOC2012
from infoclip_mmseg.datasets.prepare.label_files import (
    check_same_size,
    encode_label,
    map_labels,
    read_indices,
    read_list,
    write_bytes,
)
from infoclip_mmseg.datasets.prepare.parallel import Task

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


def find_tasks(key: str, root: Path) -> list[Task]:
    """The conversions of 'voc20' or 'voc20b' below a data root."""
    layout = BENCHMARKS[key].made
    background = IGNORED if layout.num_values == NUM_CLASSES else NUM_CLASSES
    tasks = []
    for stem in read_list(layout.listing_files(root)[0]):
        image, output = layout.image_file(stem, root), layout.label_file(stem, root)
        sources = tuple(root / VOC2012 / folder / f'{stem}.png' for folder in SOURCE_FOLDERS)
        tasks.append(Task((output,), partial(convert_label, image, sources, output, background)))
    return tasks
