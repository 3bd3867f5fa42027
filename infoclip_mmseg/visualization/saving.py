"""Figures to files."""

from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.text import Text

from infoclip_mmseg.visualization.lettering import set_fonts

SUFFIXES = ('.png', '.pdf')
DPI = 150
# The same figure gives the same bytes.
_METADATA = {'.png': {'Software': None}, '.pdf': {'CreationDate': None}}


def figure_paths(out: Path) -> list[Path]:
    """The files of a figure: the one that is named, or PNG and PDF where no suffix is."""
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
