"""Swin blocks over all class maps with a backward pass of their own.

``torch.utils.checkpoint`` runs the whole forward pass of a block once more in the backward pass,
window attention included. Here the input of each block and of its MLP, the output of its attention
and the log-sum-exp of the attention's rows are kept (about 3C values for each position of a class
map), from which norms and two matrix products give the rest. Gradients of weights are summed in
place over the chunks.

Legend: B images, T classes, N = H*W positions, R = positions of a chunk of class maps, C channels.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from infoclip_mmseg.models.layers.cpu_backward.support import (
    FLASH_ATTENTION,
    SwinState,
    put_tensors,
    split_maps,
    take_tensors,
)
from infoclip_mmseg.models.layers.guided_attention import Groups, Windows


class _Rows(NamedTuple):
    """Order of the positions of a chunk: all windows of one size of all its maps side by side."""

    order: Tensor
    inverse: Tensor
    maps: int
    groups: Groups


_Kept = tuple[Tensor, ...]
"""Of a block and chunk: input, attention output, input of the MLP (R, C), log-sum-exp by group."""


def swin_blocks(x: Tensor, states: Sequence[SwinState], chunk: int) -> Tensor:
    """Run Swin blocks on features (B, T, H, W, C), ``chunk`` class maps at a time."""
    plans, tensors = take_tensors(states)
    out: Tensor = _SwinBlocks.apply(x.flatten(2, 3), plans, chunk, *tensors)
    return out.view(x.shape)


class _SwinBlocks(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, plans: list[SwinState], chunk: int, *tensors: Tensor
    ) -> Tensor:
        """See :func:`swin_blocks`; ``tensors`` are those of all blocks."""
        blocks = put_tensors(plans, tensors)
        out = torch.empty_like(x, memory_format=torch.contiguous_format)
        kept: list[_Kept] = []
        for image, source, target, rows in _chunks(x, out, plans, chunk):
            back: Tensor | None = None  # undoes the order that the rows are in
            for block, order in zip(blocks, rows):
                index = order.order if back is None else back[order.order]
                source = source.index_select(0, index)
                source, memory = _forward(source, image, block, order)
                kept.append(memory)
                back = order.inverse
            torch.index_select(source, 0, rows[-1].inverse, out=target)
        ctx.plans, ctx.chunk, ctx.num_tensors = plans, chunk, len(tensors)
        ctx.save_for_backward(*tensors, *itertools.chain(*kept))
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Gradients of the features, None for plans and chunk, gradients of the tensors."""
        tensors, parts = ctx.saved_tensors[: ctx.num_tensors], ctx.saved_tensors[ctx.num_tensors :]
        sums = [torch.zeros_like(tensor) for tensor in tensors]
        blocks = list(zip(put_tensors(ctx.plans, tensors), put_tensors(ctx.plans, sums)))
        grad = torch.empty_like(upstream, memory_format=torch.contiguous_format)
        left = iter(parts)
        for image, source, target, rows in _chunks(upstream, grad, ctx.plans, ctx.chunk):
            kept = [tuple(islice(left, 3 + len(order.groups))) for order in rows]
            back = None
            for (block, block_sums), memory, order in reversed(list(zip(blocks, kept, rows))):
                index = order.order if back is None else back[order.order]
                source = source.index_select(0, index)
                _mlp_backward(source, memory[2], block, block_sums)
                _attention_backward(source, memory, image, block, block_sums, order)
                back = order.inverse
            torch.index_select(source, 0, rows[0].inverse, out=target)
        return (grad, None, None, *sums)


def _chunks(
    source: Tensor, target: Tensor, plans: Sequence[SwinState], chunk: int
) -> Iterator[tuple[int, Tensor, Tensor, list[_Rows]]]:
    """Image, and rows (R, C) of source and target, chunk by chunk; the target's are views."""
    known: dict[int, list[_Rows]] = {}
    for image, part, out in split_maps(source, target, chunk):
        maps = len(part)
        if maps not in known:
            known[maps] = [_order_rows(plan.windows, maps) for plan in plans]
        yield image, part.flatten(0, 1), out.flatten(0, 1), known[maps]


def _order_rows(windows: Windows, maps: int) -> _Rows:
    size = len(windows.order)
    places = windows.order + size * torch.arange(maps)[:, None]
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
    parts = zip(
        rows.groups,
        _project(normed, block.guided[image, 0], block.qkv, rows),
        sums.guided[image, 0].split(sizes),
        lses,
    )
    for group, part, guided_sum, lse in parts:
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
