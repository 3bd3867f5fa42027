"""An image under the colours of its labels, with a legend.

Legend: h w pixels, N names.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from infoclip_mmseg.utils.palette import colour_labels
from infoclip_mmseg.visualization.legend import draw_legend, entries_of

RGB = NDArray[np.uint8]
SIDES = (640, 4096)
"""Longer side of an overlay in pixels: smaller images are enlarged, larger ones reduced."""
PHOTO_SIDE = 640
"""Longer side of a photo within a figure, in pixels."""


def blend(
    image: RGB, labels: NDArray, palette: Sequence[Sequence[int]], opacity: float = 0.5
) -> RGB:
    """Colours of the labels (h, w) over an RGB image (h, w, 3), 0..255, without a legend.

    ``palette`` holds N colours [r, g, b], 0..255; opacity 0 shows the image, 1 the colours only.
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

    The image is RGB (h, w, 3), 0..255, the labels are (h, w), 0..N-1; the rest as in :func:`blend`.
    The result is RGB (h', w', 3), its longer side within ``SIDES`` before the legend is added.
    """
    image = fit_side(image, *SIDES)
    labels = fit_side(labels.astype(np.uint16), *SIDES, exact=True)
    picture = outline(blend(image, labels, palette, opacity), labels, palette)
    entries = entries_of(labels, names, palette)
    return np.concatenate([picture, draw_legend(entries, picture.shape[1])])


def fit_side(image: NDArray, least: int, most: int, exact: bool = False) -> NDArray:
    """An image (h, w) or (h, w, 3) with its longer side within limits; ``exact`` for labels."""
    height, width = image.shape[:2]
    scale = min(max(height, width, least), most) / max(height, width)
    if scale == 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    how = cv2.INTER_NEAREST if exact else how
    return np.asarray(cv2.resize(image, size, interpolation=how), image.dtype)


def outline(picture: RGB, labels: NDArray, palette: Sequence[Sequence[int]]) -> RGB:
    """A picture (h, w, 3) with darker lines of the colours where labels (h, w) change."""
    edge = np.zeros(labels.shape, bool)
    edge[1:] |= labels[1:] != labels[:-1]
    edge[:, 1:] |= labels[:, 1:] != labels[:, :-1]
    out = picture.copy()
    out[edge] = (colour_labels(labels[edge][None], palette)[0] * 0.6).astype(np.uint8)
    return out
