"""Losses of models that classify masks: Mask2Former's, and MAFT+'s mask-aware loss.

Legend: B images, Q masks, L predictions of a decoder, T classes, n targets of an image, h w.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.dist import all_reduce, get_world_size
from mmseg.registry import MODELS
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from infoclip_mmseg.utils.tensors import at_least_float32

NO_LABEL = -100
"""Label of a mask that only fills up a batch."""
Targets = Sequence[tuple[Tensor, Tensor]]
"""Of each image its labels (n,), int64, and masks (n, h, w), float of 0 and 1."""


def average_over_ranks(value: Tensor) -> Tensor:
    """Mean over ranks of a tensor without gradient.

    A loss that every rank divides by it becomes, averaged by DDP, that of one process with the
    joint batch.
    """
    value = value.detach().clone()
    all_reduce(value)
    return value / get_world_size()


def label_targets(labels: Tensor, ignore_index: int) -> tuple[Tensor, Tensor]:
    """Targets of a label map (h, w): a mask of each class that it holds, ascending."""
    present = labels.unique()
    present = present[present != ignore_index].long()
    return present, (labels[None] == present[:, None, None]).float()


def segment_targets(ids: Tensor, segments: Sequence[Mapping[str, Any]]) -> tuple[Tensor, Tensor]:
    """Targets of an id map (h, w): a mask of each segment that is no crowd, and its label."""
    kept = [segment for segment in segments if not segment.get('iscrowd')]
    numbers = torch.tensor([s['id'] for s in kept], dtype=ids.dtype, device=ids.device)
    labels = torch.tensor([s['label'] for s in kept], dtype=torch.long, device=ids.device)
    return labels, (ids[None] == numbers[:, None, None]).float()


def stack_targets(targets: Targets) -> tuple[Tensor, Tensor]:
    """Masks (B, n, h, w), 0 and 1, and labels (B, n) of all images, n that of the fullest one.

    At least one; what fills up is an empty mask with the label :data:`NO_LABEL`.
    """
    most = max(1, *(len(labels) for labels, _ in targets))
    filled = [
        (
            F.pad(masks, (0, 0, 0, 0, 0, most - len(labels))),
            F.pad(labels, (0, most - len(labels)), value=NO_LABEL),
        )
        for labels, masks in targets
    ]
    masks, labels = map(torch.stack, zip(*filled))
    return masks, labels


def match_masks(masks: Tensor, targets: Targets, void: int) -> Tensor:
    """Labels (B, Q) of masks (B, Q, h, w), logits: that of the target each is matched with.

    The matching (Hungarian) maximises the sum of the IoU of masks and targets, which cover the same
    image at any size, and knows no classes. What has no partner that it overlaps is ``void``.
    """
    found = torch.full(masks.shape[:2], void, dtype=torch.long, device=masks.device)
    for ours, row, (labels, truths) in zip(masks.detach(), found, targets):
        if not len(labels) or not len(ours):
            continue
        truths = F.interpolate(truths[None].float(), ours.shape[-2:], mode='area')[0]
        iou = normalised_soft_iou((ours > 0).float(), truths)[0]
        rows, columns = linear_sum_assignment(iou.cpu().numpy(), maximize=True)
        rows, columns = (torch.as_tensor(x, device=masks.device) for x in (rows, columns))
        overlapping = iou[rows, columns] > 0
        row[columns[overlapping]] = labels[rows[overlapping]]
    return found


def normalised_soft_iou(masks: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Soft IoU (n, Q) of masks (Q, h, w), 0..1, with targets (n, h, w), and it from 0 to 1.

    The second runs from 0 for the worst mask of a target to 1 for its best one.
    """
    masks, targets = masks.flatten(1), targets.flatten(1)
    common = targets @ masks.T
    union = targets.sum(1)[:, None] + masks.sum(1)[None] - common
    iou = common / union.clamp(min=1e-6)
    low, high = iou.amin(1, keepdim=True), iou.amax(1, keepdim=True)
    return iou, (iou - low) / (high - low).clamp(min=torch.finfo(iou.dtype).tiny)


