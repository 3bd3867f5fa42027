"""The guided upsampling decoder: from aggregated features to a logit map for every class."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from infoclip_mmseg.models.layers.chunks import Step, run_chunks
from infoclip_mmseg.models.layers.cpu_backward.support import ConvState
from infoclip_mmseg.utils.recompute import Recompute


class UpsamplingSizes(NamedTuple):
    """Sizes of the two upsampling stages, as keys of CATSegHead."""

    decoder_dims: Sequence[int] = (64, 32)  # output channels, multiples of 16
    decoder_guidance_dims: Sequence[int] = (256, 128)  # channels of the upsampled block maps
    decoder_guidance_proj_dims: Sequence[int] = (32, 16)  # channels of their projections


class GuidedUpsampling(nn.Module):
    """Layers of a stage of the decoder (CAT-Seg, section 3.4), which :func:`conv_steps` runs.

    ``up`` doubles the grid; then come, each with norm and ReLU behind it, ``conv1``, which also
    sees a guidance map, and ``conv2``. ``out_channels`` is a multiple of 16.
    """

    def __init__(self, in_channels: int, out_channels: int, guidance_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, in_channels - guidance_channels, 2, stride=2)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(out_channels // 16, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(out_channels // 16, out_channels)

    def doubling(self, guidance: Tensor) -> tuple[Tensor, Tensor]:
        """``up`` and ``conv1`` as one convolution, and what guidance (B, G, 2H, 2W) adds to it."""
        assert self.up.bias is not None
        # Nothing lies between the two, so they run as one transposed convolution of kernel 4 and
        # stride 2, with about half the arithmetic. Guidance is added once for all classes, with the
        # part of the upsampling's bias.
        weight = F.conv2d(self.up.weight, self.conv1.weight[:, : self.up.out_channels], padding=2)
        bias = self.up.bias.to(guidance.dtype)[:, None, None]
        bias = bias.expand(guidance.shape[0], -1, *guidance.shape[2:])
        return weight, self.conv1(torch.cat([bias, guidance], dim=1))[:, None]


def _add_guided(maps: Tensor, guided: Any) -> Tensor:
    """Add (B, 1, C, H, W) to class maps (B*T, C, H, W) in place."""
    return maps.unflatten(0, (guided.shape[0], -1)).add_(guided).flatten(0, 1)


class _AddGuided(Function):
    """Autograd through :func:`_add_guided`, which writes to a view, would copy the gradient."""

    @staticmethod
    def forward(ctx: Any, maps: Tensor, guided: Tensor) -> Tensor:
        """The maps themselves."""
        ctx.images = guided.shape[0]
        ctx.mark_dirty(maps)
        _add_guided(maps, guided)
        return maps

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient, and its sum over classes."""
        # Channels last is how the maps lie; sums over other layouts are slow.
        by_image = upstream.unflatten(0, (ctx.images, -1)).permute(0, 1, 3, 4, 2)
        return upstream, by_image.sum(1, keepdim=True).permute(0, 1, 4, 2, 3)


@dataclass(frozen=True)
class ConvStep:
    """Norm and ReLU of class maps (B*T, C, H, W), where there is a norm, then a convolution.

    With guidance, (B, 1, C', 2H, 2W), which is added to every class map, ``conv`` is the weight
    (C, C', 4, 4) of a transposed one with stride 2.
    """

    norm: nn.GroupNorm | None
    conv: nn.Conv2d | Tensor
    guided: Tensor | None = None

    def __call__(self, maps: Tensor) -> Tensor:
        """Maps (B*T, C', H, W), or (B*T, C', 2H, 2W) with guidance."""
        if self.norm is not None:
            maps = F.relu(self.norm(maps), inplace=True)
        if isinstance(self.conv, nn.Conv2d):
            return self.conv(maps)
        maps = F.conv_transpose2d(maps, self.conv, stride=2, padding=1)
        add = _AddGuided.apply if torch.is_grad_enabled() else _add_guided
        return add(maps, self.guided)

    def state(self) -> ConvState:
        """The step as a record."""
        if isinstance(self.conv, nn.Conv2d):
            state = ConvState(False, self.conv.weight, self.conv.bias, None)
        else:
            state = ConvState(True, self.conv, None, self.guided)
        if self.norm is None:
            return state
        weight, bias = self.norm.weight, self.norm.bias
        groups, eps = self.norm.num_groups, self.norm.eps
        return state._replace(norm=weight, norm_bias=bias, groups=groups, eps=eps)


def conv_steps(
    stages: Iterable[GuidedUpsampling], guidance: Iterable[Tensor], last: nn.Conv2d
) -> list[ConvStep]:
    """The decoder as a chain of convolutions, each with the norm and ReLU that stand before it.

    What goes from step to step is the output of a convolution. With recomputation that is kept, and
    norm and ReLU, which are cheap, are computed again in the backward pass. Each stage has its
    projected guidance (B, G, H, W), at the grid of its output; ``last`` is to one channel.
    """
    steps: list[ConvStep] = []
    norm = None
    for stage, guide in zip(stages, guidance):
        steps.append(ConvStep(norm, *stage.doubling(guide)))
        steps.append(ConvStep(stage.norm1, stage.conv2))
        norm = stage.norm2
    return [*steps, ConvStep(norm, last)]


def decode(
    x: Tensor, steps: Sequence[ConvStep], recompute: Recompute, class_chunk: int | None
) -> Tensor:
    """Features (B, T, H, W, C) through :func:`conv_steps` to logits (B, T, 2^S H, 2^S W).

    For the other arguments see :func:`~infoclip_mmseg.models.layers.chunks.run_chunks`.
    """
    chain: list[Step] = [_to_maps, *steps, partial(_to_logits, images=x.shape[0])]
    return run_chunks(chain, x, 1, recompute, class_chunk, lambda: [s.state() for s in steps])


def _to_maps(x: Tensor) -> Tensor:
    """Features (B, T, H, W, C) to class maps (B*T, C, H, W)."""
    return x.flatten(0, 1).permute(0, 3, 1, 2)


def _to_logits(maps: Tensor, images: int) -> Tensor:
    """Class maps (B*T, 1, H, W) to (B, T, H, W)."""
    return maps[:, 0].unflatten(0, (images, -1))
