"""IoU under both conventions by exact counts, and label maps written as the data set has them.

The two ways to average IoU differ in the classes that have no pixel in the ground truth. If one of
them is predicted somewhere, mmseg and older versions of detectron2 count it with IoU 0; newer
versions of detectron2 leave it out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from mmengine.logging import MMLogger, print_log
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from PIL import Image
from prettytable import PrettyTable
from torch import Tensor

from infoclip_mmseg.datasets.label_maps import IGNORED_8, file_values, numbering_of_meta, place_of
from infoclip_mmseg.datasets.vocabularies import check_several_classes

MEANINGS = dict(
    mIoU='predicted classes that are absent from the ground truth count as 0: mmseg, older '
    'detectron2',
    mIoU_present='classes that are absent from the ground truth are left out: newer detectron2',
    fwIoU='weighted by the pixels of the ground truth; the same in both',
    mAcc='mean over classes of the share of their pixels that are right; the same in both',
    aAcc='share of all pixels that are right',
)


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


class CountedIoUMetric(IoUMetric):
    """IoUMetric that counts pixels as integers and writes label maps that the data set could read.

    With `output_dir` the values are those of the data set's own files (shifted, mapped, of a subset
    of classes), with 8 bits where they fit and else with 16, and a file has the image's path below
    the data set's folder. :class:`~infoclip_mmseg.engine.VocabularyHook` tells the metric of both.

    Args:
        ignore_index: Value of pixels that do not count; None takes `ignore_index` of the data set's
            metainfo, or 255.
        fold_from: Predictions from this one up count as this one; None takes `fold_from` of the
            data set's metainfo, or folds none.
        **kwargs: Arguments of IoUMetric.

    Evaluation raises a ValueError where a prediction or a label is none of the classes, there is
    only one class, there is no ground truth, or two images have one output file.
    """

    def __init__(
        self, ignore_index: int | None = None, fold_from: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(ignore_index=IGNORED_8 if ignore_index is None else ignore_index, **kwargs)
        self._given_ignore_index, self.fold_from = ignore_index, fold_from
        self._written: dict[Path, str] = {}

    def process(self, data_batch: dict, data_samples: Sequence[dict]) -> None:
        """Count the pixels of samples, and write their label maps where asked to."""
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
                self._count(sample, prediction, num_classes, ignored)
            if self.output_dir is not None:
                self._write(sample, prediction, num_classes)

    def _count(self, sample: dict, prediction: Tensor, num_classes: int, ignored: int) -> None:
        name = sample.get('img_path', 'an image')
        if 'gt_sem_seg' not in sample:
            raise ValueError(
                f'{name}: there is no ground truth to compare with; for label maps alone set '
                'format_only=True and output_dir of the metric (test_evaluator), else '
                'data_prefix.seg_map_path of the data set and LoadLabelMap in its pipeline'
            )
        truth = sample['gt_sem_seg']['data'].squeeze(0).to(prediction.device)
        try:
            self.results.append(count_areas(prediction, truth, num_classes, ignored))
        except ValueError as error:
            raise ValueError(f'{name}: {error}') from error

    def _write(self, sample: dict, labels: Tensor, num_classes: int) -> None:
        meta = {'reduce_zero_label': sample.get('reduce_zero_label'), **(self.dataset_meta or {})}
        place, rule = place_of(sample['img_path'], numbering_of_meta(meta))
        path = Path(self.output_dir, f'{place}.png')
        other = self._written.setdefault(path, sample['img_path'])
        if other != sample['img_path']:
            raise ValueError(
                f'{other} and {sample["img_path"]} would both be written to {path}: add '
                "dict(type='VocabularyHook') to custom_hooks, which tells the metric where the "
                "data set's folder is, or rename one"
            )
        values = file_values(rule, num_classes)
        kind = np.uint8 if values.max() < 1 << 8 else np.uint16
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(values.astype(kind)[labels.cpu().numpy()]).save(path)


def _or(value: int | None, default: Any) -> Any:
    return default if value is None else value


@METRICS.register_module()
class OpenVocabIoUMetric(CountedIoUMetric):
    """IoUMetric that adds `mIoU_present` and `fwIoU`, in percent.

    `mIoU`, `mAcc` and `aAcc` are IoUMetric's. `mIoU_present` is the mean over the classes that the
    ground truth holds (newer versions of detectron2); `mIoU` also counts, with 0, each class that
    it does not hold but that is predicted somewhere. Pixels are counted as integers, so that
    large data sets lose none. Arguments are those of :class:`CountedIoUMetric`.
    """

    def compute_metrics(self, results: list[Areas]) -> dict[str, float]:
        """The figures of the whole data set, in percent; called with the results of all."""
        if self.format_only:
            return super().compute_metrics(results)
        areas = total_areas(results)
        figures = {k: float(v) for k, v in super().compute_metrics([tuple(areas)]).items()}
        figures['mIoU_present'] = round(100 * float(class_iou(without_absent(areas)).nanmean()), 2)
        figures['fwIoU'] = round(100 * frequency_weighted_iou(areas), 2)
        print_log(f'figures:\n{_table(figures, areas)}', MMLogger.get_current_instance())
        return figures


def _table(figures: dict[str, float], areas: Areas) -> PrettyTable:
    """One row a figure with its meaning, one for the classes that count."""
    present = int((areas.truth > 0).sum())
    absent = int(((areas.truth == 0) & (areas.prediction > 0)).sum())
    table = PrettyTable(['Figure', 'Value', 'Meaning'])
    table.align['Meaning'] = 'l'
    for name, meaning in MEANINGS.items():
        if name in figures:
            table.add_row([name, f'{figures[name]:.2f}', meaning])
    counts = f'{present} in the ground truth, {absent} only predicted'
    table.add_row(['classes', len(areas.truth), counts])
    return table
