"""SeenUnseenIoUMetric against numbers worked out by hand and against IoUMetric."""

from __future__ import annotations

import json
import math
import multiprocessing

import numpy as np
import pytest
import torch
from mmengine.dist import get_rank
from mmengine.evaluator import Evaluator
from mmengine.logging import MMLogger
from mmseg.evaluation import IoUMetric
from mmseg.registry import METRICS
from torch import distributed

from infoclip_mmseg.evaluation import SeenUnseenIoUMetric
from infoclip_mmseg.evaluation.seen_unseen import find_seen, seen_unseen_figures

CLASSES = ('cat', 'dog', 'red car, automobile', 'tree', 'zebra')
# Ground truth and prediction of two images, 255 is ignored. Counted pixels by class:
#   cat    truth 4, predicted 3, both 3: IoU 3/4
#   dog    truth 2, predicted 3, both 2: IoU 2/3
#   car    truth 2, predicted 1, both 1: IoU 1/2
#   tree   truth 0, predicted 1:         IoU 0, or left out with absent='skip'
#   zebra  neither:                      IoU undefined
TRUTH = [[[0, 0, 0], [0, 1, 255]], [[1, 2, 2], [255, 255, 255]]]
PREDICTION = [[[0, 0, 0], [1, 1, 4]], [[1, 2, 3], [0, 0, 1]]]


def samples() -> list[dict]:
    return [
        dict(
            pred_sem_seg=dict(data=torch.tensor([predicted])),
            gt_sem_seg=dict(data=torch.tensor([truth])),
            img_path=f'{index}.png',
        )
        for index, (truth, predicted) in enumerate(zip(TRUTH, PREDICTION))
    ]


def evaluate(metric: IoUMetric, **meta) -> dict[str, float]:
    metric.dataset_meta = dict(classes=CLASSES, **meta)
    for sample in samples():
        metric.process({}, [sample])
    return metric.evaluate(size=2)


def test_figures_worked_out_by_hand():
    figures = evaluate(SeenUnseenIoUMetric(seen=['cat', 'dog']))
    seen, unseen = (3 / 4 + 2 / 3) / 2, (1 / 2 + 0) / 2
    assert figures['seen_mIoU'] == round(100 * seen, 2) == 70.83
    assert figures['unseen_mIoU'] == 25.0
    assert figures['harmonic'] == round(100 * 2 * seen * unseen / (seen + unseen), 2) == 36.96
    assert figures['mIoU'] == pytest.approx(100 * (3 / 4 + 2 / 3 + 1 / 2) / 4, abs=0.005)


def test_classes_without_ground_truth_are_left_out_on_request():
    figures = evaluate(SeenUnseenIoUMetric(seen=['cat', 'dog'], absent='skip'))
    assert figures['seen_mIoU'] == 70.83
    assert figures['unseen_mIoU'] == 50.0
    assert figures['harmonic'] == 58.62
    assert figures['mIoU'] == pytest.approx(100 * (3 / 4 + 2 / 3 + 1 / 2) / 3, abs=0.005)
    assert figures['aAcc'] == pytest.approx(100 * 6 / 8, abs=0.005)


@pytest.mark.parametrize('options', [{}, dict(iou_metrics=['mIoU', 'mFscore'], nan_to_num=0)])
def test_shared_figures_are_those_of_iou_metric(options):
    expected = evaluate(IoUMetric(**options))
    figures = evaluate(SeenUnseenIoUMetric(seen=['cat'], **options))
    assert {name: figures.pop(name) for name in expected} == pytest.approx(expected, abs=1e-4)
    assert figures.keys() == {'seen_mIoU', 'unseen_mIoU', 'harmonic'}


def test_nan_to_num_counts_undefined_classes():
    figures = evaluate(SeenUnseenIoUMetric(seen=['cat', 'dog'], nan_to_num=0))
    assert figures['unseen_mIoU'] == round(100 * (1 / 2) / 3, 2)


def test_the_registry_builds_it_with_a_vocabulary_file(tmp_path):
    path = tmp_path / 'seen.json'
    path.write_text(json.dumps(['cat, feline', 'dog', 'house']))
    evaluator = Evaluator([dict(type='SeenUnseenIoUMetric', seen=str(path), prefix='world')])
    evaluator.dataset_meta = dict(classes=CLASSES)
    evaluator.process(samples())
    figures = evaluator.evaluate(2)
    assert figures['world/seen_mIoU'] == 70.83
    assert isinstance(METRICS.build(dict(type='SeenUnseenIoUMetric')), IoUMetric)


