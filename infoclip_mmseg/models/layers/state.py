"""What a layer is, as a plain record: its weights and settings, without its code.

Layers offer such records with ``state()``; ``cpu_backward`` runs them.
"""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from infoclip_mmseg.models.layers.guided_attention import Windows


class SwinState(NamedTuple):
    """A Swin block and what guides it; weights are named as the block's layers.

    Attributes:
        windows: Windows of the grid of N positions.
        num_heads: Attention heads.
        eps: Of the two norms.
        guided: What guidance adds to queries, keys and values, (B, 1, N, 3C), in the order of the
            windows.
        qkv: Weight (3C, C) of queries, keys and values, without the columns for guidance.
    """

    windows: Windows
    num_heads: int
    eps: tuple[float, float]
    guided: Tensor
    norm1: Tensor
    norm1_bias: Tensor
    qkv: Tensor
    proj: Tensor
    proj_bias: Tensor
    norm2: Tensor
    norm2_bias: Tensor
    mlp1: Tensor
    mlp1_bias: Tensor
    mlp2: Tensor
    mlp2_bias: Tensor


class ConvState(NamedTuple):
    """Group norm and ReLU, then a convolution with padding 1.

    Attributes:
        doubles: Whether the convolution doubles the grid: transposed with stride 2, weight
            (C, C', 4, 4). Else it has the weight (C', C, 3, 3).
        weight, bias: Of the convolution.
        guided: Added to the output of every class map, (B, 1, C', H, W), or None.
        norm, norm_bias: Of the norm; None where the input is taken as it is.
        groups, eps: Of the norm.
    """

    doubles: bool
    weight: Tensor
    bias: Tensor | None
    guided: Tensor | None
    norm: Tensor | None
    norm_bias: Tensor | None
    groups: int
    eps: float
