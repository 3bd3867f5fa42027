"""From masks to embeddings, and from embeddings to classes (pure functions).

Legend: B images, Q masks, T classes, W words of all classes, K and C channels, H W grid.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from infoclip_mmseg.utils.tensors import resize


def mask_pooling(features: Tensor, masks: Tensor) -> Tensor:
    """Means (B, Q, K) of features (B, K, H, W) over the positions inside of masks.

    Masks are logits (B, Q, h, w); a position is inside where the logit, resized to the grid
    (bilinear), is above 0. An empty mask gives zeros. No gradient reaches the masks.
    """
    inside = resize(masks.detach(), (features.shape[-2], features.shape[-1])) > 0
    inside = inside.to(features.dtype)
    weights = inside / (inside.sum((-2, -1), keepdim=True) + 1e-8)
    return torch.einsum('bkhw,bqhw->bqk', features, weights)


def class_logits(
    embeddings: Tensor, words: Tensor, scale: Tensor, word_counts: Sequence[int] = ()
) -> Tensor:
    """Logits (B, Q, T + 1) of embeddings (B, Q, C): the best word of each class, void last.

    Embeddings are L2-normalised, the words (W + 1, C) or (B, W + 1, C), whose last row is void, are
    taken as they are. ``word_counts`` has the words of each of the T classes, which follow one
    another; empty: one each.
    """
    scores = scale * (F.normalize(embeddings, dim=-1) @ words.transpose(-1, -2))
    if all(count == 1 for count in word_counts):
        return scores
    parts = scores.split([*word_counts, 1], dim=-1)
    return torch.stack([part.max(dim=-1).values for part in parts], dim=-1)


def mask_probabilities(classes: Tensor, void_logits: Tensor) -> Tensor:
    """Log probabilities (B, Q, T + 1), void last, of class logits (B, Q, T) without void.

    The classes share what void leaves: its probability is that of the in-vocabulary logits
    (B, Q, T' + 1), which were trained to know it.
    """
    void = void_logits.softmax(dim=-1)[..., -1:]
    return torch.cat([classes.softmax(dim=-1) * (1 - void), void], dim=-1).add(1e-8).log()


def geometric_ensemble(inside: Tensor, outside: Tensor, weights: Tensor) -> Tensor:
    """Class logits (B, Q, T): log of ``p_in^(1 - w) p_out^w`` (FC-CLIP, arXiv 2308.02487).

    Both logits are (B, Q, T) without void, the weights (T,).
    """
    return (1 - weights) * inside.log_softmax(dim=-1) + weights * outside.log_softmax(dim=-1)


def semantic_map(log_probabilities: Tensor, masks: Tensor) -> Tensor:
    """Maps (B, T, h, w): the masks (B, Q, h, w), logits, weighted by their classes (B, Q, T + 1).

    They are not normalised, neither over classes nor over masks.
    """
    classes = log_probabilities.softmax(dim=-1)[..., :-1]
    return torch.einsum('bqt,bqhw->bthw', classes, masks.sigmoid())
