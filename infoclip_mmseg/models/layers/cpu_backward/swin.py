"""Swin blocks on a chunk of class maps, and back.

The input of each block and of its MLP, the output of its attention and the log-sum-exp of the
attention's rows are kept (about 3C values for each position of a class map), from which norms and
two matrix products give the rest.

Legend: t class maps, R = t*H*W positions, in the order of a block's windows, C channels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from itertools import islice
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from infoclip_mmseg.models.layers.cpu_backward.support import FLASH_ATTENTION, SwinState
from infoclip_mmseg.models.layers.guided_attention import Groups, Windows


class _Rows(NamedTuple):
    """Order of the positions of a chunk: all windows of one size of all its maps side by side."""

    order: Tensor
    inverse: Tensor
    maps: int
    groups: Groups


_Kept = tuple[Tensor, ...]
"""Of a block and chunk: input, attention output, input of the MLP (R, C), log-sum-exp by group."""


def output_shape(shape: Sequence[int], blocks: Sequence[SwinState]) -> Sequence[int]:
    """That of the features."""
    return shape


def run(part: Tensor, target: Tensor, blocks: Sequence[SwinState], image: int) -> list[Tensor]:
    """Features (t, H, W, C) of an image into ``target``; returns what is kept."""
    x = part.flatten(0, 2)
    kept: list[Tensor] = []
    back: Tensor | None = None  # undoes the order that the rows are in
    for block in blocks:
        rows = _order_rows(block.windows, len(part))
        x = x.index_select(0, rows.order if back is None else back[rows.order])
        x, memory = _forward(x, image, block, rows)
        kept += memory
        back = rows.inverse
    assert back is not None
    torch.index_select(x, 0, back, out=target.flatten(0, 2))
    return kept


def run_back(
    above: Tensor,
    target: Tensor,
    kept: Iterator[Tensor],
    blocks: Sequence[tuple[SwinState, SwinState]],
    image: int,
) -> None:
    """The gradient of features into ``target`` and, to be added, into each block's second state."""
    rows = [_order_rows(block.windows, len(above)) for block, _ in blocks]
    memories = [tuple(islice(kept, 3 + len(order.groups))) for order in rows]
    grad, back = above.flatten(0, 2), None
    for (block, sums), memory, order in reversed(list(zip(blocks, memories, rows))):
        grad = grad.index_select(0, order.order if back is None else back[order.order])
        _mlp_backward(grad, memory[2], block, sums)
        _attention_backward(grad, memory, image, block, sums, order)
        back = order.inverse
    torch.index_select(grad, 0, rows[0].inverse, out=target.flatten(0, 2))


@lru_cache(maxsize=32)
def _order_rows(windows: Windows, maps: int) -> _Rows:
    places = windows.order + len(windows.order) * torch.arange(maps)[:, None]
    parts = places.split([count * length for count, length in windows.groups], dim=1)
    order = torch.cat([part.flatten() for part in parts])
    return _Rows(order, order.argsort(), maps, windows.groups)


def _norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor]:
    """Layer norm, mean and inverse standard deviation."""
    return torch.native_layer_norm(x, x.shape[-1:], weight, bias, eps)


def _project(x: Tensor, guided: Tensor, weight: Tensor, rows: _Rows) -> list[Tensor]:
    """Queries, keys and values (R', 3C) of each group of windows, parts of one tensor."""
    qkv = torch.mm(x, weight.t())
    sizes = [count * length for count, length in rows.groups]
    parts = list(qkv.split([rows.maps * size for size in sizes]))
    for part, addend in zip(parts, guided.split(sizes)):
        part.view(rows.maps, *addend.shape).add_(addend)
    return parts


def _heads(rows: Tensor, group: tuple[int, int], maps: int, heads: int) -> Tensor:
    """Rows (R', C) of a group to (windows, heads, L, D)."""
    return rows.view(maps * group[0], group[1], heads, -1).transpose(1, 2)


def _split_qkv(part: Tensor, group: tuple[int, int], maps: int, heads: int) -> list[Tensor]:
    return [_heads(x, group, maps, heads) for x in part.unflatten(1, (3, -1)).unbind(1)]


