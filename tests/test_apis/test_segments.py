"""Panoptic and instance segmentation of own images: results and files."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import convnext
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from infoclip_mmseg import OpenVocabInferencer
from infoclip_mmseg.apis.segments import find_segments
from infoclip_mmseg.datasets.panoptic import read_id_map
from infoclip_mmseg.evaluation.panoptic import panoptic_counts

ROOT = Path(__file__).parents[2]
CLASSES = ['sky, clouds', 'cat', 'dog']


@pytest.fixture
def config(toy_cfg, tmp_path) -> Path:
    """Config file and checkpoint of a toy-sized MAFT+ that takes every mask."""
    model = toy_cfg(**convnext.mask_config())
    model['decode_head'] = dict(convnext.MASKS, score=0.0, overlap=0.0)
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(160, 96), keep_ratio=True),
        dict(type='PackSegInputs'),
    ]
    cfg = Config(dict(model=model, test_dataloader=dict(dataset=dict(pipeline=pipeline))))
    cfg.test_pipeline = pipeline
    cfg.dump(tmp_path / 'toy.py')
    torch.manual_seed(0)
    torch.save(dict(state_dict=MODELS.build(cfg.model).state_dict()), tmp_path / 'toy.pth')
    return tmp_path / 'toy.py'


@pytest.fixture
def inferencer(config):
    return OpenVocabInferencer(config, config.with_suffix('.pth'), device='cpu')


def test_panoptic(inferencer, photo, tmp_path):
    [found] = find_segments(
        inferencer, str(photo), CLASSES, ['cat'], return_vis=True, out_dir=tmp_path / 'out'
    )
    assert found.ids.shape == (48, 64) and found.visualization.shape[1] >= 640
    assert set(np.unique(found.ids)) - {0} == {s['id'] for s in found.segments}
    for segment in found.segments:
        assert segment['class'] == CLASSES[segment['label']]
        assert segment['is_thing'] is (segment['class'] == 'cat')
        assert segment['area'] == (found.ids == segment['id']).sum()
    np.testing.assert_array_equal(read_id_map(tmp_path / 'out/pred/photo.png'), found.ids)
    content = json.loads((tmp_path / 'out/panoptic.json').read_text())
    assert [c['name'] for c in content['categories']] == CLASSES
    assert [c['isthing'] for c in content['categories']] == [0, 1, 0]
    [entry] = content['annotations']
    assert [s['category_id'] - 1 for s in entry['segments_info']] == [
        s['label'] for s in found.segments
    ]
    assert json.loads((tmp_path / 'out/pred/photo.json').read_text())['task'] == 'panoptic'
    assert (tmp_path / 'out/vis/photo.jpg').is_file()
    counts = panoptic_counts(found.ids, found.segments, found.ids, found.segments, 3)
    assert counts.matched.sum() == len(found.segments)


def test_instances(inferencer, photo, tmp_path):
    [found] = find_segments(inferencer, str(photo), CLASSES, ['cat', 'dog'], 'instance', top=5)
    assert all(s['class'] in ('cat', 'dog') and s['mask'].shape == (48, 64) for s in found.segments)
    scores = [s['score'] for s in found.segments]
    assert scores == sorted(scores, reverse=True) and found.visualization is None
    if found.segments:
        best = found.segments[0]
        assert (found.ids[best['mask']] == best['id']).all()


def test_wrong_use_is_refused(inferencer, photo):
    with pytest.raises(ValueError, match="things 'Cat' are none of the 3 classes"):
        find_segments(inferencer, str(photo), CLASSES, ['Cat'])
    with pytest.raises(ValueError, match=r"task must be one of \('panoptic', 'instance'\)"):
        find_segments(inferencer, str(photo), CLASSES, task='semantic')
    positions = OpenVocabInferencer(device='cpu')
    with pytest.raises(ValueError, match='needs a head that finds masks.*has a CosineHead'):
        find_segments(positions, str(photo), CLASSES)


def test_command(config, photo, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, 'path', list(sys.path))
    spec = importlib.util.spec_from_file_location('tool_infer', ROOT / 'tools/infer.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)
    model = ['--config', str(config), '--weights', str(config.with_suffix('.pth'))]
    words = [
        '--classes',
        '; '.join(CLASSES),
        '--things',
        'cat; dog',
        '--out',
        str(tmp_path / 'out'),
    ]
    assert tool.main([str(photo), *model, *words, '--task', 'panoptic']) == 0
    assert '1 images: ' in capsys.readouterr().out
    assert (tmp_path / 'out/panoptic.json').is_file()
    with pytest.raises(SystemExit):
        tool.main([str(photo), *model, *words, '--task', 'panoptic', '--background', 'wall'])
    assert '--background is for --task semantic' in capsys.readouterr().err
