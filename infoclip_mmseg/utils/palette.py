"""Colours of classes."""

from __future__ import annotations

import colorsys
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

VOID = (0, 0, 0)
"""Colour of what has no class."""


def make_palette(num_classes: int) -> list[list[int]]:
    """Distinct colours [r, g, b], 0..255; colour i does not depend on ``num_classes``."""
    golden, palette = 0.618033988749895, []
    for index in range(num_classes):
        saturation, value = (0.85, 0.6, 0.95)[index % 3], (0.95, 0.75, 0.55)[index // 3 % 3]
        red, green, blue = colorsys.hsv_to_rgb(index * golden % 1, saturation, value)
        palette.append([round(255 * c) for c in (red, green, blue)])
    return palette


def colour_labels(labels: NDArray, palette: Sequence[Sequence[int]]) -> NDArray[np.uint8]:
    """Label map (h, w) to colours (h, w, 3), 0..255; what has no class is black."""
    table = np.array([*palette, VOID], np.uint8)
    inside = (labels >= 0) & (labels < len(palette))
    return table[np.where(inside, labels, len(palette))]
