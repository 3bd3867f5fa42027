"""Backward passes written by hand, for training with recomputation on a CPU in float32.

A leaf behind one door: :func:`recompute_on_cpu`. ``torch.utils.checkpoint`` runs a whole forward
pass once more; here what is dear to compute is kept, and only the rest is computed again. Gradients
of weights are summed in place over the chunks of class maps.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from infoclip_mmseg.models.layers.cpu_backward import decoder, swin
from infoclip_mmseg.models.layers.cpu_backward.support import (
    ConvState,
    SwinState,
    is_supported,
    put_tensors,
    split_maps,
    take_tensors,
)

__all__ = ['recompute_on_cpu']


def recompute_on_cpu(
    states: Callable[[], Sequence[SwinState] | Sequence[ConvState]], x: Tensor, chunk: int
) -> Tensor | None:
    """Run layers one after the other; results and gradients are those of their modules.

    ``states`` gives the layers, of which ``chunk`` class maps of an image run at a time: Swin
    blocks, from features (B, T, H, W, C) to features, or the convolutions of a decoder that doubles
    the grid S times, the last to one channel, to logits (B, T, 2^S H, 2^S W). The result is None
    where autograd has to do it, see
    :func:`~infoclip_mmseg.models.layers.cpu_backward.support.is_supported`.
    """
    if not is_supported(x):
        return None
    plans, tensors = take_tensors(states())
    out: Tensor = _Layers.apply(x, plans, chunk, *tensors)
    return out


def _kind(plans: list) -> Any:
    """The module that runs such layers on a chunk of class maps."""
    return swin if isinstance(plans[0], SwinState) else decoder


class _Layers(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, plans: list, chunk: int, *tensors: Tensor) -> Tensor:
        """See :func:`recompute_on_cpu`; ``tensors`` are those of all layers."""
        layers, kind = put_tensors(plans, tensors), _kind(plans)
        out = x.new_empty(kind.output_shape(x.shape, layers))
        kept: list[Tensor] = []
        for image, part, target in split_maps(x, out, chunk):
            kept += kind.run(part, target, layers, image)
        ctx.plans, ctx.chunk, ctx.shape, ctx.num_tensors = plans, chunk, x.shape, len(tensors)
        ctx.save_for_backward(*tensors, *kept)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the features, None for plans and chunk, gradients of the tensors."""
        tensors, kept = ctx.saved_tensors[: ctx.num_tensors], ctx.saved_tensors[ctx.num_tensors :]
        sums = [torch.zeros_like(tensor) for tensor in tensors]
        layers = list(zip(put_tensors(ctx.plans, tensors), put_tensors(ctx.plans, sums)))
        grad, left = upstream.new_empty(ctx.shape), iter(kept)
        for image, above, target in split_maps(upstream, grad, ctx.chunk):
            _kind(ctx.plans).run_back(above, target, left, layers, image)
        return (grad, None, None, *sums)
