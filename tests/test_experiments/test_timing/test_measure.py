from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from infoclip_mmseg.experiments.timing.measure import (
    Clock,
    count_flops,
    peak_resident_bytes,
)


def run_alone(program: str) -> str:
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, '-W', 'ignore', '-c', program]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_warm_up_is_forgotten_and_repeats_are_kept():
    clock, calls = Clock(), []

    def call() -> None:
        with clock('work'):
            calls.append(None)
            time.sleep(0.05 if len(calls) == 1 else 0.0)

    clock.repeat(call, warmup=1, repeats=4)
    assert len(calls) == 5
    assert len(clock.seconds['work']) == 4
    assert max(clock.seconds['work']) < 0.05


def test_slower_work_takes_more_time():
    clock = Clock()
    for name, seconds in (('fast', 0.01), ('slow', 0.05)):
        with clock(name):
            time.sleep(seconds)
    assert clock.seconds['slow'][0] > clock.seconds['fast'][0] >= 0.01


def test_forward_and_backward_are_timed_together_and_apart():
    clock, x = Clock(), torch.ones(3, requires_grad=True)
    clock.forward_backward('square', x.square, [x])
    total, forward, backward = (clock.seconds[k][0] for k in clock.seconds)
    assert list(clock.seconds) == ['square', 'square, forward', 'square, backward']
    assert total >= forward + backward
    assert x.grad is None


@pytest.mark.skipif(peak_resident_bytes() == 0, reason='the system does not tell')
def test_peak_memory_sees_what_was_freed_and_not_what_was_before():
    peak, start = (int(word) for word in run_alone(PEAK).split()[-2:])
    assert 40 << 20 < peak - start < 90 << 20


# Processes of their own: memory that earlier tests freed does not count.
PEAK = """
import torch
from infoclip_mmseg.experiments.timing.measure import peak_memory
torch.ones(100 << 18).sum()  # 100 MiB, gone before the reading starts
with peak_memory() as memory:
    torch.ones(50 << 18).sum()
print(memory['peak_rss'], memory['start_rss'])
"""
LIMITED = """
import torch
from infoclip_mmseg.experiments.timing.measure import (
    limit_memory, out_of_memory, peak_resident_bytes
)
limit_memory(peak_resident_bytes() + (1 << 30))
torch.ones(1 << 20)
try:
    torch.ones(1 << 30)
except RuntimeError as error:
    print(out_of_memory(error))
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='needs a limit of private memory')
def test_allocations_beyond_the_limit_fail_and_are_recognised():
    assert run_alone(LIMITED).endswith('True')


def test_products_and_attention_count():
    a = torch.randn(10, 20)
    assert count_flops(lambda: a @ a.T) == 2 * 10 * 20 * 10
    assert count_flops(lambda: torch.zeros(10, 10).addmm_(a, a.T)) == 2 * 10 * 20 * 10
    assert count_flops(lambda: a + a) == 0
    q, v = torch.randn(2, 3, 8, 4), torch.randn(2, 3, 8, 4)
    assert count_flops(lambda: F.scaled_dot_product_attention(q, q, v)) == 4 * 2 * 3 * 8 * 8 * 4


@pytest.mark.parametrize('layer', [nn.Conv2d(3, 8, 3, stride=2), nn.ConvTranspose2d(3, 5, 2)])
def test_layers_count_as_in_pytorch(layer):
    x = torch.randn(2, 3, 16, 16, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        layer(x).sum().backward()
    assert count_flops(lambda: layer(x).sum().backward()) == counter.get_total_flops() > 0


def test_gradients_of_attention_are_five_products():
    q, k, v = (torch.randn(1, 2, n, 4, requires_grad=True) for n in (6, 5, 5))

    def attend():
        return F.scaled_dot_product_attention(q * 1, k * 1, v * 1)

    forward, both = count_flops(attend), count_flops(lambda: attend().sum().backward())
    assert 2 * (both - forward) == 5 * forward > 0
