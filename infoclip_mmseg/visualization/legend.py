"""The legend of overlays, figures and the page: names, colours and shares, the largest first.

Legend: h w pixels, N names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from infoclip_mmseg.visualization.lettering import fit, runs, text_width

MAX_ROWS = 8
PAPER, INK, FAINT = (255, 255, 255), (25, 25, 25), (110, 110, 110)


class Entry(NamedTuple):
    """A line of a legend: label, name, colour [r, g, b] of 0..255, share of all pixels 0..1."""

    label: int
    name: str
    colour: Sequence[int]
    share: float

    @property
    def code(self) -> str:
        """The colour as '#rrggbb'."""
        return '#{:02x}{:02x}{:02x}'.format(*self.colour)


def rank_entries(
    areas: NDArray, names: Sequence[str], palette: Sequence[Sequence[int]]
) -> list[Entry]:
    """Entries of N names with areas (N,), in pixels or points, and colours; largest first."""
    shares = areas / max(1, areas.sum())
    order = np.argsort(-areas, kind='stable').tolist()
    return [Entry(i, names[i], list(palette[i]), float(shares[i])) for i in order]


def entries_of(
    labels: NDArray, names: Sequence[str], palette: Sequence[Sequence[int]]
) -> list[Entry]:
    """Entries of the names that labels, of any shape, have; largest first."""
    areas = np.bincount(labels.ravel(), minlength=len(names))
    return [entry for entry in rank_entries(areas, names, palette) if entry.share]


def draw_legend(entries: Sequence[Entry], width: int) -> NDArray[np.uint8]:
    """Colours, names and shares in columns, (h, width, 3); what does not fit is counted.

    Drawn by Pillow, in a tenth of the time that Matplotlib takes.
    """
    size = max(13, min(40, width // 48))
    line, pad = round(size * 1.55), round(size * 0.6)
    columns = max(1, min(len(entries), (width - pad) // (14 * size)))
    fitting = len(entries) <= columns * MAX_ROWS
    shown = entries if fitting else entries[: columns * MAX_ROWS - 1]
    rest = entries[len(shown) :]
    rows = -(-(len(shown) + bool(rest)) // columns)
    cell = (width - pad) // columns
    canvas = Image.new('RGB', (width, rows * line + 2 * pad), PAPER)
    draw = ImageDraw.Draw(canvas)
    corners = [(pad + i // rows * cell, pad + i % rows * line) for i in range(rows * columns)]
    for corner, entry in zip(corners, shown):
        _draw_entry(draw, entry, corner, cell - pad, size)
    if rest:
        text = f'and {len(rest)} more, {100 * sum(e.share for e in rest):.1f} %'
        _draw_text(draw, corners[len(shown)], text, size, FAINT)
    return np.array(canvas)


def add_legend(figure: Figure, entries: Sequence[tuple[str, Any]]) -> None:
    """Texts and colours in columns below a figure of constrained layout, which grows by them."""
    columns = legend_columns([text for text, _ in entries], figure.get_figwidth())
    rows = -(-len(entries) // columns)
    figure.set_figheight(figure.get_figheight() + 0.19 * rows + 0.25)
    handles = [Patch(color=colour, label=text) for text, colour in entries]
    look: dict[str, Any] = dict(ncols=columns, fontsize=8, frameon=False)
    figure.legend(handles=handles, loc='outside lower center', **look)


def legend_columns(labels: Sequence[str], width: float, most: int = 6) -> int:
    """How many columns of a legend in 8 points fit into so many inches."""
    longest = max((len(label) for label in labels), default=0)
    return max(1, min(int(width // (0.068 * longest + 0.6)), most, len(labels)))


def _draw_entry(draw: Any, entry: Entry, corner: tuple[int, int], width: int, size: int) -> None:
    x, y = corner
    side, gap = round(size * 1.1), size // 2
    draw.rectangle((x, y, x + side, y + side), fill=tuple(entry.colour), outline=FAINT)
    share = f'{100 * entry.share:.1f} %' if entry.share >= 0.0005 else '< 0.1 %'
    name = fit(entry.name, size, width - side - 2 * gap - text_width(share, size))
    end = _draw_text(draw, (x + side + gap, y), name, size, INK)
    _draw_text(draw, (end + gap, y), share, size, FAINT)


def _draw_text(
    draw: Any, corner: tuple[float, float], text: str, size: int, colour: tuple[int, ...]
) -> float:
    """Draw a line of text on one baseline; returns its right end."""
    x, y = corner
    for font, part in runs(text, size):
        draw.text((x, y + size), part, colour, font, anchor='ls')
        x += font.getlength(part)
    return x
