"""Guided attention over positions (shifted windows) and over classes (linear).

Features are class-expanded, (B, T, H, W, C); guidance belongs to an image or to a class alone and
is expanded only after it has been projected: a linear layer on a concatenation is the sum of two
linear layers, so the guidance part is computed once an image (or once a class) and added.

Legend: B images, T classes, H W grid, S windows of L = window * window positions, C channels.
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Added to attention logits of pairs from different regions of a shifted window.
_MASKED = -100.0


def window_layout(height: int, width: int, window: int, shift: int) -> tuple[int, int]:
    """Window side and shift that fit a grid: a grid no larger than a window is not shifted."""
    if min(height, width) <= window:
        return min(height, width), 0
    return window, shift


def to_windows(x: Tensor, window: int, shift: int) -> Tensor:
    """Cut features (B, T, H, W, C) into windows (B, T, S, L, C).

    The grid is padded with zeros at the bottom and right to multiples of the window, then rolled by
    ``shift`` to the top and left.
    """
    bottom, right = -x.shape[2] % window, -x.shape[3] % window
    if bottom or right:
        x = F.pad(x, (0, 0, 0, right, 0, bottom))
    if shift:
        x = x.roll((-shift, -shift), dims=(2, 3))
    x = x.unflatten(3, (-1, window)).unflatten(2, (-1, window))
    return x.transpose(3, 4).flatten(4, 5).flatten(2, 3)


def from_windows(x: Tensor, window: int, shift: int, grid: tuple[int, int]) -> Tensor:
    """Inverse of :func:`to_windows`; ``grid`` is (H, W)."""
    rows, columns = -(-grid[0] // window), -(-grid[1] // window)
    x = x.unflatten(3, (window, window)).unflatten(2, (rows, columns))
    x = x.transpose(3, 4).flatten(4, 5).flatten(2, 3)
    if shift:
        x = x.roll((shift, shift), dims=(2, 3))
    return x[:, :, : grid[0], : grid[1]]


@lru_cache(maxsize=16)
def window_mask(
    height: int, width: int, window: int, shift: int, device: torch.device, dtype: torch.dtype
) -> Tensor | None:
    """Additive mask (windows, window*window, window*window), or None where nothing is masked.

    Positions that the cyclic shift brought together do not see each other; padding is seen by none.
    """
    padded = (-(-height // window) * window, -(-width // window) * window)
    if not shift and padded == (height, width):
        return None
    region = torch.zeros(padded, device=device)
    if shift:
        for side in (-window, -shift):
            region[side:] += 1
            region[:, side:] += 3
    inside = torch.zeros(padded, dtype=torch.bool, device=device)
    inside[:height, :width] = True
    region = region.masked_fill(~inside.roll((-shift, -shift), dims=(0, 1)), -1)
    region = region.unflatten(0, (-1, window)).unflatten(2, (-1, window))
    region = region.permute(0, 2, 1, 3).flatten(2).flatten(0, 1)
    different = region[:, None] != region[:, :, None]
    return torch.zeros(different.shape, device=device, dtype=dtype).masked_fill_(different, _MASKED)


class _GuidedProjection(nn.Module):
    """Query, key and value projections; queries and keys also see guidance.

    Args:
        dim: C.
        guidance_dim: G.
        num_heads: Heads.
    """

    def __init__(self, dim: int, guidance_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q = nn.Linear(dim + guidance_dim, dim)
        self.k = nn.Linear(dim + guidance_dim, dim)
        self.v = nn.Linear(dim, dim)

    def guide(self, guidance: Tensor) -> Tensor:
        """What guidance (..., G) adds to queries, keys and values (..., 3C), biases included."""
        dim = self.v.in_features
        weight = torch.cat([self.q.weight[:, dim:], self.k.weight[:, dim:]])
        guided = F.linear(guidance, weight, torch.cat([self.q.bias, self.k.bias]))
        value = self.v.bias.to(guided.dtype).expand(*guided.shape[:-1], dim)
        return torch.cat([guided, value], dim=-1)

    def project(self, x: Tensor, guided: Tensor) -> Tensor:
        """Queries, keys and values (..., 3C) of features (..., C); ``guided`` broadcasts."""
        dim = x.shape[-1]
        weight = torch.cat([self.q.weight[:, :dim], self.k.weight[:, :dim], self.v.weight])
        return F.linear(x, weight).add_(guided)


class GuidedWindowAttention(_GuidedProjection):
    """Window attention whose queries and keys also see appearance guidance (CAT-Seg, section 3.3).

    Args:
        dim: C.
        guidance_dim: G.
        num_heads: Heads.
    """

    def __init__(self, dim: int, guidance_dim: int, num_heads: int) -> None:
        super().__init__(dim, guidance_dim, num_heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, guided: Tensor, mask: Tensor | None) -> Tensor:
        """Attend within windows.

        Args:
            x: Normalised features (B, T, S, L, C).
            guided: From :meth:`guide`, (B, 1, S, L, 3C), one for all classes.
            mask: From :func:`window_mask`, (S, L, L), or None.

        Returns:
            Features (B, T, S, L, C).
        """
        qkv = self.project(x, guided).flatten(0, 2)
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        if mask is not None:
            mask = mask.to(q.dtype)[:, None].repeat(x.shape[0] * x.shape[1], 1, 1, 1)
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(out.transpose(1, 2).flatten(2)).view(x.shape)


def linear_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    padding: tuple[Tensor, Tensor, int] | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """Linear attention with the feature map elu + 1 (arXiv 2006.16236, Eq. 4 and 7).

    Args:
        q, k, v: (..., T, D).
        padding: ``(key, value, count)``: ``count`` further entries that all have this key and
            value, each (..., 1, D); they are added to the sums without being materialised.
        eps: Added to the normaliser.

    Returns:
        (..., T, D).
    """
    q, k = F.elu(q) + 1, F.elu(k) + 1
    length = k.shape[-2] + (padding[2] if padding else 0)
    # Values are scaled down before and up after the sum so that it fits half precision.
    memory = k.transpose(-1, -2) @ (v / length)
    normaliser = k.sum(dim=-2, keepdim=True)
    if padding:
        key, value, count = F.elu(padding[0]) + 1, padding[1], padding[2]
        memory = memory + key.transpose(-1, -2) @ (value * (count / length))
        normaliser = normaliser + key * count
    return q @ memory / ((q * normaliser).sum(dim=-1, keepdim=True) + eps) * length


class GuidedClassAttention(_GuidedProjection):
    """Linear attention over classes whose queries and keys also see the text embedding.

    Args:
        dim: C.
        guidance_dim: G.
        num_heads: Heads.
    """

    def forward(
        self, x: Tensor, guided: Tensor, padding: tuple[Tensor, Tensor, int] | None = None
    ) -> Tensor:
        """Attend over classes at each position.

        Args:
            x: Normalised features (B, N, T, C), the classes of a position side by side.
            guided: From :meth:`guide`, (B or 1, 1, T, 3C).
            padding: ``(token, guided, count)``: ``count`` padding classes with this normalised
                token (C,) and this guidance (3C,).

        Returns:
            Features (B, N, T, C).
        """
        heads = self._heads(self.project(x, guided).flatten(0, 1))
        rows: list[tuple[Tensor, Tensor, int] | None] = [None] * self.num_heads
        if padding is not None:
            token, token_guided, count = padding
            padded = self._heads(self.project(token, token_guided)[None])
            rows = [(key, value, count) for _, key, value in padded]
        out = [linear_attention(q, k, v, row) for (q, k, v), row in zip(heads, rows)]
        return torch.cat(out, dim=-1).unflatten(0, x.shape[:2])

    def _heads(self, qkv: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(..., 3C) to the (..., D) queries, keys and values of each head."""
        parts = qkv.split(self.v.in_features // self.num_heads, dim=-1)
        heads = self.num_heads
        return list(zip(parts[:heads], parts[heads : 2 * heads], parts[2 * heads :]))
