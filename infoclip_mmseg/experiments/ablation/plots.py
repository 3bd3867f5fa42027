"""Pictures of an ablation: figures by run with every seed visible, and training curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from infoclip_mmseg.experiments.ablation.tables import Cell, Record

PANEL = (3.6, 0.42, 1.2)
"""Width of a panel of figures, height of a row and of what stands above and below, in inches."""
CURVE_PANEL = (4.8, 3.2)
CURVE_COLUMNS = 3
DPI = 130
DOT_SPREAD = 0.22
"""Seeds lie between so much above and below the middle of their row, whose height is 1."""

Curve = dict[int, float]


def draw_table(records: Sequence[Record], cells: Sequence[Cell], path: Path) -> None:
    """Draw a panel for each test (down) and figure (across): a dot a seed, a bar for the mean.

    Args:
        records: All figures.
        cells: What :func:`~infoclip_mmseg.experiments.ablation.tables.summarise` made of them.
        path: PNG file to write.
    """
    runs = list(dict.fromkeys(cell.run for cell in cells))
    tests = list(dict.fromkeys(cell.test for cell in cells))
    figures = list(dict.fromkeys(cell.figure for cell in cells))
    names = 0.09 * max(map(len, runs))
    height = len(tests) * (PANEL[1] * len(runs) + PANEL[2])
    picture = Figure((PANEL[0] * len(figures) + names, height), dpi=DPI, layout='constrained')
    axes = picture.subplots(len(tests), len(figures), sharey=True, squeeze=False)
    for line, test in zip(axes, tests):
        for ax, figure in zip(line, figures):
            own = [c for c in cells if (c.test, c.figure) == (test, figure)]
            dots = [r for r in records if (r.test, r.figure) == (test, figure)]
            _draw_panel(ax, runs, own, dots)
            ax.set_title(f'{figure} · {test}' if len(tests) > 1 else figure, fontsize=10)
    picture.savefig(path)


def draw_curves(
    curves: Mapping[str, Sequence[Sequence[Mapping[str, Any]]]], runs: Sequence[str], path: Path
) -> None:
    """Draw a panel for each loss: thin lines for seeds, a thick one for their mean, by run.

    Args:
        curves: For each run the logged scalars of its trainings, each a dict with `step`.
        runs: Names of all runs, whose order gives the colours as in :func:`draw_table`.
        path: PNG file to write. Nothing is written where no loss was logged.
    """
    rows = (row for trainings in curves.values() for training in trainings for row in training)
    losses = sorted({key for row in rows for key in row if 'loss' in key}, key=_losses_first)
    if not losses:
        return
    columns = min(math.ceil(math.sqrt(len(losses))), CURVE_COLUMNS)
    lines = math.ceil(len(losses) / columns)
    size = (CURVE_PANEL[0] * columns, CURVE_PANEL[1] * lines + 0.4)
    picture = Figure(size, dpi=DPI, layout='constrained')
    axes = picture.subplots(lines, columns, squeeze=False).ravel()
    for ax, loss in zip(axes, losses):
        for index, run in enumerate(runs):
            singles = [loss_curve(training, loss) for training in curves.get(run, ())]
            _draw_run(ax, [single for single in singles if single], run, f'C{index % 10}')
        ax.set_title(loss, fontsize=10)
        ax.set_xlabel('iteration')
        ax.grid(alpha=0.3)
    for ax in axes[len(losses) :]:
        ax.axis('off')
    handles, labels = axes[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc='outside lower center', ncols=4, frameon=False, fontsize=9)
    picture.savefig(path)


def loss_curve(training: Sequence[Mapping[str, Any]], name: str) -> Curve:
    """One scalar by step, where it was logged and finite."""
    points = {int(row['step']): float(row[name]) for row in training if name in row}
    return {step: value for step, value in points.items() if math.isfinite(value)}


def mean_curve(curves: Sequence[Curve]) -> Curve:
    """Mean by step over the curves that all hold a step; other steps are left out."""
    common = set(curves[0]).intersection(*curves[1:]) if curves else set()
    return {step: sum(c[step] for c in curves) / len(curves) for step in sorted(common)}


def _losses_first(name: str) -> tuple[bool, str]:
    return name != 'loss', name


def _draw_panel(
    ax: Any, runs: Sequence[str], cells: Sequence[Cell], dots: Sequence[Record]
) -> None:
    for row, run in enumerate(runs):
        colour = f'C{row % 10}'
        values = [dot.value for dot in dots if dot.run == run and math.isfinite(dot.value)]
        step = 2 * DOT_SPREAD / max(len(values) - 1, 1)
        offsets = [(index - (len(values) - 1) / 2) * step for index in range(len(values))]
        places = [row + offset for offset in offsets]
        ax.scatter(values, places, s=18, color=colour, alpha=0.75, linewidths=0, zorder=3)
        mean = next(cell.values.mean for cell in cells if cell.run == run)
        if math.isfinite(mean):
            ax.plot([mean, mean], [row - 0.36, row + 0.36], color=colour, linewidth=2.5, zorder=2)
    ax.set_yticks(range(len(runs)), runs)
    ax.set_ylim(len(runs) - 0.4, -0.6)
    ax.margins(x=0.08)
    ax.grid(axis='x', alpha=0.3)


def _draw_run(ax: Any, singles: Sequence[Curve], run: str, colour: str) -> None:
    for single in singles if len(singles) > 1 else ():
        ax.plot(list(single), list(single.values()), color=colour, linewidth=0.6, alpha=0.35)
    mean = mean_curve(singles)
    if mean:
        ax.plot(list(mean), list(mean.values()), color=colour, linewidth=1.8, label=run)
