"""The text tower of an open_clip model on prompts packed without padding (pure functions).

Linear layers, norms and MLPs treat every token alike, so the tokens of all prompts are laid one
after the other in one (N, C) matrix. Only attention needs to know which belong together. Prompts
lie sorted by length, so those of one length are a contiguous block that attention takes as a batch.
Behind a causal mask the tokens that all prompts begin with have the same activations in each of
them: they are in the matrix once, in its first rows, and every prompt attends to their keys and
values.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Run = Callable[..., Tensor]
"""Calls its first argument with the others; the place for activation checkpointing."""


def call(function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    """A :data:`Run` that does nothing else."""
    return function(*args, **kwargs)


class PackedLayout(NamedTuple):
    """Where the tokens of packed prompts lie; takes the place of an attention mask.

    ``groups`` are ``(prompts, tokens of each behind the prefix)`` of every length, in the order of
    the rows, as are the prompts of ``ends``.
    """

    prefix: int  # tokens that all prompts share; they are rows 0..prefix
    groups: tuple[tuple[int, int], ...]
    ends: Tensor  # row of the token that is read out, of each prompt (n,)
    mask: Tensor | None  # additive, causal, (L, L) over positions; None: all tokens see each other

    def to(self, dtype: torch.dtype) -> PackedLayout:
        """The layout with its mask in ``dtype``; open_clip's blocks cast what they take as mask."""
        return self if self.mask is None else self._replace(mask=self.mask.to(dtype))


class PackedPrompts(NamedTuple):
    """Prompts ready for the tower: token id, and position in its prompt, of each of N rows."""

    tokens: Tensor
    positions: Tensor
    order: Tensor  # place of each input prompt among the packed ones (m,); equal ones share it
    layout: PackedLayout  # where they lie, without a mask


def pack_prompts(tokens: Tensor, ends: Tensor, causal: bool) -> PackedPrompts:
    """Sort, deduplicate and pack prompts: token ids (m, L), of which columns (m,) are read out.

    Where tokens see only what precedes them (``causal``), everything behind the column that is read
    is cut, and the common beginning is packed once.
    """
    width = tokens.shape[1]
    columns = torch.arange(width, device=tokens.device)
    lengths = ends + 1 if causal else torch.full_like(ends, width)
    # What lies behind the end neither counts nor makes two prompts different.
    cut = tokens.masked_fill(columns >= lengths[:, None], 0)
    keys = torch.cat([lengths[:, None], ends[:, None], cut], dim=1)
    rows, order = torch.unique(keys, dim=0, return_inverse=True)
    lengths, ends, tokens = rows[:, 0], rows[:, 1], rows[:, 2:]

    prefix = 0
    if causal and len(rows) > 1:
        common = (tokens == tokens[:1]).all(dim=0).cumprod(dim=0).sum()
        prefix = int(torch.minimum(common, ends.min()))
    rest = (columns >= prefix) & (columns < lengths[:, None])
    counts = lengths - prefix
    first = prefix + counts.cumsum(dim=0) - counts
    sizes, prompts = torch.unique_consecutive(counts, return_counts=True)
    groups = tuple(zip(prompts.tolist(), sizes.tolist()))
    return PackedPrompts(
        torch.cat([tokens[0, :prefix], tokens[rest]]),
        torch.cat([columns[:prefix], columns.expand_as(rest)[rest]]),
        order,
        PackedLayout(prefix, groups, first + ends - prefix, None),
    )


