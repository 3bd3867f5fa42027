"""Runs the jobs of an ablation, that is tools/train.py and tools/test.py as processes."""

from __future__ import annotations

import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from infoclip_mmseg.experiments.ablation.jobs import Job
from infoclip_mmseg.experiments.ablation.logs import (
    find_checkpoint,
    metric_files,
    pick_scalars,
    read_metrics,
    read_scalars,
)
from infoclip_mmseg.experiments.ablation.spec import AblationError
from infoclip_mmseg.experiments.ablation.state import read_result, remaining_parts, write_result
from infoclip_mmseg.experiments.processes import (
    ProgramError,
    program_environment,
    start_program,
    wait_for_program,
)

UNTRAINED = 'infoclip_mmseg.experiments.ablation.untrained'
"""Module that saves the weights of a row that is not trained and has no checkpoint."""
TRAINING_SHARE = 0.8
"""Part of a job that its training is taken for, in the progress shown."""

Watch = Callable[[], None]
Report = Callable[[str, float], None]
"""Is told what a job does at the moment and how much of the job is done, 0..1."""


@dataclass
class Workplace:
    """Programs, processor cores and GPUs that jobs share.

    Args:
        tools: Folder of train.py, test.py, dist_train.sh and dist_test.sh.
        jobs: How many jobs run at the same time.
        gpus: GPUs of a job, started through dist_*.sh; 0 starts the programs themselves.
        devices: Names of all GPUs as in CUDA_VISIBLE_DEVICES; jobs side by side share them out.
        lock: Descriptor that the programs inherit, so that a lock outlives this process as long
            as one of them runs.
    """

    tools: Path
    jobs: int = 1
    gpus: int = 0
    devices: Sequence[str] = ()
    lock: int | None = None
    slots: queue.SimpleQueue[int] = field(default_factory=queue.SimpleQueue)
    processes: set[subprocess.Popen[bytes]] = field(default_factory=set)
    stopped: threading.Event = field(default_factory=threading.Event)

    def __post_init__(self) -> None:
        for slot in range(self.jobs):
            self.slots.put(slot)

    def environment(self, slot: int) -> dict[str, str]:
        """Environment of the programs of a slot: its share of the cores and GPUs, a free port."""
        width = max(self.gpus, 1)
        gpus: list[str] = []
        if self.jobs > 1 and self.devices:
            gpus = [self.devices[(slot * width + i) % len(self.devices)] for i in range(width)]
        return program_environment(sharers=self.jobs * width, gpus=list(dict.fromkeys(gpus)))

    def command(self, program: str, files: Sequence[Path], options: Sequence[str]) -> list[str]:
        """Command line of 'train' or 'test'."""
        paths = [str(file) for file in files]
        if self.gpus:
            return [str(self.tools / f'dist_{program}.sh'), *paths, str(self.gpus), *options]
        return [sys.executable, str(self.tools / f'{program}.py'), *paths, *options]

    def run(
        self, command: Sequence[str], slot: int, log: Path, watch: Watch = lambda: None
    ) -> None:
        """Run a program to its end, with the slot's share of the machine.

        Raises:
            ProgramError: It ended with another exit code than 0, or :meth:`stop` was called.
        """
        if self.stopped.is_set():
            raise ProgramError('stopped before it was started')
        inherit = () if self.lock is None else (self.lock,)
        process = start_program(command, log, self.environment(slot), inherit)
        self.processes.add(process)
        if self.stopped.is_set():
            process.terminate()
        try:
            wait_for_program(process, log, watch)
        finally:
            self.processes.discard(process)

    def stop(self) -> None:
        """End all running programs and start no more."""
        self.stopped.set()
        for process in list(self.processes):
            process.terminate()


def run_job(job: Job, place: Workplace, report: Report) -> None:
    """Do what is left of a job and note it in its result.json.

    Nothing of it may have been run with another config, see :func:`check_changed`.

    Raises:
        ProgramError: The training failed, or some of the evaluations did; the others were run.
    """
    slot = place.slots.get()
    try:
        result = read_result(job.folder)
        result.setdefault('train', dict(fingerprint=job.fingerprint, finished=False, seconds=0.0))
        result.setdefault('tests', {})
        train, tests = remaining_parts(job, result)
        if train:
            write_result(job.folder, result)
            prepare = _train if job.run.train else _save_untrained
            prepare(job, place, slot, result, report)
        share = TRAINING_SHARE if train and job.run.train else 0.0
        errors = []
        for index, test in enumerate(tests):
            report(f'test {test}', share + (1 - share) * index / len(tests))
            try:
                _test(job, test, place, slot, result)
            except (ProgramError, AblationError) as error:
                errors.append(f'test {test!r}: {error}')
        if errors:
            raise ProgramError('\n'.join(errors))
    finally:
        place.slots.put(slot)


def _train(job: Job, place: Workplace, slot: int, result: dict[str, Any], report: Report) -> None:
    options = ['--work-dir', str(job.train_dir)]
    if find_checkpoint(job.train_dir) is not None:
        options.append('--resume')
    last = (job.config.get('train_cfg') or {}).get('max_iters') or 0

    def watch() -> None:
        rows = read_scalars(job.train_dir)
        step = int(rows[-1]['step']) if rows else 0
        report(f'iteration {step}', TRAINING_SHARE * step / last if last else 0.0)

    start = time.monotonic()
    command = place.command('train', [_dump_config(job)], options)
    try:
        place.run(command, slot, job.folder / 'train.log', watch)
        rows = read_scalars(job.train_dir)
        result['train'].update(finished=True, scalars=pick_scalars(rows[-1]) if rows else {})
    except ProgramError as error:
        raise ProgramError(f'training: {error}') from error
    finally:
        result['train']['seconds'] += time.monotonic() - start
        write_result(job.folder, result)


def _save_untrained(
    job: Job, place: Workplace, slot: int, result: dict[str, Any], report: Report
) -> None:
    """The weights of a row that is not trained, unless it has a checkpoint."""
    config = _dump_config(job)
    if job.run.checkpoint is None:
        report('weights', 0.0)
        command = [sys.executable, '-m', UNTRAINED, str(config), str(_checkpoint(job))]
        place.run(command, slot, job.folder / 'train.log')
    result['train']['finished'] = True
    write_result(job.folder, result)


def _test(job: Job, test: str, place: Workplace, slot: int, result: dict[str, Any]) -> None:
    folder = job.test_dir(test)
    config = folder.with_name(f'{folder.name}_config.py')
    config.parent.mkdir(parents=True, exist_ok=True)
    job.tests[test].dump(config)
    before, start = metric_files(folder), time.monotonic()
    command = place.command('test', [config, _checkpoint(job)], ['--work-dir', str(folder)])
    place.run(command, slot, folder.with_name(f'{folder.name}.log'))
    result['tests'][test] = dict(
        fingerprint=job.test_fingerprint(test),
        seconds=time.monotonic() - start,
        metrics=read_metrics(folder, before),
    )
    write_result(job.folder, result)


def _dump_config(job: Job) -> Path:
    path = job.folder / 'train_config.py'
    job.config.dump(path)
    return path


def _checkpoint(job: Job) -> Path:
    """What is evaluated."""
    if not job.run.train:
        return Path(job.run.checkpoint or job.folder / 'untrained.pth')
    checkpoint = find_checkpoint(job.train_dir)
    if checkpoint is None:
        raise AblationError(
            f'the training left no checkpoint in {job.train_dir}; set '
            "default_hooks.checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=...)"
        )
    return checkpoint
