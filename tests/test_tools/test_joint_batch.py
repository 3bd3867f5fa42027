"""Two and four ranks, under DDP and FSDP, train as one process with the joint batch does."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_run import FSDP, HAS_FSDP, free_port, write_config, write_images

WORKER = Path(__file__).with_name('rank_worker.py')

SCONTROL = """#!/bin/sh
[ "$*" = "show hostnames n[1-2]" ] && printf 'localhost\\nelsewhere\\n'
"""

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

    def train(name: str, ranks: int, config: str, *options: str, **kwargs) -> None:
        options = (f'train_dataloader.batch_size={4 // ranks}', *options)
        arguments = [config, '--work-dir', name, '--cfg-options', *options]
        if 'resume' in kwargs:
            arguments += ['--resume', kwargs['resume']]
        launcher = kwargs.get('launcher', 'pytorch' if ranks > 1 else 'none')
        jobs.append((ranks, launcher, free_port(), 'train', arguments))

    train('one', 1, ddp)
    train('one-full', 1, full)
    train('ddp-2', 2, ddp)
    train('ddp-4', 4, ddp, launcher='slurm')
    train('fsdp-2', 2, fsdp, 'train_cfg.val_interval=4')
    train('fsdp-4', 4, fsdp)
    train('fsdp-full-2x2', 4, full_fsdp, 'strategy.shard_size=2')
    train('fsdp-from-ddp', 2, fsdp, resume='ddp-2/iter_2.pth')
    train('one-from-fsdp', 1, ddp, resume='fsdp-4/iter_2.pth')
    test = [fsdp, 'fsdp-2/iter_4.pth', '--work-dir', 'tested']
    jobs.append((1, 'none', free_port(), 'test', test))
    if not HAS_FSDP:
        jobs = [job for job in jobs if not any('fsdp' in argument for argument in job[-1])]
    (folder / 'jobs.json').write_text(json.dumps(jobs))
    (folder / 'scontrol').write_text(SCONTROL)
    (folder / 'scontrol').chmod(0o755)
    env = {**os.environ, 'PATH': f'{folder}{os.pathsep}{os.environ["PATH"]}'}
    env = {**env, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    command = [sys.executable, WORKER, 'jobs.json']
    with (folder / 'log.txt').open('w') as log:
        worker = subprocess.Popen(
            command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True
        )
    try:
        status = worker.wait(timeout=1800)
    finally:
        if worker.poll() is None:  # with the ranks that it has forked
            os.killpg(worker.pid, signal.SIGKILL)
    assert status == 0, (folder / 'log.txt').read_text()[-5000:]
    return folder


def skip_without_fsdp(name: str) -> None:
    if 'fsdp' in name and not HAS_FSDP:
        pytest.skip('fully sharded training needs torch 2.7')


def losses(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / 'losses.json').read_text())


def compare(got: list[dict[str, float]], expected: list[dict[str, float]]) -> None:
    assert len(got) == len(expected) > 1
    for step, joint in zip(got, expected):
        assert {'loss', 'loss_ib', 'loss_mi', 'decode.loss_seg'} <= step.keys() == joint.keys()
        for name, value in joint.items():
            limit = dict(rel=1e-4) if 'grad_norm' in name else dict(abs=1e-5)
            assert step[name] == pytest.approx(value, **limit), name


@pytest.mark.parametrize(
    ('name', 'joint'),
    [
        ('ddp-2', 'one'),
        ('ddp-4', 'one'),
        ('fsdp-2', 'one'),
        ('fsdp-4', 'one'),
        ('fsdp-full-2x2', 'one-full'),
    ],
)
def test_losses_and_weights_are_those_of_the_joint_batch(runs, name, joint):
    skip_without_fsdp(name)
    expected = losses(runs / joint)
    assert all(abs(step['loss'] - expected[0]['loss']) > 1e-3 for step in expected[1:])
    compare(losses(runs / name), expected)
    got = torch.load(runs / name / 'iter_4.pth', weights_only=False)
    joint_state = torch.load(runs / joint / 'iter_4.pth', weights_only=False)
    assert got['state_dict'].keys() == joint_state['state_dict'].keys()
    for key, value in joint_state['state_dict'].items():
        torch.testing.assert_close(got['state_dict'][key], value, atol=1e-5, rtol=0, msg=key)
    moments, expected = got['optimizer']['state'], joint_state['optimizer']['state']
    assert moments.keys() == expected.keys()
    for index, entries in expected.items():
        for key, value in entries.items():
            torch.testing.assert_close(moments[index][key], value, atol=1e-6, rtol=0)
    assert got['meta']['teacher'] == joint_state['meta']['teacher']


@pytest.mark.parametrize('name', ['fsdp-from-ddp', 'one-from-fsdp'])
def test_a_checkpoint_is_resumed_with_and_without_sharding(runs, name):
    skip_without_fsdp(name)
    compare(losses(runs / name), losses(runs / 'one')[2:])


def test_one_process_tests_a_checkpoint_of_sharded_training(runs):
    skip_without_fsdp('fsdp-2')

    def figures(name: str) -> dict[str, float]:
        log = next((runs / name).glob('*/*.json')).read_text()
        return json.loads(log.splitlines()[-1])

    validated = next((runs / 'fsdp-2').glob('*/vis_data/scalars.json')).read_text().splitlines()
    assert figures('tested')['mIoU'] == json.loads(validated[-1])['mIoU'] > 0