def test_the_data_set_can_name_the_seen_classes():
    assert evaluate(SeenUnseenIoUMetric(), seen_classes=['cat', 'dog'])['seen_mIoU'] == 70.83
    own = SeenUnseenIoUMetric(seen=['red car'])
    assert evaluate(own, seen_classes=['cat', 'dog'])['seen_mIoU'] == 50.0


@pytest.mark.parametrize(
    ('seen', 'expected'),
    [
        (['cat', 'lion'], [1, 0, 0, 0]),
        (['red car'], [0, 0, 1, 0]),
        (['red car, automobile'], [0, 0, 1, 0]),
        (['red car, jeep', 'trees, tree', 'dog, hound'], [0, 1, 1, 0]),
    ],
)
def test_names_agree_as_a_whole_or_in_the_first_synonym(seen, expected):
    assert find_seen(CLASSES[:4], seen).tolist() == [bool(value) for value in expected]


@pytest.mark.parametrize('seen', [['Cat'], ['automobile'], ['house']])
def test_no_class_is_seen(seen):
    with pytest.raises(ValueError, match=r"none of the 5 classes \('cat', 'dog', .* `seen`"):
        SeenUnseenIoUMetric(seen=seen).dataset_meta = dict(classes=CLASSES)


def test_every_class_is_seen():
    with pytest.raises(ValueError, match='all 5 classes .* no unseen class; use IoUMetric'):
        SeenUnseenIoUMetric(seen=[*CLASSES, 'house']).dataset_meta = dict(classes=CLASSES)


def test_missing_names():
    with pytest.raises(ValueError, match='the data set has no seen classes.*seen_classes'):
        SeenUnseenIoUMetric().dataset_meta = dict(classes=CLASSES)
    with pytest.raises(ValueError, match='the data set has no class names'):
        SeenUnseenIoUMetric(seen=['cat']).dataset_meta = dict(seen_classes=['cat'])
    with pytest.raises(FileNotFoundError, match="'nothing.txt' does not exist"):
        SeenUnseenIoUMetric(seen='nothing.txt')
    with pytest.raises(ValueError, match='seen is empty'):
        SeenUnseenIoUMetric(seen=[])


def test_bad_options():
    with pytest.raises(ValueError, match=r"one of \('count', 'skip'\), got 'drop'"):
        SeenUnseenIoUMetric(absent='drop')
    with pytest.raises(ValueError, match='nan_to_num=0'):
        SeenUnseenIoUMetric(absent='skip', nan_to_num=0)


def test_means_over_no_class_and_over_zeros():
    seen = np.array([True, False])
    figures = seen_unseen_figures(np.array([0.5, np.nan]), seen)
    assert figures['seen_mIoU'] == 50.0
    assert math.isnan(figures['unseen_mIoU']) and math.isnan(figures['harmonic'])
    assert seen_unseen_figures(np.zeros(2), seen)['harmonic'] == 0.0


def test_the_printed_table_tells_seen_from_unseen(caplog, monkeypatch):
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'propagate', True)
    with caplog.at_level('INFO', logger=logger.name):
        logger.addHandler(caplog.handler)
        evaluate(SeenUnseenIoUMetric(seen=['cat', 'dog']))
        logger.removeHandler(caplog.handler)
    assert '|  seen  |  2 of 2 | 70.83 | cat, dog ' in caplog.text
    assert '| unseen |  2 of 3 |  25.0 | red car, automobile, tree, zebra |' in caplog.text


def test_format_only_writes_label_maps_and_no_figures(tmp_path):
    metric = SeenUnseenIoUMetric(seen=['cat'], format_only=True, output_dir=str(tmp_path))
    assert evaluate(metric) == {}
    assert {path.name for path in tmp_path.iterdir()} == {'0.png', '1.png'}


def _evaluate_one_image(rank: int, folder, results) -> None:
    distributed.init_process_group(
        'gloo', init_method=f'file://{folder}/rendezvous', rank=rank, world_size=2
    )
    metric = SeenUnseenIoUMetric(seen=['cat', 'dog'])
    metric.dataset_meta = dict(classes=CLASSES)
    metric.process({}, [samples()[get_rank()]])
    results.put(metric.evaluate(size=2))
    distributed.destroy_process_group()


def test_two_processes_give_the_figures_of_one(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # MMEngine exchanges the results through a folder
    context = multiprocessing.get_context('fork')
    results = context.Queue()
    processes = [
        context.Process(target=_evaluate_one_image, args=(rank, tmp_path, results))
        for rank in range(2)
    ]
    for process in processes:
        process.start()
    figures = [results.get(timeout=60) for _ in processes]
    for process in processes:
        process.join()
    assert figures[0] == figures[1] == evaluate(SeenUnseenIoUMetric(seen=['cat', 'dog']))
