"""Spatial and class aggregation of the cost volume."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infoclip_mmseg.models.layers.cpu_backward.swin import BlockPlan, BlockWeights, swin_blocks
from infoclip_mmseg.models.layers.guided_attention import (
    GuidedClassAttention,
    GuidedWindowAttention,
    Windows,
    cut_windows,
)


class SwinBlock(nn.Module):
    """Window attention and MLP with pre-norm residuals.

    Args:
        dim: C.
        guidance_dim: G.
        num_heads: Heads.
        window_size: Side of a window; smaller grids are one window.
        shifted: Whether windows are shifted by half their side.
    """

    def __init__(
        self, dim: int, guidance_dim: int, num_heads: int, window_size: int, shifted: bool
    ) -> None:
        super().__init__()
        self.window_size = window_size
        self.shift = window_size // 2 if shifted else 0
        self.norm1 = nn.LayerNorm(dim)
        self.attn = GuidedWindowAttention(dim, guidance_dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def guide(self, guidance: Tensor) -> Tensor:
        """Guidance (B, H, W, G) to what it adds at each position (B, 1, N, 3C), in windows."""
        return self._windows(guidance[:, None]).sort(self.attn.guide(guidance)[:, None])

    def forward(self, x: Tensor, guided: Tensor) -> Tensor:
        """Features (B, T, H, W, C) and :meth:`guide`'s output -> (B, T, H, W, C)."""
        # The whole block runs on windows: positions are sorted once on the way in and out.
        windows, grid = self._windows(x), (x.shape[2], x.shape[3])
        x = windows.sort(x)
        x = x + self.attn(self.norm1(x), guided, windows.groups)
        x = x + self.mlp(self.norm2(x))
        return windows.unsort(x, grid)

    def plan(self, x: Tensor) -> tuple[BlockPlan, BlockWeights]:
        """The block for :func:`~infoclip_mmseg.models.layers.cpu_backward.swin.swin_blocks`."""
        eps = self.norm1.eps, self.norm2.eps
        plan = BlockPlan(self._windows(x), self.attn.num_heads, eps)
        first, _, second = (cast(nn.Linear, layer) for layer in self.mlp)
        layers = (self.attn.proj, self.norm2, first, second)
        parameters = [p for layer in layers for p in (layer.weight, layer.bias)]
        weights = BlockWeights(self.norm1.weight, self.norm1.bias, self.attn.weight(), *parameters)
        return plan, weights

    def _windows(self, x: Tensor) -> Windows:
        return cut_windows(x.shape[2], x.shape[3], self.window_size, self.shift, x.device)


