"""Losses of a student that need no teacher."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from infoclip_mmseg.losses.reconstruction import present_classes
from infoclip_mmseg.models.backbones.dual_encoder import ImageFeatures
from infoclip_mmseg.models.decode_heads.base import OpenVocabHead


def build_auxiliary(configs: Sequence[dict], embed_dim: int) -> nn.ModuleList:
    """Losses of configs; the same ``loss_name`` twice is a ValueError."""
    losses = nn.ModuleList(MODELS.build({'embed_dim': embed_dim, **config}) for config in configs)
    names = [loss.loss_name for loss in losses]
    if len(set(names)) < len(names):
        raise ValueError(f'loss_aux are named {names}; give each a loss_name of its own')
    return losses


def auxiliary_losses(
    losses: Iterable[Any],
    head: OpenVocabHead,
    features: ImageFeatures,
    text: Tensor,
    samples: Sequence[SegDataSample],
) -> dict[str, Tensor]:
    """Losses by name, each of pooled image embeddings, text and the classes that images show.

    Text is (T, P, C), or (W, P, C) where the T classes of the head have several words; then the
    first one stands for its class.
    """
    labels = torch.cat([sample.gt_sem_seg.data for sample in samples])
    present = present_classes(labels, head.num_classes)
    image, words = head.pooled(features), text.mean(dim=1)
    if counts := getattr(head, 'word_counts', ()):
        words = torch.stack([part[0] for part in words.split(list(counts))])
    return {loss.loss_name: loss(image, words, present) for loss in losses}
