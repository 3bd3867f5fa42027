"""Pictures of predictions, for people to look at.

Legend: n images, h w pixels, T classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

from infoclip_mmseg.utils.palette import colour_labels
from infoclip_mmseg.visualization.saving import (
    class_label,
    legend_columns,
    plain,
    save_figure,
    shrink,
)

LEGEND_ENTRIES = 48
CELL = 2.1
"""Width of an image in inches."""


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
        path: PNG or PDF to write; without suffix both.
        images: n images (h, w, 3), RGB 0..255.
        maps: Title of a column to its n label maps (h, w).
        classes: T names.
        palette: T colours, 0..255.
        truth: Title of the column that is the truth, or None.
        marked: Class names that get a star in the legend (unseen classes).
        opacity: Of the colours over the image, 0..1.

    Returns:
        The path.

    Raises:
        ValueError: There is no truth among the maps, or a column has not one map for each image.
    """
    _check_columns(images, maps, truth)
    patches = _legend_patches(maps, classes, palette, marked)
    heights = [CELL * max(0.3, min(image.shape[0] / image.shape[1], 3.0)) for image in images]
    rows, columns = len(images), 1 + len(maps)
    width = max(CELL * columns, 2.5 * CELL)
    entries = legend_columns([str(patch.get_label()) for patch in patches], width)
    legend = 0.19 * math.ceil(len(patches) / entries) + 0.25
    size = (width, sum(heights) + 0.2 * rows + legend + 0.3)
    figure = Figure(figsize=size, layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False, height_ratios=heights)
    for row, image in enumerate(images):
        labels = {title: column[row] for title, column in maps.items()}
        for axis, (title, own) in zip(grid[row], [('image', None), *labels.items()]):
            axis.imshow(_paint(image, own, palette, opacity), interpolation='nearest')
            axis.set(xticks=[], yticks=[])
            if row == 0:
                axis.set_title(plain(title), fontsize=11)
            if own is not None and truth is not None and title != truth:
                valid = labels[truth] < len(classes)
                if valid.any():
                    right = (own == labels[truth])[valid].mean()
                    axis.set_xlabel(f'{100 * right:.0f} % right', fontsize=8, labelpad=2)
    figure.legend(
        handles=patches, loc='outside lower center', ncols=entries, fontsize=8, frameon=False
    )
    save_figure(figure, Path(path))
    return Path(path)


def _check_columns(images: Sequence[Any], maps: Mapping[str, Any], truth: str | None) -> None:
    missing = truth is not None and truth not in maps
    if missing or any(len(column) != len(images) for column in maps.values()):
        counts = {title: len(column) for title, column in maps.items()}
        wanted = '' if truth is None else f' and a column {truth!r}'
        raise ValueError(
            f'draw_sheet needs {len(images)} maps in every column{wanted}, got {counts}'
        )


def _paint(
    image: NDArray[np.uint8],
    labels: NDArray | None,
    palette: Sequence[Sequence[int]],
    opacity: float,
) -> NDArray[np.uint8]:
    """The image, or its labels in colour over it, small enough for a figure."""
    if labels is None:
        return shrink(image)
    colours = colour_labels(labels, palette)
    mixed = image * (1 - opacity) + colours * opacity if opacity < 1 else colours
    return shrink(mixed.astype(np.uint8))


def _legend_patches(
    maps: Mapping[str, Sequence[NDArray]],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    marked: Sequence[str],
) -> list[Patch]:
    """In the order of the classes; the largest ones where there are too many."""
    areas = np.zeros(len(classes), np.int64)
    void = False
    for labels in (labels for column in maps.values() for labels in column):
        inside = labels[(labels >= 0) & (labels < len(classes))]
        void |= inside.size < labels.size
        areas += np.bincount(inside.astype(np.int64), minlength=len(classes))
    used = [int(index) for index in np.argsort(-areas, kind='stable') if areas[index]]
    shown = used if len(used) <= LEGEND_ENTRIES else used[: LEGEND_ENTRIES - 1]
    patches = [
        Patch(
            color='#{:02x}{:02x}{:02x}'.format(*palette[index]),
            label=class_label(classes[index]) + (' *' if classes[index] in marked else ''),
        )
        for index in sorted(shown)
    ]
    if len(shown) < len(used):
        patches.append(Patch(color='none', label=f'and {len(used) - len(shown)} more'))
    if void:
        patches.append(Patch(color='black', label='no label'))
    return patches
