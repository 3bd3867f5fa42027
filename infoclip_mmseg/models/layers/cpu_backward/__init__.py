"""Backward passes written by hand, for training with recomputation on a CPU in float32.

A leaf behind one door: :func:`recompute_on_cpu`. ``torch.utils.checkpoint`` runs a whole forward
pass once more; here what is dear to compute is kept, and only the rest is computed again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import cast

from torch import Tensor

from infoclip_mmseg.models.layers.cpu_backward.decoder import upsample_maps
from infoclip_mmseg.models.layers.cpu_backward.support import ConvState, SwinState, is_supported
from infoclip_mmseg.models.layers.cpu_backward.swin import swin_blocks

__all__ = ['recompute_on_cpu']


def recompute_on_cpu(
    states: Callable[[], Sequence[SwinState] | Sequence[ConvState]], x: Tensor, chunk: int
) -> Tensor | None:
    """Run layers one after the other; results and gradients are those of their modules.

    Args:
        states: Gives the layers: Swin blocks, or the convolutions of the decoder.
        x: Features (B, T, H, W, C).
        chunk: Class maps of an image that run at a time.

    Returns:
        Features (B, T, H, W, C) of Swin blocks, logits (B, T, 2^S H, 2^S W) of a decoder that
        doubles the grid S times; None where autograd has to do it, see
        :func:`~infoclip_mmseg.models.layers.cpu_backward.support.is_supported`.
    """
    if not is_supported(x):
        return None
    layers = states()
    if isinstance(layers[0], SwinState):
        return swin_blocks(x, cast(Sequence[SwinState], layers), chunk)
    return upsample_maps(x, cast(Sequence[ConvState], layers), chunk)
