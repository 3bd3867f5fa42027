"""Figures to files, and photos for figures."""

from __future__ import annotations

from pathlib import Path

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.text import Text
from numpy.typing import NDArray

from infoclip_mmseg.visualization.lettering import set_fonts

SUFFIXES = ('.png', '.pdf')
DPI = 150
MAX_SIDE = 640
"""Longer side of a photo within a figure, in pixels."""
# The same figure gives the same bytes.
_METADATA = {'.png': {'Software': None}, '.pdf': {'CreationDate': None}}


def figure_paths(out: Path) -> list[Path]:
    """The files of a figure: the one that is named, or PNG and PDF where no suffix is.

    Raises:
        ValueError: Another suffix.
    """
    if out.suffix.lower() in SUFFIXES:
        return [out]
    if out.suffix:
        raise ValueError(
            f'{out}: figures are written as .png or .pdf; a name without suffix gives both'
        )
    return [out.with_name(out.name + suffix) for suffix in SUFFIXES]


def save_figure(figure: Figure, out: Path) -> list[Path]:
    """Write a figure to the files of :func:`figure_paths`, and return them."""
    paths = figure_paths(out)
    for text in figure.findobj(Text):
        set_fonts(text)
    out.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({'pdf.fonttype': 42}):  # text of PDF files stays text
        for path in paths:
            figure.savefig(path, dpi=DPI, metadata=_METADATA[path.suffix.lower()])
    return paths


def shrink(image: NDArray[np.uint8], max_side: int = MAX_SIDE) -> NDArray[np.uint8]:
    """An image (h, w, 3) with its longer side at ``max_side`` pixels at most."""
    height, width = image.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
