"""Pictures of a benchmark: time and memory over what is varied, shares of operators."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from infoclip_mmseg.experiments.timing.operators import GROUPS, OTHER
from infoclip_mmseg.experiments.timing.report import TITLES
from infoclip_mmseg.experiments.timing.results import MAIN_SECTION, MEASURED, Outcome

PANEL = (5.0, 3.6)
BAR = 0.55
"""Height of a bar and its gap, in inches."""
DPI = 130
FORMATS = ('png', 'svg')
LOG_FACTOR = 20
"""Values that span more than this are drawn on a logarithmic axis."""
AXES = {'classes': 'classes', 'image-size': 'image side in pixels'}


def draw_sweep(outcomes: Sequence[Outcome], name: str, folder: Path) -> list[Path]:
    """Draw time (left) and peak memory (right) over the values of a sweep.

    Args:
        outcomes: All outcomes; those of other sweeps are not drawn.
        name: Key of SWEEPS.
        folder: Where sweep_<name>.png and .svg go.

    Returns:
        The files; none where nothing was measured.
    """
    own = [o for o in outcomes if o.status == MEASURED and o.sweep and o.sweep[0] == name]
    if not own:
        return []
    figure = Figure((2 * PANEL[0], PANEL[1] + 0.5), dpi=DPI, layout='constrained')
    times, memories = figure.subplots(1, 2)
    for index, (label, line) in enumerate(_lines(own).items()):
        style = dict(color=f'C{index % 10}', marker='o', markersize=4, label=label)
        values = [o.sweep[1] for o in line if o.sweep]
        seconds = [sorted(o.seconds[MAIN_SECTION[o.part]]) for o in line]
        times.plot(values, [s[len(s) // 2] for s in seconds], **style)
        times.fill_between(
            values,
            [s[0] for s in seconds],
            [s[-1] for s in seconds],
            color=style['color'],
            alpha=0.2,
        )
        memories.plot(values, [o.peak / 1e9 for o in line], **style)
    every = [o.sweep[1] for o in own if o.sweep]
    for axes, title in ((times, 'seconds, median and extremes'), (memories, 'peak memory, GB')):
        _dress(axes, title, AXES[name], every)
    handles, labels = times.get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=2, frameon=False, fontsize=9)
    return _save(figure, folder, f'sweep_{name}')


def draw_operators(outcomes: Sequence[Outcome], folder: Path) -> list[Path]:
    """Draw the seconds by group of operators as bars; writes operators.png and .svg."""
    own = [o for o in outcomes if o.status == MEASURED and o.info.get('operators')]
    if not own:
        return []
    figure = Figure((2 * PANEL[0], BAR * len(own) + 1.8), dpi=DPI, layout='constrained')
    axes = figure.subplots()
    names = [f'{TITLES[o.part]}\n{_series(o)}' for o in own]
    left = [0.0] * len(own)
    for index, group in enumerate((*GROUPS, OTHER)):
        widths = [o.info['operators']['groups'].get(group, 0.0) for o in own]
        axes.barh(range(len(own)), widths, left=left, color=f'C{index}', label=group)
        left = [start + width for start, width in zip(left, widths)]
    axes.set_yticks(range(len(own)), names, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel('seconds in operators')
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside lower center', ncols=4, frameon=False, fontsize=9)
    return _save(figure, folder, 'operators')


def _series(outcome: Outcome) -> str:
    return f'{outcome.side}, {outcome.allocator} allocator'


def _lines(outcomes: Sequence[Outcome]) -> dict[str, list[Outcome]]:
    """Outcomes of each part and side, by the value of the sweep."""
    lines: dict[str, list[Outcome]] = {}
    for outcome in sorted(outcomes, key=lambda o: o.sweep[1] if o.sweep else 0):
        lines.setdefault(f'{TITLES[outcome.part]}: {_series(outcome)}', []).append(outcome)
    return dict(sorted(lines.items()))


def _dress(axes: Any, title: str, what: str, values: Sequence[int]) -> None:
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(what)
    if max(values) > LOG_FACTOR * min(values):
        axes.set_xscale('log')
        axes.set_yscale('log')
    else:
        axes.set_ylim(bottom=0)
    axes.grid(alpha=0.3, which='both')


def _save(figure: Figure, folder: Path, name: str) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f'{name}.{suffix}' for suffix in FORMATS]
    for path in paths:
        figure.savefig(path)
    return paths
