"""Where the time of a call goes: operators by group, through torch.profiler."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

GROUPS: dict[str, tuple[str, ...]] = {
    'interpolation and pooling': ('upsample', 'interpolate', 'pool'),
    'attention': ('scaled_dot_product', 'flash_attention', 'efficient_attention', 'fmha', 'flash_'),
    'convolution': ('conv', 'slow_conv', 'cudnn', 'implicit_gemm', 'wgrad', 'dgrad'),
    'matrix products': ('mm', 'matmul', 'linear', 'einsum', 'gemm', 'dot', 'cublas', 'nvjet'),
    'copies and layout': (
        *('copy', 'cat', 'clone', 'contiguous', 'stack', 'index', 'gather', 'scatter', 'fill'),
        *('zero', 'pad', 'roll', 'repeat', 'select', 'slice', 'as_strided', 'new_', 'empty'),
        *('permute', 'transpose', 'reorder', 'to_mkldnn', 'to_dense', 'masked', 'embedding'),
        *('memcpy', 'memset', 'where', 'flip', 'resize', 'im2col', 'unfold'),
    ),
    'softmax and norms': ('softmax', 'norm'),
    'elementwise and sums': (
        *('add', 'mul', 'sub', 'div', 'gelu', 'relu', 'elu', 'sigmoid', 'exp', 'log', 'sqrt'),
        *('pow', 'square', 'sum', 'mean', 'max', 'min', 'clamp', 'threshold', 'neg', 'abs', 'eq'),
        *('ne', 'lt', 'gt', 'le', 'ge', 'bitwise', 'logical', 'reciprocal', 'cross_entropy'),
        *('elementwise', 'reduce', 'topk', 'sort', 'lerp', 'foreach', 'adam', 'cumsum'),
    ),
}
"""Group to parts of operator names. The first group with a match counts, so order matters."""
OTHER = 'other'
LONGEST = 15


def group_of(operator: str) -> str:
    """Group of an operator's or kernel's name, such as 'aten::addmm'."""
    name = operator.rsplit('::', 1)[-1].lower()
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


def count_flops(call: Callable[[], object]) -> int:
    """Floating-point operations of a call's matrix products, convolutions and attention."""
    attention = torch.ops.aten
    mapping: dict[Any, Any] = {}
    for name, products in (('', 2), ('_backward', 5)):
        operator = f'_scaled_dot_product_flash_attention_for_cpu{name}'
        if hasattr(attention, operator):
            mapping[getattr(attention, operator)] = _attention_flops(products, bool(name))
    with FlopCounterMode(display=False, custom_mapping=mapping) as counter:
        call()
    return int(counter.get_total_flops())


def _attention_flops(products: int, backward: bool) -> Callable[..., int]:
    """FLOPs of attention that consists of so many matrix products."""

    def flops(*shapes: Any, out_shape: Any = None, **_: Any) -> int:
        query, key = shapes[1:3] if backward else shapes[:2]
        batch, heads, length, width = query
        return products * 2 * batch * heads * length * key[2] * width

    return flops


def _self_seconds(event: Any, device: str) -> float:
    if device == 'cpu':
        return event.self_cpu_time_total / 1e6
    # torch 2.1 has the older name.
    microseconds = getattr(event, 'self_device_time_total', None)
    return (event.self_cuda_time_total if microseconds is None else microseconds) / 1e6
