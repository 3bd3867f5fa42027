"""Cost volume between dense image embeddings and text embeddings (pure functions)."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

# Logit of a class that is not decoded: its probability is 0 in float32.
UNDECODED_LOGIT = -100.0


# Similarities that are held at a time while the classes of an image are chosen.
_CHUNK = 1 << 22


class ClassLogits(NamedTuple):
    """Logits (B, k, h, w) of the classes that were decoded.

    ``classes`` has the index of each of them in the vocabulary (B, k), ascending; None where all T
    classes were decoded, k = T.
    """

    logits: Tensor
    classes: Tensor | None


def cost_volume(image: Tensor, text: Tensor) -> Tensor:
    """Cosine similarity (B, T, P, H, W) of every position with every prompt (CAT-Seg, Eq. 1).

    The image embeddings are (B, C, H, W), those of text (T, P, C) for the batch or (B, T, P, C).
    """
    image = F.normalize(image, dim=1)
    text = F.normalize(text, dim=-1).to(image.dtype)
    volume = text.flatten(-3, -2) @ image.flatten(2)
    return volume.unflatten(1, text.shape[-3:-1]).unflatten(-1, image.shape[-2:])


def top_cost_volume(
    image: Tensor, text: Tensor, limit: int
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Cost volume (B, k, P, H, W) of the classes that each image is most similar to.

    The volume of all classes is never held: similarities of a large vocabulary are looked at a
    chunk at a time, without gradients, and the volume is computed for those that are kept.

    Of (B, C, H, W) image and (T, P, C) text embeddings ``limit`` classes are kept, those with the
    highest maximal similarity; 0 keeps all. Returned are also their text embeddings (B or 1, k, P,
    C) and the classes (B, k), or None where all were kept.
    """
    if not 0 < limit < text.shape[0]:
        return cost_volume(image, text), text[None], None
    classes = top_classes(max_similarity(image, text), limit)
    text = text[classes]
    return cost_volume(image, text), text, classes


@torch.no_grad()
def max_similarity(image: Tensor, text: Tensor, chunk: int = _CHUNK) -> Tensor:
    """Highest similarity (B, T) of each class of (T, P, C) with a position of each image.

    ``chunk`` similarities are held at a time.
    """
    positions = F.normalize(image, dim=1).flatten(2).transpose(1, 2).contiguous()
    step = max(1, chunk // (positions.shape[0] * positions.shape[1] * text.shape[1]))
    best = []
    for part in [text] if step >= text.shape[0] else text.split(step):
        part = F.normalize(part, dim=-1).to(image.dtype)
        similarity = F.linear(positions, part.flatten(0, 1)).amax(dim=1)
        best.append(similarity.unflatten(1, part.shape[:2]).amax(dim=2))
    return torch.cat(best, dim=1)


def top_classes(similarity: Tensor, k: int) -> Tensor:
    """Indices (B, k), ascending, of the k highest of (B, T) similarities of each image."""
    return similarity.topk(k, dim=1).indices.sort(dim=1).values


def scatter_logits(logits: Tensor, classes: Tensor, num_classes: int) -> Tensor:
    """Put the logits (B, k, h, w) of the chosen classes (B, k) back into (B, T, h, w).

    Classes that were not decoded get ``UNDECODED_LOGIT``.
    """
    shape = (logits.shape[0], num_classes, *logits.shape[2:])
    index = classes[..., None, None].expand_as(logits)
    return logits.new_full(shape, UNDECODED_LOGIT).scatter(1, index, logits)
