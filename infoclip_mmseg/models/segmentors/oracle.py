"""What a model that classifies masks would reach if it knew the true masks, or their classes.

Legend: B images, Q masks, T classes, h w size of an image without its padding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from mmseg.structures import SegDataSample
from torch import Tensor

from infoclip_mmseg.losses.masks import match_masks, stack_targets
from infoclip_mmseg.models.backbones.dual_encoder import ImageFeatures
from infoclip_mmseg.models.decode_heads.base import OpenVocabHead
from infoclip_mmseg.models.decode_heads.mask_head import padded
from infoclip_mmseg.utils.tensors import Size, resize

ORACLES = (None, 'masks', 'classes')
SURE = 20.0
"""Logit of a true mask inside of it, and its negative outside."""


def check_oracle(oracle: str | None, head: OpenVocabHead, mode: str) -> None:
    """Raise a ValueError for an unknown oracle and for a model that has no use for one."""
    if oracle not in ORACLES:
        raise ValueError(f'test_cfg.oracle must be one of {ORACLES}, got {oracle!r}')
    if oracle is not None and not (head.finds_masks and mode == 'whole'):
        raise ValueError(
            f'test_cfg.oracle={oracle!r} needs a head that finds masks and mode="whole", got a '
            f'{type(head).__name__} and mode={mode!r}'
        )


def with_truth(
    head: OpenVocabHead,
    features: ImageFeatures,
    samples: Sequence[SegDataSample],
    oracle: str,
    size: Size,
) -> ImageFeatures:
    """Features that bring the true masks, or with the oracle 'classes' the head's with true labels.

    True masks are the segments of a panoptic ground truth, or one a class of a label map. A mask of
    the head has the class of the true one that it is matched with, on masks alone, or is void.

    Args:
        head: Whose ``segments`` or logits the features are for.
        features: Of images of which ``size`` (h, w) is no padding.
        samples: Their ground truth, of any size; without one it is a ValueError.
        oracle: 'masks' or 'classes'.
    """
    if not all('gt_sem_seg' in sample or 'gt_panoptic' in sample for sample in samples):
        raise ValueError(
            f'test_cfg.oracle={oracle!r} needs the ground truth: add LoadLabelMap or LoadPanoptic '
            'to the test pipeline'
        )
    whole = features.size or size
    targets = []
    for labels, masks in head.targets(samples):
        masks = resize(masks[None], size)[0] if len(labels) else masks.new_zeros(0, *size)
        targets.append((labels, padded(masks, whole)))
    if oracle == 'classes':
        masks = head.propose(features)
        return features._replace(
            masks=masks, labels=match_masks(masks, targets, void=head.num_classes)
        )
    masks, _ = stack_targets(targets)
    return features._replace(masks=torch.where(masks > 0.5, SURE, -SURE).to(features.dense))


def look_with_truth(
    model: Any, samples: Sequence[SegDataSample], size: Size
) -> Callable[[Tensor], ImageFeatures]:
    """A segmentor's ``extract_feat`` with what its oracle knows; see :func:`with_truth`."""

    def look(images: Tensor) -> ImageFeatures:
        features, oracle = model.extract_feat(images), model.test_cfg['oracle']
        return with_truth(model.decode_head, features, samples, oracle, size)

    return look
