"""Panoptic and instance segmentation of own images: results and files."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import quarter_masks

from infoclip_mmseg import OpenVocabInferencer
from infoclip_mmseg.apis import ImageError, segments
from infoclip_mmseg.datasets.panoptic import read_id_map
from infoclip_mmseg.evaluation.panoptic import panoptic_counts

ROOT = Path(__file__).parents[2]
CLASSES = ['sky, clouds', 'cat', 'dog']


@pytest.fixture
def config(toy_cfg, tmp_path) -> Path:
    """Config file, beside its checkpoint, of a model that finds the quarters of an image."""
    return quarter_masks.write_config(toy_cfg, tmp_path)


@pytest.fixture
def inferencer(config):
    return OpenVocabInferencer(config, config.with_suffix('.pth'), device='cpu')


def test_panoptic(inferencer, photo, tmp_path):
    [found] = inferencer.segments(
        str(photo), CLASSES, ['cat'], return_vis=True, out_dir=tmp_path / 'out'
    )
    assert found.ids.shape == (48, 64) and found.visualization.shape[1] >= 640
    labels = [(s['label'], s['area']) for s in found.segments]
    assert labels == [(0, 48 * 64 // 2), (1, 48 * 64 // 4), (2, 48 * 64 // 4)]  # stuff is joined
    assert [round(s['score'], 2) for s in found.segments] == [0.9, 0.8, 0.7]
    assert set(np.unique(found.ids)) == {s['id'] for s in found.segments}
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
    [found] = inferencer.segments(str(photo), CLASSES, ['cat', 'dog'], 'instance', top=5)
    assert [s['class'] for s in found.segments] == ['cat', 'dog', 'cat']
    assert [round(s['score'], 2) for s in found.segments] == [0.8, 0.7, 0.3]
    quarter, _, half = found.segments
    assert quarter['area'] == 24 * 32 and half['area'] == half['mask'].sum() == 24 * 64
    assert (found.ids[quarter['mask']] == quarter['id']).all()  # above the half, which is less sure
    assert (found.ids[half['mask']] == half['id']).mean() == 0.5 and found.visualization is None


def test_wrong_use_is_refused(inferencer, photo):
    with pytest.raises(ValueError, match="things 'Cat' are none of the 3 classes"):
        inferencer.segments(str(photo), CLASSES, ['Cat'])
    with pytest.raises(ValueError, match=r"task must be one of \('panoptic', 'instance'\)"):
        inferencer.segments(str(photo), CLASSES, task='semantic')
    with pytest.raises(ValueError, match='opacity must be 0..1, got 50'):
        inferencer.segments(str(photo), CLASSES, opacity=50)
    with pytest.raises(ImageError, match='less than one patch of 32 x 32'):
        list(inferencer.segments(np.zeros((20, 40, 3), np.uint8), CLASSES))
    positions = OpenVocabInferencer(device='cpu')
    with pytest.raises(ValueError, match='needs a head that finds masks.*has a CosineHead'):
        positions.segments(str(photo), CLASSES)


@pytest.mark.parametrize('task', segments.TASKS)
def test_large_images_have_masks_of_their_own_size(inferencer, photo, task, monkeypatch):
    [exact] = inferencer.segments(str(photo), CLASSES, task=task)
    monkeypatch.setattr(segments, 'MAX_MASK_PIXELS', 48 * 64 // 4)
    [found] = inferencer.segments(str(photo), CLASSES, task=task)
    assert found.ids.shape == (48, 64) and found.segments
    assert (found.ids == exact.ids).mean() > 0.9
    np.testing.assert_array_equal(found.ids[::2, ::2], found.ids[1::2, 1::2])
    for segment in found.segments:
        mask = segment.get('mask', found.ids == segment['id'])
        assert mask.shape == (48, 64) and segment['area'] == mask.sum()


def test_frames_of_a_video_are_left_out(inferencer, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / 'a.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 5, (64, 48))
    for _ in range(4):
        writer.write(np.zeros((48, 64, 3), np.uint8))
    writer.release()
    found = inferencer.segments(str(tmp_path / 'a.avi'), CLASSES, frame_step=2)
    assert [one.name.split('#')[1] for one in found] == ['0', '2']


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
