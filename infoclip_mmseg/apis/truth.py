"""Ground truth that belongs to images, from label files.

Legend: h w pixels, T classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from infoclip_mmseg.utils.files import first_few

VOID_VALUES = (255, 65535)


def find_truths(stems: Sequence[str], folder: Path) -> list[Path]:
    """The label file ``STEM.png`` of each image in a folder.

    Raises:
        FileNotFoundError: Some are not there; they are named.
    """
    paths = [folder / f'{stem}.png' for stem in stems]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f'{folder}: no label files {first_few(missing)}; each image needs one of its '
            'own name that ends in .png'
        )
    return paths


def read_truth(
    path: Path, size: tuple[int, int], num_classes: int, reduce_zero_label: bool = False
) -> NDArray[np.int64]:
    """A label map (h, w); what has no class gets ``num_classes``.

    Args:
        path: Image with a label a pixel: indexed, or grey of 8 or 16 bits.
        size: (h, w) of the image that it belongs to.
        num_classes: T.
        reduce_zero_label: Value 0 has no class and the classes begin at 1, as in ADE20K.

    Raises:
        ValueError: It is no label map, of another size, or has labels beyond the classes.
    """
    with Image.open(path) as image:
        labels = np.asarray(image).astype(np.int64)
    if labels.shape != tuple(size):
        raise ValueError(
            f'{path}: expected one label a pixel of the image, (h, w) = {tuple(size)}, got '
            f'{labels.shape}'
        )
    void = np.isin(labels, VOID_VALUES)
    if reduce_zero_label:
        void |= labels == 0
        labels = labels - 1
    beyond = labels[~void & (labels >= num_classes)]
    if beyond.size:
        hint = '' if reduce_zero_label else ', and reduce_zero_label where they begin at 1'
        raise ValueError(
            f'{path}: class {beyond.max()} is beyond the {num_classes} classes; pass the class '
            f'list that the labels were made with{hint}'
        )
    labels[void] = num_classes
    return labels
