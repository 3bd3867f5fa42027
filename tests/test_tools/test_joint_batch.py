"""Two and four ranks, under DDP and FSDP, train as one process with the joint batch does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_run import FSDP, free_port, write_config, write_images

WORKER = Path(__file__).with_name('rank_worker.py')
JOINT = {'full': 'one-full', 'from': 'one'}

pytestmark = pytest.mark.slow


@pytest.fixture(scope='module')
def runs(tmp_path_factory) -> Path:
    """Folder with the working folder of every run."""
    folder = tmp_path_factory.mktemp('ranks')
    write_images(folder / 'data')
    ddp, fsdp = write_config(folder, 'ddp'), write_config(folder, 'fsdp', FSDP)
    full = write_config(folder, 'full', finetune='full')
    full_fsdp = write_config(folder, 'full_fsdp', FSDP, finetune='full', with_cp=True)
    jobs = []

    def train(name: str, ranks: int, config: str, *options: str, extra: tuple = ()) -> None:
        options = (f'train_dataloader.batch_size={4 // ranks}', *options)
        arguments = [config, '--work-dir', name, *extra, '--cfg-options', *options]
        jobs.append((ranks, free_port(), 'train', arguments))

    train('one', 1, ddp)
    train('one-full', 1, full)
    for ranks in (2, 4):
        train(f'ddp-{ranks}', ranks, ddp)
        train(f'fsdp-{ranks}', ranks, fsdp)
    train('fsdp-full-2', 2, full_fsdp)
    train('fsdp-full-2x2', 4, full_fsdp, 'strategy.shard_size=2')
    train('fsdp-from-ddp', 2, fsdp, extra=('--resume', 'ddp-2/iter_2.pth'))
    train('fsdp-from-fsdp', 2, fsdp, extra=('--resume', 'fsdp-4/iter_2.pth'))
    train('ddp-from-fsdp', 2, ddp, extra=('--resume', 'fsdp-2/iter_2.pth'))
    test = [fsdp, 'fsdp-2/iter_4.pth', '--work-dir', 'tested']
    jobs.append((1, free_port(), 'test', test))
    (folder / 'jobs.json').write_text(json.dumps(jobs))
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    command = [sys.executable, WORKER, 'jobs.json']
    with (folder / 'log.txt').open('w') as log:
        status = subprocess.run(
            command, cwd=folder, env=env, stdout=log, stderr=log, timeout=900
        ).returncode
    assert status == 0, (folder / 'log.txt').read_text()[-5000:]
    return folder


def losses(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / 'losses.json').read_text())


def compare(got: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    assert len(got) == len(expected) > 1
    for step, joint in zip(got, expected):
        assert {'loss', 'loss_ib', 'loss_mi', 'decode.loss_seg'} <= step.keys() == joint.keys()
        assert step == pytest.approx(joint, abs=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize('name', ['ddp-2', 'ddp-4', 'fsdp-2', 'fsdp-4'])
def test_losses_and_weights_are_those_of_the_joint_batch(runs, name):
    compare(losses(runs / name), losses(runs / 'one'))
