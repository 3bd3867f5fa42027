"""OpenVocabIoUMetric: IoU under both conventions, for 16-bit labels and folded predictions."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import MMLogger, print_log
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from PIL import Image
from prettytable import PrettyTable
from torch import Tensor

from infoclip_mmseg.datasets.label_maps import IGNORED_8
from infoclip_mmseg.datasets.vocabularies import check_several_classes
from infoclip_mmseg.evaluation.areas import (
    Areas,
    count_areas,
    frequency_weighted_iou,
    mean_iou,
    total_areas,
    without_absent,
)

MEANINGS = dict(
    mIoU='predicted classes that are absent from the ground truth count as 0: mmseg, older '
    'detectron2',
    mIoU_present='classes that are absent from the ground truth are left out: newer detectron2',
    fwIoU='weighted by the pixels of the ground truth; the same in both',
    mAcc='mean over classes of the share of their pixels that are right; the same in both',
    aAcc='share of all pixels that are right',
)


@METRICS.register_module()
class OpenVocabIoUMetric(IoUMetric):
    """IoUMetric that adds `mIoU_present` and `fwIoU`, in percent.

    `mIoU`, `mAcc` and `aAcc` are IoUMetric's. `mIoU_present` is the mean over the classes that the
    ground truth holds (newer versions of detectron2); `mIoU` also counts, with 0, each class that
    it does not hold but that is predicted somewhere. Pixels are counted as integers, so that
    large data sets lose none.

    Args:
        ignore_index: Value of pixels that do not count; None takes `ignore_index` of the data set's
            metainfo, or 255.
        fold_from: Predictions from this one up count as this one; None takes `fold_from` of the
            data set's metainfo, or folds none.
        **kwargs: Arguments of IoUMetric. With `output_dir` label maps are written with 8 bits where
            the classes fit, else with 16.

    Raises:
        ValueError: In evaluation, when a prediction or a label is none of the classes.
    """

    def __init__(
        self, ignore_index: int | None = None, fold_from: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(ignore_index=IGNORED_8 if ignore_index is None else ignore_index, **kwargs)
        self._given_ignore_index, self.fold_from = ignore_index, fold_from

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels of a batch, and write its label maps where asked to.

        Args:
            data_batch: Not used.
            data_samples: Samples with `pred_sem_seg` and, but for `format_only`, `gt_sem_seg`.
        """
        meta = self.dataset_meta or {}
        check_several_classes(meta['classes'], 'the data set')
        num_classes = len(meta['classes'])
        ignored = _or(self._given_ignore_index, meta.get('ignore_index', IGNORED_8))
        fold = _or(self.fold_from, meta.get('fold_from'))
        for sample in data_samples:
            prediction = sample['pred_sem_seg']['data'].squeeze(0)
            if fold is not None:
                prediction = prediction.clamp(max=fold)
            if not self.format_only:
                truth = sample['gt_sem_seg']['data'].squeeze(0).to(prediction.device)
                try:
                    self.results.append(count_areas(prediction, truth, num_classes, ignored))
                except ValueError as error:
                    raise ValueError(f'{sample.get("img_path", "an image")}: {error}') from error
            if self.output_dir is not None:
                shift = bool(sample.get('reduce_zero_label', False))
                _write(prediction + int(shift), num_classes, self.output_dir, sample['img_path'])

    def compute_metrics(self, results: list[Areas]) -> dict[str, float]:
        """The figures of the whole data set; called in one process with the results of all.

        Args:
            results: :class:`Areas` of each image.

        Returns:
            IoUMetric's figures, `mIoU_present` and `fwIoU`, in percent with two decimals.
        """
        if self.format_only:
            return super().compute_metrics(results)
        areas = total_areas(results)
        figures = {k: float(v) for k, v in super().compute_metrics([tuple(areas)]).items()}
        figures['mIoU_present'] = round(100 * mean_iou(without_absent(areas)), 2)
        figures['fwIoU'] = round(100 * frequency_weighted_iou(areas), 2)
        print_log(f'figures:\n{_table(figures, areas)}', MMLogger.get_current_instance())
        return figures


def _or(value: int | None, default: Any) -> Any:
    return default if value is None else value


def _write(labels: Tensor, num_classes: int, folder: str, image: str) -> None:
    kind = np.uint8 if num_classes <= 1 << 8 else np.uint16
    name = f'{Path(image).stem}.png'
    Image.fromarray(labels.cpu().numpy().astype(kind)).save(os.path.join(folder, name))


def _table(figures: dict[str, float], areas: Areas) -> PrettyTable:
    """One row a figure with its meaning, one for the classes that count."""
    present = int((areas.truth > 0).sum())
    absent = int(((areas.truth == 0) & (areas.prediction > 0)).sum())
    table = PrettyTable(['Figure', 'Value', 'Meaning'])
    table.align['Meaning'] = 'l'
    for name, meaning in MEANINGS.items():
        if name in figures:
            table.add_row([name, f'{figures[name]:.2f}', meaning])
    table.add_row(
        ['classes', len(areas.truth), f'{present} in the ground truth, {absent} only predicted']
    )
    return table
