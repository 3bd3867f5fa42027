"""The upsampling decoder over all class maps with a backward pass of its own.

Only outputs of convolutions are kept; the norms and activations between them are computed again in
the backward pass. Gradients of weights are summed in place over the chunks of class maps.

Legend: B images, T classes, t classes of a chunk, C channels, H W grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable


class ConvStep(NamedTuple):
    """Group norm and ReLU, then a convolution with padding 1.

    Attributes:
        kind: 'up': transposed with stride 2, weight (C, C', 4, 4). 'same': weight (C', C, 3, 3).
            'one': to one channel, weight (1, C, 3, 3).
        weight: Of the convolution.
        bias: (1,) of 'one', or None.
        norm: None where the input is taken as it is.
        guided: Added to the output of every class map, (B, 1, C', H, W), or None.
    """

    kind: str
    weight: Tensor
    bias: Tensor | None = None
    norm: nn.GroupNorm | None = None
    guided: Tensor | None = None


class _Plan(NamedTuple):
    """What a step is beside its tensors; groups and epsilon are those of its norm."""

    kind: str
    groups: int
    eps: float


class _Step(NamedTuple):
    """Tensors of a step, or sums of their gradients."""

    weight: Tensor
    bias: Tensor | None
    guided: Tensor | None
    norm: Tensor | None
    norm_bias: Tensor | None


_Layer = tuple[_Plan, _Step, _Step]


def upsample_maps(x: Tensor, steps: Sequence[ConvStep], chunk: int) -> Tensor:
    """Run the steps of a decoder one after the other; gradients are those of the modules.

    Args:
        x: Features (B, T, H, W, C).
        steps: The last is of kind 'one'.
        chunk: Class maps that run at a time.

    Returns:
        Logits (B, T, 2^S H, 2^S W) where S steps are of kind 'up'.
    """
    plans, flat = [], []
    for step in steps:
        norm = step.norm
        plans.append(_Plan(step.kind, norm.num_groups if norm else 1, norm.eps if norm else 0.0))
        affine = (norm.weight, norm.bias) if norm else (None, None)
        flat += [step.weight, step.bias, step.guided, *affine]
    out: Tensor = _UpsampleMaps.apply(x, tuple(plans), chunk, *flat)
    return out


class _UpsampleMaps(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, plans: tuple[_Plan, ...], chunk: int, *tensors: Tensor | None
    ) -> Tensor:
        """See :func:`upsample_maps`; tensors are those of the steps."""
        steps = _by_step(tensors)
        scale = 2 ** sum(plan.kind == 'up' for plan in plans)
        out = x.new_empty(*x.shape[:2], scale * x.shape[2], scale * x.shape[3])
        kept: list[Tensor] = []
        for image, part, target in _chunks(x, out, chunk):
            maps = part.permute(0, 3, 1, 2)
            for step, plan in zip(steps, plans):
                maps = _forward(maps, step, plan, image)
                kept.append(maps)
            target.copy_(kept.pop().squeeze(1))
        ctx.plans, ctx.chunk, ctx.num_tensors = plans, chunk, len(tensors)
        ctx.save_for_backward(x, *tensors, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the features, None for plans and chunk, gradients of the tensors."""
        x, *saved = ctx.saved_tensors
        tensors, kept = saved[: ctx.num_tensors], iter(saved[ctx.num_tensors :])
        sums = [None if tensor is None else torch.zeros_like(tensor) for tensor in tensors]
        layers = list(zip(ctx.plans, _by_step(tensors), _by_step(sums)))
        grad = torch.empty_like(x, memory_format=torch.contiguous_format)
        parts = zip(_chunks(x, grad, ctx.chunk), _chunks(upstream, upstream, ctx.chunk))
        for (image, part, target), (_, above, _) in parts:
            inputs = [part.permute(0, 3, 1, 2), *(next(kept) for _ in layers[1:])]
            above = above.unsqueeze(1)
            for maps, layer in zip(reversed(inputs), reversed(layers)):
                above = _backward(above, maps, layer, image)
            target.copy_(above.permute(0, 2, 3, 1))
        return (grad, None, None, *sums)


def _by_step(tensors: Sequence[Tensor | None]) -> list[_Step]:
    size = len(_Step._fields)
    return [_Step(*tensors[i : i + size]) for i in range(0, len(tensors), size)]  # type: ignore


def _chunks(source: Tensor, target: Tensor, chunk: int) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Image, and class maps (t, ...) of both tensors, chunk by chunk."""
    for image in range(len(source)):
        for part, out in zip(source[image].split(chunk), target[image].split(chunk)):
            yield image, part, out


def _activate(maps: Tensor, step: _Step, plan: _Plan) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Norm and ReLU; the norm's means and inverse standard deviations."""
    if step.norm is None:
        return maps, ()
    out, *stats = torch.native_group_norm(
        maps, step.norm, step.norm_bias, *_sizes(maps), plan.groups, plan.eps
    )
    return out.relu_(), tuple(stats)


def _sizes(maps: Tensor) -> tuple[int, int, int]:
    """Maps, channels and positions of class maps (t, C, H, W)."""
    return maps.shape[0], maps.shape[1], maps.shape[2] * maps.shape[3]


def _forward(maps: Tensor, step: _Step, plan: _Plan, image: int) -> Tensor:
    maps, _ = _activate(maps, step, plan)
    if plan.kind == 'one':
        return _to_one(maps, step)
    if plan.kind == 'up':
        maps = F.conv_transpose2d(maps, step.weight, stride=2, padding=1)
    else:
        maps = F.conv2d(maps, step.weight, padding=1)
    return maps if step.guided is None else maps.add_(step.guided[image])


def _backward(above: Tensor, maps: Tensor, layer: _Layer, image: int) -> Tensor:
    """Gradient of a step's input ``maps`` from that of its output."""
    plan, step, sums = layer
    if sums.guided is not None:
        sums.guided[image, 0].add_(above.permute(0, 2, 3, 1).sum(0).permute(2, 0, 1))
    active, stats = _activate(maps, step, plan)
    if plan.kind == 'one':
        grad = _to_one_backward(above, active, step, sums)
    else:
        up, ones = plan.kind == 'up', [1, 1]
        stride, mask = [2, 2] if up else ones, [True, True, False]
        grad, found, _ = torch.ops.aten.convolution_backward(
            above, active, step.weight, None, stride, ones, ones, up, [0, 0], 1, mask
        )
        sums.weight.add_(found)
    if step.norm is None:
        return grad
    grad = torch.ops.aten.threshold_backward(grad, active, 0, grad_input=grad)
    grad, *parts = torch.ops.aten.native_group_norm_backward(
        grad, maps, *stats, step.norm, *_sizes(maps), plan.groups, [True, True, True]
    )
    for total, part in zip((sums.norm, sums.norm_bias), parts):
        assert total is not None
        total.add_(part)
    return grad


def _to_one(maps: Tensor, step: _Step) -> Tensor:
    """3 x 3 convolution to one channel: what each position gives its neighbours, then their sum.

    A product with nine columns and a sum of nine shifted maps take half the time of a convolution.
    """
    weight = step.weight.flip(2, 3).view(-1, 9)
    columns = weight.t().expand(len(maps), -1, -1) @ maps.flatten(2)
    out = F.fold(columns, maps.shape[2:], 3, padding=1)
    return out if step.bias is None else out.add_(step.bias)


def _to_one_backward(above: Tensor, maps: Tensor, step: _Step, sums: _Step) -> Tensor:
    size, channels, height, width = maps.shape
    columns = F.unfold(above, 3, padding=1)
    rows = maps.permute(0, 2, 3, 1).flatten(1, 2)
    found = (columns @ rows).sum(0).t()
    sums.weight.add_(found.view(1, channels, 3, 3).flip(2, 3))
    if sums.bias is not None:
        sums.bias.add_(above.sum())
    weight = step.weight.flip(2, 3).view(channels, 9)
    grad = columns.transpose(1, 2) @ weight.t()
    return grad.view(size, height, width, channels).permute(0, 3, 1, 2)
