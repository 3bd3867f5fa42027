"""Starts measurements one after the other, each in a fresh process."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from infoclip_mmseg.experiments.timing.results import Outcome
from infoclip_mmseg.experiments.timing.settings import BenchmarkError, Setting, environment

WORKER = Path(__file__).resolve().with_name('worker.py')
TAIL_LINES = 12
PARTS: dict[str, tuple[str, ...]] = {
    'train': ('train', 'train_plain'),
    'inference': ('inference',),
    'image': ('image',),
    'head': ('head',),
    'text': ('text', 'text_train'),
    'teacher': ('teacher',),
    'lpam': ('lpam',),
    'losses': ('losses',),
    'entropy': ('entropy',),
    'matrix': ('matrix',),
    'profile': ('profile_train', 'profile_inference'),
}
"""What can be asked for, and the subjects that it consists of."""
SWEEPS = {'classes': 'num_classes', 'image-size': 'image_size'}
"""What can be varied, and the field of the setting that holds it."""
SWEEP_PARTS = {'classes': ('inference', 'text'), 'image-size': ('inference',)}
"""Parts that are varied unless others are asked for."""
ONCE = ('profile_train', 'profile_inference')
"""Subjects that are not repeated."""


@dataclass(frozen=True)
class Side:
    """One of the things compared.

    Attributes:
        label: Its name in the report.
        config: Config file.
        tree: Folder whose infoclip_mmseg is measured.
        commit: What the tree holds, for the report.
    """

    label: str
    config: str
    tree: str
    commit: str


@dataclass(frozen=True)
class Plan:
    """Everything that is to be measured.

    Attributes:
        sides: What is compared, at least one.
        base: Setting that all measurements share but for part, side, allocator and sweep.
        allocators: One or both of ALLOCATORS.
        parts: Keys of PARTS.
        sweeps: Values by key of SWEEPS; the parts are then measured at each of them only.
        rounds: How often each measurement is made in a fresh process, in turn with the others.
    """

    sides: Sequence[Side]
    base: Setting
    allocators: Sequence[str] = ('default',)
    parts: Sequence[str] = ()
    sweeps: Mapping[str, Sequence[int]] = field(default_factory=dict)
    rounds: int = 1


@dataclass(frozen=True)
class Job:
    """One measurement of a plan."""

    side: Side
    setting: Setting
    sweep: tuple[str, int] | None = None

    @property
    def label(self) -> str:
        """For messages."""
        point = f', {self.sweep[0]} {self.sweep[1]}' if self.sweep else ''
        return f'{self.setting.part}{point}, {self.side.label}, {self.setting.allocator} allocator'


def plan_jobs(plan: Plan) -> list[Job]:
    """The measurements of a plan in their order: part by part, and in each part side by side.

    With two sides A and B and two rounds each part goes A B A B.
    """
    return [
        Job(side, _setting(plan, side, allocator, subject, sweep), sweep)
        for subjects, sweep in _groups(plan)
        for _ in range(plan.rounds)
        for subject in subjects
        for allocator in plan.allocators
        for side in plan.sides
    ]


def _groups(plan: Plan) -> Iterator[tuple[tuple[str, ...], tuple[str, int] | None]]:
    if not plan.sweeps:
        yield from ((PARTS[part], None) for part in plan.parts)
    for name, values in plan.sweeps.items():
        for part in plan.parts or SWEEP_PARTS[name]:
            yield from ((PARTS[part][:1], (name, value)) for value in values)


def _setting(
    plan: Plan, side: Side, allocator: str, subject: str, sweep: tuple[str, int] | None
) -> Setting:
    setting = replace(
        plan.base, part=subject, config=side.config, tree=side.tree, allocator=allocator
    )
    if subject in ONCE:
        setting = replace(setting, repeats=1)
    if sweep is not None:
        changes: dict[str, Any] = {SWEEPS[sweep[0]]: sweep[1]}
        setting = replace(setting, **changes)
    return setting


def run_jobs(jobs: Sequence[Job], report: Callable[[Job, Outcome], None]) -> Iterator[Outcome]:
    """Run measurements one after the other.

    Once a part of a side has not fitted into memory at one value of a sweep, larger values are
    skipped.

    Args:
        jobs: The measurements.
        report: Is told of every outcome.

    Raises:
        BenchmarkError: A config can't be used.
    """
    too_large: dict[tuple[str, ...], int] = {}
    for job in jobs:
        key = (job.side.label, job.setting.allocator, job.setting.part, *(job.sweep or ())[:1])
        limit = too_large.get(key)
        if limit is not None and job.sweep is not None and job.sweep[1] >= limit:
            outcome = _outcome(job)
            outcome.status, outcome.reason = 'skipped', f'{limit} did not fit in memory'
        else:
            outcome = run_job(job)
        if job.sweep is not None and 'fit in memory' in outcome.reason and limit is None:
            too_large[key] = job.sweep[1]
        report(job, outcome)
        yield outcome


def run_job(job: Job) -> Outcome:
    """Run one measurement in a fresh process.

    Raises:
        BenchmarkError: The config can't be used.
    """
    with tempfile.TemporaryDirectory(prefix='benchmark-') as name:
        setting, result, log = (Path(name, file) for file in ('setting', 'result', 'log'))
        setting.write_text(json.dumps(job.setting.to_dict()), encoding='utf-8')
        with log.open('wb') as output:
            process = subprocess.run(
                [sys.executable, str(WORKER), str(setting), str(result)],
                env=environment(job.setting),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                check=False,
            )
        outcome = _outcome(job)
        if process.returncode != 0 or not result.is_file():
            lines = log.read_text(encoding='utf-8', errors='replace').splitlines()[-TAIL_LINES:]
            outcome.status = 'failed'
            outcome.reason = '\n'.join([f'exit code {process.returncode}, last lines:', *lines])
            return outcome
        content = json.loads(result.read_text(encoding='utf-8'))
    if content['status'] == 'error':
        raise BenchmarkError(f'{job.label}: {content["reason"]}')
    for name, value in content.items():
        setattr(outcome, name, value)
    return outcome


def _outcome(job: Job) -> Outcome:
    return Outcome(job.side.label, job.setting.allocator, job.setting.part, job.sweep)
