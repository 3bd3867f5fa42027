"""Dense image embeddings and text embeddings of any student, from what its modules compute."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infoclip_mmseg.models.distillation.taps import Tap, make_tap, pick
from infoclip_mmseg.utils.tensors import resize

DENSE, MASKS, TEXT = 'dense', 'masks', 'text'


def make_taps(dense: dict, text: dict | None) -> dict[str, Tap]:
    """Taps of a config.

    Args:
        dense: ``module``, ``side`` and ``index`` of the dense image embeddings, and for a student
            that classifies masks ``masks``, the same keys for its mask logits.
        text: The same keys for the text embeddings, or None.
    """
    dense = dict(dense)
    masks = dense.pop(MASKS, None)
    configs = {DENSE: dense, MASKS: masks, TEXT: text}
    return {name: make_tap(**config) for name, config in configs.items() if config is not None}


def spread_queries(queries: Tensor, masks: Tensor) -> Tensor:
    """Dense embeddings of a student that classifies masks.

    Each position gets the query embeddings in the proportion of its mask probabilities, as such a
    student's logits are made.

    Args:
        queries: Query embeddings (B, Q, C).
        masks: Mask logits (B, Q, H, W).

    Returns:
        (B, C, H, W).

    Raises:
        ValueError: Shapes do not fit together.
    """
    if queries.shape[:2] != masks.shape[:2]:
        raise ValueError(
            f'query embeddings are {tuple(queries.shape)} and mask logits {tuple(masks.shape)}, '
            'expected (B, Q, C) and (B, Q, H, W) of the same B and Q'
        )
    return torch.einsum('bqc,bqhw->bchw', queries, masks.to(queries.dtype).sigmoid())


def match_grid(dense: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring (B, C, h, w) to another grid: means of its positions, or bilinear where it grows."""
    if dense.shape[-2] >= size[0] and dense.shape[-1] >= size[1]:
        return F.adaptive_avg_pool2d(dense, size)
    return resize(dense, size)


def read_dense(read: Mapping[str, Any], taps: Mapping[str, Tap]) -> Tensor:
    """The student's dense embeddings (B, C, H, W).

    Raises:
        ValueError: There is no such tensor, or no gradient flows through it.
    """
    tap = taps[DENSE]
    if MASKS in taps:
        dense = spread_queries(pick(read, DENSE, tap, (3,)), pick(read, MASKS, taps[MASKS], (4,)))
    else:
        dense = pick(read, DENSE, tap, (4,))
    if torch.is_grad_enabled() and not dense.requires_grad:
        raise ValueError(
            f'no gradient flows through the {tap.side} of {tap.module!r}: the module is frozen, or '
            'runs under reentrant activation checkpointing (with_cp); name a later one'
        )
    return dense


def read_text(read: Mapping[str, Any], taps: Mapping[str, Tap], classes: int) -> Tensor | None:
    """The student's text embeddings (T, C) or (B, T, C), or None if it has none.

    Rows after the first T are no class of the vocabulary, such as SAN's embedding of the
    background, and are left out.

    Raises:
        ValueError: There is no such tensor, or it has fewer rows than the vocabulary names.
    """
    if TEXT not in taps:
        return None
    text = pick(read, TEXT, taps[TEXT], (2, 3))
    if text.shape[-2] < classes:
        raise ValueError(
            f'module {taps[TEXT].module!r} gave {text.shape[-2]} text embeddings, but the data set '
            f'has {classes} classes; both must be of one vocabulary, in the same order'
        )
    return text[..., :classes, :]
