"""Panoptic quality: handmade cases, an independent count, torchmetrics."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from infoclip_mmseg.evaluation.panoptic import (
    PanopticCounts,
    PanopticMetric,
    panoptic_counts,
    panoptic_quality,
)

CLASSES = 4
THINGS = [0, 1]


def by_hand(predicted, ours, true, theirs) -> np.ndarray:
    """Counts (4, T) by one mask after the other, from the definition."""
    counts = np.zeros((4, CLASSES))
    void = true == 0
    used_p, used_t = set(), set()
    for p in ours:
        for t in theirs:
            if p['label'] != t['label'] or t.get('iscrowd'):
                continue
            a, b = predicted == p['id'], true == t['id']
            union = (a & ~void) | b
            iou = (a & b).sum() / union.sum()
            if iou > 0.5:
                counts[0, p['label']] += iou
                counts[1, p['label']] += 1
                used_p.add(p['id'])
                used_t.add(t['id'])
    for t in theirs:
        if t['id'] not in used_t and not t.get('iscrowd'):
            counts[3, t['label']] += 1
    for p in ours:
        if p['id'] in used_p:
            continue
        a, excused = predicted == p['id'], void.copy()
        for t in theirs:
            if t.get('iscrowd') and t['label'] == p['label']:
                excused |= true == t['id']
        if (a & excused).sum() <= 0.5 * a.sum():
            counts[2, p['label']] += 1
    return counts


def random_case(seed: int, crowds: bool = True):
    """True and predicted segments of blocks, the predicted ones moved and relabelled at random."""
    rng = np.random.default_rng(seed)
    true = np.zeros((24, 32), dtype=np.int64)
    for index in range(1, 9):
        y, x, h, w = rng.integers(0, 18), rng.integers(0, 24), *rng.integers(4, 14, 2)
        true[y : y + h, x : x + w] = index
    predicted = np.roll(true, rng.integers(-2, 3, 2), (0, 1))
    noise = rng.random(true.shape) < 0.1
    predicted[noise] = rng.integers(0, 10, noise.sum())
    theirs = [
        dict(
            id=int(i), label=int(rng.integers(CLASSES)), iscrowd=bool(crowds and rng.random() < 0.2)
        )
        for i in np.unique(true)
        if i
    ]
    labels = {t['id']: t['label'] for t in theirs}
    ours = [
        dict(
            id=int(i),
            label=labels.get(int(i), 0) if rng.random() < 0.7 else int(rng.integers(CLASSES)),
        )
        for i in np.unique(predicted)
        if i
    ]
    return predicted, ours, true, theirs


@pytest.mark.parametrize('seed', range(50))
def test_counts_are_those_of_an_independent_count(seed):
    case = random_case(seed)
    np.testing.assert_allclose(
        np.stack(panoptic_counts(*case, CLASSES)), by_hand(*case), atol=1e-12
    )


def test_handmade():
    true = np.zeros((4, 8), dtype=np.int64)
    true[:, :4], true[:, 4:] = 1, 2
    theirs = [dict(id=1, label=0), dict(id=2, label=2)]
    perfect = panoptic_counts(true, theirs, true, theirs, CLASSES)
    assert perfect.iou.tolist() == [1, 0, 1, 0] and not perfect.extra.any()
    assert panoptic_quality(perfect, np.ones(4, bool)) == dict(PQ=100, SQ=100, RQ=100)

    moved = np.where(np.arange(8) < 5, 1, 2) * np.ones((4, 1), dtype=np.int64)
    counts = panoptic_counts(moved, theirs, true, theirs, CLASSES)
    np.testing.assert_allclose(counts.iou, [4 / 5, 0, 3 / 4, 0])

    wrong = [dict(id=1, label=1), dict(id=2, label=2)]
    counts = panoptic_counts(true, wrong, true, theirs, CLASSES)
    assert counts.missed.tolist() == [1, 0, 0, 0] and counts.extra.tolist() == [0, 1, 0, 0]
    values = panoptic_quality(counts, np.array([True, True, False, False]))
    assert values == dict(PQ=0, SQ=0, RQ=0)


def test_void_and_crowds():
    """A prediction in void or in a crowd of its class is no false positive."""
    true = np.zeros((4, 8), dtype=np.int64)
    true[:, 4:] = 1
    ours = np.where(np.arange(8) < 4, 1, 2) * np.ones((4, 1), dtype=np.int64)
    segments = [dict(id=1, label=0), dict(id=2, label=1)]
    for crowd, label, extra in ((True, 1, 0), (True, 2, 1), (False, 2, 1)):
        theirs = [dict(id=1, label=label, iscrowd=crowd)]
        counts = panoptic_counts(ours, segments, true, theirs, CLASSES)
        assert counts.extra.tolist() == [0, extra, 0, 0]
        assert counts.missed.sum() == (not crowd)


def test_half_of_the_union_is_no_match():
    true = np.ones((1, 3), dtype=np.int64)
    ours = np.array([[1, 1, 2]])
    segments = [dict(id=1, label=0), dict(id=2, label=1)]
    assert panoptic_counts(ours, segments, true, [dict(id=1, label=0)], CLASSES).matched[0] == 1
    true = np.array([[1, 1, 1, 1]])
    ours = np.array([[1, 1, 2, 2]])
    assert panoptic_counts(ours, segments, true, [dict(id=1, label=0)], CLASSES).matched[0] == 0


def test_torchmetrics_agrees_where_there_are_no_crowds_and_everything_is_predicted():
    """It leaves true pixels without a predicted segment out of the union, unlike COCO's code."""
    functional = pytest.importorskip('torchmetrics.functional.detection')
    for seed in range(10):
        predicted, ours, true, theirs = random_case(seed, crowds=False)
        predicted, ours = np.where(predicted == 0, 50, predicted), [*ours, dict(id=50, label=0)]
        maps = []
        for ids, segments in ((predicted, ours), (true, theirs)):
            labels = {s['id']: s['label'] for s in segments}
            classes = np.vectorize(lambda i, known=labels: known.get(i, 99))(ids)
            maps.append(torch.from_numpy(np.stack([classes, ids], -1))[None])
        expected = functional.panoptic_quality(
            *maps,
            things=set(range(CLASSES)),
            stuffs=set(),
            allow_unknown_preds_category=True,
            return_sq_and_rq=True,
        )
        counts = panoptic_counts(predicted, ours, true, theirs, CLASSES)
        got = panoptic_quality(counts, np.ones(CLASSES, bool))
        assert [got[n] / 100 for n in ('PQ', 'SQ', 'RQ')] == pytest.approx(expected.tolist())


