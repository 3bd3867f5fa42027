"""tools/convert_catseg.py from file to file."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from infoclip_mmseg.models.decode_heads.cat_seg_checkpoint import convert_catseg

ROOT = Path(__file__).parents[2]


def run(source, destination):
    command = [sys.executable, ROOT / 'tools/convert_catseg.py', source, destination]
    return subprocess.run(command, capture_output=True, text=True, cwd=source.parent)


def test_command(published_state, tmp_path):
    source, destination = tmp_path / 'model.pth', tmp_path / 'out' / 'ours.pth'
    extra = {'sem_seg_head.predictor.some_prompt': torch.zeros(3)}
    torch.save({'model': {**published_state, **extra}, 'iteration': 5}, source)
    result = run(source, destination)
    assert result.returncode == 0, result.stderr
    assert 'no place for sem_seg_head.predictor.some_prompt' in result.stdout
    assert '2 attention masks left out' in result.stdout
    checkpoint = torch.load(destination, weights_only=True)
    assert len(checkpoint['meta']['dataset_meta']['classes']) == 171
    assert len(checkpoint['state_dict']) == len(published_state) - 2


def test_wrong_architectures(published_state, tmp_path):
    with pytest.raises(ValueError, match='not a CAT-Seg checkpoint with a CLIP ViT'):
        convert_catseg({'backbone.layer1.0.conv1.weight': torch.zeros(3)})
    cut = dict(published_state)
    key = 'sem_seg_head.predictor.transformer.layers.1.attention.norm1.weight'
    cut[key] = cut[key][:5]
    with pytest.raises(ValueError, match=r'layers.1.classes.norm1.weight: \(5,\) in the file'):
        convert_catseg(cut)
    del cut[key]
    with pytest.raises(ValueError, match='1 tensors missing'):
        convert_catseg(cut)
    source = tmp_path / 'resnet.pth'
    torch.save({'conv1.weight': torch.zeros(3)}, source)
    result = run(source, tmp_path / 'x.pth')
    assert result.returncode == 2
    assert 'Traceback' not in result.stderr and 'CLIP ViT' in result.stderr


def test_packed_projections_are_split(published_state):
    packed = {}
    for key, value in published_state.items():
        if key.endswith('q_proj_weight'):
            stem = key.removesuffix('q_proj_weight')
            parts = [published_state[f'{stem}{x}_proj_weight'] for x in 'qkv']
            packed[f'{stem}in_proj_weight'] = torch.cat(parts)
        elif not key.endswith(('k_proj_weight', 'v_proj_weight')):
            packed[key] = value
    expected, got = convert_catseg(published_state), convert_catseg(packed)
    assert got.state_dict.keys() == expected.state_dict.keys()
    assert all(torch.equal(v, expected.state_dict[k]) for k, v in got.state_dict.items())
