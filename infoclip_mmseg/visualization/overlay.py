"""An image under the colours of its labels, with a legend.

Legend: h w pixels, N names.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from infoclip_mmseg.utils.palette import colour_labels
from infoclip_mmseg.visualization.legend import draw_legend, rank_entries

RGB = NDArray[np.uint8]
SIDES = (640, 4096)
"""Longer side of an overlay in pixels: smaller images are enlarged, larger ones reduced."""


def blend(
    image: RGB, labels: NDArray, palette: Sequence[Sequence[int]], opacity: float = 0.5
) -> RGB:
    """Colours of the labels over an image, without a legend.

    Args:
        image: RGB (h, w, 3), 0..255.
        labels: (h, w), indices into the palette.
        palette: N colours [r, g, b], 0..255.
        opacity: 0 shows the image, 1 the colours only.
    """
    colours = colour_labels(labels, palette)
    return np.asarray(cv2.addWeighted(image, 1 - opacity, colours, opacity, 0), np.uint8)


def draw_overlay(
    image: RGB,
    labels: NDArray,
    names: Sequence[str],
    palette: Sequence[Sequence[int]],
    opacity: float = 0.5,
) -> RGB:
    """An image with its labels in colour and, below it, a legend of the names that it has.

    Args:
        image: RGB (h, w, 3), 0..255.
        labels: (h, w), 0..N-1.
        names: N names.
        palette: N colours [r, g, b], 0..255.
        opacity: See :func:`blend`.

    Returns:
        RGB (h', w', 3), 0..255, its longer side within ``SIDES`` before the legend is added.
    """
    image, labels = _fit(image, labels)
    picture = _outline(blend(image, labels, palette, opacity), labels, palette)
    areas = np.bincount(labels.ravel(), minlength=len(names))
    entries = [entry for entry in rank_entries(areas, names, palette) if entry.share]
    return np.concatenate([picture, draw_legend(entries, picture.shape[1])])


def _fit(image: RGB, labels: NDArray) -> tuple[RGB, NDArray]:
    """Bring the longer side into ``SIDES``."""
    height, width = labels.shape
    side = max(height, width)
    scale = max(SIDES[0], min(side, SIDES[1])) / side
    if scale == 1:
        return image, labels
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    labels = cv2.resize(labels.astype(np.uint16), size, interpolation=cv2.INTER_NEAREST)
    return np.asarray(cv2.resize(image, size, interpolation=how), np.uint8), labels


def _outline(picture: RGB, labels: NDArray, palette: Sequence[Sequence[int]]) -> RGB:
    """Darker lines where labels change."""
    edge = np.zeros(labels.shape, bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    out = picture.copy()
    out[edge] = (colour_labels(labels[edge][None], palette)[0] * 0.6).astype(np.uint8)
    return out
