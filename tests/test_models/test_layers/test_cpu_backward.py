"""The backward passes written by hand against autograd through the modules."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from infoclip_mmseg.models import CATSegHead, ImageFeatures
from infoclip_mmseg.models.layers import chunks
from infoclip_mmseg.models.layers.aggregation import SpatialAggregation
from infoclip_mmseg.models.layers.cpu_backward import recompute_on_cpu
from infoclip_mmseg.models.layers.cpu_backward.support import (
    ConvState,
    is_supported,
    put_tensors,
    take_tensors,
)
from infoclip_mmseg.models.layers.upsampling import GuidedUpsampling, conv_steps, decode

needs_operators = pytest.mark.skipif(
    not is_supported(torch.zeros(1)), reason='torch 2.4 or later has the operators'
)


def randomise(*modules: nn.Module) -> dict[str, nn.Parameter]:
    """Double precision, and no weight at a value that hides an error (norms start at 1 and 0)."""
    parameters = {
        f'{i}.{name}': parameter
        for i, module in enumerate(modules)
        for name, parameter in module.double().named_parameters()
    }
    for parameter in parameters.values():
        nn.init.normal_(parameter, std=0.5)
    return parameters


def assert_same_gradients(plain, recomputed, leaves, zero=()) -> None:
    """Results and gradients are equal; those of ``zero`` vanish in mathematics, and no others."""
    torch.testing.assert_close(recomputed, plain, rtol=1e-9, atol=1e-9)
    upstream = torch.randn_like(plain)
    expected, actual = (
        torch.autograd.grad(out, list(leaves.values()), upstream, retain_graph=True)
        for out in (plain, recomputed)
    )
    for name, one, other in zip(leaves, expected, actual):
        torch.testing.assert_close(other, one, rtol=1e-8, atol=1e-9, msg=name)
        size = one.abs().max()
        assert size < 1e-12 if name in zero else size > 1e-4, f'{name}: {size}'


def leaf(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, requires_grad=True)


def vanishing(grid: tuple[int, int]) -> set[str]:
    """What a softmax over keys does not depend on.

    A bias of the keys adds the same to all logits of a query, in any window. In a window of one
    position the weight is 1, so queries, keys and all that guides them do not matter.
    """
    names = ['k.bias'] if grid != (1, 1) else ['k.bias', 'k.weight', 'q.bias', 'q.weight']
    zero = {f'0.block_{i}.attn.{name}' for i in (1, 2) for name in names}
    guides = {'guidance', '0.guidance_norm.weight', '0.guidance_norm.bias'}
    return zero | guides if grid == (1, 1) else zero


@needs_operators
@pytest.mark.parametrize('grid', [(4, 4), (5, 7), (2, 9), (1, 1)])
@pytest.mark.parametrize('chunk', [1, 2, 8])
def test_spatial_aggregation(grid, chunk):
    module = SpatialAggregation(8, 6, num_heads=2, window_size=4)
    leaves = randomise(module) | {'x': leaf(2, 5, *grid, 8), 'guidance': leaf(2, *grid, 6)}
    inputs = leaves['x'], leaves['guidance']
    outputs = (module(*inputs, recompute, chunk) for recompute in (False, True))
    assert_same_gradients(*outputs, leaves, vanishing(grid))


@needs_operators
@pytest.mark.parametrize('grid', [(4, 4), (3, 5), (1, 1)])
@pytest.mark.parametrize('chunk', [1, 2, 8])
def test_decoder(grid, chunk):
    # Two groups of 16 channels, then one.
    modules = GuidedUpsampling(6, 32, 2), GuidedUpsampling(32, 16, 3)
    last = nn.Conv2d(16, 1, 3, padding=1)
    parameters = randomise(*modules, last)
    guidance = [leaf(2, c, s * grid[0], s * grid[1]) for c, s in ((2, 2), (3, 4))]
    leaves = parameters | {'x': leaf(2, 5, *grid, 6), 'coarse': guidance[0], 'fine': guidance[1]}
    steps = conv_steps(modules, guidance, last)
    plain, recomputed = (
        decode(leaves['x'], steps, recompute, chunk) for recompute in (False, True)
    )
    assert_same_gradients(plain, recomputed, leaves)


@needs_operators
def test_gradients_twice_and_expanded():
    module = SpatialAggregation(8, 6, num_heads=2, window_size=4)
    randomise(module)
    x = leaf(1, 3, 4, 6, 8)
    out = module(x, leaf(1, 4, 6, 6), True, 2)
    first = torch.autograd.grad(out.sum(), x, retain_graph=True)
    second = torch.autograd.grad(out, x, torch.ones(1, dtype=x.dtype).expand_as(out))
    torch.testing.assert_close(first, second, rtol=0, atol=0)


@needs_operators
def test_head_uses_them_in_training_only(toy_cfg, monkeypatch):
    calls = []

    def counted(states, x, chunk):
        out = recompute_on_cpu(states, x, chunk)
        calls.append(out is not None)
        return out

    monkeypatch.setattr(chunks, 'recompute_on_cpu', counted)
    config = {k: v for k, v in toy_cfg()['decode_head'].items() if k != 'type'}
    head = CATSegHead(embed_dim=32, guidance_in_channels=128, **{**config, 'with_cp': True})
    blocks = (torch.randn(1, 128, 4, 5),) * 2
    x = ImageFeatures(torch.randn(1, 32, 4, 5), torch.randn(1, 32), blocks)
    text = torch.randn(5, 1, 32)
    with torch.no_grad():
        head.train()(x, text)
    head.eval()(x, text)
    assert calls == []
    with torch.autocast('cpu', dtype=torch.bfloat16):
        head.train()(x, text)
    parts = len(head.layers) + 1  # and the decoder
    assert calls == [False] * parts
    head(x, text)
    assert calls == [False] * parts + [True] * parts


@pytest.mark.parametrize('x', [torch.zeros(1).half(), torch.zeros(1, device='meta')])
def test_not_for_other_types_and_devices(x):
    assert not is_supported(x)
    assert recompute_on_cpu(lambda: pytest.fail('needs no records'), x, 1) is None


def test_records_are_taken_apart_and_put_together():
    weight, bias = torch.ones(2), torch.zeros(1)
    states = [
        ConvState(True, weight, None, bias, None, None, 1, 0.5),
        ConvState(False, bias, weight, None, weight, bias, 2, 0.0),
    ]
    plans, tensors = take_tensors(states)
    assert len(tensors) == 6 and tensors[0] is weight and tensors[1] is bias
    assert not any(torch.is_tensor(value) for plan in plans for value in plan)
    sums = put_tensors(plans, [t + 1 for t in tensors])
    assert sums[0].bias is None and sums[1].groups == 2 and sums[0].doubles
    assert torch.equal(sums[0].weight, weight + 1) and torch.equal(sums[1].norm_bias, bias + 1)
