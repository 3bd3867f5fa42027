"""Cost volume between dense image embeddings and text embeddings (pure functions)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

# Logit of a class that is not decoded: its probability is 0 in float32.
UNDECODED_LOGIT = -100.0


def cost_volume(image: Tensor, text: Tensor) -> Tensor:
    """Cosine similarity of every position with every prompt (CAT-Seg, Eq. 1).

    Args:
        image: Dense image embeddings (B, C, H, W).
        text: Text embeddings (T, P, C), shared by the batch.

    Returns:
        Cost volume (B, T, P, H, W), values in -1..1.
    """
    image = F.normalize(image, dim=1)
    text = F.normalize(text, dim=-1).to(image.dtype)
    volume = text.flatten(0, 1) @ image.flatten(2)
    return volume.unflatten(1, text.shape[:2]).unflatten(-1, image.shape[-2:])


def top_classes(volume: Tensor, k: int) -> Tensor:
    """The k classes of each image with the highest maximal similarity.

    Args:
        volume: Cost volume (B, T, P, H, W).
        k: How many to keep; at most T.

    Returns:
        Class indices (B, k), ascending.
    """
    return volume.detach().amax(dim=(2, 3, 4)).topk(k, dim=1).indices.sort(dim=1).values


def gather_classes(volume: Tensor, text: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """Cost volume (B, k, P, H, W) and text embeddings (B, k, P, C) of the chosen classes (B, k)."""
    rows = torch.arange(len(volume), device=volume.device)[:, None]
    return volume[rows, classes], text[classes]


def scatter_logits(logits: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    """Put the logits (B, k, h, w) of the chosen classes (B, k) back into (B, T, h, w).

    Classes that were not decoded get ``UNDECODED_LOGIT``.
    """
    shape = (len(logits), num_classes, *logits.shape[2:])
    index = classes[..., None, None].expand_as(logits)
    return logits.new_full(shape, UNDECODED_LOGIT).scatter(1, index, logits)
