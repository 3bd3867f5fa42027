"""Two ranks train models on EVA-02 and SigLIP as one process with the joint batch does."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from small_run import FSDP, HAS_FSDP, free_port, write_config, write_images
from timm_toys import clip_config

WORKER = Path(__file__).with_name('rank_worker.py')
TESTS = Path(__file__).parents[1]

pytestmark = pytest.mark.slow


@pytest.mark.parametrize('kind', ['toy_eva02', 'toy_siglip'])
def test_two_ranks_are_one_process(kind, tmp_path):
    write_images(tmp_path / 'data')
    backbone = dict(model_name=dict(_delete_=True, **clip_config(kind)))
    config = write_config(tmp_path, 'ddp', backbone=backbone)
    runs = [('one', 1, config), ('ddp', 2, config)]
    if HAS_FSDP:
        runs.append(('fsdp', 2, write_config(tmp_path, 'fsdp', FSDP, backbone=backbone)))
    jobs = []
    for name, ranks, config in runs:
        options = [config, '--work-dir', name, '--cfg-options']
        options.append(f'train_dataloader.batch_size={4 // ranks}')
        launcher = 'pytorch' if ranks > 1 else 'none'
        jobs.append((ranks, launcher, free_port(), 'train', options))
    (tmp_path / 'jobs.json').write_text(json.dumps(jobs))
    path = os.pathsep.join([str(TESTS), os.environ.get('PYTHONPATH', '')])
    env = {**os.environ, 'PYTHONPATH': path, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    command = [sys.executable, WORKER, 'jobs.json']
    done = subprocess.run(
        command, cwd=tmp_path, env=env, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    expected = json.loads((tmp_path / 'one/losses.json').read_text())
    joint = torch.load(tmp_path / 'one/iter_4.pth', weights_only=False)['state_dict']
    for name, _, _ in runs[1:]:
        for step, wanted in zip(
            json.loads((tmp_path / name / 'losses.json').read_text()), expected
        ):
            assert step['loss'] == pytest.approx(wanted['loss'], abs=1e-5)
        state = torch.load(tmp_path / name / 'iter_4.pth', weights_only=False)['state_dict']
        assert state.keys() == joint.keys()
        for key, value in joint.items():
            torch.testing.assert_close(state[key], value, atol=1e-5, rtol=0, msg=key)
