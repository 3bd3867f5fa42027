"""Pictures of predictions, for people to look at.

Legend: n images, h w pixels, T classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from infoclip_mmseg.utils.palette import colour_labels
from infoclip_mmseg.visualization.legend import add_legend, rank_entries
from infoclip_mmseg.visualization.lettering import class_label, plain
from infoclip_mmseg.visualization.saving import save_figure, shrink

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
    heights = [CELL * max(0.3, min(image.shape[0] / image.shape[1], 3.0)) for image in images]
    rows, columns = len(images), 1 + len(maps)
    size = (max(CELL * columns, 2.5 * CELL), sum(heights) + 0.2 * rows + 0.3)
    figure = Figure(figsize=size, layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False, height_ratios=heights)
    for row, image in enumerate(images):
        labels = {title: column[row] for title, column in maps.items()}
        for axis, (title, shown) in zip(grid[row], [('image', None), *labels.items()]):
            axis.imshow(_paint(image, shown, palette, opacity), interpolation='nearest')
            axis.set(xticks=[], yticks=[])
            if row == 0:
                axis.set_title(plain(title), fontsize=11)
            if shown is not None and truth is not None and title != truth:
                share = _share_right(shown, labels[truth], len(classes))
                axis.set_xlabel(share, fontsize=8, labelpad=2)
    add_legend(figure, _legend_entries(maps, classes, palette, marked))
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


def _share_right(labels: NDArray, truth: NDArray, num_classes: int) -> str:
    """Share of labelled pixels that are right; empty where none is labelled."""
    valid = truth < num_classes
    return f'{100 * (labels == truth)[valid].mean():.0f} % right' if valid.any() else ''


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


def _legend_entries(
    maps: Mapping[str, Sequence[NDArray]],
    classes: Sequence[str],
    palette: Sequence[Sequence[int]],
    marked: Sequence[str],
) -> list[tuple[str, str]]:
    """In the order of the classes; the largest ones where there are too many."""
    labels = np.concatenate([labels.ravel() for column in maps.values() for labels in column])
    inside = labels[(labels >= 0) & (labels < len(classes))].astype(np.int64)
    areas = np.bincount(inside, minlength=len(classes))
    ranked = [entry for entry in rank_entries(areas, classes, palette) if entry.share]
    shown = ranked if len(ranked) <= LEGEND_ENTRIES else ranked[: LEGEND_ENTRIES - 1]
    entries = [
        (
            class_label(entry.name) + (' *' if entry.name in marked else ''),
            '#{:02x}{:02x}{:02x}'.format(*entry.colour),
        )
        for entry in sorted(shown)
    ]
    if len(shown) < len(ranked):
        entries.append((f'and {len(ranked) - len(shown)} more', 'none'))
    if inside.size < labels.size:
        entries.append(('no label', 'black'))
    return entries
