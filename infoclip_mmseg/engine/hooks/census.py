"""LabelCensus: which classes have pixels in the label maps of a run, and how many have no label."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import torch
from torch import Tensor

from infoclip_mmseg.utils.files import first_few

FEW_CLASSES = 10
REMEDY = (
    'Do the pixels without a label belong to a class? mIoU_present leaves such a class out and '
    'looks good. Label maps of 0 and 255 need VocabularyDataset(label_map={0: 0, 255: 1}) '
    'without reduce_zero_label; label maps that count from 0 need reduce_zero_label=False.'
)


class LabelCensus:
    """Pixels of each class in label maps, and pixels that have no label.

    Values that are no class are taken for ``ignore_index``. Only the first ``limit`` label maps are
    counted. The ``counts`` (T + 2,), int64, are the pixels of each class, the pixels without a
    label, and the images; those of several processes may be summed.
    """

    def __init__(self, classes: Sequence[str], ignore_index: int, limit: int) -> None:
        self.classes, self.ignore_index, self.limit = list(classes), ignore_index, limit
        self.counts = torch.zeros(len(self.classes) + 2, dtype=torch.int64)

    @property
    def images(self) -> int:
        """Number of label maps so far."""
        return int(self.counts[-1])

    def update(self, labels: Tensor) -> None:
        """Count a label map (h, w)."""
        if self.images >= self.limit:
            return
        labels, num_classes = labels.cpu().long().flatten(), len(self.classes)
        known = (labels >= 0) & (labels < num_classes) & (labels != self.ignore_index)
        values = labels.where(known, torch.tensor(num_classes))
        self.counts[:-1] += torch.bincount(values, minlength=num_classes + 1)
        self.counts[-1] += 1

    def report(self) -> tuple[int, str]:
        """Level for the log, and what to say: a warning where a class may have lost its pixels."""
        *pixels, unlabelled, _ = self.counts.tolist()
        share = unlabelled / max(sum(pixels) + unlabelled, 1)
        absent = [index for index, count in enumerate(pixels) if not count]
        text = f'{100 * share:.3g} % of the pixels have no label, '
        if not absent:
            return logging.INFO, f'{text}each of the {len(pixels)} classes has pixels'
        names = first_few([f'{index} {self.classes[index]!r}' for index in absent])
        text += f'{len(absent)} of {len(pixels)} classes have no pixel ({names})'
        if looks_wrong(absent, len(pixels), share):
            return logging.WARNING, f'{text}. {REMEDY}'
        return logging.INFO, text


def looks_wrong(absent: Sequence[int], num_classes: int, share: float) -> bool:
    """Whether classes without a pixel may have theirs among the pixels without a label.

    Of many classes some are always absent, and a hundred images hold few of them. There it is the
    last class that tells: labels that are shifted down by one, or masks of 0 and 255, leave it
    empty, and with it no other, all others but one, or most of the pixels.

    ``absent`` are the classes without a pixel, in order, of ``num_classes``; ``share`` is that of
    the pixels without a label, 0..1.
    """
    if not absent or share == 0:
        return False
    if num_classes <= FEW_CLASSES:
        return True
    last = absent[-1] == num_classes - 1
    return last and (len(absent) in (1, num_classes - 1) or share > 0.5)
