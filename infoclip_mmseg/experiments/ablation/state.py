"""Working folders of an ablation: who uses them, what is left to do, what MMEngine wrote there."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from infoclip_mmseg.datasets import check_dataloader_cfg
from infoclip_mmseg.experiments.ablation.jobs import TRAINING, Job
from infoclip_mmseg.experiments.ablation.spec import AblationError

Scalars = dict[str, float]
TIMES = ('time', 'data_time')


@contextmanager
def locked(folder: Path) -> Iterator[int]:
    """Keep other processes of this program out of a working folder.

    Gives the descriptor that holds the lock. Programs that inherit it hold the lock, too, so that
    a training whose parent was killed keeps others out (filelock shows no descriptor).

    Raises:
        AblationError: There is another one, or a training that one has left behind.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / '.lock').open('w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise AblationError(
                f'{folder} is in use: another ablation.py, or a training that one left behind, '
                'still runs there. Wait for its end or stop it.'
            ) from error
        yield file.fileno()


def check_changed(jobs: Sequence[Job], redo: bool) -> None:
    """With ``redo`` give what was run with another config than there is now another folder.

    Raises:
        AblationError: There is some, and it is not to be redone.
    """
    results = [(job, job.read_result()) for job in jobs]
    changes = [(job, result, parts) for job, result in results if (parts := job.changed(result))]
    if changes and not redo:
        lines = [f'  {job.label}: {", ".join(parts)}' for job, _, parts in changes]
        raise AblationError(
            '\n'.join(['the config has changed since these were run:', *lines])
            + '\nRun them again with --redo (the old folders are kept under another name), take '
            'the change back, or use another --work-dir.'
        )
    for job, result, parts in changes:
        if TRAINING in parts:
            _put_aside(job.folder)
            continue
        for test in parts:
            _put_aside(job.test_dir(test))
            del result['tests'][test]
        job.write_result(result)


def _put_aside(folder: Path) -> None:
    """Give a folder the first free name of the kind 'seed0.old1'."""
    if folder.exists():
        names = (folder.with_name(f'{folder.name}.old{n}') for n in range(1, 10**6))
        folder.rename(next(name for name in names if not name.exists()))


def find_pending(jobs: Sequence[Job]) -> list[Job]:
    """The jobs of which something is left to do, once it is sure that their data is there.

    Raises:
        AblationError: It is not.
    """
    pending = []
    for job in jobs:
        train, tests = job.remaining(job.read_result())
        try:
            if train and job.run.train:
                check_dataloader_cfg(job.config, ('train_dataloader', 'val_dataloader'))
            for test in tests:
                check_dataloader_cfg(job.tests[test], ('test_dataloader',))
        except FileNotFoundError as error:
            raise AblationError(f'{job.label}: {error}') from error
        if train or tests:
            pending.append(job)
    return pending


def read_scalars(train_dir: Path) -> list[Scalars]:
    """Logged training scalars of each step, in order; where a run was resumed the later log counts.

    They come from the working folder of a training with MMEngine's LocalVisBackend.
    """
    steps: dict[int, Scalars] = {}
    for path in sorted(train_dir.glob('*/vis_data/scalars.json')):
        for line in path.read_text(encoding='utf-8').splitlines():
            try:
                row = json.loads(line)
            except ValueError:  # a killed process left its last line unfinished
                continue
            if 'loss' in row and 'step' in row:
                steps[int(row['step'])] = row
    return [steps[step] for step in sorted(steps)]


def find_checkpoint(train_dir: Path) -> Path | None:
    """The last checkpoint that MMEngine noted in a working folder, None without one."""
    note = train_dir / 'last_checkpoint'
    if not note.is_file():
        return None
    noted = Path(note.read_text().strip())
    here = train_dir / noted.name  # the folder may have been moved since
    return next((path for path in (here, noted) if path.is_file()), None)


def metric_files(test_dir: Path) -> set[Path]:
    """Files of metrics in the working folder of an evaluation, one for each time it was run."""
    return set(test_dir.glob('*/*.json'))


def read_metrics(test_dir: Path, before: set[Path]) -> Scalars:
    """The metrics that tools/test.py wrote since :func:`metric_files` gave ``before``.

    Raises:
        AblationError: It wrote none.
    """
    written = sorted(metric_files(test_dir) - before)
    if not written:
        raise AblationError(
            f'no metrics in {test_dir}/*/*.json; the config needs a test_evaluator and '
            'default_hooks.logger=dict(type="LoggerHook")'
        )
    metrics = json.loads(written[-1].read_text(encoding='utf-8'))
    numbers = {key: value for key, value in metrics.items() if isinstance(value, (int, float))}
    return {key: float(value) for key, value in numbers.items() if key not in TIMES}
