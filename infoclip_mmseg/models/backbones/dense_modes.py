"""Ways to read dense image embeddings out of the last block of a CLIP image tower.

A dense mode is a function ``(block, tokens) -> tokens`` that takes the place of the last block's
forward; tokens are (B, 1 + N, C) with the class token first. Configs name a mode by its key in
``DENSE_MODES``; a new function with an entry there is a new mode.

CAT-Seg's reading is 'catseg'. The others are training-free and differ in what attends to what:

=========== ===================================================== ==========================
mode        attention weights                                     source
=========== ===================================================== ==========================
'vanilla'   softmax(q k^T)                                        CLIP itself
'maskclip'  each position to itself, that is, its own value       MaskCLIP, arXiv 2112.01071
'sclip'     softmax(q q^T) + softmax(k k^T)                       SCLIP, arXiv 2312.01597
'clearclip' softmax(q q^T)                                        ClearCLIP, arXiv 2407.12442
=========== ===================================================== ==========================

Each of the four returns the attention's output alone: no residual connection, no MLP. With
'_residual' behind the name the block stays as it is but for its attention: 'vanilla_residual' is
CLIP's untouched last block, 'sclip_residual' SCLIP as published.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn

DenseMode = Callable[[nn.Module, Tensor], Tensor]
Attention = Callable[[Any, Tensor], Tensor]
"""A :class:`SplitAttention` and normalised tokens (B, L, C) -> tokens before the projection."""


def catseg(block: Any, tokens: Tensor) -> Tensor:
    """CAT-Seg's reading: no mixing of positions.

    Each position's value goes through the output projection, the class token of the block's input
    is the residual of every position, and the MLP follows. Queries and keys are not used.
    """
    attention = block.attn
    value = attention.out_proj(attention.value(block.ln_1(tokens)))
    tokens = tokens[:, :1] + block.ls_1(value)
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))


def query_key(attention: Any, x: Tensor) -> Tensor:
    """Ordinary attention."""
    return attention.attend(attention.query(x), attention.key(x), attention.value(x))


def own_value(attention: Any, x: Tensor) -> Tensor:
    """Each position attends to itself only."""
    return attention.value(x)


def query_query(attention: Any, x: Tensor) -> Tensor:
    """Queries attend to queries."""
    query = attention.query(x)
    return attention.attend(query, query, attention.value(x))


def query_query_key_key(attention: Any, x: Tensor) -> Tensor:
    """Sum of queries attending to queries and keys to keys; the weights sum to 2."""
    key, value = attention.key(x), attention.value(x)
    return query_query(attention, x) + attention.attend(key, key, value)


def attention_only(block: Any, tokens: Tensor, attend: Attention) -> Tensor:
    """The output of the last block's attention, without residual connection and MLP."""
    return block.ls_1(block.attn.out_proj(attend(block.attn, block.ln_1(tokens))))


def with_residual(block: Any, tokens: Tensor, attend: Attention) -> Tensor:
    """The last block as it is but for its attention."""
    tokens = tokens + attention_only(block, tokens, attend)
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))


ATTENTIONS: dict[str, Attention] = {
    'vanilla': query_key,
    'maskclip': own_value,
    'sclip': query_query_key_key,
    'clearclip': query_query,
}
DENSE_MODES: dict[str, DenseMode] = {
    'catseg': catseg,
    **{name: partial(attention_only, attend=attend) for name, attend in ATTENTIONS.items()},
    **{
        f'{name}_residual': partial(with_residual, attend=attend)
        for name, attend in ATTENTIONS.items()
    },
}
