"""Long images in tiles (pure functions).

The model sees every image as a square. A panorama would be squeezed, so it is cut into tiles that
overlap; each pixel is taken from the tile in which it lies furthest from the border.

Legend: h w pixels.
"""

from __future__ import annotations

import math
from typing import NamedTuple

MAX_ASPECT = 2.0
"""Long side over short side beyond which an image is cut."""
_OVERLAP = 0.25


class Tile(NamedTuple):
    """A part of an image: rows and columns that the model sees, and those that are taken from it.

    Attributes:
        seen: (top, bottom, left, right).
        kept: The same of what is kept; tiles of an image keep each pixel once.
    """

    seen: tuple[int, int, int, int]
    kept: tuple[int, int, int, int]


def make_tiles(height: int, width: int, max_aspect: float = MAX_ASPECT) -> list[Tile]:
    """Tiles of an image; one that is the whole image where it is not long.

    Args:
        height, width: Size in pixels.
        max_aspect: Long side over short side, above which the image is cut into squares that
            overlap by a quarter or more.
    """
    short, long = sorted((height, width))
    if long <= max_aspect * short:
        whole = (0, height, 0, width)
        return [Tile(whole, whole)]
    tiles = []
    for seen, kept in _cut(long, short):
        if width == long:
            tiles.append(Tile((0, height, *seen), (0, height, *kept)))
        else:
            tiles.append(Tile((*seen, 0, width), (*kept, 0, width)))
    return tiles


def _cut(length: int, side: int) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Seen and kept (start, end) of evenly spread tiles of ``side`` over ``length``."""
    count = math.ceil((length - side) / max(1, int(side * (1 - _OVERLAP)))) + 1
    starts = [round(i * (length - side) / (count - 1)) for i in range(count)]
    seams = [(starts[i] + side + starts[i + 1]) // 2 for i in range(count - 1)]
    bounds = [0, *seams, length]
    return [((s, s + side), (bounds[i], bounds[i + 1])) for i, s in enumerate(starts)]
