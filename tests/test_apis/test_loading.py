from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import MODELS

from infoclip_mmseg import OpenVocabInferencer
from infoclip_mmseg.apis.loading import build_pipeline, pick_device
from infoclip_mmseg.utils.checkpoint_files import CheckpointError
from infoclip_mmseg.utils.resources import find_config, resources

CLIP = resources() / 'data/clip/composed_world.safetensors'


def test_devices():
    assert pick_device('cpu') == torch.device('cpu')
    with pytest.raises(ValueError, match="device must be such as 'cpu'"):
        pick_device('tpu9')
    with pytest.raises(ValueError, match="device 'cuda:99' is not there"):
        pick_device('cuda:99')


def test_steps_that_read_files_are_left_out():
    cfg = Config.fromfile(find_config('infoclip_vitb16_coco-stuff'))
    assert [type(step).__name__ for step in build_pipeline(cfg)] == ['Resize', 'PackSegInputs']


def test_a_trained_model(tmp_path, world, toy_cfg):
    """A checkpoint with the parts that only training needs, as train.py writes it."""
    cfg = Config(dict(model=toy_cfg(distill=True)))
    torch.manual_seed(0)
    trained = MODELS.build(cfg.model)
    path = tmp_path / 'iter_1.pth'
    torch.save(dict(state_dict=trained.state_dict(), meta=dict(iter=1)), path)
    inferencer = OpenVocabInferencer(cfg, path, device='cpu')
    assert not hasattr(inferencer.model, 'neck') and not inferencer.model.training
    state = inferencer.model.state_dict()
    assert all(torch.equal(state[key], trained.state_dict()[key]) for key in state)
    image = world['images'][0]
    (result,) = inferencer(image, [f'thing {i}' for i in range(12)], return_scores=True)
    assert (result.scores == 0).any(axis=(1, 2)).sum() > 0  # more words than the head decodes
    (first,) = inferencer(image, ['cat', 'dog'], return_scores=True)
    (second,) = inferencer(image, ['car', 'bus'], return_scores=True)
    assert not (first.scores == second.scores).all()
    with pytest.raises(CheckpointError, match='another architecture'):
        OpenVocabInferencer('world/catseg', path, device='cpu')


def test_heads_with_weights_need_a_checkpoint(tmp_path):
    with pytest.raises(ValueError, match='a CATSegHead has weights of its own'):
        OpenVocabInferencer('world/catseg', device='cpu')
    with pytest.raises(FileNotFoundError, match='no.pth'):
        OpenVocabInferencer('world/catseg', tmp_path / 'no.pth', device='cpu')
    (tmp_path / 'bad.pth').write_bytes(b'no checkpoint')
    with pytest.raises(CheckpointError, match='damaged'):
        OpenVocabInferencer('world/catseg', tmp_path / 'bad.pth', device='cpu')
    with pytest.raises(ValueError, match="OpenVocabSegmentor, got 'EncoderDecoder'"):
        OpenVocabInferencer(Config(dict(model=dict(type='EncoderDecoder'))), device='cpu')


def test_zero_shot_from_any_folder_and_with_any_weights(inferencer, tmp_path, monkeypatch, world):
    monkeypatch.chdir(tmp_path)
    image = world['images'][0]
    (expected,) = inferencer(image, world['classes'])
    state = {f'{key}': value for key, value in inferencer.model.state_dict().items()}
    torch.save(dict(state_dict={**state, 'decode_head.x': torch.zeros(1)}), 'whole.pth')
    for weights in (None, CLIP, 'whole.pth'):
        (result,) = OpenVocabInferencer(weights=weights, device='cpu')(image, world['classes'])
        assert (result.labels == expected.labels).all()
