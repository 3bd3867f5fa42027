"""How class maps run: so many at a time, and in training with or without their activations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import reduce

import torch
from torch import Tensor

from infoclip_mmseg.models.layers.cpu_backward import recompute_on_cpu
from infoclip_mmseg.models.layers.cpu_backward.support import ConvState, SwinState
from infoclip_mmseg.utils.recompute import Recompute, checkpointed

Step = Callable[[Tensor], Tensor]
States = Sequence[SwinState] | Sequence[ConvState]

# Positions of class maps (of all classes together) that a CPU works on at a time.
CPU_CHUNK = 4608


def run_chunks(
    steps: Sequence[Step],
    x: Tensor,
    dim: int,
    recompute: Recompute,
    class_chunk: int | None,
    states: Callable[[], States] | None = None,
) -> Tensor:
    """Run steps one after the other on parts of features; the result is that of one part.

    Args:
        steps: The first takes a part of ``x``, the last gives a part of the result.
        x: Features (B, T, H, W, C); overwritten by a result of their size where no gradients are
            recorded.
        dim: Where ``x`` is cut: T (1) or H (2).
        recompute: Whether activations inside a step are computed again in the backward pass; what
            goes from one step to the next is kept. ``'selective'`` keeps large products too.
        class_chunk: See :func:`chunk_size`.
        states: The steps as records for ``cpu_backward``, which recomputes faster where it can.
    """
    recompute = recompute if torch.is_grad_enabled() else False
    if recompute and states is not None:
        out = recompute_on_cpu(states, x, chunk_size(x[:1], dim, class_chunk))
        if out is not None:
            return out
    if recompute:
        steps = [checkpointed(step, recompute, preserve_rng_state=False) for step in steps]
    chunk = chunk_size(x, dim, class_chunk)
    if chunk >= x.shape[dim]:
        return reduce(lambda maps, step: step(maps), steps, x)
    parts: list[Tensor] = []
    for part in x.split(chunk, dim):
        out = reduce(lambda maps, step: step(maps), steps, part)
        if not torch.is_grad_enabled() and out.shape == part.shape:
            part.copy_(out)
        else:
            parts.append(out)
    return torch.cat(parts, dim) if parts else x


def chunk_size(x: Tensor, dim: int, class_chunk: int | None) -> int:
    """Length of a part of features (B, T, H, W, C) along T (1) or H (2).

    ``class_chunk`` is the class maps of all images together in a part along T. None, and along H:
    on a CPU what fits into its caches, elsewhere all. 0: all, along H too.
    """
    if class_chunk == 0:
        return x.shape[dim]
    if dim == 1 and class_chunk is not None:
        return max(1, class_chunk // len(x))
    if x.device.type != 'cpu':
        return x.shape[dim]
    return max(1, CPU_CHUNK * x.shape[dim] // x[..., 0].numel())
