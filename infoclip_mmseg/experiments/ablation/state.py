"""result.json: what of a job is finished, and with which config it was run."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from infoclip_mmseg.datasets.checks import check_dataloader_cfg
from infoclip_mmseg.experiments.ablation.jobs import Job
from infoclip_mmseg.experiments.ablation.spec import AblationError

RESULT_FILE = 'result.json'
TRAINING = 'training (or model)'


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


def read_result(folder: Path) -> dict[str, Any]:
    """What is known of a job: `train` and, by name, `tests`; see :func:`changed_parts`.

    Returns:
        An empty dict for a job that was never started.

    Raises:
        AblationError: The file is damaged.
    """
    path = folder / RESULT_FILE
    if not path.is_file():
        return {}
    try:
        return json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise AblationError(
            f'{path} is damaged ({error}); delete its folder to run it again'
        ) from error


def write_result(folder: Path, result: dict[str, Any]) -> None:
    """Write result.json in one step, so that it is never half there."""
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f'.{RESULT_FILE}'
    draft.write_text(json.dumps(result, indent=2) + '\n', encoding='utf-8')
    os.replace(draft, folder / RESULT_FILE)


def changed_parts(job: Job, result: dict[str, Any]) -> list[str]:
    """What was run with another config than the job's now: TRAINING or names of tests."""
    if result and result['train']['fingerprint'] != job.fingerprint:
        return [TRAINING]
    return [
        name
        for name, test in result.get('tests', {}).items()
        if name in job.tests and test['fingerprint'] != job.test_fingerprint(name)
    ]


def remaining_parts(job: Job, result: dict[str, Any]) -> tuple[bool, list[str]]:
    """Whether the training is still to be done, and the names of the tests that are."""
    done = result.get('tests', {})
    trained = bool(result.get('train', {}).get('finished'))
    return not trained, [name for name in job.tests if name not in done]


def check_changed(jobs: Sequence[Job], redo: bool) -> None:
    """Deal with jobs that were run with another config than they have now.

    Args:
        jobs: The jobs.
        redo: Put what belongs to the old config out of the way: its folder gets another name.

    Raises:
        AblationError: There are some and `redo` is False.
    """
    results = [(job, read_result(job.folder)) for job in jobs]
    changes = [(job, result, changed_parts(job, result)) for job, result in results]
    lines = [f'  {job.label}: {", ".join(parts)}' for job, _, parts in changes if parts]
    if lines and not redo:
        raise AblationError(
            '\n'.join(['the config has changed since these were run:', *lines])
            + '\nRun them again with --redo (the old folders are kept under another name), take '
            'the change back, or use another --work-dir.'
        )
    for job, result, parts in changes:
        if TRAINING in parts:
            _put_aside(job.folder)
        elif parts:
            for test in parts:
                _put_aside(job.test_dir(test))
                del result['tests'][test]
            write_result(job.folder, result)


def find_pending(jobs: Sequence[Job]) -> list[Job]:
    """The jobs of which something is left to do, once it is sure that their data is there.

    Raises:
        AblationError: It is not.
    """
    pending = []
    for job in jobs:
        train, tests = remaining_parts(job, read_result(job.folder))
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


def _put_aside(folder: Path) -> None:
    """Give a folder the first free name of the kind 'seed0.old1'."""
    if folder.exists():
        names = (folder.with_name(f'{folder.name}.old{n}') for n in range(1, 10**6))
        folder.rename(next(name for name in names if not name.exists()))
