"""Checks of a batch before any work is done on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmseg.structures import SegDataSample
from torch import Tensor


def _name(sample: SegDataSample, key: str) -> Any:
    return sample.metainfo.get(key) or 'an array without a file name'


def check_image_sizes(
    images: Tensor, samples: Sequence[SegDataSample], patch: tuple[int, int]
) -> None:
    """Images must be at least one patch high and wide, as they are and before any resizing.

    Args:
        images: (B, 3, h, w).
        samples: Samples whose ``ori_shape`` is the size of the image file; may be empty.
        patch: Height and width of CLIP's patch in pixels.

    Raises:
        ValueError: An image is smaller.
    """
    sizes = [(sample.metainfo.get('ori_shape'), _name(sample, 'img_path')) for sample in samples]
    for size, name in [(tuple(images.shape[-2:]), 'the batch'), *sizes]:
        if size is not None and (size[0] < patch[0] or size[1] < patch[1]):
            raise ValueError(
                f'image of {size[0]} x {size[1]} pixels ({name}) is smaller than one patch of '
                f'{patch[0]} x {patch[1]}; remove it from the data or enlarge it first'
            )


def check_labels(samples: Sequence[SegDataSample], num_classes: int, ignore_index: int) -> None:
    """Ground-truth labels must lie in the vocabulary.

    Args:
        samples: Samples, with ``gt_sem_seg`` (1, h, w) where there is a ground truth.
        num_classes: T.
        ignore_index: Label value of pixels without a label.

    Raises:
        ValueError: A label is negative or at least T and not ``ignore_index``.
    """
    for sample in samples:
        if 'gt_sem_seg' not in sample:
            continue
        labels = sample.gt_sem_seg.data
        wrong = labels[(labels != ignore_index) & ((labels >= num_classes) | (labels < 0))]
        if wrong.numel():
            raise ValueError(
                f'label map {_name(sample, "seg_map_path")} has values from {int(wrong.min())} to '
                f'{int(wrong.max())} in {wrong.numel()} pixels, but the vocabulary has '
                f'{num_classes} names (labels 0..{num_classes - 1}, {ignore_index} for none). Use '
                "the vocabulary that belongs to the labels, or the data set's reduce_zero_label"
            )
