"""Regions of an image, and their outlines as polygons with holes.

Legend: h w pixels of the image, n corners of a polygon; x to the right, y down, pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Corners = NDArray[np.int32]


class Region(NamedTuple):
    """A part of an image that has one name.

    ``label`` is the index of the name among the classes; ``mask`` (h, w) is bool; ``score`` 0..1.
    """

    label: int
    name: str
    mask: NDArray[np.bool_]
    score: float | None = None

    @property
    def area(self) -> int:
        """Pixels."""
        return int(self.mask.sum())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width, height; zeros for an empty mask."""
        x, y, width, height = cv2.boundingRect(self.mask.astype(np.uint8))
        return x, y, width, height


@dataclass(frozen=True)
class Regions:
    """All regions of an image: its name, its files' name without suffix, its height and width.

    Bytes of a file's name that are no text become escapes.
    """

    image: str
    stem: str
    size: tuple[int, int]
    regions: Sequence[Region]

    def __post_init__(self) -> None:
        text = self.image.encode('utf-8', 'backslashreplace').decode('utf-8')
        object.__setattr__(self, 'image', text)


class Polygon(NamedTuple):
    """An outline (n, 2), x and y of pixels that belong to it, and those around its holes."""

    outer: Corners
    holes: list[Corners]


def label_regions(
    labels: NDArray[Any], names: Sequence[str], scores: Sequence[float] | None = None
) -> list[Region]:
    """A region for each of the first names that a label map (h, w) holds; other labels are none."""
    present = [int(i) for i in np.unique(labels) if i < len(names)]
    return [
        Region(i, names[i], labels == i, None if scores is None else float(scores[i]))
        for i in present
    ]


def polygons(mask: NDArray[np.bool_]) -> list[Polygon]:
    """Outlines of the connected parts of a mask (h, w), each with its holes.

    Corners are centres of the pixels at the border, as OpenCV gives them. Filled with its edges
    and without the insides of its holes (``cv2.fillPoly`` of all corners together) a polygon is the
    part again, to the pixel.
    """
    found, tree = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if tree is None:
        return []
    outlines = [np.asarray(corners[:, 0], dtype=np.int32) for corners in found]
    parents = tree[0][:, 3].tolist()
    return [
        Polygon(outer, [hole for hole, parent in zip(outlines, parents) if parent == number])
        for number, outer in enumerate(outlines)
        if parents[number] < 0
    ]


def keyhole(polygon: Polygon) -> Corners:
    """One ring (n, 2) for formats without holes: each hole hangs on the ring by a cut.

    The cut runs to the nearest corner of the ring and back.
    """
    ring = polygon.outer
    for hole in sorted(polygon.holes, key=lambda corners: int(corners[:, 0].min())):
        distance = ((ring[:, None].astype(np.int64) - hole[None]) ** 2).sum(-1)
        at, start = np.unravel_index(int(distance.argmin()), distance.shape)
        there = np.concatenate([hole[start:], hole[: start + 1]])
        ring = np.concatenate([ring[: at + 1], there, ring[at:]])
    return ring


def rings(mask: NDArray[np.bool_]) -> list[Corners]:
    """:func:`keyhole` of the outlines of a mask that have an area: three corners or more."""
    found = [keyhole(polygon) for polygon in polygons(mask)]
    return [_widened(ring) if len(ring) < 3 else ring for ring in found]


def _widened(ring: Corners) -> Corners:
    """A single pixel, or a line of one pixel's width, as a ring of three corners."""
    return np.concatenate([ring, ring[-1:].repeat(3 - len(ring), axis=0)])
