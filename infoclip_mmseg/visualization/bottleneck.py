"""Bars of a bottleneck analysis."""

from __future__ import annotations

from collections.abc import Mapping

from matplotlib.figure import Figure

from infoclip_mmseg.visualization.lettering import plain

COLOURS = ('#8c8c8c', '#4c72b0', '#dd8452')


def draw_bottleneck(figures: Mapping[str, Mapping[str, float]], title: str = '') -> Figure:
    """A group of bars for each figure of merit, in percent, a bar for each row."""
    rows = list(figures)
    names, width = list(figures[rows[0]]), 0.8 / len(rows)
    picture = Figure((3 + 1.2 * len(names), 3.2), layout='constrained')
    axis = picture.subplots()
    for index, (row, colour) in enumerate(zip(rows, COLOURS)):
        places = [place + (index - (len(rows) - 1) / 2) * width for place in range(len(names))]
        bars = axis.bar(
            places, [figures[row][name] for name in names], 0.92 * width, color=colour, label=row
        )
        axis.bar_label(bars, fmt='%.1f', fontsize=8, padding=1)
    axis.set_xticks(range(len(names)), names)
    axis.set_ylim(0, 118)
    axis.set_ylabel('%')
    axis.spines[['top', 'right']].set_visible(False)
    axis.legend(frameon=False, fontsize=8, loc='upper left', ncols=len(rows))
    axis.set_title(plain(title, 60), fontsize=9)
    return picture
