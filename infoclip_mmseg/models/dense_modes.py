"""Ways to read dense image embeddings out of the last block of a CLIP image tower.

A dense mode is a function ``(block, tokens) -> tokens`` that takes the place of the last block's
forward; tokens are (B, 1 + N, C) with the class token first. Add a function and an entry in
``DENSE_MODES`` and it can be named in a config: this is the place for other readings of the last
block, such as the untouched one ('vanilla') or the training-free ones of MaskCLIP, SCLIP and
ClearCLIP.
"""

from __future__ import annotations

from collections.abc import Callable
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


DENSE_MODES: dict[str, DenseMode] = {'catseg': catseg}
