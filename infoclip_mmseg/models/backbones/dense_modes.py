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
'declip'    softmax(q q^T) + softmax(k k^T), neither scaled by    DeCLIP, arXiv 2505.04410
            1 / sqrt(d) nor with rotary positions
=========== ===================================================== ==========================

Each of the five returns the attention's output alone: no residual connection, no MLP. With
'_residual' behind one of the first four names the block stays as it is but for its attention:
'vanilla_residual' is
CLIP's untouched last block, 'sclip_residual' SCLIP as published.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor, nn

DenseMode = Callable[[nn.Module, Tensor], Tensor]


def catseg(block: Any, tokens: Tensor) -> Tensor:
    """CAT-Seg's reading: no mixing of positions.

    Each position's value goes through the output projection, the class token of the block's input
    is the residual of every position, and the MLP follows. Queries and keys are not used.
    """
    attention = block.attn
    value = attention.out_proj(attention.value(block.ln_1(tokens)))
    tokens = tokens[:, :1] + block.ls_1(value)
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))


def attention_only(block: Any, tokens: Tensor, pairs: Sequence[str]) -> Tensor:
    """The output of the last block's attention, without residual connection and MLP.

    It is the sum over pairs such as 'qk', queries that attend to keys; without pairs each position
    has its own value.
    """
    attention, tokens = block.attn, block.ln_1(tokens)
    value = attention.value(tokens)
    project = dict(q=attention.query, k=attention.key)
    read = {name: project[name](tokens) for name in sorted({*''.join(pairs)})}
    parts = [attention.attend(read[pair[0]], read[pair[1]], value) for pair in pairs]
    return block.ls_1(attention.out_proj(sum(parts[1:], parts[0]) if parts else value))


def declip(block: Any, tokens: Tensor) -> Tensor:
    """DeCLIP's reading: 'sclip' without rotary positions and without scaling of the products."""
    attention, tokens = block.attn.without_positions(), block.ln_1(tokens)
    value = attention.value(tokens)
    parts = [part(tokens) for part in (attention.query, attention.key)]
    mixed = [attention.attend(part, part, value, scale=1.0) for part in parts]
    return block.ls_1(attention.out_proj(mixed[0] + mixed[1]))


def with_residual(block: Any, tokens: Tensor, pairs: Sequence[str]) -> Tensor:
    """The last block as it is but for its attention."""
    tokens = tokens + attention_only(block, tokens, pairs)
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))


ATTENTIONS = {'vanilla': ('qk',), 'maskclip': (), 'sclip': ('qq', 'kk'), 'clearclip': ('qq',)}
DENSE_MODES: dict[str, DenseMode] = {
    'catseg': catseg,
    'declip': declip,
    **{name: partial(attention_only, pairs=pairs) for name, pairs in ATTENTIONS.items()},
    **{f'{name}_residual': partial(with_residual, pairs=p) for name, p in ATTENTIONS.items()},
}
