"""EnsembleSegmentor: geometric mean of the head's and the untouched CLIP's probabilities."""

from __future__ import annotations

import copy

import pytest
import torch
from mmseg.registry import MODELS

from infoclip_mmseg.models.segmentors.ensemble import geometric_mean

WORDS = ['wall', 'sky', 'tree', 'cat', 'dog', 'red car', 'door', 'lamp', 'sofa', 'rug']


def ensemble(toy, weights, weight: float, **changes):
    model = toy(
        type='EnsembleSegmentor',
        untouched_weight=weight,
        backbone=dict(pretrained=str(weights)),
        **changes,
    )
    return loaded(model, weights)


def loaded(model, weights):
    """Pretrained, then moved on."""
    model.backbone.init_weights()
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    model.set_vocabulary(WORDS)
    return model.eval()


def test_geometric_mean():
    logits, p = torch.randn(2, 3, 4, 4, dtype=torch.float64).float(), torch.rand(2, 3, 4, 4)
    for weight in (0.0, 0.3, 1.0):
        mixed = geometric_mean(logits, p.log(), weight).sigmoid()
        torch.testing.assert_close(mixed, logits.sigmoid() ** (1 - weight) * p**weight)
    certain = geometric_mean(torch.full((1,), 80.0), torch.zeros(1), 0.5)
    assert certain.isfinite().all() and certain.sigmoid() > 0.999


@pytest.mark.parametrize('pad_len', [8, 16])  # below and above the number of words
def test_ends_are_head_and_untouched_clip(toy, toy_weights, pad_len):
    images = torch.randn(2, 3, 48, 64) * 40 + 120
    head = dict(decode_head=dict(pad_len=pad_len))
    plain = loaded(toy(backbone=dict(pretrained=str(toy_weights)), **head), toy_weights)
    none, half, whole = (ensemble(toy, toy_weights, w, **head) for w in (0.0, 0.5, 1.0))
    expected = plain.segment(images, mode='whole').sigmoid()
    torch.testing.assert_close(none.segment(images, mode='whole').sigmoid(), expected)

    untouched = copy.deepcopy(plain.backbone)
    untouched.init_weights()
    mean, std = plain.data_preprocessor.mean, plain.data_preprocessor.std
    small = torch.nn.functional.interpolate((images - mean) / std, (48, 48), mode='bilinear')
    with torch.no_grad():
        dense = torch.nn.functional.normalize(untouched.encode_image(small).dense, dim=1)
        text = untouched.embed_prompts(plain.prompts)[:, 0]
        cosines = torch.einsum('bchw,tc->bthw', dense, text)
        probabilities = whole.segment(images, mode='whole').sigmoid()
        size = probabilities.shape[-2:]
        cosines = torch.nn.functional.interpolate(cosines, size, mode='bilinear')
        clip = (untouched.clip.logit_scale.exp() * cosines).softmax(1)
    decoded = expected > 0
    assert decoded.flatten(2).all(-1).sum(1).tolist() == [min(pad_len, len(WORDS))] * 2
    torch.testing.assert_close(probabilities[decoded], clip[decoded], rtol=1e-4, atol=1e-6)
    mixed = half.segment(images, mode='whole').sigmoid()
    torch.testing.assert_close(
        mixed[decoded], (expected * clip).sqrt()[decoded], rtol=1e-4, atol=1e-6
    )


def test_predictions_and_state_dict(toy, toy_weights):
    images = torch.randn(1, 3, 48, 64) * 40 + 120
    model = ensemble(toy, toy_weights, 0.5)
    plain = loaded(toy(backbone=dict(pretrained=str(toy_weights))), toy_weights)
    labels, probability = model.label(images)
    assert labels.shape == (1, 48, 64) and probability.isfinite().all()
    assert not probability.equal(plain.label(images)[1])
    assert model.state_dict().keys() == plain.state_dict().keys()


def test_wrong_use_is_refused(toy, toy_cfg):
    with pytest.raises(ValueError, match=r'untouched_weight must be from 0 to 1, got 1\.5'):
        toy(type='EnsembleSegmentor', untouched_weight=1.5)
    model = toy(type='EnsembleSegmentor')
    model.set_vocabulary(WORDS)
    with pytest.raises(ValueError, match=r'untouched CLIP: set model\.backbone\.pretrained'):
        model.eval().segment(torch.zeros(1, 3, 48, 48), mode='whole')
    config = toy_cfg(type='EnsembleSegmentor', test_cfg=dict(mode='whole'))
    config['decode_head'] = dict(type='ZeroShotHead')
    with pytest.raises(ValueError, match='is the untouched CLIP itself'):
        MODELS.build(config)
