"""tools/interpolate.py and tools/test.py --forgetting, on the composed world."""

from __future__ import annotations

import csv
import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CONFIG = str(ROOT / 'configs/world/catseg.py')
OPTIONS = [
    'test_dataloader.dataset.length=10',
    'test_dataloader.batch_size=5',
    f'model.backbone.pretrained={ROOT}/data/clip/composed_world.safetensors',
]


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """A program of tools/ as a function of its command line; the working folder is the test's."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', list(sys.path))

    def load(name: str):
        spec = importlib.util.spec_from_file_location(f'tool_{name}', ROOT / f'tools/{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module.main

    return load


@pytest.fixture
def tuned(tmp_path) -> Path:
    """A checkpoint whose CLIP has moved away from the pretrained one."""
    cfg = Config.fromfile(CONFIG)
    cfg.model.backbone.pretrained = str(ROOT / 'data/clip/composed_world.safetensors')
    model = MODELS.build(cfg.model)
    model.backbone.init_weights()
    with torch.no_grad():
        for name in model.backbone.trainable_names:
            weight = model.backbone.clip.get_parameter(name)
            weight.add_(0.5 * weight.std() * torch.randn_like(weight))
    path = tmp_path / 'tuned.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return path


def test_curve_and_checkpoints_between_pretrained_and_tuned(tool, tuned, tmp_path, capsys):
    files = ['--factors', '0', '0.5', '1', '--out', 'mixed']
    tool('interpolate')([CONFIG, str(tuned), *files, '--test', '--cfg-options', *OPTIONS])
    folder = tmp_path / 'work_dirs/catseg'
    rows = list(csv.DictReader((folder / 'interpolation.csv').open(newline='')))
    assert [float(row['factor']) for row in rows] == [0, 0.5, 1]
    assert len({row['harmonic'] for row in rows}) == 3
    assert min(Image.open(folder / 'interpolation.png').size) > 300
    assert '| factor |' in capsys.readouterr().out

    states = [
        torch.load(tmp_path / f'mixed/factor_{f}.pth', weights_only=True)['state_dict']
        for f in ('0', '0.5', '1')
    ]
    for name, end in torch.load(tuned, weights_only=True)['state_dict'].items():
        first, middle, last = (state[name] for state in states)
        assert torch.equal(last, end)
        if name.startswith('backbone.'):
            torch.testing.assert_close(middle, torch.lerp(first, end, 0.5))
        else:
            assert torch.equal(first, end) and torch.equal(middle, end)


def test_forgetting_on_words_that_are_not_trained(tool, tuned, tmp_path):
    words = 'grey furry heart; car; red checked object'
    tool('test')([CONFIG, str(tuned), '--forgetting', words, '--cfg-options', *OPTIONS])
    [row] = json.loads((tmp_path / 'work_dirs/catseg/forgetting.json').read_text())
    assert 0 < row['agreement'] < 100 and row['image_drift'] > 0 and row['text_drift'] > 0
    assert row['trained_mIoU_untouched'] > 40 and row['other_mIoU_untouched'] > 40
    assert np.isfinite(row['other_mIoU'])
    [log] = (tmp_path / 'work_dirs/catseg').glob('*/*.log')
    assert 'as the untouched one, on ' in log.read_text(encoding='utf-8')


@pytest.mark.parametrize(
    ('arguments', 'message'),
    [
        (['{tuned}'], 'nothing to do: give --out FILE, or --test'),
        (['{tuned}', '--out', 'a.pth', '--factors', '1.5'], 'from 0 (pretrained) to 1 (tuned)'),
        (['absent.pth', '--out', 'a.pth'], "checkpoint 'absent.pth' does not exist"),
        (
            ['{tuned}', '--out', 'a.pth', '--cfg-options', 'model.backbone.pretrained=None'],
            'no pretrained weights to go back to',
        ),
        (
            ['{tuned}', '--out', 'a.pth', '--cfg-options', 'model.decode_head.hidden_dim=16'],
            'belongs to another architecture',
        ),
    ],
)
def test_bad_input_ends_with_one_error(tool, tuned, tmp_path, capsys, arguments, message):
    words = [word.format(tuned=tuned) for word in arguments]
    with pytest.raises(SystemExit) as caught:
        tool('interpolate')([CONFIG, *words])
    assert caught.value.code == 2
    assert message in capsys.readouterr().err and not (tmp_path / 'a.pth').exists()
