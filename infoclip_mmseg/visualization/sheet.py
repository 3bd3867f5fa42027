"""Sheets of images, ground truth and predictions, for people to look at.

Legend: n images, h w pixels, T classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

from infoclip_mmseg.utils.files import first_few
from infoclip_mmseg.visualization.legend import add_legend, entries_of
from infoclip_mmseg.visualization.lettering import class_label, plain, save_figure
from infoclip_mmseg.visualization.overlay import PHOTO_SIDE, blend, fit_side

LEGEND_ENTRIES = 48
CELL = 2.1
"""Width of an image in inches."""
VOID_VALUES = (255, 65535)
"""Values of label files that stand for no class."""


def draw_sheet(
    path: Path | str,
    images: Sequence[NDArray[np.uint8]],
    maps: Mapping[str, Sequence[NDArray]],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    truth: str | None = 'ground truth',
    marked: Sequence[str] = (),
    opacity: float = 1.0,
) -> Path:
    """One row an image: the image, then each label map; a legend below.

    Under each prediction stands the share of labelled pixels that are right, where there is a
    truth. Where the legend is too long, the classes of the largest areas are shown.

    Args:
        path: PNG or PDF to write; without suffix both. It is returned.
        images, maps: n images (h, w, 3), RGB 0..255, and title of a column to its n maps (h, w).
        classes, palette: T names and colours, 0..255.
        truth: Title of the column that is the truth, or None.
        marked: Class names that get a star in the legend (unseen classes).
        opacity: Of the colours over the image, 0..1.
    """
    missing = truth is not None and truth not in maps
    if missing or any(len(column) != len(images) for column in maps.values()):
        counts = {title: len(column) for title, column in maps.items()}
        wanted = '' if truth is None else f' and a column {truth!r}'
        raise ValueError(
            f'draw_sheet needs {len(images)} maps in every column{wanted}, got {counts}'
        )
    heights = [CELL * max(0.3, min(image.shape[0] / image.shape[1], 3.0)) for image in images]
    rows, columns = len(images), 1 + len(maps)
    size = (max(CELL * columns, 2.5 * CELL), sum(heights) + 0.2 * rows + 0.3)
    figure = Figure(figsize=size, layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False, height_ratios=heights)
    for row, image in enumerate(images):
        labels = {title: column[row] for title, column in maps.items()}
        for axis, (title, shown) in zip(grid[row], [('image', None), *labels.items()]):
            painted = image if shown is None else blend(image, shown, palette, opacity)
            axis.imshow(fit_side(painted, 0, PHOTO_SIDE), interpolation='nearest')
            axis.set(xticks=[], yticks=[])
            if row == 0:
                axis.set_title(plain(title), fontsize=11)
            if shown is not None and truth is not None and title != truth:
                valid = labels[truth] < len(classes)
                if valid.any():
                    share = 100 * (shown == labels[truth])[valid].mean()
                    axis.set_xlabel(f'{share:.0f} % right', fontsize=8, labelpad=2)
    add_legend(figure, _legend_entries(maps, classes, palette, marked))
    save_figure(figure, Path(path))
    return Path(path)


def _legend_entries(
    maps: Mapping[str, Sequence[NDArray]],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    marked: Sequence[str],
) -> list[tuple[str, str]]:
    """In the order of the classes; the largest ones where there are too many."""
    labels = np.concatenate([labels.ravel() for column in maps.values() for labels in column])
    inside = labels[(labels >= 0) & (labels < len(classes))].astype(np.int64)
    ranked = entries_of(inside, classes, palette)
    shown = ranked if len(ranked) <= LEGEND_ENTRIES else ranked[: LEGEND_ENTRIES - 1]
    entries = [
        (class_label(entry.name) + (' *' if entry.name in marked else ''), entry.code)
        for entry in sorted(shown)
    ]
    if len(shown) < len(ranked):
        entries.append((f'and {len(ranked) - len(shown)} more', 'none'))
    if inside.size < labels.size:
        entries.append(('no label', 'black'))
    return entries


def find_truths(stems: Sequence[str], folder: Path) -> list[Path]:
    """The label file ``STEM.png`` of each image in a folder."""
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
    """A label map (h, w) of T classes from an image: indexed, or grey of 8 or 16 bits.

    ``size`` is that of the image that it belongs to. What has no class gets T: with
    ``reduce_zero_label`` also the value 0, and the classes begin at 1, as in ADE20K.
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
