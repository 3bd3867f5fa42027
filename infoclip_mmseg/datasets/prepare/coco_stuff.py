"""COCO-Stuff 164k: stuffthingmaps to MMSegmentation's labelTrainIds."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import numpy as np

from infoclip_mmseg.datasets.benchmarks import COCO_SPLITS
from infoclip_mmseg.datasets.prepare.label_files import (
    check_same_size,
    encode_label,
    map_labels,
    read_indices,
    write_bytes,
)
from infoclip_mmseg.datasets.prepare.parallel import Task

NUM_VALUES, IGNORED, UNKNOWN = 182, 255, 254
UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
"""Values of the 182 that no image has; 171 classes remain."""


def label_table() -> np.ndarray:
    """New label of each value of a stuffthingmap: the used ones in order, 255 stays.

    Returns:
        (256,), uint8; UNKNOWN for values that are not used.
    """
    table = np.full(256, UNKNOWN, np.uint8)
    used = [value for value in range(NUM_VALUES) if value not in UNUSED]
    table[used] = np.arange(len(used))
    table[IGNORED] = IGNORED
    return table


def convert_label(image: Path, source: Path, output: Path) -> None:
    """Convert one label map.

    Raises:
        ValueError: It is missing, damaged, of another size, or holds an unknown class.
    """
    if not source.is_file():
        raise ValueError(f'label map {source} is missing; unpack stuffthingmaps again')
    values = read_indices(source)
    check_same_size(values.shape, source, image)
    label = map_labels(values, label_table(), source, UNKNOWN)
    write_bytes(output, encode_label(label, output.suffix))


def find_tasks(root: Path) -> list[Task]:
    """The conversions of all images below a data root."""
    tasks = []
    for layout in (split.made for split in COCO_SPLITS):
        for image in sorted(layout.image_folder(root).glob('*.jpg')):
            source = layout.label_folder(root) / f'{image.stem}.png'
            output = layout.label_file(image.stem, root)
            tasks.append(Task((output,), partial(convert_label, image, source, output)))
    return tasks
