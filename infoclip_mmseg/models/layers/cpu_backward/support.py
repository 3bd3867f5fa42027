"""Where the backward passes run, and layers as plain records: weights and settings without code.

Layers offer such records with ``state()``.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from infoclip_mmseg.models.layers.guided_attention import Windows

FLASH_ATTENTION = '_scaled_dot_product_flash_attention_for_cpu'
"""Operator whose log-sum-exp its backward pass (the same name and ``_backward``) takes."""


class SwinState(NamedTuple):
    """A Swin block and what guides it; weights are named as the block's layers."""

    windows: Windows  # of the grid of N positions
    num_heads: int
    eps: tuple[float, float]  # of the two norms
    guided: Tensor  # what guidance adds to qkv, (B, 1, N, 3C), in the order of the windows
    norm1: Tensor
    norm1_bias: Tensor
    qkv: Tensor  # (3C, C), without the columns for guidance
    proj: Tensor
    proj_bias: Tensor
    norm2: Tensor
    norm2_bias: Tensor
    mlp1: Tensor
    mlp1_bias: Tensor
    mlp2: Tensor
    mlp2_bias: Tensor


class ConvState(NamedTuple):
    """Group norm and ReLU, where there is a norm, then a convolution with padding 1.

    A convolution that ``doubles`` the grid is transposed with stride 2 and has the weight (C, C',
    4, 4), another one (C', C, 3, 3).
    """

    doubles: bool
    weight: Tensor
    bias: Tensor | None
    guided: Tensor | None  # added to the output of every class map, (B, 1, C', H, W)
    norm: Tensor | None = None
    norm_bias: Tensor | None = None
    groups: int = 1
    eps: float = 0.0

    @property
    def to_one(self) -> bool:
        """Whether the convolution has one channel."""
        return not self.doubles and len(self.weight) == 1


_TENSOR = object()


def is_supported(x: Tensor) -> bool:
    """Whether the backward passes run for ``x``: on a CPU, with torch 2.4 or later.

    Under autocast, and in models that are compiled or traced, autograd records everything.
    """
    if x.device.type != 'cpu' or x.dtype not in (torch.float32, torch.float64):
        return False
    known = hasattr(torch.ops.aten, f'{FLASH_ATTENTION}_backward')
    if not known or not hasattr(torch.amp, 'custom_fwd') or torch.is_autocast_enabled('cpu'):
        return False
    return not (torch.jit.is_tracing() or torch.compiler.is_compiling())


def take_tensors(
    states: Sequence[SwinState] | Sequence[ConvState],
) -> tuple[list[Any], list[Tensor]]:
    """Records without their tensors, and these: autograd knows a function's arguments only."""
    tensors = [value for state in states for value in state if isinstance(value, Tensor)]
    plans = [
        type(state)._make(_TENSOR if isinstance(value, Tensor) else value for value in state)
        for state in states
    ]
    return plans, tensors


def put_tensors(plans: Sequence[Any], tensors: Sequence[Tensor]) -> list[Any]:
    """Inverse of :func:`take_tensors`; other tensors make records of other things, as gradients."""
    left = iter(tensors)
    return [
        plan._make(next(left) if value is _TENSOR else value for value in plan) for plan in plans
    ]


def split_maps(source: Tensor, target: Tensor, chunk: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Image, and ``chunk`` class maps of it of both tensors (B, T, ...), one after the other."""
    for image in range(len(source)):
        for part, out in zip(source[image].split(chunk), target[image].split(chunk)):
            yield image, part, out
