from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from infoclip_mmseg.experiments.timing.measure import (
    Clock,
    forward_backward,
    peak_resident_bytes,
    repeat,
    summarise,
)
from infoclip_mmseg.experiments.timing.settings import Setting, environment


def run_alone(program: str) -> str:
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, '-W', 'ignore', '-c', program]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_spread_of_known_values():
    spread = summarise([5.0, 1.0, 2.0, 4.0, 3.0])
    assert spread == (3.0, 1.0, 2.0, 4.0, 5.0, 5)
    assert summarise([7.0]) == (7.0, 7.0, 7.0, 7.0, 7.0, 1)


def test_warm_up_is_forgotten_and_repeats_are_kept():
    clock, calls = Clock(), []

    def call() -> None:
        with clock('work'):
            calls.append(None)
            time.sleep(0.05 if len(calls) == 1 else 0.0)

    repeat(call, clock, warmup=1, repeats=4)
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
    forward_backward(clock, 'square', x.square, [x])
    total, forward, backward = (clock.seconds[k][0] for k in clock.seconds)
    assert list(clock.seconds) == ['square', 'square, forward', 'square, backward']
    assert total >= forward + backward
    assert x.grad is None


@pytest.mark.skipif(peak_resident_bytes() == 0, reason='the system does not tell')
def test_peak_memory_sees_what_was_freed_and_not_what_was_before():
    peak, start = (int(word) for word in run_alone(PEAK).split()[-2:])
    assert 40 << 20 < peak - start < 90 << 20


def test_environment_sets_allocator_and_threads():
    base = {'HOME': 'x', 'MALLOC_ARENA_MAX': '1', 'OMP_NUM_THREADS': '7'}
    setting = Setting('train', 'c', '.')
    assert environment(setting, base) == {'HOME': 'x', 'OMP_NUM_THREADS': '7'}
    kept = environment(Setting('train', 'c', '.', allocator='kept', threads=2), base)
    assert int(kept['MALLOC_MMAP_THRESHOLD_']) > 1 << 35 < int(kept['MALLOC_TRIM_THRESHOLD_'])
    assert kept['MALLOC_TOP_PAD_'] == str(256 << 20)
    assert kept['OMP_NUM_THREADS'] == '2'
    assert 'MALLOC_ARENA_MAX' not in kept


# Processes of their own: memory that earlier tests freed does not count.
PEAK = """
import torch
from infoclip_mmseg.experiments.timing.measure import PeakMemory
torch.ones(100 << 18).sum()  # 100 MiB, gone before the reading starts
memory = PeakMemory()
torch.ones(50 << 18).sum()
values = memory.read()
print(values['peak_rss'], values['start_rss'])
"""
LIMITED = """
import torch
from infoclip_mmseg.experiments.timing.measure import limit_memory, resident_bytes
from infoclip_mmseg.experiments.timing.worker import out_of_memory
limit_memory(resident_bytes() + (1 << 30))
torch.ones(1 << 20)
try:
    torch.ones(1 << 30)
except RuntimeError as error:
    print(out_of_memory(error))
"""


@pytest.mark.skipif(sys.platform != 'linux', reason='needs a limit of private memory')
def test_allocations_beyond_the_limit_fail_and_are_recognised():
    assert run_alone(LIMITED).endswith('True')
