"""The guided upsampling decoder: from aggregated features to a logit map for every class."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

from infoclip_mmseg.models.layers.cpu_backward.decoder import ConvStep, upsample_maps

Step = Callable[..., Tensor]


def run_step(step: Step, *args: object) -> Tensor:
    """Call a step. In training with recomputation CATSegHead puts its checkpoint in this place.

    Steps end with a convolution. Its output is kept, and what lies before it is recomputed in the
    backward pass, which is cheap; the convolution is not.
    """
    return step(*args)


class GuidedUpsampling(nn.Module):
    """Double the grid, then two convolutions that also see a guidance map (CAT-Seg, section 3.4).

    Args:
        in_channels: Channels of the input.
        out_channels: Channels of the output, a multiple of 16.
        guidance_channels: Channels of the projected guidance.
    """

    def __init__(self, in_channels: int, out_channels: int, guidance_channels: int) -> None:
        super().__init__()
        self.up = nn.ConvTranspose2d(in_channels, in_channels - guidance_channels, 2, stride=2)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = nn.GroupNorm(out_channels // 16, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = nn.GroupNorm(out_channels // 16, out_channels)

    def guide(self, guidance: Tensor) -> Tensor:
        """What the guidance map adds to the first convolution, once for all classes.

        Args:
            guidance: Projected guidance (B, G, 2H, 2W).

        Returns:
            (B, 1, out_channels, 2H, 2W); it holds the part of the upsampling's bias too.
        """
        assert self.up.bias is not None
        bias = self.up.bias.to(guidance.dtype)[:, None, None].expand(
            guidance.shape[0], -1, *guidance.shape[2:]
        )
        return self.conv1(torch.cat([bias, guidance], dim=1))[:, None]

    def weight(self) -> Tensor:
        """Weight (C, out_channels, 4, 4) of transposed and first convolution as one.

        Nothing lies between the two, so they run as one transposed convolution of kernel 4 and
        stride 2, with about half the arithmetic.
        """
        return F.conv2d(self.up.weight, self.conv1.weight[:, : self.up.out_channels], padding=2)

    def forward(
        self, x: Tensor, guided: Tensor, weight: Tensor, before: Step, run: Step = run_step
    ) -> Tensor:
        """Upsample.

        Args:
            x: Class maps (B*T, C, H, W), image by image.
            guided: From :meth:`guide`.
            weight: From :meth:`weight`.
            before: Activation of the input, that of the stage before.
            run: Runs a step, see :func:`run_step`.

        Returns:
            (B*T, out_channels, 2H, 2W), to which :meth:`activate` is still to be applied.
        """
        return run(self._convolve, run(self._double, x, guided, weight, before))

    def activate(self, x: Tensor) -> Tensor:
        """Normalisation and ReLU of :meth:`forward`'s output."""
        return F.relu(self.norm2(x), inplace=True)

    def _double(self, x: Tensor, guided: Tensor, weight: Tensor, before: Step) -> Tensor:
        x = F.conv_transpose2d(before(x), weight, stride=2, padding=1)
        if not torch.is_grad_enabled():
            return _add_guided(x, guided)
        out: Tensor = _AddGuided.apply(x, guided)
        return out

    def _convolve(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.norm1(x), inplace=True))


def _add_guided(x: Tensor, guided: Tensor) -> Tensor:
    """Add (B, 1, C, H, W) to class maps (B*T, C, H, W) in place."""
    return x.unflatten(0, (guided.shape[0], -1)).add_(guided).flatten(0, 1)


class _AddGuided(Function):
    """Autograd through :func:`_add_guided`, which writes to a view, would copy the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, guided: Tensor) -> Tensor:
        """The maps themselves."""
        ctx.images = guided.shape[0]
        ctx.mark_dirty(x)
        _add_guided(x, guided)
        return x

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, Tensor]:
        """The gradient, and its sum over classes."""
        # Channels last is how the maps lie; sums over other layouts are slow.
        by_image = upstream.unflatten(0, (ctx.images, -1)).permute(0, 1, 3, 4, 2)
        return upstream, by_image.sum(1, keepdim=True).permute(0, 1, 4, 2, 3)


class GuidedStage(NamedTuple):
    """A stage of the decoder and what of it is computed once for all classes.

    Attributes:
        stage: The module.
        guided: From :meth:`GuidedUpsampling.guide`.
        weight: From :meth:`GuidedUpsampling.weight`.
    """

    stage: GuidedUpsampling
    guided: Tensor
    weight: Tensor


def decode(
    x: Tensor, stages: Sequence[GuidedStage], last: nn.Conv2d, run: Step = run_step
) -> Tensor:
    """Stages of upsampling, then a 3 x 3 convolution to one channel.

    Args:
        x: Features (B, T, H, W, C).
        stages: The decoder.
        last: The convolution.
        run: Runs a step, see :func:`run_step`.

    Returns:
        Logits (B, T, 2^S H, 2^S W) after S stages.
    """
    maps = x.flatten(0, 1).permute(0, 3, 1, 2)
    activate: Step = nn.Identity()
    for stage, guided, weight in stages:
        maps = stage(maps, guided, weight, activate, run)
        activate = stage.activate
    maps = run(lambda maps: last(activate(maps)), maps)
    return maps[:, 0].unflatten(0, x.shape[:2])


def decode_recomputing(
    x: Tensor, stages: Sequence[GuidedStage], last: nn.Conv2d, chunk: int
) -> Tensor:
    """As :func:`decode`, but norms and activations are recomputed in the backward pass.

    Runs where ``cpu_backward.support.is_supported`` says so, ``chunk`` class maps
    at a time.
    """
    steps: list[ConvStep] = []
    norm = None
    for stage, guided, weight in stages:
        steps.append(ConvStep('up', weight, norm=norm, guided=guided))
        steps.append(ConvStep('same', stage.conv2.weight, norm=stage.norm1))
        norm = stage.norm2
    return upsample_maps(x, [*steps, ConvStep('one', last.weight, last.bias, norm)], chunk)
