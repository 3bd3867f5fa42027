"""Gathers what the jobs of an ablation gave and writes tables and pictures of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd

from infoclip_mmseg.experiments.ablation.jobs import Job
from infoclip_mmseg.experiments.ablation.logs import Scalars, read_scalars
from infoclip_mmseg.experiments.ablation.plots import draw_curves, draw_table
from infoclip_mmseg.experiments.ablation.spec import Ablation
from infoclip_mmseg.experiments.ablation.state import TRAINING, changed_parts, read_result
from infoclip_mmseg.experiments.ablation.tables import make_results, summarise, write_tables


def write_outputs(ablation: Ablation, jobs: Sequence[Job]) -> list[str]:
    """Write tables and pictures of what there is into the working folder.

    Returns:
        What is missing from them for another reason than that it was not run.
    """
    results, problems = collect_figures(jobs, ablation.figures)
    training, curves = collect_trainings(jobs)
    expected = {run.name: len(ablation.seeds) if run.train else 1 for run in ablation.runs}
    tests = [test.name for test in ablation.tests]
    summary = summarise(results, expected, tests, ablation.figures, ablation.baseline)
    folder = ablation.work_dir
    write_tables(folder, results, summary, ablation.baseline, training)
    draw_table(results, summary, folder / 'table.png')
    draw_curves(curves, list(expected), folder / 'curves.png')
    return problems


def collect_figures(jobs: Sequence[Job], figures: Sequence[str]) -> tuple[pd.DataFrame, list[str]]:
    """The figures that evaluations with the jobs' present configs gave.

    Args:
        jobs: All jobs of the ablation.
        figures: Names of the metrics to gather.

    Returns:
        See :func:`~infoclip_mmseg.experiments.ablation.tables.make_results`; and a line for each
        part that was run with another config and for each figure that a test did not give.
    """
    values: list[tuple[Any, ...]] = []
    problems = []
    for job in jobs:
        result = read_result(job.folder)
        changed = changed_parts(job, result)
        problems += [f'{job.label}: {part} left out, its config changed' for part in changed]
        tests = {} if TRAINING in changed else result.get('tests', {})
        for test, outcome in tests.items():
            if test not in job.tests or test in changed:
                continue
            metrics = outcome['metrics']
            row = (job.run.name, job.seed, test)
            values += [(*row, name, metrics[name]) for name in figures if name in metrics]
            problems += [
                f'{job.label}, test {test!r} gave no {name!r} but {", ".join(metrics)}; set its '
                'test_evaluator (SeenUnseenIoUMetric) or `figures`'
                for name in figures
                if name not in metrics
            ]
    return make_results(values), problems


def collect_trainings(
    jobs: Sequence[Job],
) -> tuple[list[dict[str, Any]], dict[str, list[list[Scalars]]]]:
    """What trainings with the jobs' present configs logged.

    Returns:
        For each finished training `run`, `seed`, `seconds` and the last logged losses and gradient
        norms; and, by run, the scalars of each training, also of one that is not finished.
    """
    rows = []
    curves: dict[str, list[list[Scalars]]] = {}
    for job in jobs:
        result = read_result(job.folder)
        if not result or not job.run.train or TRAINING in changed_parts(job, result):
            continue
        if scalars := read_scalars(job.train_dir):
            curves.setdefault(job.run.name, []).append(scalars)
        train = result['train']
        if train['finished']:
            row = dict(run=job.run.name, seed=job.seed, seconds=round(train['seconds'], 1))
            rows.append({**row, **train['scalars']})
    return rows, curves


def describe(job: Job, figures: Sequence[str]) -> str:
    """One line on a finished job: its time and figures."""
    result = read_result(job.folder)
    parts = [f'trained in {result["train"]["seconds"]:.0f} s'] if job.run.train else []
    for name, test in result['tests'].items():
        shown = [f'{key} {value:.2f}' for key, value in test['metrics'].items() if key in figures]
        parts.append(f'{name}: {", ".join(shown)}')
    return '; '.join(parts)
