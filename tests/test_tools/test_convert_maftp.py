"""tools/convert_maftp.py from file to file."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
FACTS = json.loads((ROOT / 'tests/data/maftp_tiny.json').read_text())


@pytest.fixture
def tool(monkeypatch):
    """The program as a function of its command line."""
    monkeypatch.setattr(sys, 'path', list(sys.path))
    path = ROOT / 'tools/convert_maftp.py'
    spec = importlib.util.spec_from_file_location('tool_convert_maftp', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.main


@pytest.fixture(scope='module')
def published(fill_rule) -> dict[str, torch.Tensor]:
    return {key: fill_rule(key, shape) for key, shape in FACTS['state_dict_shapes'].items()}


@pytest.mark.parametrize('form', ['semantic', 'panoptic'])
def test_maft_plus(tool, published, tmp_path, capsys, form):
    source, destination = tmp_path / 'maftp.pth', tmp_path / 'out/ours.pth'
    torch.save({'model': {**published, 'odd.key': torch.zeros(2)}, 'iteration': 5}, source)
    tool([str(source), str(destination), *(['--panoptic'] if form == 'panoptic' else [])])
    said = capsys.readouterr().out
    assert 'no place for odd.key' in said and f'as you say: {form}' in said
    assert 'trained on maftp_coco;' in said
    checkpoint = torch.load(destination, weights_only=True)
    state, kept = checkpoint['state_dict'], len(checkpoint['meta']['dataset_meta']['classes'])
    assert kept == 171 and state['decode_head.transfer.is_panoptic'] == (form == 'panoptic')
    assert not any('backbone_t' in key for key in state)


def test_fc_clip(tool, published, tmp_path, capsys):
    state = {k: v for k, v in published.items() if not k.startswith(('cdt.', 'backbone_t.'))}
    torch.save(state, tmp_path / 'fcclip.pth')
    tool([str(tmp_path / 'fcclip.pth'), str(tmp_path / 'ours.pth')])
    assert 'trained on maftp_coco_panoptic;' in capsys.readouterr().out
    checkpoint = torch.load(tmp_path / 'ours.pth', weights_only=True)
    assert len(checkpoint['meta']['dataset_meta']['classes']) == 133
    assert not any('.transfer.' in key for key in checkpoint['state_dict'])


def test_other_architectures_are_refused(tool, published, tmp_path, capsys):
    key = 'sem_seg_head.predictor.class_embed.layers.2.weight'
    cases = {
        'not a checkpoint of MAFT+ or FC-CLIP with a ConvNeXt': {'conv1.weight': torch.zeros(3)},
        '1 tensors missing': {k: v for k, v in published.items() if k != key},
        'of another shape': {**published, key: published[key][:, :5]},
    }
    for message, state in cases.items():
        torch.save(state, tmp_path / 'wrong.pth')
        with pytest.raises(SystemExit) as caught:
            tool([str(tmp_path / 'wrong.pth'), str(tmp_path / 'ours.pth')])
        assert caught.value.code == 2 and message in capsys.readouterr().err
    assert not (tmp_path / 'ours.pth').exists()