def packed_attention(q: Tensor, k: Tensor, v: Tensor, layout: PackedLayout) -> Tensor:
    """Attention within each prompt, and of each prompt to the shared beginning; as ``q``.

    ``q``, ``k`` and ``v`` are rows of packed prompts (N, heads, D). ``q`` may hold the rows
    ``layout.ends`` only, (n, heads, D), which see their whole prompt.
    """
    prefix, mask = layout.prefix, layout.mask
    only_ends = len(q) != len(k)
    key_prefix, value_prefix = (x[None, :prefix].transpose(1, 2) for x in (k, v))
    out = []
    if prefix and not only_ends:
        query = q[None, :prefix].transpose(1, 2)
        sub = None if mask is None else mask[:prefix, :prefix]
        out.append(_attend(query, key_prefix, value_prefix, sub))
    start, done = prefix, 0
    for prompts, length in layout.groups:
        stop = start + prompts * length
        key, value = (_prompts(x[start:stop], prompts) for x in (k, v))
        if prefix:
            key = torch.cat([key_prefix.expand(prompts, -1, -1, -1), key], dim=2)
            value = torch.cat([value_prefix.expand(prompts, -1, -1, -1), value], dim=2)
        if only_ends:
            query, sub = q[done : done + prompts, :, None], None
        else:
            query = _prompts(q[start:stop], prompts)
            sub = None if mask is None else mask[prefix : prefix + length, : prefix + length]
        out.append(_attend(query, key, value, sub))
        start, done = stop, done + prompts
    return torch.cat(out)


def _prompts(x: Tensor, prompts: int) -> Tensor:
    """Rows (prompts * length, heads, D) to (prompts, heads, length, D)."""
    return x.unflatten(0, (prompts, -1)).transpose(1, 2)


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
    """Rows (n * length, heads, D) of attention over (n, heads, length, D)."""
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.transpose(1, 2).flatten(0, 1)


def encode_tokens(tower: Any, tokens: Tensor, run: Run = call) -> Tensor:
    """Text embeddings, as open_clip's ``encode_text`` computes them, with less work.

    Equal prompts run once. In a causal tower tokens behind the one that is read out do not run, and
    those that all prompts begin with run once. The last block computes what is read out only.

    Token ids (n, L) give embeddings (n, C), not normalised; ``run`` runs each block.
    """
    device = tower.positional_embedding.device
    tokens = tokens.cpu()  # where sizes that depend on the tokens cost no waiting for the device
    packed = pack_prompts(tokens, end_positions(tower, tokens), tower.attn_mask is not None)
    there = partial(Tensor.to, device=device, non_blocking=True)
    layout = packed.layout._replace(ends=there(packed.layout.ends), mask=tower.attn_mask)
    x = tower.token_embedding(there(packed.tokens))
    x = x + tower.positional_embedding[there(packed.positions)]
    *body, last = tower.transformer.resblocks
    for block in body:
        x = run(block, x, attn_mask=layout)
    x = tower.ln_final(run(read_out_block, last, x, layout))
    projection = tower.text_projection
    if projection is not None:
        x = projection(x) if isinstance(projection, nn.Linear) else x @ projection
    return x[there(packed.order)]


def read_out_block(block: Any, x: Tensor, layout: PackedLayout) -> Tensor:
    """The last block of packed prompts (N, C) for the rows that are read out, (n, C).

    ``block`` is open_clip's with split attention; nothing else of its output is used.
    """
    attention, normed = block.attn, block.ln_1(x)
    q = attention.split_heads(attention.query(normed[layout.ends]))
    k = attention.split_heads(attention.key(normed))
    v = attention.split_heads(attention.value(normed))
    out = packed_attention(q, k, v, layout)
    x = x[layout.ends] + block.ls_1(attention.out_proj(out.flatten(-2)))
    return x + block.ls_2(block.mlp(block.ln_2(x)))


def end_positions(tower: Any, tokens: Tensor) -> Tensor:
    """Column (n,) of token ids (n, L) that the tower reads out."""
    pool, eos = pooling(tower)
    if pool == 'argmax':
        return tokens.argmax(dim=-1)
    if pool == 'eos':
        return (tokens == eos).int().argmax(dim=-1)
    column = 0 if pool == 'first' else tokens.shape[1] - 1
    return torch.full_like(tokens[:, 0], column)


def pooling(tower: Any) -> tuple[str, Any]:
    """What a tower reads out ('argmax', 'eos', 'first' or 'last'), and the id of its end token."""
    pool = getattr(tower, 'pool_type', None) or tower.text_pool_type
    return pool, getattr(tower, 'eos_id', None) or getattr(tower, 'text_eos_id', None)