class SpatialAggregation(nn.Module):
    """Two Swin blocks, the second shifted, guided by image embeddings (CAT-Seg, section 3.3).

    Class maps do not see each other here, so any part of them may run by itself.
    """

    def __init__(self, dim: int, guidance_dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.guidance_norm = nn.LayerNorm(guidance_dim)
        self.block_1 = SwinBlock(dim, guidance_dim, num_heads, window_size, shifted=False)
        self.block_2 = SwinBlock(dim, guidance_dim, num_heads, window_size, shifted=True)

    def guide(self, guidance: Tensor) -> tuple[Tensor, Tensor]:
        """Guidance (B, H, W, G) projected for each block, once for all classes."""
        guidance = self.guidance_norm(guidance)
        return self.block_1.guide(guidance), self.block_2.guide(guidance)

    def forward(self, x: Tensor, guided_1: Tensor, guided_2: Tensor) -> Tensor:
        """Features (B, T, H, W, C) and :meth:`guide`'s output -> (B, T, H, W, C)."""
        return self.block_2(self.block_1(x, guided_1), guided_2)

    def recompute(self, x: Tensor, guided_1: Tensor, guided_2: Tensor, chunk: int) -> Tensor:
        """As :meth:`forward`, but activations are recomputed in the backward pass.

        Runs where ``cpu_backward.support.is_supported`` says so, ``chunk``
        class maps at a time.
        """
        (plan_1, weights_1), (plan_2, weights_2) = self.block_1.plan(x), self.block_2.plan(x)
        guided, plans = (guided_1, guided_2), (plan_1, plan_2)
        out = swin_blocks(x.flatten(2, 3), guided, plans, (weights_1, weights_2), chunk)
        return out.view(x.shape)


def pool_grid(x: Tensor, size: int) -> Tensor:
    """Average-pool (B, T, H, W, C) over ``size`` x ``size`` positions; a short rest is dropped."""
    size = min(size, *x.shape[2:4])
    if size == 1:
        return x
    pooled = F.avg_pool2d(x.flatten(0, 1).permute(0, 3, 1, 2), size)
    return pooled.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


def resize_grid(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Bilinear resize (align_corners=True) of (B, T, H, W, C) to the grid ``size``."""
    if tuple(x.shape[2:4]) == tuple(size):
        return x
    resized = F.interpolate(
        x.flatten(0, 1).permute(0, 3, 1, 2), size=size, mode='bilinear', align_corners=True
    )
    return resized.permute(0, 2, 3, 1).unflatten(0, x.shape[:2])


class ClassAggregation(nn.Module):
    """Linear attention over classes, guided by text (CAT-Seg, section 3.3).

    Vocabularies shorter than ``pad_len`` are filled up to it with one learned padding class.

    Args:
        dim: C.
        guidance_dim: G.
        num_heads: Heads.
        pad_len: Least number of classes that attend to each other; 0 for no padding.
    """

    def __init__(self, dim: int, guidance_dim: int, num_heads: int, pad_len: int) -> None:
        super().__init__()
        self.pad_len = pad_len
        self.norm1 = nn.LayerNorm(dim)
        self.attention = GuidedClassAttention(dim, guidance_dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.ReLU(), nn.Linear(4 * dim, dim))
        if pad_len:
            self.padding_tokens = nn.Parameter(torch.zeros(1, 1, dim))
            self.padding_guidance = nn.Parameter(torch.zeros(1, 1, guidance_dim))

    def forward(self, x: Tensor, guidance: Tensor, pooling_size: int) -> Tensor:
        """Aggregate.

        Args:
            x: Features (B, T, H, W, C).
            guidance: Projected text embeddings (B or 1, T, G).
            pooling_size: Positions are average-pooled by this before attention. With 1, positions
                do not see each other, so any part of them may run by itself.

        Returns:
            Features (B, T, H, W, C).
        """
        pooled = pool_grid(x, pooling_size)
        guided = self.attention.guide(guidance)[:, None]
        padding = None
        if x.shape[1] < self.pad_len:
            token = self.norm1(self.padding_tokens[0, 0])
            pad_guided = self.attention.guide(self.padding_guidance[0, 0])
            padding = (token, pad_guided, self.pad_len - x.shape[1])
        # Classes of a position side by side: (B, N, T, C).
        rows = pooled.permute(0, 2, 3, 1, 4).flatten(1, 2)
        rows = rows + self.attention(self.norm1(rows), guided, padding)
        rows = rows + self.mlp(self.norm2(rows))
        pooled = rows.unflatten(1, pooled.shape[2:4]).permute(0, 3, 1, 2, 4)
        return x + resize_grid(pooled, (x.shape[2], x.shape[3]))


class AggregationLayer(nn.Module):
    """Spatial, then class aggregation; CATSegHead runs the two parts, in chunks."""

    def __init__(
        self,
        dim: int,
        appearance_dim: int,
        text_dim: int,
        num_heads: int,
        window_size: int,
        pad_len: int,
    ) -> None:
        super().__init__()
        self.spatial = SpatialAggregation(dim, appearance_dim, num_heads, window_size)
        self.classes = ClassAggregation(dim, text_dim, num_heads, pad_len)
