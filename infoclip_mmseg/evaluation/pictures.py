"""Pictures of predictions, for people to look at.

Legend: n images, h w pixels, T classes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray

VOID = (0, 0, 0)
LEGEND_COLUMNS = 4


def colour_labels(labels: NDArray, palette: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    """Label map (h, w) to colours (h, w, 3), 0..255; what has no class is black."""
    table = np.array([*palette, VOID], np.uint8)
    inside = (labels >= 0) & (labels < len(palette))
    return table[np.where(inside, labels, len(palette))]


def draw_sheet(
    path: Path | str,
    images: Sequence[NDArray[np.uint8]],
    maps: Mapping[str, Sequence[NDArray]],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    truth: str = 'ground truth',
    marked: Sequence[str] = (),
) -> Path:
    """One row an image: the image, then each label map; a legend below.

    Under each prediction stands the share of labelled pixels that are right.

    Args:
        path: PNG to write.
        images: n images (h, w, 3), RGB 0..255.
        maps: Title of a column to its n label maps (h, w).
        classes: T names.
        palette: T colours, 0..255.
        truth: Title of the column that is the truth.
        marked: Class names that get a star in the legend (unseen classes).

    Returns:
        The path.

    Raises:
        ValueError: There is no truth among the maps, or a column has not one map for each image.
    """
    if truth not in maps or any(len(column) != len(images) for column in maps.values()):
        counts = {title: len(column) for title, column in maps.items()}
        raise ValueError(
            f'draw_sheet needs {len(images)} maps in every column and a column {truth!r}, '
            f'got {counts}'
        )
    used = sorted({int(v) for column in maps.values() for m in column for v in np.unique(m)})
    used = [index for index in used if index < len(classes)]
    rows, columns = len(images), 1 + len(maps)
    legend = 0.19 * math.ceil(len(used) / LEGEND_COLUMNS) + 0.25
    figure = Figure(figsize=(2.1 * columns, 2.2 * rows + legend + 0.3), dpi=110)
    grid = figure.subplots(rows, columns, squeeze=False)
    for row, image in enumerate(images):
        cells = {'image': image, **{k: colour_labels(v[row], palette) for k, v in maps.items()}}
        valid = maps[truth][row] < len(classes)
        for axis, (title, cell) in zip(grid[row], cells.items()):
            axis.imshow(cell, interpolation='nearest')
            axis.set(xticks=[], yticks=[])
            if row == 0:
                axis.set_title(title, fontsize=11)
            if title not in ('image', truth):
                right = (maps[title][row] == maps[truth][row])[valid].mean()
                axis.set_xlabel(f'{100 * right:.0f} % right', fontsize=8, labelpad=2)
    patches = [
        Patch(
            color='#{:02x}{:02x}{:02x}'.format(*palette[index]),
            label=classes[index] + (' *' if classes[index] in marked else ''),
        )
        for index in used
    ]
    height = figure.get_figheight()
    figure.tight_layout(rect=(0, legend / height, 1, 1))
    figure.legend(
        handles=patches, loc='lower center', ncols=LEGEND_COLUMNS, fontsize=8, frameon=False
    )
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)
    return path
