"""Where the backward passes run, and how records and chunks go through them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from infoclip_mmseg.models.layers.state import ConvState, SwinState

FLASH_ATTENTION = '_scaled_dot_product_flash_attention_for_cpu'
"""Operator whose log-sum-exp its backward pass (the same name and ``_backward``) takes."""

State = TypeVar('State', SwinState, ConvState)

_TENSOR = object()


def is_supported(x: Tensor) -> bool:
    """Whether the backward passes run for ``x``: on a CPU, with torch 2.4 or later.

    Under autocast, and in models that are compiled or traced, autograd records everything.
    """
    if x.device.type != 'cpu' or x.dtype not in (torch.float32, torch.float64):
        return False
    known = all(
        hasattr(torch.ops.aten, name) for name in (FLASH_ATTENTION, f'{FLASH_ATTENTION}_backward')
    )
    if not known or not hasattr(torch.amp, 'custom_fwd') or torch.is_autocast_enabled('cpu'):
        return False
    return not (torch.jit.is_tracing() or torch.compiler.is_compiling())


def take_tensors(states: Sequence[State]) -> tuple[list[State], list[Tensor]]:
    """Records without their tensors, and these: autograd knows a function's arguments only."""
    tensors = [value for state in states for value in state if isinstance(value, Tensor)]
    plans = [
        type(state)(*(_TENSOR if isinstance(value, Tensor) else value for value in state))  # type: ignore
        for state in states
    ]
    return plans, tensors


def put_tensors(plans: Sequence[State], tensors: Sequence[Tensor]) -> list[State]:
    """Inverse of :func:`take_tensors`; other tensors make records of other things, as gradients."""
    left = iter(tensors)
    return [
        type(plan)(*(next(left) if value is _TENSOR else value for value in plan))  # type: ignore
        for plan in plans
    ]


def split_maps(source: Tensor, target: Tensor, chunk: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Image, and ``chunk`` class maps of it of both tensors (B, T, ...), one after the other."""
    for image in range(len(source)):
        for part, out in zip(source[image].split(chunk), target[image].split(chunk)):
            yield image, part, out
