"""The composed world's programs: pretraining of the small CLIP, the first command, equal runs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from safetensors import safe_open

from infoclip_mmseg.experiments.ablation.state import read_scalars

ROOT = Path(__file__).resolve().parents[2]
WEIGHTS = ROOT / 'data/clip/composed_world.safetensors'
SMALL = [
    'train_dataloader.batch_size=2',
    'train_dataloader.dataset.length=8',
    'train_cfg.max_iters=2',
    'default_hooks.logger.interval=1',
    'model.backbone.model_name.vision_cfg.width=32',
    'model.backbone.model_name.vision_cfg.head_width=16',
    'model.backbone.model_name.text_cfg.width=16',
]


def run(tool: str, *options: str, cwd: Path, **kwargs) -> subprocess.CompletedProcess:
    command = [sys.executable, str(ROOT / 'tools' / tool), *options]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, **kwargs)


@pytest.fixture
def quickstart(monkeypatch):
    """tools/quickstart.py as a module."""
    monkeypatch.setattr(sys, 'path', list(sys.path))
    spec = importlib.util.spec_from_file_location('tool_quickstart', ROOT / 'tools/quickstart.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_first_command_compares_and_draws(tmp_path):
    done = run('quickstart.py', '--iters', '3', '--scenes', '20', cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    rows = [line for line in done.stdout.splitlines() if line.startswith('│ ')]
    names = [row.split('│')[1].strip() for row in rows]
    trained = ['CAT-Seg, no guard', 'InfoCLIP, published', 'InfoCLIP-CS, guarded']
    assert names == ['zero-shot CLIP', *trained]
    zero_shot = [float(cell) for cell in rows[0].split('│')[2:-1]]
    assert min(zero_shot) > 50, 'the committed CLIP reads the world'
    folder = tmp_path / 'work_dirs/world'
    for name in ('sheet.png', 'curves.png'):
        pixels = np.array(Image.open(folder / name).convert('RGB'))
        assert min(pixels.shape[:2]) > 300 and len(np.unique(pixels)) > 50
        assert str(folder.relative_to(tmp_path) / name) in done.stdout
    assert {path.name for path in folder.iterdir()} >= {'catseg', 'infoclip', 'infoclip_cs'}
    # It speaks to a person: the framework's logs are in a file.
    assert len(done.stdout.splitlines()) + len(done.stderr.splitlines()) <= 60
    for step in ('zero-shot CLIP: test', *(f'{name}: training' for name in trained)):
        assert step in done.stdout
    assert 'mmengine - INFO' not in done.stdout
    assert 'mmengine - INFO' in (folder / 'quickstart.log').read_text(encoding='utf-8')


def test_first_command_without_weights(quickstart, monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    options = ['--weights', str(tmp_path / 'none.safetensors')]
    with pytest.raises(SystemExit) as caught:
        quickstart.main(options)
    assert caught.value.code == 2
    assert 'tools/pretrain_clip.py' in capsys.readouterr().err


@pytest.mark.parametrize('options', [['--iters', '0'], ['--scenes', '3']])
def test_first_command_refuses_too_little(options, quickstart, capsys):
    with pytest.raises(SystemExit) as caught:
        quickstart.main(options)
    assert caught.value.code == 2
    assert options[0] in capsys.readouterr().err


@pytest.mark.slow
def test_pretraining_writes_a_clip_and_resumes(tmp_path):
    options = ['--work-dir', 'pre', '--out', 'out/clip.safetensors', '--cfg-options', *SMALL]
    done = run('pretrain_clip.py', *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    with safe_open(str(tmp_path / 'out/clip.safetensors'), 'pt') as file:
        stages = json.loads(file.metadata()['pretraining'])
    assert [stage['config'] for stage in stages] == ['pretrain_1_contrast', 'pretrain_2_dense']
    assert [stage['iterations'] for stage in stages] == [2, 2]
    assert {stage['seed'] for stage in stages} == {0}
    written = (tmp_path / 'pre/1/clip.safetensors').stat().st_mtime_ns
    (tmp_path / 'pre/2/clip.safetensors').unlink()
    done = run('pretrain_clip.py', '--resume', *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-2000:]
    assert (tmp_path / 'pre/1/clip.safetensors').stat().st_mtime_ns == written
    assert (tmp_path / 'pre/2/clip.safetensors').is_file()


def test_pretraining_with_an_unknown_config(tmp_path):
    done = run('pretrain_clip.py', 'none.py', cwd=tmp_path)
    assert done.returncode == 2 and 'Traceback' not in done.stderr
    assert "config 'none.py' does not exist" in done.stderr


@pytest.mark.slow
def test_equal_seeds_give_equal_losses_in_two_processes(tmp_path):
    """The first 20 losses of InfoCLIP, to the last decimal; another seed gives others."""

    def losses(name: str, seed: int) -> list[float]:
        options = ['train_cfg.max_iters=20', 'default_hooks.logger.interval=1']
        options += [f'randomness.seed={seed}', f'model.backbone.pretrained={WEIGHTS}']
        config = str(ROOT / 'configs/world/infoclip.py')
        env = {**os.environ, 'OMP_NUM_THREADS': '1'}
        folder = tmp_path / name
        args = [config, '--work-dir', str(folder), '--cfg-options', *options]
        done = run('train.py', *args, cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr[-2000:]
        return [row['loss'] for row in read_scalars(folder) if 'loss' in row]

    first = losses('a', 0)
    assert len(first) == 20 and len(set(first)) == 20
    assert losses('b', 0) == first
    assert losses('c', 1) != first
