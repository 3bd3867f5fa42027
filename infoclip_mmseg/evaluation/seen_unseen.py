"""IoU apart for classes that the training vocabulary held and for those that it did not."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from mmengine.logging import MMLogger, print_log
from mmseg.registry import METRICS
from prettytable import PrettyTable

from infoclip_mmseg.datasets.vocabularies import check_several_classes, load_vocabulary
from infoclip_mmseg.evaluation.open_vocab_metric import (
    Areas,
    CountedIoUMetric,
    class_iou,
    total_areas,
    without_absent,
)
from infoclip_mmseg.utils.files import first_few

ABSENT = ('count', 'skip')
MEND = (
    "Name the training classes by the metric's argument `seen` (a list of names or a vocabulary "
    'file), or by `seen_classes` in the metainfo of the data set.'
)


def find_seen(classes: Sequence[str], seen: Iterable[str]) -> np.ndarray:
    """Which classes, (T,) bool, a list of seen names holds.

    Two names agree if they are equal as a whole or in their first synonym (what stands before the
    first comma), upper and lower case told apart. Names of training classes that are not among the
    T `classes` are overlooked. A ValueError where none of the classes is seen, or all of them are.
    """
    seen = list(seen)
    keys = {key for name in seen for key in _keys(name)}
    mask = np.array([not keys.isdisjoint(_keys(name)) for name in classes], dtype=bool)
    if not mask.any():
        raise ValueError(
            f'none of the {len(classes)} classes ({_sample(classes)}) is among the {len(seen)} '
            f'seen names ({_sample(seen)}). {MEND}'
        )
    if mask.all():
        raise ValueError(
            f'all {len(classes)} classes ({_sample(classes)}) are among the {len(seen)} seen '
            f'names, which leaves no unseen class; use IoUMetric, or fewer names. {MEND}'
        )
    return mask


def seen_unseen_figures(iou: np.ndarray, seen: np.ndarray) -> dict[str, float]:
    """Means over seen and unseen classes and their harmonic mean, in percent with two decimals.

    Of (T,) IoU, 0..1, NaN is left out of the means; a mean over no class is NaN, and with it the
    harmonic mean.
    """
    first, second = _mean(iou[seen]), _mean(iou[~seen])
    total = first + second
    harmonic = 0.0 if total == 0 else 2 * first * second / total
    figures = dict(seen_mIoU=first, unseen_mIoU=second, harmonic=harmonic)
    return {name: round(100 * value, 2) for name, value in figures.items()}


@METRICS.register_module()
class SeenUnseenIoUMetric(CountedIoUMetric):
    """IoUMetric that adds `seen_mIoU`, `unseen_mIoU` and `harmonic`, in percent.

    A class is seen if its name is in the training vocabulary; see :func:`find_seen` for how names
    are compared. Everything else (`aAcc`, `mIoU`, `mAcc` ...) is IoUMetric's.

    Args:
        seen: Names of the training classes, or the path of a vocabulary file (see
            :func:`~infoclip_mmseg.datasets.vocabularies.load_vocabulary`). It may be the whole
            vocabulary of another data set: names that the evaluated data set does not have
            are overlooked. None takes `seen_classes` of the data set's metainfo.
        absent: What becomes of classes without a pixel in the ground truth. `'count'`, as in
            IoUMetric: one that was predicted somewhere has IoU 0 and counts in the means. `'skip'`:
            they are left out of every mean, which a large vocabulary of distractors needs. aAcc is
            the same in both.
        **kwargs: Arguments of CountedIoUMetric.

    Raises:
        FileNotFoundError: `seen` names a file that does not exist.
        ValueError: `seen` is empty, `absent` is unknown or contradicts `nan_to_num`; and, as soon
            as the metric is told of the data set: no seen names, no class is seen, or all are.
    """

    def __init__(
        self, seen: Sequence[str] | str | Path | None = None, absent: str = 'count', **kwargs: Any
    ) -> None:
        if absent not in ABSENT:
            raise ValueError(f'absent must be one of {ABSENT}, got {absent!r}')
        if absent == 'skip' and kwargs.get('nan_to_num') is not None:
            raise ValueError(
                "absent='skip' leaves classes out as NaN, which nan_to_num would count again "
                f'(got nan_to_num={kwargs["nan_to_num"]}): set one of the two'
            )
        if seen is not None and not isinstance(seen, Path) and len(seen) == 0:
            raise ValueError(f'seen is empty; got {seen!r}. {MEND}')
        self.absent = absent
        self.seen = load_vocabulary(seen) if isinstance(seen, (str, Path)) else seen
        self._classes: Sequence[str] = ()
        self._is_seen = np.zeros(0, dtype=bool)
        super().__init__(**kwargs)

    @property
    def dataset_meta(self) -> dict | None:
        """Meta information of the data set; assigning it settles which classes are seen."""
        return self._dataset_meta

    @dataset_meta.setter
    def dataset_meta(self, meta: dict) -> None:
        """Settle which classes are seen; a ValueError where the data set does not tell."""
        classes, seen = meta.get('classes'), self.seen or meta.get('seen_classes')
        if not classes or not seen:
            what = 'class names (`classes` of its metainfo)' if seen else 'seen classes'
            raise ValueError(f'SeenUnseenIoUMetric: the data set has no {what}. {MEND}')
        check_several_classes(classes, 'the data set')
        self._classes, self._is_seen = classes, find_seen(classes, seen)
        self._dataset_meta = meta

    def compute_metrics(self, results: list[Areas]) -> dict[str, float]:
        """The figures of the whole data set, in percent; called with the results of all."""
        if self.format_only:
            return super().compute_metrics(results)
        areas = total_areas(results)
        if self.absent == 'skip':
            areas = without_absent(areas)
        figures = super().compute_metrics([tuple(areas)])
        iou = class_iou(areas).numpy()
        if self.nan_to_num is not None:
            iou = np.nan_to_num(iou, nan=self.nan_to_num)
        added = seen_unseen_figures(iou, self._is_seen)
        table = _table(self._classes, self._is_seen, iou, added)
        print_log(f'seen and unseen classes:\n{table}', MMLogger.get_current_instance())
        return {**figures, **added}


def _keys(name: str) -> set[str]:
    return {name.strip(), name.split(',')[0].strip()}


def _sample(names: Sequence[str]) -> str:
    return first_few([repr(name) for name in names], 3, rest=' ...')


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if values.size else float('nan')


def _table(
    classes: Sequence[str], seen: np.ndarray, iou: np.ndarray, figures: dict[str, float]
) -> PrettyTable:
    """One row for the seen and one for the unseen classes."""
    table = PrettyTable(['Group', 'Counted', 'mIoU', 'Classes'])
    table.max_width['Classes'], table.align['Classes'] = 70, 'l'
    for group, mask in (('seen', seen), ('unseen', ~seen)):
        counted = f'{np.count_nonzero(~np.isnan(iou[mask]))} of {np.count_nonzero(mask)}'
        names = ', '.join(name for name, inside in zip(classes, mask) if inside)
        table.add_row([group, counted, figures[f'{group}_mIoU'], names])
    return table
