"""Weights between the pretrained and the tuned CLIP."""

from __future__ import annotations

import pytest
import torch

from infoclip_mmseg.models.distillation.interpolation import interpolate_weights, pretrained_weights


def test_the_ends_and_the_middle():
    start = {'a': torch.zeros(2, 3), 'n': torch.tensor(1)}
    end = {'x.a': torch.full((2, 3), 4.0), 'x.n': torch.tensor(7), 'head': torch.ones(1)}
    for factor, expected in ((0, 0.0), (0.25, 1.0), (1, 4.0)):
        mixed = interpolate_weights(start, end, factor, 'x.')
        assert mixed.keys() == {'x.a', 'x.n'}
        assert mixed['x.a'].eq(expected).all() and mixed['x.n'] == 7
    assert interpolate_weights(start, end, 1, 'x.')['x.a'] is end['x.a']


def test_types_are_those_of_the_tuned_weights():
    start, end = {'a': torch.zeros(1)}, {'a': torch.full((1,), 3.0, dtype=torch.bfloat16)}
    mixed = interpolate_weights(start, end, 0.5)
    assert mixed['a'].dtype == torch.bfloat16 and mixed['a'].item() == 1.5


def test_other_architectures_are_refused():
    start = {'a': torch.zeros(2), 'b': torch.zeros(3)}
    with pytest.raises(ValueError, match=r'lack 1 tensors \(b\) and have 1 .*a: \(2,\) and \(4,\)'):
        interpolate_weights(start, {'a': torch.zeros(4)}, 0.5)
    with pytest.raises(ValueError, match='from 0 .pretrained. to 1 .tuned., got 1.5'):
        interpolate_weights(start, start, 1.5)


def test_pretrained_weights_leave_the_encoder_alone(toy, toy_weights):
    model = toy(backbone=dict(pretrained=str(toy_weights)))
    before = {name: x.clone() for name, x in model.backbone.state_dict().items()}
    start = pretrained_weights(model.backbone)
    assert start.keys() == before.keys()
    assert all(torch.equal(x, before[name]) for name, x in model.backbone.state_dict().items())
    model.backbone.init_weights()
    assert all(torch.equal(x, start[name]) for name, x in model.backbone.state_dict().items())
    with pytest.raises(ValueError, match=r'set model\.backbone\.pretrained'):
        pretrained_weights(toy().backbone)
