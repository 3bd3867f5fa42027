"""Spatial and class aggregation of the cost volume, and the guided upsampling decoder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infoclip_mmseg.models.attention import GuidedClassAttention, GuidedWindowAttention


class SwinBlock(nn.Module):
    """Window attention and MLP with pre-norm residuals.

    Args:
        dim: C.
        guidance_dim: G.
        num_heads: Heads.
        shifted: Whether windows are shifted by half their side.
    """

    def __init__(self, dim: int, guidance_dim: int, num_heads: int, shifted: bool) -> None:
        super().__init__()
        self.shifted = shifted
        self.norm1 = nn.LayerNorm(dim)
        self.attn = GuidedWindowAttention(dim, guidance_dim, num_heads)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(nn.Linear(dim, 4 * dim), nn.GELU(), nn.Linear(4 * dim, dim))

    def forward(self, x: Tensor, guidance: Tensor, window: int) -> Tensor:
        """Features (B, T, H, W, C), guidance (B, 1, H, W, G) -> (B, T, H, W, C)."""
        shift = window // 2 if self.shifted else 0
        x = x + self.attn(self.norm1(x), guidance, window, shift)
        return x + self.mlp(self.norm2(x))


class SpatialAggregation(nn.Module):
    """Two Swin blocks, the second shifted, guided by image embeddings (CAT-Seg, section 3.3)."""

    def __init__(self, dim: int, guidance_dim: int, num_heads: int, window_size: int) -> None:
        super().__init__()
        self.window_size = window_size
        self.guidance_norm = nn.LayerNorm(guidance_dim)
        self.block_1 = SwinBlock(dim, guidance_dim, num_heads, shifted=False)
        self.block_2 = SwinBlock(dim, guidance_dim, num_heads, shifted=True)

    def forward(self, x: Tensor, guidance: Tensor) -> Tensor:
        """Features (B, T, H, W, C), guidance (B, H, W, G) -> (B, T, H, W, C)."""
        guidance = self.guidance_norm(guidance)[:, None]
        x = self.block_1(x, guidance, self.window_size)
        return self.block_2(x, guidance, self.window_size)


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
            pooling_size: Positions are average-pooled by this before attention.

        Returns:
            Features (B, T, H, W, C).
        """
        pooled = pool_grid(x, pooling_size)
        padding = None
        if x.shape[1] < self.pad_len:
            token = self.norm1(self.padding_tokens[0, 0])
            padding = (token, self.padding_guidance[0, 0], self.pad_len - x.shape[1])
        guidance = guidance[:, :, None, None]
        pooled = pooled + self.attention(self.norm1(pooled), guidance, padding)
        pooled = pooled + self.mlp(self.norm2(pooled))
        return x + resize_grid(pooled, (x.shape[2], x.shape[3]))


class AggregationLayer(nn.Module):
    """Spatial, then class aggregation."""

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

    def forward(self, x: Tensor, appearance: Tensor, text: Tensor, pooling_size: int) -> Tensor:
        """Features (B, T, H, W, C), guidance (B, H, W, G) and (B or 1, T, G) -> (B, T, H, W, C)."""
        return self.classes(self.spatial(x, appearance), text, pooling_size)


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

    def forward(self, x: Tensor, guidance: Tensor, classes: int) -> Tensor:
        """Upsample.

        Args:
            x: (B*T, C, H, W), image by image.
            guidance: Projected guidance (B, G, 2H, 2W); computed once an image and added to each of
                its classes.
            classes: T.

        Returns:
            (B*T, out_channels, 2H, 2W).
        """
        x = self.up(x)
        channels = x.shape[1]
        guided = F.conv2d(guidance, self.conv1.weight[:, channels:], padding=1)
        x = F.conv2d(x, self.conv1.weight[:, :channels], padding=1)
        x = (x.unflatten(0, (-1, classes)) + guided[:, None]).flatten(0, 1)
        x = F.relu(self.norm1(x), inplace=True)
        return F.relu(self.norm2(self.conv2(x)), inplace=True)
