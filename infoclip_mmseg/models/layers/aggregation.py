"""Spatial and class aggregation of the cost volume."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infoclip_mmseg.models.layers.chunks import run_chunks
from infoclip_mmseg.models.layers.cpu_backward.support import SwinState
from infoclip_mmseg.models.layers.guided_attention import (
    GuidedClassAttention,
    GuidedWindowAttention,
    Windows,
    cut_windows,
)
from infoclip_mmseg.utils.recompute import Recompute


class AggregationSizes(NamedTuple):
    """Sizes of the aggregation, as keys of CATSegHead.

    Class attention runs on positions pooled by ``pooling_size`` in training, in evaluation on all
    of them.
    """

    hidden_dim: int = 128  # C, channels of the embedded cost volume
    num_layers: int = 2
    num_heads: int = 4
    window_size: int = 12  # side of a window of the spatial attention, in positions
    pooling_size: int = 2
    text_proj_dim: int = 128  # channels of the projected guidance
    appearance_proj_dim: int = 128


class SwinBlock(nn.Module):
    """Window attention and MLP with pre-norm residuals; a shift is half a window's side."""

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

    def state(self, x: Tensor, guided: Tensor) -> SwinState:
        """The block as a record, for arguments of :meth:`forward`."""
        first, _, second = (cast(nn.Linear, layer) for layer in self.mlp)
        layers = (self.attn.proj, self.norm2, first, second)
        return SwinState(
            self._windows(x),
            self.attn.num_heads,
            (self.norm1.eps, self.norm2.eps),
            guided,
            self.norm1.weight,
            self.norm1.bias,
            self.attn.weight(),
            *(tensor for layer in layers for tensor in (layer.weight, layer.bias)),
        )

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

    def forward(
        self, x: Tensor, guidance: Tensor, recompute: Recompute, class_chunk: int | None
    ) -> Tensor:
        """Features (B, T, H, W, C) and projected image embeddings (B, H, W, G) to features."""
        guidance = self.guidance_norm(guidance)  # projected for each block, once for all classes
        blocks = [(block, block.guide(guidance)) for block in (self.block_1, self.block_2)]

        def run_blocks(part: Tensor) -> Tensor:
            for block, guided in blocks:
                part = block(part, guided)
            return part

        def states() -> list[SwinState]:
            return [block.state(x, guided) for block, guided in blocks]

        return run_chunks([run_blocks], x, 1, recompute, class_chunk, states)


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

    def forward(
        self,
        x: Tensor,
        guidance: Tensor,
        pooling_size: int,
        recompute: Recompute,
        class_chunk: int | None,
    ) -> Tensor:
        """Features (B, T, H, W, C) and projected text embeddings (B or 1, T, G) to features.

        Positions are average-pooled by ``pooling_size`` before attention. With 1 they do not see
        each other, so they run in parts (``recompute``, ``class_chunk``).
        """
        if pooling_size == 1:
            step = partial(self._attend, guidance=guidance, pooling_size=1)
            return run_chunks([step], x, 2, recompute, class_chunk)
        return self._attend(x, guidance, pooling_size)

    def _attend(self, x: Tensor, guidance: Tensor, pooling_size: int) -> Tensor:
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
    """Spatial, then class aggregation."""

    def __init__(self, sizes: AggregationSizes, pad_len: int) -> None:
        super().__init__()
        dim, num_heads = sizes.hidden_dim, sizes.num_heads
        spatial_sizes = (dim, sizes.appearance_proj_dim, num_heads, sizes.window_size)
        self.spatial = SpatialAggregation(*spatial_sizes)
        self.classes = ClassAggregation(dim, sizes.text_proj_dim, num_heads, pad_len)

    def forward(
        self,
        x: Tensor,
        appearance: Tensor,
        text: Tensor,
        pooling_size: int,
        recompute: Recompute,
        class_chunk: int | None,
    ) -> Tensor:
        """Features (B, T, H, W, C) and projected guidance (B, H, W, G), (B or 1, T, G')."""
        x = self.spatial(x, appearance, recompute, class_chunk)
        return self.classes(x, text, pooling_size, recompute, class_chunk)
