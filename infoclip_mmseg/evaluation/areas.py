"""Figures of merit from pixel counts by class (pure functions).

The two ways to average IoU differ in the classes that have no pixel in the ground truth. If one of
them is predicted somewhere, mmseg and older versions of detectron2 count it with IoU 0; newer
versions of detectron2 leave it out.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor


class Areas(NamedTuple):
    """Pixels by class, (T,) each: intersection, union, prediction, ground truth."""

    intersection: Tensor
    union: Tensor
    prediction: Tensor
    truth: Tensor


def count_areas(prediction: Tensor, truth: Tensor, num_classes: int, ignore_index: int) -> Areas:
    """Areas of one image: exact counts, int64, on the CPU.

    Predictions and ground truth are (H, W), 0..T-1; where the truth is `ignore_index` no pixel
    counts. A ValueError where sizes differ, or a value lies outside of the classes.
    """
    if prediction.shape != truth.shape:
        raise ValueError(
            f'prediction {tuple(prediction.shape)} and ground truth {tuple(truth.shape)} must be '
            'of the same size'
        )
    counted = truth != ignore_index
    prediction, truth = prediction[counted].long(), truth[counted].long()
    for what, values in (('prediction', prediction), ('ground truth', truth)):
        if values.numel() and not 0 <= int(values.min()) <= int(values.max()) < num_classes:
            raise ValueError(
                f'the {what} has values from {int(values.min())} to {int(values.max())}, but the '
                f'data set has {num_classes} classes (0..{num_classes - 1}, {ignore_index} ignored)'
            )
    predicted, true, common = (
        torch.bincount(values, minlength=num_classes).cpu()
        for values in (prediction, truth, truth[prediction == truth])
    )
    return Areas(common, predicted + true - common, predicted, true)


def total_areas(areas: Iterable[Iterable[Tensor]]) -> Areas:
    """Sums over images, float64: exact up to 9e15 pixels (float32: up to 2e7)."""
    return Areas(*(sum(part.double() for part in parts) for parts in zip(*areas)))


def without_absent(areas: Iterable[Tensor]) -> Areas:
    """Areas in which classes without ground truth were never predicted: their figures are NaN."""
    intersection, union, prediction, truth = areas
    present = truth > 0
    zero = torch.zeros_like(truth)
    return Areas(intersection, union.where(present, zero), prediction.where(present, zero), truth)


def class_iou(areas: Areas) -> Tensor:
    """IoU of each class, (T,), 0..1; NaN for classes that are neither true nor predicted."""
    return areas.intersection.double() / areas.union.double()


def frequency_weighted_iou(areas: Areas) -> float:
    """Mean of the IoU weighted by the share of ground-truth pixels, 0..1."""
    return float((class_iou(areas) * areas.truth).nansum() / areas.truth.sum())
