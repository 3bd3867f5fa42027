"""A run that is killed goes on from its last checkpoint with the same losses."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
CONFIGS = {
    # The 8 likeliest of 150 classes, for speed.
    'configs/toy/infoclip_toy_ade-3-images.py': ['model.decode_head.pad_len=8'],
    'configs/toy/maftp_toy_ade-3-images.py': [],
}
OPTIONS = ('default_hooks.logger.interval=1', 'default_hooks.checkpoint.interval=3')


def command(config: str, folder: Path, max_iters: int, *arguments: str) -> list[str]:
    options = [*CONFIGS[config], *OPTIONS, f'train_cfg.max_iters={max_iters}']
    program = [sys.executable, 'tools/train.py', config, '--work-dir', str(folder)]
    return [*program, *arguments, '--cfg-options', *options]


def losses(log: str) -> dict[int, list[float]]:
    """Iteration to its losses and gradient norms, as logged."""
    lines = re.findall(r'Iter\(train\) \[ *(\d+)/\d+\](.*)', log)
    pattern = r'(?:grad_norm\w*|loss\w*): (\S+)'
    return {int(step): [float(v) for v in re.findall(pattern, line)] for step, line in lines}


@pytest.mark.slow
@pytest.mark.parametrize('config', CONFIGS, ids=lambda path: Path(path).stem.split('_')[0])
def test_sigkill_and_resume(config, tmp_path):
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    run = dict(cwd=ROOT, env=environment, text=True)
    whole = subprocess.run(command(config, tmp_path / 'whole', 9), capture_output=True, **run)
    assert whole.returncode == 0, whole.stderr[-2000:]

    folder = tmp_path / 'killed'
    pipes = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    process = subprocess.Popen(command(config, folder, 1000), **pipes, **run)
    deadline = time.monotonic() + 240
    while not (folder / 'last_checkpoint').exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    resumed = subprocess.run(command(config, folder, 9, '--resume'), capture_output=True, **run)
    assert resumed.returncode == 0, resumed.stderr[-2000:]

    expected, got = losses(whole.stdout), losses(resumed.stdout)
    assert sorted(expected) == list(range(1, 10))
    assert min(got) > 3 and max(got) == 9 and len(got) >= 3
    # Masks are compared on points that are drawn anew, so that only their losses are near.
    near = dict(abs=2e-4) if 'infoclip' in config else dict(rel=0.2, abs=0.2)
    for step, values in got.items():
        assert len(values) == (8 if 'infoclip' in config else 18), values
        assert values == pytest.approx(expected[step], **near), step
