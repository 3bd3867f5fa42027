from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from infoclip_mmseg.experiments.timing.flops import count_flops


def test_products_and_attention():
    a = torch.randn(10, 20)
    assert count_flops(lambda: a @ a.T) == 2 * 10 * 20 * 10
    assert count_flops(lambda: torch.zeros(10, 10).addmm_(a, a.T)) == 2 * 10 * 20 * 10
    assert count_flops(lambda: a + a) == 0
    q = torch.randn(2, 3, 8, 4)
    assert count_flops(lambda: F.scaled_dot_product_attention(q, q, q)) == 4 * 2 * 3 * 8 * 8 * 4


@pytest.mark.parametrize(
    'layer',
    [
        nn.Conv2d(3, 8, 3, padding=1),
        nn.Conv2d(3, 8, 3, stride=2, bias=False),
        nn.ConvTranspose2d(3, 5, 2, stride=2),
        nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 7)),
    ],
)
def test_layers_count_as_in_pytorch(layer):
    x = torch.randn(2, 3, 16, 16, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        layer(x).sum().backward()
    assert count_flops(lambda: layer(x).sum().backward()) == counter.get_total_flops() > 0


def test_gradients_of_attention_are_five_products():
    q, k, v = (torch.randn(1, 2, n, 4, requires_grad=True) for n in (6, 5, 5))
    forward = count_flops(lambda: F.scaled_dot_product_attention(q, k, v))
    both = count_flops(lambda: F.scaled_dot_product_attention(q, k, v).sum().backward())
    assert 2 * (both - forward) == 5 * forward
