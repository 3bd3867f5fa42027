"""What users rely on is what it was before the modules were moved into rooms (commit ff8077e).

The files in tests/data/before_rooms were written by that commit: names and options of everything
registered, what the packages export, keys of state dicts, and a checkpoint with its predictions.
"""

from __future__ import annotations

import importlib
import inspect
import json
from pathlib import Path

import mmengine.registry
import mmseg.registry
import pytest
import torch
from mmengine.registry import Registry
from mmseg.registry import MODELS
from safetensors.torch import load_file

from infoclip_mmseg.models import CATSegHead
from infoclip_mmseg.models.layers.aggregation import AggregationSizes
from infoclip_mmseg.models.layers.upsampling import UpsamplingSizes
from infoclip_mmseg.utils.checkpoint_files import check_state_dict, load_checkpoint_file

FOLDER = Path(__file__).parent / 'data' / 'before_rooms'
ZERO_SHOT = dict(
    decode_head=dict(type='ZeroShotHead', scale=20.0),
    neck=None,
    loss_ib=None,
    loss_mi=None,
    test_cfg=dict(mode='windows', window=48, stride=24),
)


def read(name: str):
    return json.loads((FOLDER / name).read_text(encoding='utf-8'))


def find_registry(name: str) -> Registry:
    return getattr(mmseg.registry, name, None) or getattr(mmengine.registry, name)


@pytest.mark.parametrize('registry', sorted(read('surface.json')['registered']))
def test_registered_names_and_their_options(registry):
    modules = find_registry(registry).module_dict
    for name, options in read('surface.json')['registered'][registry].items():
        assert name in modules, f'{registry} no longer has {name}'
        parameters = inspect.signature(modules[name]).parameters
        if not any(p.kind == p.VAR_KEYWORD for p in parameters.values()):
            assert set(options) <= set(parameters), name


def test_options_of_the_head_that_are_shorthand(toy):
    names = set(read('surface.json')['registered']['MODELS']['CATSegHead'])
    known = set(inspect.signature(CATSegHead).parameters)
    known |= set(AggregationSizes._fields) | set(UpsamplingSizes._fields)
    assert names <= known
    assert toy().decode_head.cost_embed.out_channels == 32
    with pytest.raises(TypeError, match='hiden_dim'):
        toy(decode_head=dict(hiden_dim=32))


@pytest.mark.parametrize('room', sorted(read('surface.json')['public']))
def test_public_names(room):
    package = 'infoclip_mmseg' if room == 'infoclip_mmseg' else f'infoclip_mmseg.{room}'
    module = importlib.import_module(package)
    for name in read('surface.json')['public'][room]:
        assert hasattr(module, name), f'from {package} import {name}'
        assert name in module.__all__


def test_keys_of_state_dicts(toy, toy_cfg):
    expected = read('state_dict_keys.json')
    assert list(toy(distill=True).state_dict()) == expected['infoclip']
    zero_shot = MODELS.build({**toy_cfg(), **ZERO_SHOT})
    assert list(zero_shot.state_dict()) == expected['zero_shot']


@pytest.fixture(scope='module')
def checkpoint() -> dict[str, torch.Tensor]:
    return load_checkpoint_file(FOLDER / 'checkpoint.pth')['state_dict']


@pytest.fixture(scope='module')
def predictions() -> dict[str, torch.Tensor]:
    return load_file(str(FOLDER / 'predictions.safetensors'))


def compare(model, predictions, mode: str, name: str) -> None:
    """Labels may differ where two classes are equal but for the rounding of a processor."""
    words, images = read('model.json')['words'], predictions['images'].float()
    labels, probability = model.eval().label(images, words, mode=mode)
    torch.testing.assert_close(probability, predictions[f'probability_{name}'], atol=2e-5, rtol=0)
    assert (labels == predictions[f'label_{name}']).float().mean() > 0.998


@pytest.mark.parametrize('mode', ['slide', 'windows', 'whole'])
def test_a_checkpoint_from_before_predicts_the_same(checkpoint, predictions, mode):
    model = MODELS.build(read('model.json')['model'])
    check_state_dict(model, checkpoint)
    model.load_state_dict(checkpoint)
    compare(model, predictions, mode, mode)
    if mode == 'whole':
        words = read('model.json')['words']
        logits = model.segment(predictions['images'].float(), words, mode='whole')
        torch.testing.assert_close(logits, predictions['segment_whole'], atol=1e-4, rtol=0)


def test_its_backbone_serves_a_zero_shot_head(checkpoint, predictions):
    model = MODELS.build({**read('model.json')['model'], **ZERO_SHOT})
    model.load_state_dict({k: v for k, v in checkpoint.items() if k.startswith('backbone.')})
    compare(model, predictions, 'windows', 'zero_shot')
