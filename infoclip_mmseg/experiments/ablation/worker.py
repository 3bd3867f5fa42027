"""Runs the jobs of an ablation, that is tools/train.py and tools/test.py as processes.

``python -m infoclip_mmseg.experiments.ablation.worker CONFIG CHECKPOINT`` saves the weights with
which a training would start, for a row that is not trained and has no checkpoint.
"""

from __future__ import annotations

import queue
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import set_random_seed
from mmseg.registry import MODELS

from infoclip_mmseg.experiments.ablation.jobs import Job
from infoclip_mmseg.experiments.ablation.spec import AblationError
from infoclip_mmseg.experiments.ablation.state import (
    Scalars,
    find_checkpoint,
    metric_files,
    read_metrics,
    read_scalars,
)
from infoclip_mmseg.experiments.processes import ProgramError, program_environment, run_program

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
        lock: Descriptors that the programs inherit: a lock outlives this process with them.
        stopped: Once it is set, running programs are ended and no more are started.
    """

    tools: Path
    jobs: int = 1
    gpus: int = 0
    devices: Sequence[str] = ()
    lock: Sequence[int] = ()
    slots: queue.SimpleQueue[int] = field(default_factory=queue.SimpleQueue)
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

    def command(self, program: str, files: Sequence[Path], work_dir: Path) -> list[str]:
        """Command line of 'train' or 'test'."""
        start = [sys.executable, str(self.tools / f'{program}.py'), *map(str, files)]
        if self.gpus:
            start = [str(self.tools / f'dist_{program}.sh'), *map(str, files), str(self.gpus)]
        return [*start, '--work-dir', str(work_dir)]

    def run(self, command: Sequence[str], log: Path, watch: Watch = lambda: None) -> None:
        """Run a program to its end, with one slot's share of the machine.

        Raises:
            ProgramError: It ended with another exit code than 0, or was stopped.
        """

        def look() -> None:
            if self.stopped.is_set():
                raise ProgramError('stopped')
            watch()

        look()
        slot = self.slots.get()
        try:
            run_program(command, log, self.environment(slot), self.lock, look)
        finally:
            self.slots.put(slot)


def run_job(job: Job, place: Workplace, report: Report) -> None:
    """Do what is left of a job and note it in its result.json.

    Nothing of it may have been run with another config, see :func:`check_changed`.

    Raises:
        ProgramError: The training failed, or some of the evaluations did; the others were run.
    """
    result = job.read_result()
    result.setdefault('train', dict(fingerprint=job.fingerprint, finished=False, seconds=0.0))
    result.setdefault('tests', {})
    train, tests = job.remaining(result)
    share = TRAINING_SHARE if train and job.run.train else 0.0
    if train:
        job.write_result(result)
        start = time.monotonic()
        try:
            result['train'].update(scalars=_train(job, place, report), finished=True)
        finally:
            result['train']['seconds'] += time.monotonic() - start
            job.write_result(result)
    errors = []
    for index, test in enumerate(tests):
        report(f'test {test}', share + (1 - share) * index / len(tests))
        try:
            result['tests'][test] = _test(job, test, place)
            job.write_result(result)
        except (ProgramError, AblationError) as error:
            errors.append(f'test {test!r}: {error}')
    if errors:
        raise ProgramError('\n'.join(errors))


def _train(job: Job, place: Workplace, report: Report) -> Scalars:
    """Train, or save the weights of a row that is not trained unless it has a checkpoint.

    Gives the last logged losses and, behind them, gradient norms.
    """
    config, log = job.folder / 'train_config.py', job.folder / 'train.log'
    job.config.dump(config)
    if not job.run.train:
        if job.run.checkpoint is None:
            report('weights', 0.0)
            save = [sys.executable, '-m', save_untrained.__module__, config, _checkpoint(job)]
            place.run([str(word) for word in save], log)
        return {}
    last = (job.config.get('train_cfg') or {}).get('max_iters') or 0

    def watch() -> None:
        rows = read_scalars(job.train_dir)
        step = int(rows[-1]['step']) if rows else 0
        report(f'iteration {step}', TRAINING_SHARE * step / last if last else 0.0)

    resume = [] if find_checkpoint(job.train_dir) is None else ['--resume']
    try:
        command = place.command('train', [config], job.train_dir)
        place.run([*command, *resume], log, watch)
    except ProgramError as error:
        raise ProgramError(f'training: {error}') from error
    row = (read_scalars(job.train_dir) or [{}])[-1]
    return {key: row[key] for kind in ('loss', 'grad_norm') for key in row if kind in key}


def _test(job: Job, test: str, place: Workplace) -> dict[str, Any]:
    """Evaluate; gives what result.json holds of it."""
    folder = job.test_dir(test)
    config = folder.with_name(f'{folder.name}_config.py')
    config.parent.mkdir(parents=True, exist_ok=True)
    job.tests[test].dump(config)
    before, start = metric_files(folder), time.monotonic()
    command = place.command('test', [config, _checkpoint(job)], folder)
    place.run(command, folder.with_name(f'{folder.name}.log'))
    seconds, metrics = time.monotonic() - start, read_metrics(folder, before)
    return dict(fingerprint=job.test_fingerprint(test), seconds=seconds, metrics=metrics)


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


def save_untrained(cfg: Config, path: Path) -> None:
    """Build the model of a config, load its pretrained weights if it has any, and save it."""
    init_default_scope(cfg.get('default_scope', 'mmseg'))
    set_random_seed(cfg.randomness.seed)
    preprocessor = cfg.get('data_preprocessor')
    defaults = {} if preprocessor is None else dict(data_preprocessor=preprocessor)
    model = MODELS.build({**defaults, **cfg.model})
    model.init_weights()
    torch.save({'meta': {}, 'state_dict': model.state_dict()}, path)


if __name__ == '__main__':
    save_untrained(Config.fromfile(sys.argv[1]), Path(sys.argv[2]))
