"""Importing the package registers and does nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
PROGRAM = """
import os, sys
import torch, mmseg.models, mmseg.datasets, mmseg.engine, open_clip
threads, state = torch.get_num_threads(), torch.get_rng_state()
opened = []
sys.addaudithook(lambda event, args: opened.append(args[0]) if event == 'open' else None)
import infoclip_mmseg
sources = ('.py', '.pyc')
written = [str(n) for n in opened if isinstance(n, str) and not n.endswith(sources)]
data = [n for n in written if '__pycache__' not in n and not os.path.isdir(n)]
assert not data, data
assert threads == torch.get_num_threads() and torch.equal(state, torch.get_rng_state())
from mmseg.registry import HOOKS, MODELS
for name in ('OpenVocabSegmentor', 'CLIPDualEncoder', 'LPAM', 'CATSegHead', 'InfoBottleneckLoss'):
    assert name in MODELS.module_dict, name
assert 'FrozenTeacherHook' in HOOKS.module_dict
assert not torch.cuda.is_initialized()
from mmengine.runner import CheckpointLoader
assert CheckpointLoader._schemes[''].__name__ == 'load_from_local'
print('clean', infoclip_mmseg.__version__)
"""


def test_import_from_elsewhere_has_no_side_effects(tmp_path):
    environment = dict(PYTHONPATH=str(ROOT), PATH='/usr/bin:/bin', PYTHONDONTWRITEBYTECODE='1')
    result = subprocess.run(
        [sys.executable, '-c', PROGRAM],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    assert result.stdout.splitlines()[-1].startswith('clean')
    assert list(tmp_path.iterdir()) == []
