"""Guided attention over positions (shifted windows) and over classes (linear).

Features are class-expanded, (B, T, H, W, C); guidance belongs to an image or to a class alone and
is expanded only after it has been projected: a linear layer on a concatenation is the sum of two
linear layers, so the guidance part is computed once an image (or once a class).
"""

from __future__ import annotations

from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor, nn

# Added to attention logits of pairs from different regions of a shifted window.
_MASKED = -100.0


def guided_linear(layer: nn.Linear, x: Tensor, guidance: Tensor) -> Tensor:
    """``layer(cat([x, guidance]))`` for guidance that broadcasts against ``x``.

    Args:
        layer: Linear layer over the concatenated channels.
        x: Features (..., C).
        guidance: Guidance (..., G), C + G = ``layer.in_features``; singleton dimensions broadcast.
    """
    channels = x.shape[-1]
    guided = F.linear(guidance, layer.weight[:, channels:], layer.bias)
    return F.linear(x, layer.weight[:, :channels]) + guided


def window_layout(height: int, width: int, window: int, shift: int) -> tuple[int, int]:
    """Window side and shift that fit a grid: a grid no larger than a window is not shifted."""
    if min(height, width) <= window:
        return min(height, width), 0
    return window, shift


def _pad_to_windows(x: Tensor, window: int) -> Tensor:
    """Pad (B, T, H, W, C) at the bottom and right to multiples of the window."""
    bottom, right = -x.shape[2] % window, -x.shape[3] % window
    return F.pad(x, (0, 0, 0, right, 0, bottom)) if bottom or right else x


def partition_windows(x: Tensor, window: int, shift: int, heads: int) -> Tensor:
    """Features (B, T, H, W, C) to (B*T, windows*heads, window*window, C // heads)."""
    x = _pad_to_windows(x, window)
    if shift:
        x = x.roll((-shift, -shift), dims=(2, 3))
    x = x.flatten(0, 1).unflatten(1, (-1, window)).unflatten(3, (-1, window))
    x = x.unflatten(-1, (heads, -1))  # B*T, rows, window, columns, window, heads, C
    return x.permute(0, 1, 3, 5, 2, 4, 6).flatten(4, 5).flatten(1, 3)


def merge_windows(x: Tensor, window: int, shift: int, heads: int, shape: tuple[int, ...]) -> Tensor:
    """Inverse of :func:`partition_windows`; ``shape`` is (B, T, H, W)."""
    batch, classes, height, width = shape
    rows, columns = -(-height // window), -(-width // window)
    x = x.unflatten(2, (window, window)).unflatten(1, (rows, columns, heads))
    x = x.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4).flatten(1, 2)
    x = x.unflatten(0, (batch, classes))
    if shift:
        x = x.roll((shift, shift), dims=(2, 3))
    return x[:, :, :height, :width]


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


class GuidedWindowAttention(nn.Module):
    """Window attention whose queries and keys also see appearance guidance (CAT-Seg, section 3.3).

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
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, guidance: Tensor, window: int, shift: int) -> Tensor:
        """Attend within windows.

        Args:
            x: Normalised features (B, T, H, W, C).
            guidance: Appearance guidance (B, 1, H, W, G), one for all classes.
            window: Side of a window; smaller grids are one window.
            shift: Cyclic shift of the windows, 0 for none.

        Returns:
            Features (B, T, H, W, C).
        """
        height, width = x.shape[2:4]
        window, shift = window_layout(height, width, window, shift)
        projected = (
            guided_linear(self.q, x, guidance),
            guided_linear(self.k, x, guidance),
            self.v(x),
        )
        q, k, v = (partition_windows(p, window, shift, self.num_heads) for p in projected)
        mask = window_mask(height, width, window, shift, q.device, q.dtype)
        if mask is not None:
            mask = mask.repeat_interleave(self.num_heads, dim=0)[None]
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.proj(merge_windows(out, window, shift, self.num_heads, x.shape[:4]))


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


class GuidedClassAttention(nn.Module):
    """Linear attention over classes whose queries and keys also see the text embedding.

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

    def _heads(self, x: Tensor) -> Tensor:
        """(B, T, H, W, C) to (B, H, W, heads, T, D)."""
        return x.unflatten(-1, (self.num_heads, -1)).permute(0, 2, 3, 4, 1, 5)

    def forward(
        self, x: Tensor, guidance: Tensor, padding: tuple[Tensor, Tensor, int] | None = None
    ) -> Tensor:
        """Attend over classes at each position.

        Args:
            x: Normalised features (B, T, H, W, C).
            guidance: Text guidance (B or 1, T, 1, 1, G).
            padding: ``(token, guidance, count)``: ``count`` padding classes with this normalised
                token (C,) and this guidance (G,).

        Returns:
            Features (B, T, H, W, C).
        """
        q, k, v = guided_linear(self.q, x, guidance), guided_linear(self.k, x, guidance), self.v(x)
        padded = None
        if padding is not None:
            token, pad_guidance, count = padding
            key = guided_linear(self.k, token, pad_guidance)
            padded = (self._row(key), self._row(self.v(token)), count)
        out = linear_attention(self._heads(q), self._heads(k), self._heads(v), padded)
        return out.permute(0, 4, 1, 2, 3, 5).flatten(-2)

    def _row(self, x: Tensor) -> Tensor:
        """(C,) to (heads, 1, D)."""
        return x.unflatten(-1, (self.num_heads, -1))[:, None]