def _forward(x: Tensor, image: int, block: SwinState, rows: _Rows) -> tuple[Tensor, _Kept]:
    """A block on rows (R, C) of an image, in the order of its windows."""
    attend = getattr(torch.ops.aten, FLASH_ATTENTION)
    normed = _norm(x, block.norm1, block.norm1_bias, block.eps[0])[0]
    qkv_parts = _project(normed, block.guided[image, 0], block.qkv, rows)
    attended, lse, start = torch.empty_like(x), [], 0
    for group, part in zip(rows.groups, qkv_parts):
        out, sums = attend(*_split_qkv(part, group, rows.maps, block.num_heads))
        attended[start : start + len(part)] = out.transpose(1, 2).reshape(len(part), -1)
        lse.append(sums)
        start += len(part)
    middle = torch.addmm(x, attended, block.proj.t()).add_(block.proj_bias)
    normed = _norm(middle, block.norm2, block.norm2_bias, block.eps[1])[0]
    hidden = F.gelu(F.linear(normed, block.mlp1, block.mlp1_bias))
    out = torch.addmm(middle, hidden, block.mlp2.t()).add_(block.mlp2_bias)
    return out, (x, attended, middle, *lse)


def _mlp_backward(grad: Tensor, middle: Tensor, block: SwinState, sums: SwinState) -> None:
    """Turn the gradient (R, C) of a block's output into that of its MLP's input, in place."""
    normed, *stats = _norm(middle, block.norm2, block.norm2_bias, block.eps[1])
    hidden = F.linear(normed, block.mlp1, block.mlp1_bias)
    activated = F.gelu(hidden)
    sums.mlp2.addmm_(grad.t(), activated)
    sums.mlp2_bias.add_(grad.sum(0))
    inner = torch.mm(grad, block.mlp2, out=activated)
    inner = torch.ops.aten.gelu_backward(inner, hidden)
    sums.mlp1.addmm_(inner.t(), normed)
    sums.mlp1_bias.add_(inner.sum(0))
    inner = torch.mm(inner, block.mlp1, out=normed)
    affine, affine_sums = ((b.norm2, b.norm2_bias) for b in (block, sums))
    _norm_backward(grad, inner, middle, stats, affine, affine_sums)


def _attention_backward(
    grad: Tensor, kept: _Kept, image: int, block: SwinState, sums: SwinState, rows: _Rows
) -> None:
    """Turn the gradient (R, C) of the MLP's input into that of the block's input, in place."""
    attend_backward = getattr(torch.ops.aten, f'{FLASH_ATTENTION}_backward')
    x, attended, _, *lses = kept
    sums.proj.addmm_(grad.t(), attended)
    sums.proj_bias.add_(grad.sum(0))
    outer = torch.mm(grad, block.proj)
    normed, *stats = _norm(x, block.norm1, block.norm1_bias, block.eps[0])
    inner = x.new_empty(len(normed), 3 * normed.shape[1])
    start, sizes = 0, [count * length for count, length in rows.groups]
    projected = _project(normed, block.guided[image, 0], block.qkv, rows)
    guided_sums = sums.guided[image, 0].split(sizes)
    for group, part, guided_sum, lse in zip(rows.groups, projected, guided_sums, lses):
        take = slice(start, start + len(part))
        out, up = (_heads(t[take], group, rows.maps, block.num_heads) for t in (attended, outer))
        qkv = _split_qkv(part, group, rows.maps, block.num_heads)
        qkv_grads = attend_backward(up, *qkv, out, lse, 0.0, False)
        targets = _split_qkv(inner[take], group, rows.maps, block.num_heads)
        for target, value in zip(targets, qkv_grads):
            target.copy_(value)
        guided_sum.add_(inner[take].view(rows.maps, *guided_sum.shape).sum(0))
        start += len(part)
    sums.qkv.addmm_(inner.t(), normed)
    inner = torch.mm(inner, block.qkv, out=normed)
    affine, affine_sums = ((b.norm1, b.norm1_bias) for b in (block, sums))
    _norm_backward(grad, inner, x, stats, affine, affine_sums)


def _norm_backward(
    grad: Tensor,
    inner: Tensor,
    x: Tensor,
    stats: Sequence[Tensor],
    weights: tuple[Tensor, Tensor],
    sums: tuple[Tensor, Tensor],
) -> None:
    """Add to ``grad`` what comes to ``x`` through its norm, and to ``sums`` for its weights."""
    parts = torch.ops.aten.native_layer_norm_backward(
        inner, x, x.shape[-1:], *stats, *weights, [True, True, True]
    )
    for total, part in zip((grad, *sums), parts):
        total.add_(part)
