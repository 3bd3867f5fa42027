"""Gathers what the jobs of an ablation gave and writes tables and pictures of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from infoclip_mmseg.experiments.ablation.jobs import TRAINING, Job
from infoclip_mmseg.experiments.ablation.spec import Ablation
from infoclip_mmseg.experiments.ablation.state import Scalars, read_scalars
from infoclip_mmseg.experiments.ablation.tables import make_results, summarise, write_tables

PANEL = (3.6, 0.42, 1.2)
"""Width of a panel of figures, height of a row and of what stands above and below, in inches."""
CURVE_PANEL = (4.8, 3.2)
CURVE_COLUMNS = 3
DOT_SPREAD = 0.22
"""Seeds lie between so much above and below the middle of their row, whose height is 1."""


def write_outputs(ablation: Ablation, jobs: Sequence[Job]) -> list[str]:
    """Write tables and pictures of what there is into the working folder.

    Returns:
        What is missing from them for another reason than that it was not run: a line for each part
        that was run with another config and for each figure that a test did not give.
    """
    results, training, curves, problems = collect(jobs, ablation.figures)
    expected = {run.name: len(ablation.seeds) if run.train else 1 for run in ablation.runs}
    tests, folder = [test.name for test in ablation.tests], ablation.work_dir
    summary = summarise(results, expected, tests, ablation.figures, ablation.baseline)
    write_tables(folder, results, summary, ablation.baseline, training)
    draw_table(results, summary, folder / 'table.png')
    draw_curves(curves, list(expected), folder / 'curves.png')
    return problems


def collect(
    jobs: Sequence[Job], figures: Sequence[str]
) -> tuple[pd.DataFrame, list[dict[str, Any]], dict[str, list[list[Scalars]]], list[str]]:
    """What evaluations and trainings with the jobs' present configs gave.

    Returns:
        The figures, see :func:`~infoclip_mmseg.experiments.ablation.tables.make_results`; a row for
        each finished training; by run, the scalars of each training, also of one that is not
        finished; and the problems.
    """
    values, rows, problems = [], [], []
    curves: dict[str, list[list[Scalars]]] = {}
    for job in jobs:
        result, run = job.read_result(), job.run.name
        changed = job.changed(result)
        problems += [f'{job.label}: {part} left out, its config changed' for part in changed]
        if not result or TRAINING in changed:
            continue
        train, tests = result['train'], result['tests']
        if job.run.train and (scalars := read_scalars(job.train_dir)):
            curves.setdefault(run, []).append(scalars)
        if job.run.train and train['finished']:
            seconds = round(train['seconds'], 1)
            rows.append(dict(run=run, seed=job.seed, seconds=seconds, **train['scalars']))
        for test in [test for test in tests if test in job.tests and test not in changed]:
            row, metrics = (run, job.seed, test), tests[test]['metrics']
            values += [(*row, name, metrics[name]) for name in figures if name in metrics]
            problems += [
                f'{job.label}, test {test!r} gave no {name!r} but {", ".join(metrics)}; set its '
                'test_evaluator (SeenUnseenIoUMetric) or `figures`'
                for name in figures
                if name not in metrics
            ]
    return make_results(values), rows, curves, problems


def describe(job: Job, figures: Sequence[str]) -> str:
    """One line on a finished job: its time and figures."""
    result = job.read_result()
    parts = [f'trained in {result["train"]["seconds"]:.0f} s'] if job.run.train else []
    for name, test in result['tests'].items():
        shown = [f'{key} {value:.2f}' for key, value in test['metrics'].items() if key in figures]
        parts.append(f'{name}: {", ".join(shown)}')
    return '; '.join(parts)


def draw_table(results: pd.DataFrame, summary: pd.DataFrame, path: Path) -> None:
    """Draw a panel for each test (down) and figure (across): a dot a seed, a bar for the mean."""
    runs, tests, figures = (list(summary[name].unique()) for name in ('run', 'test', 'figure'))
    size = (
        PANEL[0] * len(figures) + 0.09 * max(map(len, runs)),
        PANEL[1] * len(runs) * len(tests) + PANEL[2] * len(tests),
    )
    picture = Figure(size, dpi=130, layout='constrained')
    axes = picture.subplots(len(tests), len(figures), sharey=True, squeeze=False)
    finite = results[np.isfinite(results['value'])]
    panels = summary.groupby(['test', 'figure'], sort=False)[['test', 'figure', 'run']]
    for ax, ((test, figure), cells) in zip(axes.flat, panels):
        for row, cell in enumerate(cells.to_numpy()):
            values = finite['value'][(finite[cells.columns] == cell).all(axis=1)]
            spread = DOT_SPREAD if len(values) > 1 else 0
            dots = row + np.linspace(-spread, spread, len(values))
            colour = f'C{row % 10}'
            ax.scatter(values, dots, s=18, color=colour, alpha=0.75, linewidths=0, zorder=3)
            ax.vlines(values.mean(), row - 0.36, row + 0.36, colour, linewidth=2.5, zorder=2)
        ax.set_yticks(range(len(runs)), runs)
        ax.set_ylim(len(runs) - 0.4, -0.6)
        ax.margins(x=0.08)
        ax.grid(axis='x', alpha=0.3)
        ax.set_title(f'{figure} · {test}' if len(tests) > 1 else figure, fontsize=10)
    picture.savefig(path)


def draw_curves(
    curves: Mapping[str, Sequence[Sequence[Scalars]]], runs: Sequence[str], path: Path
) -> None:
    """Draw a panel for each loss: thin lines for seeds, a thick one for their mean, by run.

    Curves are the logged scalars of each training of a run. The order of ``runs`` gives the colours
    as in :func:`draw_table`. Nothing is written where no loss was logged.
    """
    rows = (row for trainings in curves.values() for training in trainings for row in training)
    losses = sorted({key for row in rows for key in row if 'loss' in key})
    losses.sort(key='loss'.__ne__)
    if not losses:
        return
    columns = min(math.ceil(math.sqrt(len(losses))), CURVE_COLUMNS)
    lines = math.ceil(len(losses) / columns)
    size = (CURVE_PANEL[0] * columns, CURVE_PANEL[1] * lines + 0.4)
    picture = Figure(size, dpi=130, layout='constrained')
    axes = picture.subplots(lines, columns, squeeze=False).ravel()
    for ax, loss in zip(axes, losses):
        for index, run in enumerate(runs):
            seeds = loss_curves(curves.get(run, ()), loss)
            for name in seeds if len(seeds.columns) > 1 else ():
                ax.plot(seeds[name].dropna(), color=f'C{index % 10}', linewidth=0.6, alpha=0.35)
            if len(mean := mean_curve(seeds)):
                ax.plot(mean, color=f'C{index % 10}', linewidth=1.8, label=run)
        ax.set_title(loss, fontsize=10)
        ax.set_xlabel('iteration')
        ax.grid(alpha=0.3)
    for ax in axes[len(losses) :]:
        ax.axis('off')
    handles, labels = axes[0].get_legend_handles_labels()
    picture.legend(handles, labels, loc='outside lower center', ncols=4, frameon=False, fontsize=9)
    picture.savefig(path)


def loss_curves(trainings: Sequence[Sequence[Scalars]], loss: str) -> pd.DataFrame:
    """A loss by step (rows) and training (columns), NaN where it was not logged or not finite."""
    logged = [{row['step']: row[loss] for row in training if loss in row} for training in trainings]
    table = pd.DataFrame(dict(enumerate(logged)), dtype=float).sort_index()
    return table.where(np.isfinite(table)).dropna(axis=1, how='all')


def mean_curve(curves: pd.DataFrame) -> pd.Series:
    """Mean by step over the curves that all hold a step; other steps are left out."""
    return curves.mean(axis=1, skipna=False).dropna()