def test_bad_input_is_named():
    ids = np.array([[1, 2]])
    one = [dict(id=1, label=0)]
    with pytest.raises(ValueError, match=r'prediction: the id map has the ids \[1, 2\]'):
        panoptic_counts(ids, one, ids, one, CLASSES)
    with pytest.raises(ValueError, match=r'ground truth: labels \[7\] are none of the 4'):
        panoptic_counts(np.ones((1, 2)), one, np.ones((1, 2)), [dict(id=1, label=7)], CLASSES)
    with pytest.raises(ValueError, match='both must be of one size'):
        panoptic_counts(ids, one, np.ones((2, 2)), one, CLASSES)


def test_metric_merges_what_ranks_counted():
    metric = PanopticMetric()
    metric.dataset_meta = dict(classes=list('abcd'), things=THINGS, seen_classes=['a', 'd'])
    cases = [random_case(seed) for seed in range(4)]
    for predicted, ours, true, theirs in cases:
        data = [torch.from_numpy(x)[None] for x in (predicted, true)]
        sample = dict(
            pred_panoptic=dict(data=data[0]),
            gt_panoptic=dict(data=data[1]),
            pred_segments=ours,
            gt_segments=theirs,
        )
        metric.process(None, [sample])
    figures = metric.compute_metrics(metric.results)
    total = PanopticCounts(*sum(by_hand(*case) for case in cases))
    groups = dict(things=[1, 1, 0, 0], stuff=[0, 0, 1, 1], seen=[1, 0, 0, 1], unseen=[0, 1, 1, 0])
    for group, chosen in (('', [1, 1, 1, 1]), *groups.items()):
        suffix = f'_{group}' if group else ''
        expected = panoptic_quality(total, np.array(chosen, dtype=bool))
        for name, value in expected.items():
            assert figures[f'{name}{suffix}'] == pytest.approx(value, abs=0.006)
    with pytest.raises(ValueError, match='needs gt_panoptic'):
        metric.process(None, [dict(img_path='a.jpg')])
