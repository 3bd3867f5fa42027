"""Where the time of a call goes: operators by group, through torch.profiler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile

GROUPS: dict[str, tuple[str, ...]] = {
    'interpolation and pooling': ('upsample', 'interpolate', 'pool'),
    'attention': ('scaled_dot_product', 'flash_attention', 'efficient_attention', 'fmha', 'flash_'),
    'convolution': ('conv', 'slow_conv', 'cudnn', 'implicit_gemm', 'wgrad', 'dgrad'),
    'matrix products': ('mm', 'matmul', 'linear', 'einsum', 'gemm', 'dot', 'cublas', 'nvjet'),
    'copies and layout': (
        *('copy', 'cat', 'clone', 'contiguous', 'stack', 'index', 'gather', 'scatter', 'fill'),
        *('zero', 'pad', 'roll', 'repeat', 'select', 'slice', 'as_strided', 'new_', 'empty'),
        *('permute', 'transpose', 'reorder', 'to_mkldnn', 'to_dense', 'masked', 'embedding'),
        *('memcpy', 'memset', 'where', 'flip', 'resize', 'im2col', 'col2im', 'unfold'),
    ),
    'softmax and norms': ('softmax', 'norm'),
    'elementwise and sums': (
        *('add', 'mul', 'sub', 'div', 'gelu', 'relu', 'elu', 'sigmoid', 'exp', 'log', 'sqrt'),
        *('pow', 'square', 'sum', 'mean', 'max', 'min', 'clamp', 'threshold', 'neg', 'abs'),
        *('bitwise', 'logical', 'reciprocal', 'cross_entropy'),
        *('elementwise', 'reduce', 'topk', 'sort', 'lerp', 'foreach', 'adam', 'cumsum'),
    ),
}
"""Group to parts of operator names. The first group with a match counts, so order matters."""
COMPARISONS = ('eq', 'ne', 'lt', 'gt', 'le', 'ge')
OTHER = 'other'
LONGEST = 15


def group_of(operator: str) -> str:
    """Group of an operator's or kernel's name, such as 'aten::addmm'."""
    name = operator.rsplit('::', 1)[-1].lower()
    if name.rstrip('_') in COMPARISONS:
        return 'elementwise and sums'
    return next((g for g, parts in GROUPS.items() if any(part in name for part in parts)), OTHER)


def profile_operators(call: Callable[[], object], device: str) -> dict[str, Any]:
    """Run a call under the profiler.

    Args:
        call: What to run, once.
        device: 'cpu' or 'cuda', whose time is counted.

    Returns:
        `groups`: seconds by group, each operator without those that it calls; `operators`: the
        longest ones as [name, seconds, calls].
    """
    activities = [ProfilerActivity.CPU]
    if device == 'cuda':
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler:
        call()
        if device == 'cuda':
            torch.cuda.synchronize()
    rows = [(e.key, _self_seconds(e, device), e.count) for e in profiler.key_averages()]
    return group_operators([row for row in rows if row[1] > 0])


def group_operators(rows: Sequence[tuple[str, float, int]]) -> dict[str, Any]:
    """Seconds by group of operators (name, seconds, calls); see :func:`profile_operators`."""
    seconds = dict.fromkeys((*GROUPS, OTHER), 0.0)
    for name, own, _ in rows:
        seconds[group_of(name)] += own
    longest = sorted(rows, key=lambda row: -row[1])[:LONGEST]
    return dict(groups=seconds, operators=[list(row) for row in longest])


def _self_seconds(event: Any, device: str) -> float:
    if device == 'cpu':
        return event.self_cpu_time_total / 1e6
    if event.device_type != DeviceType.CPU:  # a kernel, whose time its operator has as well
        return 0.0
    # torch 2.1 has the older name.
    microseconds = getattr(event, 'self_device_time_total', None)
    return (event.self_cuda_time_total if microseconds is None else microseconds) / 1e6
