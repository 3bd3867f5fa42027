"""Attention whose queries and keys also see guidance, and the windows it runs in."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from infoclip_mmseg.models.layers.guided_attention import (
    GuidedWindowAttention,
    cut_windows,
    linear_attention,
)


def test_guided_projection_is_linear_on_the_concatenation():
    layer, x, guidance = GuidedWindowAttention(4, 3, 2), torch.randn(2, 5, 4), torch.randn(2, 1, 3)
    both = torch.cat([x, guidance.expand(2, 5, 3)], dim=-1)
    expected = torch.cat([layer.q(both), layer.k(both), layer.v(x)], dim=-1)
    torch.testing.assert_close(layer.project(x, layer.guide(guidance)), expected)


def test_linear_attention_padding_is_exact():
    q, k, v = torch.randn(3, 2, 5, 4).unbind()
    key, value = torch.randn(2, 1, 4), torch.randn(2, 1, 4)
    padded = [torch.cat([x, p.expand(2, 3, 4)], dim=1) for x, p in ((k, key), (v, value))]
    expected = linear_attention(q, *padded)
    torch.testing.assert_close(linear_attention(q, k, v, (key, value, 3)), expected)


def roll_windows(x, window: int, shift: int):
    """Cyclic shift and padded windows as Swin defines them, (S, window * window, ...)."""
    x = F.pad(x, (0, -x.shape[1] % window, 0, -x.shape[0] % window), value=-1)
    x = x.roll((-shift, -shift), (0, 1)).unflatten(1, (-1, window)).unflatten(0, (-1, window))
    return x.transpose(1, 2).flatten(2).flatten(0, 1)


@pytest.mark.parametrize('shift', [0, 1])
@pytest.mark.parametrize('grid', [(6, 6), (5, 7), (3, 8), (9, 4)])
def test_windows_are_those_of_the_masked_cyclic_shift(grid, shift):
    height, width = grid
    windows = cut_windows(height, width, 3, shift, torch.device('cpu'))
    sizes = [length for count, length in windows.groups for _ in range(count)]
    parts = [set(part.tolist()) for part in windows.order.split(sizes)]
    if min(grid) <= 3:
        shift = 0
    index = torch.arange(height * width).view(grid)
    rolled = roll_windows(index, 3, shift)
    expected = set()
    for inside in rolled.tolist():
        # Regions of Swin's mask: positions that the roll brought from the other border.
        sides = {i: (i // width < shift, i % width < shift) for i in inside if i >= 0}
        expected |= {
            frozenset(i for i, side in sides.items() if side == which)
            for which in set(sides.values())
        }
    # Windows without the shifted border are whole, whatever their position.
    assert {frozenset(part) for part in parts} == expected
    assert sorted(i for part in parts for i in part) == list(range(height * width))


def test_windows_are_sorted_and_put_back():
    x = torch.randn(2, 3, 5, 7, 4, dtype=torch.float64, requires_grad=True)
    windows = cut_windows(5, 7, 3, 1, x.device)
    torch.testing.assert_close(windows.unsort(windows.sort(x), (5, 7)), x)
    weight = torch.randn(2, 3, 35, 4, dtype=torch.float64)
    (grad,) = torch.autograd.grad((windows.sort(x) * weight).sum(), x)
    torch.testing.assert_close(windows.sort(grad), weight)
