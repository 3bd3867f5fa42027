"""Pictures: time and memory over what is varied, shares of operators."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from infoclip_mmseg.experiments.timing.report import SUBJECTS, title
from infoclip_mmseg.experiments.timing.runs import Measurement

PANEL = (5.0, 3.6)
BAR = 0.55
"""Height of a bar and its gap, in inches."""
LOG_FACTOR = 20
"""Values that span more than this are drawn on a logarithmic axis."""
AXES = {'classes': 'classes', 'image-size': 'image side in pixels'}


def draw_sweep(measurements: Sequence[Measurement], name: str, folder: Path) -> list[Path]:
    """Draw time (left) and peak memory (right) over the values of a sweep.

    Args:
        measurements: All of them; those of other sweeps are not drawn.
        name: Key of AXES.
        folder: Where sweep_<name>.png and .svg go.

    Returns:
        The files; none where nothing was measured.
    """
    rows = [
        (f'{SUBJECTS[one.part][0]}: {_side(one)}', one.point[name], seconds, one.peak / 1e9)
        for one in measurements
        if name in one.point
        for seconds in one.seconds.get(SUBJECTS[one.part][1], ())
    ]
    if not rows:
        return []
    table = pd.DataFrame(rows, columns=['line', 'value', 'seconds', 'GB'])
    groups = table.groupby(['line', 'value'])
    spread, peaks = groups['seconds'].agg(['median', 'min', 'max']), groups['GB'].max()
    figure = Figure((2 * PANEL[0], PANEL[1] + 0.5), dpi=130, layout='constrained')
    times, memories = figure.subplots(1, 2)
    for index, label in enumerate(table['line'].unique()):
        style: dict[str, Any] = dict(color=f'C{index % 10}', marker='o', markersize=4, label=label)
        line = spread.loc[label]
        times.plot(line.index, line['median'], **style)
        times.fill_between(line.index, line['min'], line['max'], color=style['color'], alpha=0.2)
        memories.plot(line.index, peaks.loc[label], **style)
    for axes, heading in ((times, 'seconds, median and extremes'), (memories, 'peak memory, GB')):
        axes.set_title(heading, fontsize=10)
        axes.set_xlabel(AXES[name])
        if table['value'].max() > LOG_FACTOR * table['value'].min():
            axes.set_xscale('log')
            axes.set_yscale('log')
        else:
            axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3, which='both')
    return _save(figure, times, 2, folder / f'sweep_{name}')


def draw_operators(measurements: Sequence[Measurement], folder: Path) -> list[Path]:
    """Draw the seconds by group of operators as bars; writes operators.png and .svg."""
    profiled = [one for one in measurements if 'operators' in one.info]
    if not profiled:
        return []
    names = [f'{title(one)}\n{_side(one)}' for one in profiled]
    groups = [one.info['operators']['groups'] for one in profiled]
    table = pd.DataFrame(groups, index=names).groupby(level=0, sort=False).mean()
    figure = Figure((2 * PANEL[0], BAR * len(table) + 1.8), dpi=130, layout='constrained')
    axes = figure.subplots()
    table.plot.barh(stacked=True, ax=axes, legend=False, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel('seconds in operators')
    return _save(figure, axes, 4, folder / 'operators')


def _side(one: Measurement) -> str:
    return f'{one.side}, {one.allocator} allocator'


def _save(figure: Figure, axes: Any, columns: int, stem: Path) -> list[Path]:
    handles, labels = axes.get_legend_handles_labels()
    place: dict[str, Any] = dict(loc='outside lower center', ncols=columns, frameon=False)
    figure.legend(handles, labels, fontsize=9, **place)
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_suffix(suffix) for suffix in ('.png', '.svg')]
    for path in paths:
        figure.savefig(path)
    return paths
