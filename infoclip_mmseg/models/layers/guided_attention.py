"""Guided attention over positions (shifted windows) and over classes (linear).

Features are class-expanded, (B, T, H, W, C); guidance belongs to an image or to a class alone and
is expanded only after it has been projected: a linear layer on a concatenation is the sum of two
linear layers, so the guidance part is computed once an image (or once a class) and added.

Legend: B images, T classes, H W grid of N positions, S windows of L positions, C channels.
"""

from __future__ import annotations

import itertools
from functools import lru_cache
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd import Function

Groups = tuple[tuple[int, int], ...]
"""(S, L) of each group of equal windows, in the order in which they lie side by side."""


class Windows(NamedTuple):
    """How a grid of N positions is cut: windows lie side by side, those of one size together."""

    order: Tensor
    inverse: Tensor
    groups: Groups

    def sort(self, x: Tensor) -> Tensor:
        """Features (B, T, H, W, C) to one window after the other, (B, T, N, C)."""
        out: Tensor = _Reorder.apply(x.flatten(2, 3), self.order, self.inverse)
        return out

    def unsort(self, x: Tensor, grid: tuple[int, int]) -> Tensor:
        """Inverse of :meth:`sort`; ``grid`` is (H, W)."""
        out: Tensor = _Reorder.apply(x, self.inverse, self.order)
        return out.unflatten(2, grid)


class _Reorder(Function):
    """Positions (dimension 2) in another order; the gradient goes back in the inverse order."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, order: Tensor, inverse: Tensor) -> Tensor:
        """Position ``order[i]`` comes to place i."""
        ctx.inverse = inverse
        return x.index_select(2, order)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None]:
        """The gradient in the order of the input."""
        return upstream.index_select(2, ctx.inverse), None, None


def _cuts(length: int, window: int, shift: int) -> list[range]:
    """Positions of a side that see each other."""
    bounds = [0, *range(shift or window, length, window), length]
    return [range(*pair) for pair in itertools.pairwise(bounds)]


@lru_cache(maxsize=16)
def cut_windows(height: int, width: int, window: int, shift: int, device: torch.device) -> Windows:
    """Windows of a grid, shifted to the bottom and right by ``shift`` < ``window`` positions.

    A cyclic shift brings positions of opposite borders into one window, and hides them from each
    other; a grid that is no multiple of the window is padded, and the padding hidden. What is left
    of both are smaller windows at the borders. A grid no larger than a window is one, not shifted.
    """
    if min(height, width) <= window:
        window, shift = min(height, width), 0
    sides = [_cuts(side, window, shift) for side in (height, width)]
    by_length: dict[int, list[list[int]]] = {}
    for rows in sides[0]:
        for columns in sides[1]:
            window_positions = [row * width + column for row in rows for column in columns]
            by_length.setdefault(len(window_positions), []).append(window_positions)
    groups = tuple((len(windows), length) for length, windows in by_length.items())
    flat = [i for windows in by_length.values() for positions in windows for i in positions]
    with torch.inference_mode(False):
        order = torch.tensor(flat, device=device)
        return Windows(order, order.argsort(), groups)


class _GuidedProjection(nn.Module):
    """Query, key and value projections of C channels; queries and keys also see G of guidance."""

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
        projected = F.linear(x, self.weight())
        # Selective checkpointing keeps the product and reads it once more: not in place.
        return projected + guided if torch.is_grad_enabled() else projected.add_(guided)

    def weight(self) -> Tensor:
        """Weight of all three projections (3C, C), without the columns for guidance."""
        dim = self.v.in_features
        return torch.cat([self.q.weight[:, :dim], self.k.weight[:, :dim], self.v.weight])


class GuidedWindowAttention(_GuidedProjection):
    """Window attention whose queries and keys also see appearance guidance."""

    def __init__(self, dim: int, guidance_dim: int, num_heads: int) -> None:
        super().__init__(dim, guidance_dim, num_heads)
        self.proj = nn.Linear(dim, dim)

    def forward(self, x: Tensor, guided: Tensor, groups: Groups) -> Tensor:
        """Normalised features (B, T, N, C), one window after the other, to features.

        ``guided`` is from :meth:`guide`, (B, 1, N, 3C), ``groups`` of :class:`Windows`.
        """
        sizes = [count * length for count, length in groups]
        parts = zip(x.split(sizes, 2), guided.split(sizes, 2), groups)
        out = [self._attend(*part) for part in parts]
        return out[0] if len(out) == 1 else torch.cat(out, 2)

    def _attend(self, x: Tensor, guided: Tensor, group: tuple[int, int]) -> Tensor:
        qkv = self.project(x, guided).unflatten(2, group).flatten(0, 2)
        q, k, v = qkv.unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        out = F.scaled_dot_product_attention(q, k, v)
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
    """
    q, k = F.elu(q).add_(1), F.elu(k).add_(1)
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
    """Linear attention over classes whose queries and keys also see the text embedding."""

    def forward(
        self, x: Tensor, guided: Tensor, padding: tuple[Tensor, Tensor, int] | None = None
    ) -> Tensor:
        """Normalised features (B, N, T, C), the classes of a position side by side, to features.

        ``guided`` is from :meth:`guide`, (B or 1, 1, T, 3C). ``padding`` is ``(token, guided,
        count)``: ``count`` padding classes with this normalised token (C,) and guidance (3C,).
        """
        heads = self._heads(self.project(x, guided).flatten(0, 1))
        rows: list[tuple[Tensor, Tensor, int] | None] = [None] * self.num_heads
        if padding is not None:
            token, token_guided, count = padding
            padded = self._heads(self.project(token[None], token_guided))
            rows = [(key, value, count) for _, key, value in padded]
        out = [linear_attention(q, k, v, row) for (q, k, v), row in zip(heads, rows)]
        return torch.cat(out, dim=-1).unflatten(0, x.shape[:2])

    def _heads(self, qkv: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
        """(..., 3C) to the (..., D) queries, keys and values of each head."""
        parts = qkv.split(self.v.in_features // self.num_heads, dim=-1)
        heads = self.num_heads
        return list(zip(parts[:heads], parts[heads : 2 * heads], parts[2 * heads :]))
