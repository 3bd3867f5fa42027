"""The head's own backward passes against autograd through its modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from infoclip_mmseg.models.decode_heads import cat_seg as decode_head
from infoclip_mmseg.models.layers.aggregation import SpatialAggregation
from infoclip_mmseg.models.layers.cpu_backward.support import is_supported
from infoclip_mmseg.models.layers.upsampling import (
    GuidedStage,
    GuidedUpsampling,
    decode,
    decode_recomputing,
)

pytestmark = pytest.mark.skipif(
    not is_supported(torch.zeros(1)), reason='torch 2.4 or later has the operators'
)


def randomise(*modules: nn.Module) -> list[nn.Parameter]:
    """Double precision, and no weight at a value that hides an error (norms start at 1 and 0)."""
    parameters = [p for module in modules for p in module.double().parameters()]
    for parameter in parameters:
        nn.init.normal_(parameter, std=0.5)
    return parameters


def assert_same_gradients(plain, own, leaves) -> None:
    torch.testing.assert_close(own, plain, rtol=1e-9, atol=1e-9)
    upstream = torch.randn_like(plain)
    expected, found = (
        torch.autograd.grad(out, leaves, upstream, retain_graph=True) for out in (plain, own)
    )
    for one, other in zip(expected, found):
        assert one.abs().sum() > 0
        torch.testing.assert_close(other, one, rtol=1e-8, atol=1e-9)


def leaf(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize('grid', [(4, 4), (5, 7), (2, 9), (1, 1)])
@pytest.mark.parametrize('chunk', [1, 2, 8])
def test_spatial_aggregation(grid, chunk):
    module = SpatialAggregation(8, 6, num_heads=2, window_size=4)
    parameters = randomise(module)
    x, guidance = leaf(2, 5, *grid, 8), leaf(2, *grid, 6)
    guided = module.guide(guidance)
    own = module.recompute(x, *guided, chunk)
    assert_same_gradients(module(x, *guided), own, [x, guidance, *parameters])


@pytest.mark.parametrize('grid', [(4, 4), (3, 5), (1, 1)])
@pytest.mark.parametrize('chunk', [1, 2, 8])
def test_decoder(grid, chunk):
    # Two groups of 16 channels, then one.
    modules = GuidedUpsampling(6, 32, 2), GuidedUpsampling(32, 16, 3)
    last = nn.Conv2d(16, 1, 3, padding=1)
    parameters = randomise(*modules, last)
    x = leaf(2, 5, *grid, 6)
    guidance = [leaf(2, c, s * grid[0], s * grid[1]) for c, s in ((2, 2), (3, 4))]
    stages = [GuidedStage(m, m.guide(g), m.weight()) for m, g in zip(modules, guidance)]
    own = decode_recomputing(x, stages, last, chunk)
    assert_same_gradients(decode(x, stages, last), own, [x, *guidance, *parameters])


def test_gradients_twice_and_expanded():
    module = SpatialAggregation(8, 6, num_heads=2, window_size=4)
    randomise(module)
    x, guided = leaf(1, 3, 4, 6, 8), module.guide(leaf(1, 4, 6, 6))
    out = module.recompute(x, *guided, 2)
    first = torch.autograd.grad(out.sum(), x, retain_graph=True)
    second = torch.autograd.grad(out, x, torch.ones(1, dtype=x.dtype).expand_as(out))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


def test_head_uses_them_in_training_only(toy_cfg, monkeypatch):
    calls = []
    for name in ('SpatialAggregation.recompute', 'decode_recomputing'):
        owner = decode_head
        *path, last = name.split('.')
        for part in path:
            owner = getattr(owner, part)
        original = getattr(owner, last)
        monkeypatch.setattr(
            owner, last, lambda *a, original=original, name=name: calls.append(name) or original(*a)
        )
    config = {k: v for k, v in toy_cfg()['decode_head'].items() if k != 'type'}
    head = decode_head.CATSegHead(
        embed_dim=32, guidance_in_channels=128, **{**config, 'with_cp': True}
    )
    x = decode_head.ImageFeatures(torch.randn(1, 32, 4, 5), torch.randn(1, 32), ())
    x = x._replace(blocks=(torch.randn(1, 128, 4, 5),) * 2)
    text = torch.randn(5, 1, 32)
    with torch.no_grad():
        head.train()(x, text)
    head.eval()(x, text)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        head.train()(x, text)
    assert not calls
    head(x, text)
    layers = len(head.layers)
    assert calls == ['SpatialAggregation.recompute'] * layers + ['decode_recomputing']


@pytest.mark.parametrize('x', [torch.zeros(1).half(), torch.zeros(1, device='meta')])
def test_not_for_other_types_and_devices(x):
    assert not is_supported(x)
