"""Panoptic quality (Kirillov et al., 2019, arXiv 1801.00868), by the rules of COCO's evaluation.

torchmetrics has this figure too, but knows no crowds and leaves true pixels without a predicted
segment out of unions; tests compare with it where there are neither.

Legend: T classes, h w size of an image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from mmengine.evaluator import BaseMetric
from mmengine.logging import MMLogger, print_log
from mmseg.registry import METRICS
from numpy.typing import NDArray
from prettytable import PrettyTable

Segment = Mapping[str, Any]
Ids = NDArray[np.integer]


class PanopticCounts(NamedTuple):
    """What is added up over images, (T,) each, float64."""

    iou: NDArray[np.float64]  # sum over matched pairs
    matched: NDArray[np.float64]  # true positives
    extra: NDArray[np.float64]  # false positives
    missed: NDArray[np.float64]  # false negatives


def panoptic_counts(
    predicted: Ids,
    predicted_segments: Sequence[Segment],
    true: Ids,
    true_segments: Sequence[Segment],
    num_classes: int,
) -> PanopticCounts:
    """Counts of one image.

    Segments of one class match where their IoU is above one half; pixels without a true segment
    count for no union. Crowds match nothing. A predicted segment that matches nothing is no false
    positive where more than half of it lies in such pixels or in crowds of its class.

    Args:
        predicted, true: Id maps (h, w), 0 where there is no segment.
        predicted_segments, true_segments: Of each its ``id`` and ``label``; of true ones perhaps
            ``iscrowd``.
        num_classes: T.

    An id without a segment, a segment without a pixel, a label that is no class and maps of
    different sizes are a ValueError.
    """
    if predicted.shape != true.shape:
        raise ValueError(
            f'the predicted id map is {predicted.shape}, the true one {true.shape}; both must be '
            'of one size'
        )
    ours = _index(predicted, predicted_segments, num_classes, 'prediction')
    theirs = _index(true, true_segments, num_classes, 'ground truth')
    pairs, sizes = np.unique(
        np.stack([predicted.ravel(), true.ravel()]).astype(np.int64), axis=1, return_counts=True
    )
    common = {(int(p), int(t)): int(n) for (p, t), n in zip(pairs.T, sizes)}
    counts = PanopticCounts(*np.zeros((4, num_classes)))
    matched_ours, matched_theirs = set(), set()
    for (p, t), inner in common.items():
        if p == 0 or t == 0 or theirs[t].crowd or ours[p].label != theirs[t].label:
            continue
        union = ours[p].area + theirs[t].area - inner - common.get((p, 0), 0)
        if inner / union > 0.5:
            counts.iou[ours[p].label] += inner / union
            counts.matched[ours[p].label] += 1
            matched_ours.add(p)
            matched_theirs.add(t)
    crowds: dict[int, list[int]] = {}
    for t, segment in theirs.items():
        if segment.crowd:
            crowds.setdefault(segment.label, []).append(t)
        elif t not in matched_theirs:
            counts.missed[segment.label] += 1
    for p, segment in ours.items():
        if p in matched_ours:
            continue
        excused = sum(common.get((p, t), 0) for t in (0, *crowds.get(segment.label, ())))
        if excused / segment.area <= 0.5:
            counts.extra[segment.label] += 1
    return counts


class _Indexed(NamedTuple):
    label: int
    area: int
    crowd: bool


def _index(
    ids: Ids, segments: Sequence[Segment], num_classes: int, what: str
) -> dict[int, _Indexed]:
    values, areas = np.unique(ids, return_counts=True)
    present = dict(zip(values.tolist(), areas.tolist()))
    present.pop(0, None)
    known = {int(segment['id']): segment for segment in segments}
    if present.keys() != known.keys():
        raise ValueError(
            f'{what}: the id map has the ids {sorted(present)[:8]}, its segments are '
            f'{sorted(known)[:8]}; each id needs one entry and each entry pixels'
        )
    wrong = sorted({int(s['label']) for s in segments if not 0 <= s['label'] < num_classes})
    if wrong:
        raise ValueError(f'{what}: labels {wrong} are none of the {num_classes} classes')
    return {
        key: _Indexed(int(s['label']), present[key], bool(s.get('iscrowd')))
        for key, s in known.items()
    }


def panoptic_quality(counts: PanopticCounts, chosen: NDArray[np.bool_]) -> dict[str, float]:
    """PQ, SQ and RQ in percent, means over those of the chosen classes (T,) that occur at all.

    A class occurs where it is true or predicted. NaN where none does.
    """
    total = counts.matched + counts.extra / 2 + counts.missed / 2
    kept = chosen & (total > 0)
    if not kept.any():
        return dict.fromkeys(('PQ', 'SQ', 'RQ'), float('nan'))
    matched = np.maximum(counts.matched, 1)
    parts = dict(
        PQ=counts.iou / np.maximum(total, 1e-9),
        SQ=counts.iou / matched,
        RQ=counts.matched / np.maximum(total, 1e-9),
    )
    return {name: 100 * float(values[kept].mean()) for name, values in parts.items()}


@METRICS.register_module()
class PanopticMetric(BaseMetric):
    """PQ, SQ and RQ over all classes, things and stuff.

    Predictions are ``pred_panoptic`` of the samples, which a segmentor gives with
    ``test_cfg.panoptic=True``; the truth is ``gt_panoptic`` of a data set such as
    :class:`~infoclip_mmseg.datasets.PanopticDataset`, whose metainfo has ``things``. Where it also
    has ``seen_classes``, names, so do those and the other classes.
    """

    default_prefix = None

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count the segments of samples."""
        num_classes = len((self.dataset_meta or {})['classes'])
        for sample in data_samples:
            name = sample.get('img_path', 'an image')
            if 'gt_panoptic' not in sample or 'pred_panoptic' not in sample:
                raise ValueError(
                    f'{name}: PanopticMetric needs gt_panoptic (a PanopticDataset with '
                    'LoadPanoptic and PackPanopticInputs) and pred_panoptic (a model that finds '
                    'masks, with test_cfg.panoptic=True)'
                )
            maps = [
                np.asarray(sample[key]['data'].squeeze(0).cpu())
                for key in ('pred_panoptic', 'gt_panoptic')
            ]
            lists = sample['pred_segments'], sample['gt_segments']
            try:
                counts = panoptic_counts(maps[0], lists[0], maps[1], lists[1], num_classes)
            except ValueError as error:
                raise ValueError(f'{name}: {error}') from error
            self.results.append(np.stack(counts))

    def compute_metrics(self, results: list[NDArray[np.float64]]) -> dict[str, float]:
        """The figures of the whole data set, in percent; called with the results of all."""
        meta = self.dataset_meta or {}
        counts, things = PanopticCounts(*np.sum(results, axis=0)), set(meta.get('things', ()))
        is_thing = np.array([index in things for index in range(len(meta['classes']))])
        groups = dict(all=np.ones_like(is_thing), things=is_thing, stuff=~is_thing)
        if 'seen_classes' in meta:
            seen = np.isin(meta['classes'], meta['seen_classes'])
            groups |= dict(seen=seen, unseen=~seen)
        figures: dict[str, float] = {}
        table = PrettyTable(['', 'PQ', 'SQ', 'RQ', 'classes'])
        for group, chosen in groups.items():
            values = panoptic_quality(counts, chosen)
            suffix = '' if group == 'all' else f'_{group}'
            figures |= {f'{name}{suffix}': round(value, 2) for name, value in values.items()}
            table.add_row([group, *(f'{v:.2f}' for v in values.values()), int(chosen.sum())])
        print_log(f'panoptic quality:\n{table}', MMLogger.get_current_instance())
        return figures
