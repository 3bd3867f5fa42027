"""The text tower of an open_clip model on packed prompts (pure functions)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from infoclip_mmseg.models.text.packing import PackedLayout, pack_prompts, packed_attention

Run = Callable[..., Tensor]
"""Calls its first argument with the others; the place for activation checkpointing."""


def call(function: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
    """A :data:`Run` that does nothing else."""
    return function(*args, **kwargs)


def encode_tokens(tower: Any, tokens: Tensor, run: Run = call) -> Tensor:
    """Text embeddings, as open_clip's ``encode_text`` computes them, with less work.

    Equal prompts run once. In a causal tower tokens behind the one that is read out do not run, and
    those that all prompts begin with run once. The last block computes what is read out only.

    Args:
        tower: Module that holds the tower's parts.
        tokens: Token ids (n, L).
        run: Runs each block.

    Returns:
        Embeddings (n, C), not normalised.
    """
    device = tower.positional_embedding.device
    tokens = tokens.cpu()  # where sizes that depend on the tokens cost no waiting for the device
    packed = pack_prompts(tokens, end_positions(tower, tokens), tower.attn_mask is not None)
    ids, positions, ends, order = (x.to(device) for x in packed[:4])
    layout = PackedLayout(packed.prefix, packed.groups, ends, tower.attn_mask)
    x = tower.token_embedding(ids) + tower.positional_embedding[positions]
    *body, last = tower.transformer.resblocks
    for block in body:
        x = run(block, x, attn_mask=layout)
    x = tower.ln_final(run(read_out_block, last, x, layout))
    projection = tower.text_projection
    if projection is not None:
        x = projection(x) if isinstance(projection, nn.Linear) else x @ projection
    return x[order]


def read_out_block(block: Any, x: Tensor, layout: PackedLayout) -> Tensor:
    """The last block, for the rows that are read out: nothing else of its output is used.

    Args:
        block: open_clip's block with split attention.
        x: Packed prompts (N, C).
        layout: Where they lie.

    Returns:
        (n, C), a row a prompt.
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


def text_parameters(clip: Any) -> list[tuple[str, nn.Parameter]]:
    """Names and parameters of a CLIP model without those of its image tower."""
    visual = {id(parameter) for parameter in clip.visual.parameters()}
    return [(name, p) for name, p in clip.named_parameters() if id(p) not in visual]


def describe_tower(tower: Any) -> tuple[object, ...]:
    """What a tower's output depends on beside its parameters."""
    block = tower.transformer.resblocks[0]
    kinds = tuple(type(module).__name__ for module in block.modules())
    return (kinds, block.attn.num_heads, *pooling(tower), tower.attn_mask is None)
