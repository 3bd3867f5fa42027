"""Spatial and class aggregation of the cost volume, and the guided upsampling decoder."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infoclip_mmseg.models.attention import (
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

    def forward(self, x: Tensor, guided: Tensor, before: Step, run: Step = run_step) -> Tensor:
        """Upsample.

        Args:
            x: Class maps (B*T, C, H, W), image by image.
            guided: From :meth:`guide`.
            before: Activation of the input, that of the stage before.
            run: Runs a step, see :func:`run_step`.

        Returns:
            (B*T, out_channels, 2H, 2W), to which :meth:`activate` is still to be applied.
        """
        return run(self._convolve, run(self._double, x, guided, before))

    def activate(self, x: Tensor) -> Tensor:
        """Normalisation and ReLU of :meth:`forward`'s output."""
        return F.relu(self.norm2(x), inplace=True)

    def _double(self, x: Tensor, guided: Tensor, before: Step) -> Tensor:
        # Nothing lies between the transposed and the first convolution, so both run as one
        # transposed convolution of kernel 4 and stride 2, with about half the arithmetic.
        weight = F.conv2d(self.up.weight, self.conv1.weight[:, : self.up.out_channels], padding=2)
        x = F.conv_transpose2d(before(x), weight, stride=2, padding=1)
        return x.unflatten(0, (guided.shape[0], -1)).add_(guided).flatten(0, 1)

    def _convolve(self, x: Tensor) -> Tensor:
        return self.conv2(F.relu(self.norm1(x), inplace=True))
