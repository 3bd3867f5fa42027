"""Pictures of an ablation: figures by run with every seed visible, and training curves."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

PANEL = (3.6, 0.42, 1.2)
"""Width of a panel of figures, height of a row and of what stands above and below, in inches."""
CURVE_PANEL = (4.8, 3.2)
CURVE_COLUMNS = 3
DPI = 130
DOT_SPREAD = 0.22
"""Seeds lie between so much above and below the middle of their row, whose height is 1."""

Scalars = Sequence[Mapping[str, Any]]


def draw_table(results: pd.DataFrame, summary: pd.DataFrame, path: Path) -> None:
    """Draw a panel for each test (down) and figure (across): a dot a seed, a bar for the mean.

    Args:
        results: See :func:`~infoclip_mmseg.experiments.ablation.tables.make_results`.
        summary: See :func:`~infoclip_mmseg.experiments.ablation.tables.summarise`.
        path: PNG file to write.
    """
    runs, tests, figures = (list(summary[name].unique()) for name in ('run', 'test', 'figure'))
    names = 0.09 * max(map(len, runs))
    height = len(tests) * (PANEL[1] * len(runs) + PANEL[2])
    picture = Figure((PANEL[0] * len(figures) + names, height), dpi=DPI, layout='constrained')
    axes = picture.subplots(len(tests), len(figures), sharey=True, squeeze=False)
    finite = results[np.isfinite(results['value'])]
    for line, test in zip(axes, tests):
        for ax, figure in zip(line, figures):
            values, means = (
                table[(table['test'] == test) & (table['figure'] == figure)].set_index('run')
                for table in (finite, summary)
            )
            for row, run in enumerate(runs):
                _draw_row(ax, row, values.loc[values.index == run, 'value'], means['mean'][run])
            ax.set_yticks(range(len(runs)), runs)
            ax.set_ylim(len(runs) - 0.4, -0.6)
            ax.margins(x=0.08)
            ax.grid(axis='x', alpha=0.3)
            ax.set_title(f'{figure} · {test}' if len(tests) > 1 else figure, fontsize=10)
    picture.savefig(path)


def draw_curves(curves: Mapping[str, Sequence[Scalars]], runs: Sequence[str], path: Path) -> None:
    """Draw a panel for each loss: thin lines for seeds, a thick one for their mean, by run.

    Args:
        curves: For each run the logged scalars of its trainings, each a dict with `step`.
        runs: Names of all runs, whose order gives the colours as in :func:`draw_table`.
        path: PNG file to write. Nothing is written where no loss was logged.
    """
    rows = (row for trainings in curves.values() for training in trainings for row in training)
    losses = sorted({key for row in rows for key in row if 'loss' in key})
    losses.sort(key='loss'.__ne__)
    if not losses:
        return
    columns = min(math.ceil(math.sqrt(len(losses))), CURVE_COLUMNS)
    lines = math.ceil(len(losses) / columns)
    size = (CURVE_PANEL[0] * columns, CURVE_PANEL[1] * lines + 0.4)
    picture = Figure(size, dpi=DPI, layout='constrained')
    axes = picture.subplots(lines, columns, squeeze=False).ravel()
    for ax, loss in zip(axes, losses):
        for index, run in enumerate(runs):
            _draw_run(ax, loss_curves(curves.get(run, ()), loss), run, f'C{index % 10}')
        ax.set_title(loss, fontsize=10)
        ax.set_xlabel('iteration')
        ax.grid(alpha=0.3)
    for ax in axes[len(losses) :]:
        ax.axis('off')
    handles, labels = axes[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc='outside lower center', ncols=4, frameon=False, fontsize=9)
    picture.savefig(path)


def loss_curves(trainings: Sequence[Scalars], loss: str) -> pd.DataFrame:
    """A loss by step (rows) and training (columns), NaN where it was not logged or not finite."""
    logged = [{row['step']: row[loss] for row in training if loss in row} for training in trainings]
    table = pd.DataFrame(dict(enumerate(logged)), dtype=float).sort_index()
    return table.where(np.isfinite(table)).dropna(axis=1, how='all')


def mean_curve(curves: pd.DataFrame) -> pd.Series:
    """Mean by step over the curves that all hold a step; other steps are left out."""
    return curves.mean(axis=1, skipna=False).dropna()


def _draw_row(ax: Any, row: int, values: pd.Series, mean: float) -> None:
    colour, count = f'C{row % 10}', len(values)
    offsets = np.linspace(-DOT_SPREAD, DOT_SPREAD, count) if count > 1 else np.zeros(count)
    ax.scatter(values, row + offsets, s=18, color=colour, alpha=0.75, linewidths=0, zorder=3)
    if math.isfinite(mean):
        ax.plot([mean, mean], [row - 0.36, row + 0.36], color=colour, linewidth=2.5, zorder=2)


def _draw_run(ax: Any, curves: pd.DataFrame, run: str, colour: str) -> None:
    for name in curves if len(curves.columns) > 1 else ():
        ax.plot(curves[name].dropna(), color=colour, linewidth=0.6, alpha=0.35)
    mean = mean_curve(curves)
    if len(mean):
        ax.plot(mean, color=colour, linewidth=1.8, label=run)
