"""A job whose rank is killed or silent ends and says so, and goes on from its last checkpoint."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_run import ROOT, free_port, write_config, write_images


@pytest.fixture
def folder(tmp_path) -> Path:
    write_images(tmp_path / 'data')
    text = (tmp_path / write_config(tmp_path, 'run')).read_text()
    text = text.replace("    dict(type='LossRecorder'),\n", '')
    text += 'val_dataloader = val_cfg = val_evaluator = None\n'
    (tmp_path / 'run.py').write_text(text)
    return tmp_path


def environment(**variables: str) -> dict[str, str]:
    env = {**os.environ, 'PYTHON': sys.executable, 'PORT': str(free_port()), **variables}
    return {**env, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}


def options(max_iters: int) -> list[str]:
    return [
        *('--work-dir', 'out', '--cfg-options', 'train_dataloader.batch_size=2'),
        *(f'train_cfg.max_iters={max_iters}', 'default_hooks.checkpoint.interval=3'),
        'default_hooks.checkpoint.max_keep_ckpts=1',
    ]


def losses(log: str) -> dict[int, list[float]]:
    """Iteration to its losses, as logged by rank 0."""
    lines = re.findall(r'Iter\(train\) \[ *(\d+)/\d+\](.*)', log)
    pattern = r'(?:loss\w*|loss_seg): (\S+)'
    return {int(step): [float(v) for v in re.findall(pattern, line)] for step, line in lines}


def child_of_rank(parent: int, rank: int) -> int:
    """Process number of a rank that torchrun has started."""
    for child in Path(f'/proc/{parent}/task/{parent}/children').read_text().split():
        if f'\0RANK={rank}\0'.encode() in b'\0' + Path(f'/proc/{child}/environ').read_bytes():
            return int(child)
    raise AssertionError(f'torchrun has no child of rank {rank}')


def lose_rank(folder: Path, number: int, *more: str) -> float:
    """Send a signal to rank 1 when there is a checkpoint; seconds until the job has ended."""
    script = [ROOT / 'tools/dist_train.sh', 'run.py', '2', *options(100000), *more]
    run = dict(cwd=folder, env=environment(), start_new_session=True)
    with (folder / 'log.txt').open('w') as log:
        job = subprocess.Popen(script, stdout=log, stderr=log, **run)
    try:
        deadline = time.monotonic() + 400
        while not (folder / 'out/last_checkpoint').exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(child_of_rank(job.pid, 1), number)
        start = time.monotonic()
        assert job.wait(timeout=400) not in (0, None)
        return time.monotonic() - start
    finally:
        if job.poll() is None:
            os.killpg(job.pid, signal.SIGKILL)


needs_proc = pytest.mark.skipif(sys.platform != 'linux', reason='finds the rank in /proc')


@pytest.mark.slow
@needs_proc
def test_sigkill_of_a_rank_ends_the_job_and_it_resumes(folder):
    assert lose_rank(folder, signal.SIGKILL) < 60
    text = (folder / 'log.txt').read_text()
    assert re.search(r'rank +: 1 ', text) and 'Signal 9 (SIGKILL) received' in text

    last = int(re.search(r'iter_(\d+)', (folder / 'out/last_checkpoint').read_text())[1])
    script = [ROOT / 'tools/dist_train.sh', 'run.py', '2', '--resume', *options(last + 2)]
    run = dict(cwd=folder, env=environment(), capture_output=True, text=True)
    resumed = subprocess.run(script, timeout=600, **run)
    assert resumed.returncode == 0, resumed.stderr[-2000:]
    got, before = losses(resumed.stdout), losses(text)
    assert sorted(got) == [last + 1, last + 2]
    for step in got.keys() & before.keys():
        assert got[step] == pytest.approx(before[step], abs=2e-4)


@pytest.mark.slow
@needs_proc
def test_a_silent_rank_ends_the_job_at_the_time_limit(folder):
    """As where a machine vanishes; torchrun gives the stopped process 30 more seconds."""
    assert 20 < lose_rank(folder, signal.SIGSTOP, 'env_cfg.dist_cfg.timeout=20') < 120
    log = (folder / 'log.txt').read_text()
    # Gloo says the first of the operation that waits, the second of others under way on the pair.
    assert re.search(r'Timed out waiting|Application timeout|[Tt]imed out', log), log[-4000:]


@pytest.mark.parametrize('script', ['slurm_train.sh', 'slurm_test.sh'])
def test_slurm_scripts_say_how_they_are_used(script):
    process = subprocess.run([ROOT / 'tools' / script, 'a'], capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr.startswith('usage: ')


def test_slurm_gets_mmseg_users_options(tmp_path):
    (tmp_path / 'srun').write_text('#!/bin/sh\necho "$@"\n')
    (tmp_path / 'srun').chmod(0o755)
    path = f'{tmp_path}{os.pathsep}{os.environ["PATH"]}'
    env = environment(PATH=path, GPUS='16', SRUN_ARGS='--time 9 --quiet', PYTHON='python')
    script = [ROOT / 'tools/slurm_test.sh', 'part', 'job', 'a.py', 'b.pth', '--tta']
    output = subprocess.run(script, env=env, capture_output=True, text=True, check=True).stdout
    for part in (
        '--partition part --job-name job --gres gpu:8 --ntasks 16 --ntasks-per-node 8',
        '--kill-on-bad-exit=1 --time 9 --quiet python -u ',
        '/test.py a.py b.pth --tta --launcher slurm',
    ):
        assert part in output
