"""Gathers what the jobs of an ablation gave and writes tables and pictures of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from infoclip_mmseg.experiments.ablation.jobs import Job
from infoclip_mmseg.experiments.ablation.logs import Scalars, read_scalars
from infoclip_mmseg.experiments.ablation.plots import draw_curves, draw_table
from infoclip_mmseg.experiments.ablation.spec import Ablation
from infoclip_mmseg.experiments.ablation.state import TRAINING, changed_parts, read_result
from infoclip_mmseg.experiments.ablation.tables import Record, summarise, write_tables


@dataclass
class Collected:
    """What the finished parts of all jobs gave.

    Attributes:
        records: The figures.
        curves: The logged scalars of each training, by run.
        training: For each finished training `run`, `seed`, `seconds` and the last logged losses and
            gradient norms.
        problems: A line for each part that was run with another config and is left out, and for
            each figure that a test did not give.
    """

    records: list[Record] = field(default_factory=list)
    curves: dict[str, list[list[Scalars]]] = field(default_factory=dict)
    training: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)


def collect(jobs: Sequence[Job], figures: Sequence[str]) -> Collected:
    """Gather what the finished parts of all jobs gave.

    Args:
        jobs: All jobs of the ablation.
        figures: Names of the metrics to gather.
    """
    found = Collected()
    for job in jobs:
        result = read_result(job.folder)
        changed = changed_parts(job, result)
        found.problems += [f'{job.label}: {part} left out, its config changed' for part in changed]
        if result and TRAINING not in changed:
            _collect_training(job, result['train'], found)
            for test, outcome in result['tests'].items():
                if test in job.tests and test not in changed:
                    _collect_test(job, test, outcome['metrics'], figures, found)
    return found


def describe(job: Job, figures: Sequence[str]) -> str:
    """One line on a finished job: its time and figures."""
    result = read_result(job.folder)
    parts = [f'trained in {result["train"]["seconds"]:.0f} s'] if job.run.train else []
    for name, test in result['tests'].items():
        own = [f'{key} {value:.2f}' for key, value in test['metrics'].items() if key in figures]
        parts.append(f'{name}: {", ".join(own)}')
    return '; '.join(parts)


def write_outputs(ablation: Ablation, jobs: list[Job]) -> list[str]:
    """Write tables and pictures of what there is into the working folder.

    Returns:
        What is missing from them for another reason than that it was not run.
    """
    found = collect(jobs, ablation.figures)
    expected = {run.name: len(ablation.seeds) if run.train else 1 for run in ablation.runs}
    tests = [test.name for test in ablation.tests]
    cells = summarise(found.records, expected, tests, ablation.figures, ablation.baseline)
    folder = ablation.work_dir
    write_tables(folder, found.records, cells, ablation.baseline, found.training)
    draw_table(found.records, cells, folder / 'table.png')
    draw_curves(found.curves, list(expected), folder / 'curves.png')
    return found.problems


def _collect_training(job: Job, train: dict[str, Any], found: Collected) -> None:
    if not job.run.train:
        return
    if scalars := read_scalars(job.train_dir):
        found.curves.setdefault(job.run.name, []).append(scalars)
    if train['finished']:
        row = dict(run=job.run.name, seed=job.seed, seconds=round(train['seconds'], 1))
        found.training.append({**row, **train['scalars']})


def _collect_test(
    job: Job, test: str, metrics: Scalars, figures: Sequence[str], found: Collected
) -> None:
    for figure in figures:
        if figure in metrics:
            record = Record(job.run.name, job.seed, test, figure, metrics[figure])
            found.records.append(record)
        else:
            found.problems.append(
                f'{job.label}, test {test!r} gave no {figure!r} but {", ".join(metrics)}; set its '
                'test_evaluator (SeenUnseenIoUMetric) or `figures`'
            )
