"""Mask tokens in the blocks of CLIP's ViT (pure functions).

A mask token runs through a block beside the patches as the class token does, but sees only the
patches that its mask touches; the patches do not see it (MasQCLIP, ICCV 2023).

Legend: B images, Q masks, N = H*W patches, C width of the tower, W words.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from infoclip_mmseg.utils.tensors import Size


def visible_patches(masks: Tensor, grid: Size) -> Tensor:
    """What each mask token sees, (B, Q, 1 + N), bool: the class token and its patches.

    Masks are logits (B, Q, h, w) over the image; a patch is seen where any of its pixels is inside,
    above 0. An empty mask sees the class token only.
    """
    inside = F.adaptive_max_pool2d(masks.detach(), grid) > 0
    return F.pad(inside.flatten(2), (1, 0), value=True)


def keys_and_values(block: Any, image: Tensor) -> tuple[Tensor, Tensor]:
    """Keys and values (B, 1 + N, C) of the tokens that enter a block, class token first."""
    image = block.ln_1(image)
    return block.attn.key(image), block.attn.value(image)


def mask_token_block(
    block: Any,
    tokens: Tensor,
    key: Tensor,
    value: Tensor,
    visible: Tensor,
    query: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Mask tokens (B, Q, C) after one block.

    Args:
        block: A block whose attention is split, as :class:`CLIPDualEncoder` has them.
        tokens: (B, Q, C).
        key, value: See :func:`keys_and_values`.
        visible: See :func:`visible_patches`.
        query: Projects the normed tokens; None takes the block's own projection.
    """
    attention = block.attn
    queries = (query or attention.query)(block.ln_1(tokens))
    seen = attention.attend(queries, key, value, visible[:, None])
    tokens = tokens + block.ls_1(attention.out_proj(seen))
    return tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