def mask_aware_loss(logits: Tensor, masks: Tensor, targets: Targets) -> Tensor:
    """Class probabilities should rank masks as their overlap does (MAFT+, arXiv 2408.00744).

    For each target: SmoothL1 between the probabilities of its class over the masks and its
    normalised soft IoU with them; the mean over targets, of all ranks, and masks, a scalar.
    Gradient reaches the logits only. Without any target it is 0.

    Args:
        logits: (B, Q, T), without void.
        masks: Logits (B, Q, H, W); their sigmoid is resized (bilinear) to the targets.
        targets: See :data:`Targets`.
    """
    with torch.autocast(device_type=logits.device.type, enabled=False):
        probabilities = at_least_float32(logits).softmax(dim=-1)
        overlaps = at_least_float32(masks).detach().sigmoid()
        wanted, given = [], []
        for probability, overlap, (labels, truth) in zip(probabilities, overlaps, targets):
            if not len(labels):
                continue
            resized = F.interpolate(
                overlap[None], truth.shape[-2:], mode='bilinear', align_corners=False
            )[0]
            wanted.append(normalised_soft_iou(resized, truth.to(resized))[1])
            given.append(probability[:, labels].T)
        count = average_over_ranks(logits.new_tensor(float(sum(map(len, wanted)))))
        if not wanted:
            return logits.sum() * 0
        total = F.smooth_l1_loss(torch.cat(given), torch.cat(wanted), reduction='sum')
        return total / (count * logits.shape[1])


@MODELS.register_module()
class MaskAwareLoss(nn.Module):
    """Weighted :func:`mask_aware_loss`."""

    def __init__(self, loss_weight: float = 1.0, loss_name: str = 'loss_mask_aware') -> None:
        super().__init__()
        self.loss_weight, self.loss_name = loss_weight, loss_name

    def extra_repr(self) -> str:
        """Options, shown when the model is printed."""
        return f'loss_weight={self.loss_weight}'

    def forward(self, logits: Tensor, masks: Tensor, targets: Targets) -> Tensor:
        """See :func:`mask_aware_loss`."""
        return self.loss_weight * mask_aware_loss(logits, masks, targets)


