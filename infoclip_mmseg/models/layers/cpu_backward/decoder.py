"""The upsampling decoder on a chunk of class maps, and back.

Only inputs of the steps are kept; the norms and activations before their convolutions are computed
again in the backward pass.

Legend: t class maps, C channels, H W grid.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import torch
import torch.nn.functional as F
from torch import Tensor

from infoclip_mmseg.models.layers.cpu_backward.support import ConvState


def output_shape(shape: Sequence[int], steps: Sequence[ConvState]) -> Sequence[int]:
    """Of logits (B, T, 2^S H, 2^S W) where S steps double the grid."""
    scale = 2 ** sum(step.doubles for step in steps)
    return *shape[:2], scale * shape[2], scale * shape[3]


def run(part: Tensor, target: Tensor, steps: Sequence[ConvState], image: int) -> list[Tensor]:
    """Features (t, H, W, C) of an image to logits in ``target``; returns what is kept."""
    maps, kept = part.permute(0, 3, 1, 2), []
    for step in steps:
        kept.append(maps)
        maps = _forward(maps, step, image)
    target.copy_(maps.squeeze(1))
    return kept


def run_back(
    above: Tensor,
    target: Tensor,
    kept: Iterator[Tensor],
    steps: Sequence[tuple[ConvState, ConvState]],
    image: int,
) -> None:
    """The gradient of features into ``target`` and, to be added, into each step's second state."""
    inputs = [*islice(kept, len(steps))]
    above = above.unsqueeze(1)
    for maps, (step, sums) in zip(reversed(inputs), reversed(steps)):
        above = _backward(above, maps, step, sums, image)
    target.copy_(above.permute(0, 2, 3, 1))


def _activate(maps: Tensor, step: ConvState) -> tuple[Tensor, tuple[Tensor, ...]]:
    """Norm and ReLU; the norm's means and inverse standard deviations."""
    if step.norm is None:
        return maps, ()
    out, *stats = torch.native_group_norm(
        maps, step.norm, step.norm_bias, *_sizes(maps), step.groups, step.eps
    )
    return out.relu_(), tuple(stats)


def _sizes(maps: Tensor) -> tuple[int, int, int]:
    """Maps, channels and positions of class maps (t, C, H, W)."""
    return maps.shape[0], maps.shape[1], maps.shape[2] * maps.shape[3]


def _forward(maps: Tensor, step: ConvState, image: int) -> Tensor:
    maps, _ = _activate(maps, step)
    if step.to_one:
        return _to_one(maps, step)
    if step.doubles:
        maps = F.conv_transpose2d(maps, step.weight, stride=2, padding=1)
    else:
        maps = F.conv2d(maps, step.weight, padding=1)
    return maps if step.guided is None else maps.add_(step.guided[image])


def _backward(above: Tensor, maps: Tensor, step: ConvState, sums: ConvState, image: int) -> Tensor:
    """Gradient of a step's input ``maps`` from that of its output; adds those of its tensors."""
    if sums.guided is not None:
        sums.guided[image, 0].add_(above.permute(0, 2, 3, 1).sum(0).permute(2, 0, 1))
    active, stats = _activate(maps, step)
    if step.to_one:
        grad = _to_one_backward(above, active, step, sums)
    else:
        ones, mask = [1, 1], [True, True, False]
        stride = [2, 2] if step.doubles else ones
        grad, weight_grad, _ = torch.ops.aten.convolution_backward(
            above, active, step.weight, None, stride, ones, ones, step.doubles, [0, 0], 1, mask
        )
        sums.weight.add_(weight_grad)
    if step.norm is None:
        return grad
    grad = torch.ops.aten.threshold_backward(grad, active, 0, grad_input=grad)
    grad, *parts = torch.ops.aten.native_group_norm_backward(
        grad, maps, *stats, step.norm, *_sizes(maps), step.groups, [True, True, True]
    )
    for total, part in zip((sums.norm, sums.norm_bias), parts):
        assert total is not None
        total.add_(part)
    return grad


def _to_one(maps: Tensor, step: ConvState) -> Tensor:
    """3 x 3 convolution to one channel: what each position gives its neighbours, then their sum.

    A product with nine columns and a sum of nine shifted maps take half the time of a convolution.
    """
    weight = step.weight.flip(2, 3).view(-1, 9)
    columns = weight.t().expand(len(maps), -1, -1) @ maps.flatten(2)
    out = F.fold(columns, maps.shape[2:], 3, padding=1)
    return out if step.bias is None else out.add_(step.bias)


def _to_one_backward(above: Tensor, maps: Tensor, step: ConvState, sums: ConvState) -> Tensor:
    size, channels, height, width = maps.shape
    columns = F.unfold(above, 3, padding=1)
    rows = maps.permute(0, 2, 3, 1).flatten(1, 2)
    weight_grad = (columns @ rows).sum(0).t()
    sums.weight.add_(weight_grad.view(1, channels, 3, 3).flip(2, 3))
    if sums.bias is not None:
        sums.bias.add_(above.sum())
    weight = step.weight.flip(2, 3).view(channels, 9)
    grad = columns.transpose(1, 2) @ weight.t()
    return grad.view(size, height, width, channels).permute(0, 3, 1, 2)
