"""Heat maps of how well places fit words: cosine cost volume against LPAM (paper, Figure 4).

Legend: n images, h w pixels, T words, H W grid of patches.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from infoclip_mmseg.visualization.lettering import plain
from infoclip_mmseg.visualization.overlay import fit_side

CELL = 1.75
"""Width of an image in inches."""
PHOTO_SIDE = 640
"""Longer side of an image in pixels."""
RANGE = (1, 99)
"""Percentiles of the values that get the ends of the colour scale."""


def draw_alignment(
    images: Sequence[NDArray[np.uint8]],
    maps: Mapping[str, Sequence[NDArray[np.float32]]],
    names: Sequence[str],
    scale: str = 'row',
) -> Figure:
    """A block of rows an image: the image, then a row for each kind of map, a column a word.

    Args:
        images: n images (h, w, 3), RGB 0..255.
        maps: Title of a row to its n maps (T, H, W).
        names: T words.
        scale: 'row': the words of a row share a scale, shown at its right, so that they compare;
            'map': each map has a scale of its own, written below it.

    Raises:
        ValueError: Counts do not fit, or the scale is unknown.
    """
    if scale not in ('row', 'map'):
        raise ValueError(f"scale must be 'row' or 'map', got {scale!r}")
    for title, column in maps.items():
        counts = [len(m) for m in column]
        if counts != [len(names)] * len(images):
            raise ValueError(
                f'row {title!r} needs maps of {len(names)} words for each of {len(images)} images, '
                f'got {counts}'
            )
    aspects = [max(0.25, min(image.shape[0] / image.shape[1], 4.0)) for image in images]
    heights = [CELL * aspect for aspect in aspects for _ in maps]
    gap = 0.14 if scale == 'row' else 0.3
    width = CELL * (1 + len(names)) + 0.9
    picture = Figure((width, sum(heights) + gap * len(heights) + 0.3), layout='constrained')
    grid = picture.add_gridspec(len(heights), 1 + len(names), height_ratios=heights)
    for index, image in enumerate(images):
        first, small = index * len(maps), fit_side(image, 0, PHOTO_SIDE)
        axis = picture.add_subplot(grid[first : first + len(maps), 0])
        axis.imshow(small)
        axis.set(xticks=[], yticks=[])
        grey = small.mean(axis=2).astype(np.uint8)
        for line, (title, column) in enumerate(maps.items()):
            cells = [picture.add_subplot(grid[first + line, 1 + t]) for t in range(len(names))]
            _draw_row(picture, cells, grey, column[index], scale)
            cells[0].set_ylabel('\n'.join(plain(line) for line in title.splitlines()), fontsize=8)
            if first + line == 0:
                axis.set_title('image', fontsize=10)
                for cell, name in zip(cells, names):
                    cell.set_title(plain(name, 22), fontsize=10)
    return picture


def limits(values: NDArray[np.float32]) -> tuple[float, float]:
    """Ends of a colour scale: ``RANGE`` percentiles, never equal."""
    low, high = (float(v) for v in np.percentile(values, RANGE))
    return (low, high) if high > low else (low - 1e-6, low + 1e-6)


def _draw_row(
    picture: Figure, cells: Sequence[Any], grey: NDArray, maps: NDArray[np.float32], scale: str
) -> None:
    height, width = grey.shape
    for cell, values in zip(cells, maps):
        low, high = limits(maps if scale == 'row' else values)
        cell.imshow(grey, cmap='gray', vmin=0, vmax=255)
        drawn = cell.imshow(
            values,
            cmap='turbo',
            vmin=low,
            vmax=high,
            alpha=0.62,
            interpolation='bilinear',
            extent=(-0.5, width - 0.5, height - 0.5, -0.5),
        )
        cell.set(xticks=[], yticks=[])
        if scale == 'map':
            cell.set_xlabel(f'{low:.2f} to {high:.2f}', fontsize=7, labelpad=2)
    if scale == 'row':
        bar = picture.colorbar(drawn, ax=cells, fraction=0.05, aspect=14, pad=0.01, shrink=0.85)
        bar.ax.tick_params(labelsize=7)
