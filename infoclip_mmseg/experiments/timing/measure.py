"""Seconds by section, their spread, and peak memory."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

try:
    import resource
except ImportError:  # Windows
    resource = None  # type: ignore[assignment]

PROCESS = Path('/proc/self')


class Spread(NamedTuple):
    """Repeated values of one quantity."""

    median: float
    low: float
    lower_quartile: float
    upper_quartile: float
    high: float
    calls: int


def summarise(values: Sequence[float]) -> Spread:
    """Median, extremes and quartiles of one or more values."""
    quartiles = (values[0],) * 3
    if len(values) > 1:
        first, second, third = statistics.quantiles(values, n=4, method='inclusive')
        quartiles = (first, second, third)
    return Spread(quartiles[1], min(values), quartiles[0], quartiles[2], max(values), len(values))


class Clock:
    """Collects the seconds of named sections; waits for a CUDA device at both ends of each.

    Args:
        device: Where the work runs.

    Attributes:
        seconds: Seconds of each section, in the order of the calls.
    """

    def __init__(self, device: torch.device | str = 'cpu') -> None:
        self.device = torch.device(device)
        self.seconds: dict[str, list[float]] = {}

    @contextmanager
    def __call__(self, section: str) -> Iterator[None]:
        """Time what runs inside."""
        seconds = self.seconds.setdefault(section, [])
        self.synchronise()
        start = time.perf_counter()
        yield
        self.synchronise()
        seconds.append(time.perf_counter() - start)

    def synchronise(self) -> None:
        """Wait until a CUDA device has done what it was asked for."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)


@dataclass
class Task:
    """What is called again and again.

    Attributes:
        call: Does the work once, in sections of a clock.
        images: Images of a call; 0 where the work is not by image.
        info: Further plain values for the report; ``call`` may add some.
    """

    call: Callable[[], object]
    images: int = 0
    info: dict[str, Any] = field(default_factory=dict)


def forward_backward(
    clock: Clock, name: str, function: Callable[[], Tensor], wanted: Sequence[Tensor]
) -> None:
    """Time a function and the gradients of its sum with respect to ``wanted``: together, apart."""
    with clock(name):
        with clock(f'{name}, forward'):
            value = function()
        with clock(f'{name}, backward'):
            torch.autograd.grad(value.sum(), wanted, allow_unused=True)


def repeat(call: Callable[[], object], clock: Clock, warmup: int, repeats: int) -> None:
    """Call a function, and forget the seconds of the first ``warmup`` calls."""
    for _ in range(warmup):
        call()
    clock.seconds.clear()
    for _ in range(repeats):
        call()


class PeakMemory:
    """Peak memory from its construction on.

    On Linux the peak of resident memory is set back at construction, so that it does not include
    what the building of the model took for a moment. Elsewhere it is that of the whole process.

    Args:
        device: A CUDA device's own peak is read as well.

    Attributes:
        start: Bytes in use at construction, as :meth:`read` gives them.
    """

    def __init__(self, device: torch.device | str = 'cpu') -> None:
        self.device = torch.device(device)
        with suppress(OSError):
            (PROCESS / 'clear_refs').write_text('5')
        self.start = dict(start_rss=resident_bytes())
        if self.device.type == 'cuda':
            torch.cuda.reset_peak_memory_stats(self.device)
            self.start['start_cuda'] = torch.cuda.memory_allocated(self.device)

    def read(self) -> dict[str, int]:
        """Bytes: `peak_rss` and `start_rss`; on CUDA also `*_cuda`, `reserved_cuda`."""
        values = dict(self.start, peak_rss=peak_resident_bytes())
        if self.device.type == 'cuda':
            values['peak_cuda'] = torch.cuda.max_memory_allocated(self.device)
            values['reserved_cuda'] = torch.cuda.max_memory_reserved(self.device)
        return values


def resident_bytes() -> int:
    """Resident memory of this process; 0 where the system does not tell."""
    return _status('VmRSS')


def peak_resident_bytes() -> int:
    """Largest resident memory of this process so far; 0 where the system does not tell."""
    peak = _status('VmHWM')
    if peak or resource is None:
        return peak
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def limit_memory(num_bytes: int) -> None:
    """Make allocations beyond so many bytes of private memory fail, instead of swapping or worse.

    Does nothing where the system has no such limit.
    """
    if resource is not None and PROCESS.exists():
        hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
        if hard != resource.RLIM_INFINITY:
            num_bytes = min(num_bytes, hard)
        resource.setrlimit(resource.RLIMIT_DATA, (num_bytes, hard))


def _status(key: str) -> int:
    try:
        lines = (PROCESS / 'status').read_text().splitlines()
    except OSError:
        return 0
    found = [line.split()[1] for line in lines if line.startswith(f'{key}:')]
    return 1024 * int(found[0]) if found else 0
