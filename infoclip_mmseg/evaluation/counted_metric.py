"""What the metrics of this package share: exact counts, and label maps written as they are read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmseg.evaluation import IoUMetric
from PIL import Image
from torch import Tensor

from infoclip_mmseg.datasets.file_numbering import numbering_of_meta, place_of
from infoclip_mmseg.datasets.label_maps import IGNORED_8, file_values
from infoclip_mmseg.datasets.vocabularies import check_several_classes
from infoclip_mmseg.evaluation.areas import count_areas


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

    Raises:
        ValueError: In evaluation: a prediction or a label is none of the classes, there is only one
            class, there is no ground truth, or two images have one output file.
    """

    def __init__(
        self, ignore_index: int | None = None, fold_from: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(ignore_index=IGNORED_8 if ignore_index is None else ignore_index, **kwargs)
        self._given_ignore_index, self.fold_from = ignore_index, fold_from
        self._written: dict[Path, str] = {}

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
