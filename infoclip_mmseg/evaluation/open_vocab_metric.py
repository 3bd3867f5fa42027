"""OpenVocabIoUMetric: IoU under both conventions, for 16-bit labels and folded predictions."""

from __future__ import annotations

from mmengine.logging import MMLogger, print_log
from mmseg.registry import METRICS
from prettytable import PrettyTable

from infoclip_mmseg.evaluation.areas import (
    Areas,
    frequency_weighted_iou,
    mean_iou,
    total_areas,
    without_absent,
)
from infoclip_mmseg.evaluation.counted_metric import CountedIoUMetric

MEANINGS = dict(
    mIoU='predicted classes that are absent from the ground truth count as 0: mmseg, older '
    'detectron2',
    mIoU_present='classes that are absent from the ground truth are left out: newer detectron2',
    fwIoU='weighted by the pixels of the ground truth; the same in both',
    mAcc='mean over classes of the share of their pixels that are right; the same in both',
    aAcc='share of all pixels that are right',
)


@METRICS.register_module()
class OpenVocabIoUMetric(CountedIoUMetric):
    """IoUMetric that adds `mIoU_present` and `fwIoU`, in percent.

    `mIoU`, `mAcc` and `aAcc` are IoUMetric's. `mIoU_present` is the mean over the classes that the
    ground truth holds (newer versions of detectron2); `mIoU` also counts, with 0, each class that
    it does not hold but that is predicted somewhere. Pixels are counted as integers, so that
    large data sets lose none.

    Args:
        **kwargs: Arguments of :class:`~infoclip_mmseg.evaluation.counted_metric.CountedIoUMetric`.
    """

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
