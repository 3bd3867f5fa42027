"""Of a call: seconds by section, peak memory, operators by group, floating-point operations."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from math import prod
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode, sdpa_backward_flop_count, sdpa_flop_count

PROCESS = Path('/proc/self')
GROUPS = {
    'interpolation and pooling': 'upsample|interpolate|pool',
    'attention': 'scaled_dot_product|efficient_attention|fmha|flash_',
    'convolution': 'conv|cudnn|implicit_gemm|wgrad|dgrad',
    'matrix products': 'mm|matmul|linear|einsum|dot|cublas|nvjet',
    'copies and layout': 'copy|cat|clone|contiguous|stack|index|gather|fill|zero|pad|roll|repeat'
    '|select|slice|as_strided|new_|empty|permute|transpose|reorder|to_mkldnn|to_dense|masked'
    '|embedding|mem(cpy|set)|where|flip|resize|im2col|col2im|unfold',
    'softmax and norms': 'softmax|norm',
    'elementwise and sums': '^(eq|ne|lt|gt|le|ge)_*$|add|mul|sub|div|elu|sigmoid|exp|log|sqrt|pow'
    '|square|sum|mean|max|min|clamp|threshold|neg|abs|bitwise|reciprocal|cross_entropy'
    '|elementwise|reduce|topk|sort|lerp|foreach|adam',
    'other': '',
}
"""Group to pattern of operator names. The first group with a match counts, so order matters."""
LONGEST = 15


class Clock:
    """Collects the seconds of named sections; waits for a CUDA device at both ends of each."""

    def __init__(self, device: str = 'cpu') -> None:
        self.device = device
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def __call__(self, section: str, parts: int = 1) -> Iterator[None]:
        """Time what runs inside; the seconds are those of one of its equal parts."""
        seconds = self.seconds.setdefault(section, [])
        synchronise(self.device)
        start = time.perf_counter()
        yield
        synchronise(self.device)
        seconds.append((time.perf_counter() - start) / parts)

    def forward_backward(
        self, section: str, function: Callable[[], Tensor], inputs: Sequence[Tensor]
    ) -> None:
        """Time a function and the gradients of its sum by ``inputs``: together, apart."""
        with self(section):
            with self(f'{section}, forward'):
                value = function()
            with self(f'{section}, backward'):
                torch.autograd.grad(value.sum(), inputs, allow_unused=True)

    def repeat(self, call: Callable[[], object], warmup: int, repeats: int) -> None:
        """Call a function, and forget the seconds of the first ``warmup`` calls."""
        for number in range(warmup + repeats):
            if number == warmup:
                self.seconds.clear()
            call()


def synchronise(device: str) -> None:
    """Wait until a CUDA device has done what it was asked for."""
    if device != 'cpu':
        torch.cuda.synchronize(device)


@contextmanager
def peak_memory(device: str = 'cpu') -> Iterator[dict[str, int]]:
    """Bytes in use before what runs inside, `start_rss`, and in the end their peak, `peak_rss`.

    On CUDA also `start_cuda`, `peak_cuda` and `reserved_cuda`. Outside of Linux the peak of
    resident memory stays that of the whole process.
    """
    with suppress(OSError):
        (PROCESS / 'clear_refs').write_text('5')
    memory = dict(start_rss=psutil.Process().memory_info().rss)
    if device != 'cpu':
        torch.cuda.reset_peak_memory_stats(device)
        memory['start_cuda'] = torch.cuda.memory_allocated(device)
    yield memory
    memory['peak_rss'] = peak_resident_bytes()
    if device != 'cpu':
        memory['peak_cuda'] = torch.cuda.max_memory_allocated(device)
        memory['reserved_cuda'] = torch.cuda.max_memory_reserved(device)


def peak_resident_bytes() -> int:
    """Largest resident memory of this process so far."""
    if psutil.WINDOWS:
        return psutil.Process().memory_info().peak_wset
    with suppress(OSError):
        peak = re.search(r'VmHWM:\s*(\d+) kB', (PROCESS / 'status').read_text())
        if peak:
            return 1024 * int(peak[1])
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if psutil.MACOS else 1024)


def limit_memory(num_bytes: int) -> None:
    """Make allocations beyond so many bytes of private memory fail, instead of swapping or worse.

    Does nothing where the system has no such limit.
    """
    if psutil.LINUX:
        hard = psutil.Process().rlimit(psutil.RLIMIT_DATA)[1]
        soft = num_bytes if hard == psutil.RLIM_INFINITY else min(num_bytes, hard)
        psutil.Process().rlimit(psutil.RLIMIT_DATA, (soft, hard))


def out_of_memory(error: BaseException) -> bool:
    """Whether an error says that an allocation failed, on a CPU or a GPU."""
    signs = "out of memory|can't allocate|cannot allocate|not enough memory|bad_alloc"
    return isinstance(error, MemoryError) or bool(re.search(signs, str(error), re.IGNORECASE))


def group_of(operator: str) -> str:
    """Group of an operator's or kernel's name, such as 'aten::addmm'."""
    name = operator.rsplit('::', 1)[-1].lower()
    return next(group for group, pattern in GROUPS.items() if re.search(pattern, name))


def profile_operators(call: Callable[[], object], device: str = 'cpu') -> dict[str, Any]:
    """Run a call under the profiler.

    Returns:
        `groups`: seconds on the device by group, each operator without those that it calls;
        `operators`: the longest ones as [name, seconds, calls].
    """
    kinds = [ProfilerActivity.CPU, *([] if device == 'cpu' else [ProfilerActivity.CUDA])]
    with profile(activities=kinds) as profiler:
        call()
        synchronise(device)
    rows = [[e.key, _self_seconds(e, device), e.count] for e in profiler.key_averages()]
    groups = dict.fromkeys(GROUPS, 0.0)
    for name, seconds, _ in rows:
        groups[group_of(name)] += seconds
    longest = sorted((row for row in rows if row[1] > 0), key=lambda row: -row[1])
    return dict(groups=groups, operators=longest[:LONGEST])


def _self_seconds(event: Any, device: str) -> float:
    if device == 'cpu':
        return event.self_cpu_time_total / 1e6
    if event.device_type != DeviceType.CPU:  # a kernel, whose time its operator has as well
        return 0.0
    # torch 2.1 has the older name.
    microseconds = getattr(event, 'self_device_time_total', None)
    return (event.self_cuda_time_total if microseconds is None else microseconds) / 1e6


def count_flops(call: Callable[[], object]) -> int:
    """Floating-point operations of a call, run once: products, convolutions and attention."""
    aten = torch.ops.aten
    mapping = {getattr(aten, name): f for name, f in UNCOUNTED.items() if hasattr(aten, name)}
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        call()
    return counter.get_total_flops()


ATTENTION = '_scaled_dot_product_flash_attention_for_cpu'
UNCOUNTED: dict[str, Callable[..., int]] = {
    'addmm_': lambda out, a, b, **_: 2 * prod(a) * b[-1],
    ATTENTION: lambda q, k, v, *_, **__: sdpa_flop_count(q, k, v),
    f'{ATTENTION}_backward': lambda *shapes, **_: sdpa_backward_flop_count(*shapes[:4]),
}
"""Operators without a formula in PyTorch, from the shapes of their arguments to operations."""