@MODELS.register_module()
class MaskClassLoss(nn.Module):
    """Cross-entropy over classes and void of masks that do not learn.

    The weighted mean over the masks of all ranks; 0 where there is none.

    Args:
        loss_weight: Factor of the loss.
        void_weight: Weight of void beside a class.
        loss_name: Key of the loss.
    """

    def __init__(
        self, loss_weight: float = 2.0, void_weight: float = 0.1, loss_name: str = 'loss_ce'
    ) -> None:
        super().__init__()
        self.loss_weight, self.void_weight, self.loss_name = loss_weight, void_weight, loss_name

    def extra_repr(self) -> str:
        """Options, shown when the model is printed."""
        return f'loss_weight={self.loss_weight}, void_weight={self.void_weight}'

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of logits (B, Q, T + 1), void last, and labels (B, Q), T for void."""
        with torch.autocast(device_type=logits.device.type, enabled=False):
            logits, labels = at_least_float32(logits).flatten(0, 1), labels.flatten()
            weight = logits.new_ones(logits.shape[-1])
            weight[-1] = self.void_weight
            total = F.cross_entropy(logits, labels, weight, ignore_index=NO_LABEL, reduction='sum')
            weights = average_over_ranks(weight[labels[labels != NO_LABEL]].sum())
            return self.loss_weight * total / weights.clamp(min=torch.finfo(weight.dtype).tiny)


@MODELS.register_module()
class Mask2FormerCriterion(nn.Module):
    """Matching and losses of Mask2Former (arXiv 2112.01527), those of transformers.

    Each prediction of the decoder is matched with the targets on uniform points, and gets a
    cross-entropy over classes and void, a binary cross-entropy and a dice loss of the matched masks
    on points that are mostly uncertain ones. Mask losses are divided by the number of targets,
    averaged over ranks, at least 1.

    Args:
        class_weight, mask_weight, dice_weight: Factors of the losses, and of the matching costs.
        void_weight: Weight of void in the cross-entropy.
        num_points: Points of a mask.
        oversample_ratio, importance_ratio: Candidates of a point; share of points that are the most
            uncertain candidates.
    """

    def __init__(
        self,
        class_weight: float = 2.0,
        mask_weight: float = 5.0,
        dice_weight: float = 5.0,
        void_weight: float = 0.1,
        num_points: int = 12544,
        oversample_ratio: float = 3.0,
        importance_ratio: float = 0.75,
    ) -> None:
        super().__init__()
        self.weights = dict(ce=class_weight, mask=mask_weight, dice=dice_weight)
        self.void_weight, self.num_points = void_weight, num_points
        self.oversample_ratio, self.importance_ratio = oversample_ratio, importance_ratio

    def extra_repr(self) -> str:
        """Options, shown when the model is printed."""
        return f'weights={self.weights}, void={self.void_weight}, points={self.num_points}'

    def forward(
        self, masks: Sequence[Tensor], logits: Sequence[Tensor], targets: Targets
    ) -> dict[str, Tensor]:
        """Losses of all predictions by name, weighted; those but the last have its number behind.

        Args:
            masks: Logits, L times (B, Q, H, W).
            logits: Classes and void, L times (B, Q, T + 1).
            targets: See :data:`Targets`; they may cover other pixels than the masks' grid, but the
                same part of the image.
        """
        with torch.autocast(device_type=masks[-1].device.type, enabled=False):
            masks = [at_least_float32(x) for x in masks]
            logits = [at_least_float32(x) for x in logits]
            criterion = self._criterion(logits[-1].shape[-1] - 1).to(masks[-1].device)
            labels, truths = zip(*targets)
            earlier = [
                dict(masks_queries_logits=m, class_queries_logits=c)
                for m, c in zip(masks[:-1], logits[:-1])
            ]
            losses = criterion(masks[-1], logits[-1], list(truths), list(labels), earlier)
        named = {k.replace('cross_entropy', 'ce'): value for k, value in losses.items()}
        return {name: self.weights[name.split('_')[1]] * value for name, value in named.items()}

    def _criterion(self, num_classes: int) -> Any:
        from transformers.models.mask2former import modeling_mask2former

        parts: Any = modeling_mask2former

        class Criterion(parts.Mask2FormerLoss):
            """What it divides by is averaged over ranks, whatever launched them."""

            def get_num_masks(self, class_labels: Any, device: torch.device) -> Tensor:
                count = torch.tensor(float(sum(map(len, class_labels))), device=device)
                return average_over_ranks(count).clamp(min=1)

            def loss_labels(
                self, class_queries_logits: Any, class_labels: Any, indices: Any
            ) -> Any:
                """Cross-entropy over queries, void where nothing is matched, weighted mean."""
                logits = class_queries_logits.transpose(1, 2)
                place = self._get_predictions_permutation_indices(indices)
                matched = [labels[j] for labels, (_, j) in zip(class_labels, indices)]
                target = torch.full_like(logits[:, 0], self.num_labels, dtype=torch.long)
                target[place] = torch.cat(matched)
                weight = self.empty_weight.to(logits)
                total = F.cross_entropy(logits, target, weight, reduction='sum')
                weights = average_over_ranks(weight[target].sum())
                return dict(loss_cross_entropy=total / weights)

        config = parts.Mask2FormerConfig(
            class_weight=self.weights['ce'],
            mask_weight=self.weights['mask'],
            dice_weight=self.weights['dice'],
            no_object_weight=self.void_weight,
            train_num_points=self.num_points,
            oversample_ratio=self.oversample_ratio,
            importance_sample_ratio=self.importance_ratio,
            num_labels=num_classes,
        )
        return Criterion(config, {})
