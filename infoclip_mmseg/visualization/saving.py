"""Figures to files, and texts that figures can show."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, fontManager, get_font
from matplotlib.text import Text
from numpy.typing import NDArray

from infoclip_mmseg.visualization.fonts import font_and_text

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
        _choose_font(text)
    out.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({'pdf.fonttype': 42}):  # text of PDF files stays text
        for path in paths:
            figure.savefig(path, dpi=DPI, metadata=_METADATA[path.suffix.lower()])
    return paths


def legend_columns(labels: Sequence[str], width: float, most: int = 6) -> int:
    """How many columns of a legend in 8 points fit into so many inches."""
    longest = max((len(label) for label in labels), default=0)
    return max(1, min(int(width // (0.068 * longest + 0.6)), most, len(labels)))


def plain(text: str, length: int = 28) -> str:
    """A text that Matplotlib takes as it is (no formulas), cut to ``length`` characters."""
    text = ' '.join(text.split())
    if len(text) > length:
        text = text[: length - 3].rstrip() + '...'
    return text.replace('$', r'\$')


def class_label(name: str, length: int = 28) -> str:
    """The first of a class's synonyms as a :func:`plain` text."""
    return plain(name.split(',')[0], length)


def shrink(image: NDArray[np.uint8], max_side: int = MAX_SIDE) -> NDArray[np.uint8]:
    """An image (h, w, 3) with its longer side at ``max_side`` pixels at most."""
    height, width = image.shape[:2]
    scale = max_side / max(height, width)
    if scale >= 1:
        return image
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)


def _choose_font(text: Any) -> None:
    """A font that has the letters, if the usual one lacks some; else escapes in their place."""
    own = text.get_text()
    known = get_font(fontManager.findfont(text.get_fontproperties())).get_charmap()
    if all(ord(letter) in known or letter == '\n' for letter in own):
        return
    lines = own.split('\n')
    font, shown = font_and_text(' '.join(lines), 16)
    if shown == ' '.join(lines) and isinstance(font.path, str):
        text.set_fontproperties(FontProperties(fname=font.path, size=text.get_fontsize()))
    else:
        text.set_text('\n'.join(font_and_text(line, 16)[1] for line in lines))
