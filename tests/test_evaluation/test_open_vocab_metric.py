"""OpenVocabIoUMetric against confusion matrices that NumPy builds, and against IoUMetric."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmseg.evaluation import IoUMetric
from PIL import Image

from infoclip_mmseg.evaluation import OpenVocabIoUMetric
from infoclip_mmseg.evaluation.open_vocab_metric import Areas, frequency_weighted_iou, total_areas


def sample(prediction, truth, **extra):
    return dict(
        pred_sem_seg=dict(data=torch.as_tensor(np.asarray(prediction, np.int64))[None]),
        gt_sem_seg=dict(data=torch.as_tensor(np.asarray(truth, np.int64))[None]),
        img_path='folder/a.jpg',
        **extra,
    )


def evaluate(metric, pairs, classes, **meta):
    metric.dataset_meta = dict(classes=[f'class {i}' for i in range(classes)], **meta)
    for prediction, truth in pairs:
        metric.process({}, [sample(prediction, truth)])
    return metric.evaluate(size=len(pairs))


def reference(pairs, classes, ignored, fold=None):
    """Both mIoU, fwIoU, mAcc and aAcc in percent, from one confusion matrix (truth, prediction)."""
    matrix = np.zeros((classes, classes), np.int64)
    for prediction, truth in pairs:
        prediction, truth = np.asarray(prediction), np.asarray(truth)
        if fold is not None:
            prediction = np.where(prediction > fold, fold, prediction)
        for t, p in zip(truth[truth != ignored], prediction[truth != ignored]):
            matrix[t, p] += 1
    right, true, predicted = matrix.diagonal(), matrix.sum(axis=1), matrix.sum(axis=0)
    union = true + predicted - right
    counted, present = union > 0, true > 0
    iou = np.zeros(classes)
    iou[counted] = right[counted] / union[counted]
    return dict(
        mIoU=100 * iou[counted].sum() / counted.sum(),
        mIoU_present=100 * iou[present].sum() / present.sum(),
        fwIoU=100 * (iou * true).sum() / true.sum(),
        mAcc=100 * (right[present] / true[present]).mean(),
        aAcc=100 * right.sum() / true.sum(),
    )


def draw(seed, classes, ignored, size=(40, 50), images=4):
    """Pairs in which some classes are absent from the truth and some of these are predicted."""
    rng = np.random.default_rng(seed)
    kept = rng.permutation(classes)[: max(2, classes * 2 // 3)]
    pairs = []
    for _ in range(images):
        truth = rng.choice(kept, size)
        prediction = np.where(rng.random(size) < 0.6, truth, rng.integers(0, classes, size))
        pairs.append((prediction, np.where(rng.random(size) < 0.1, ignored, truth)))
    return pairs


@pytest.mark.parametrize(('classes', 'ignored'), [(847, 65535), (459, 65535), (20, 255)])
def test_figures_agree_with_a_confusion_matrix(classes, ignored):
    pairs = draw(classes, classes, ignored)
    figures = evaluate(OpenVocabIoUMetric(), pairs, classes, ignore_index=ignored)
    expected = reference(pairs, classes, ignored)
    assert figures.keys() == expected.keys()
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, abs=0.0051), name
    if classes > 20:
        assert figures['mIoU_present'] > figures['mIoU'] + 1


def test_shared_figures_are_those_of_iou_metric():
    pairs = draw(1, 20, 255)
    expected = evaluate(IoUMetric(), pairs, 20)
    figures = evaluate(OpenVocabIoUMetric(), pairs, 20)
    assert {name: figures[name] for name in expected} == pytest.approx(expected)


def test_class_255_counts_and_65535_does_not():
    truth = [[255, 255, 65535, 0]]
    figures = evaluate(OpenVocabIoUMetric(), [([[255, 0, 3, 0]], truth)], 847, ignore_index=65535)
    assert figures['aAcc'] == pytest.approx(66.67)
    assert figures['mIoU_present'] == 50.0


def test_predictions_from_twenty_up_are_background():
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 21, (30, 40))
    prediction = np.where(rng.random(truth.shape) < 0.5, truth, rng.integers(0, 59, truth.shape))
    pairs = [(prediction, truth)]
    figures = evaluate(OpenVocabIoUMetric(), pairs, 21, fold_from=20)
    expected = reference(pairs, 21, 255, fold=20)
    assert figures == pytest.approx(expected, abs=0.0051)
    assert evaluate(OpenVocabIoUMetric(fold_from=20), pairs, 21) == figures


def test_bad_values_name_the_image():
    metric = OpenVocabIoUMetric()
    with pytest.raises(ValueError, match=r'a.jpg: the prediction has values from 1 to 58, but'):
        evaluate(metric, [([[1, 58]], [[1, 2]])], 21)
    with pytest.raises(ValueError, match=r'a.jpg: the ground truth has values from 1 to 65535'):
        evaluate(metric, [([[1, 2]], [[1, 65535]])], 21)
    with pytest.raises(ValueError, match='of the same size'):
        evaluate(metric, [([[1, 2]], [[1, 2, 3]])], 21)


def test_the_table_names_both_conventions(caplog, monkeypatch):
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'propagate', True)
    with caplog.at_level('INFO', logger=logger.name):
        logger.addHandler(caplog.handler)
        evaluate(OpenVocabIoUMetric(), [([[0, 1, 2]], [[0, 0, 2]])], 4)
        logger.removeHandler(caplog.handler)
    assert '|     mIoU     | 50.00 | predicted classes that are absent' in caplog.text
    assert '| mIoU_present | 75.00 | classes that are absent' in caplog.text
    assert '2 in the ground truth, 1 only predicted' in caplog.text


@pytest.mark.parametrize(('classes', 'mode', 'reduce'), [(847, 'I', False), (150, 'L', True)])
def test_label_maps_are_written_without_loss(tmp_path, classes, mode, reduce):
    metric = OpenVocabIoUMetric(format_only=True, output_dir=str(tmp_path))
    metric.dataset_meta = dict(classes=['a'] * classes)
    metric.process({}, [sample([[0, classes - 1]], [[0, 0]], reduce_zero_label=reduce)])
    image = Image.open(tmp_path / 'a.png')
    assert image.mode.startswith(mode)  # older versions of Pillow: 'I'
    assert np.array(image).tolist() == [[int(reduce), classes - 1 + int(reduce)]]
    assert metric.evaluate(size=1) == {}


def test_large_counts_are_exact():
    one = torch.tensor([1])
    large = torch.tensor([2**24])
    total = total_areas([Areas(large, large, large, large), Areas(one, one, one, one)])
    assert int(total.truth) == 2**24 + 1
    zero = torch.zeros(3)
    assert np.isnan(frequency_weighted_iou(Areas(zero, zero, zero, zero)))


def test_the_registry_builds_it_with_a_prefix():
    evaluator = Evaluator([dict(type='OpenVocabIoUMetric', prefix='voc20')])
    evaluator.dataset_meta = dict(classes=['a', 'b'])
    evaluator.process([sample([[0, 1]], [[0, 1]])])
    assert evaluator.evaluate(1)['voc20/mIoU_present'] == 100.0
