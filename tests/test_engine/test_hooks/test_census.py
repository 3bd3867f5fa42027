"""What the log says of the classes that no pixel has, and of pixels without a label."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.dataset import ConcatDataset, RepeatDataset
from mmengine.structures import PixelData
from mmseg.datasets import BaseSegDataset
from mmseg.structures import SegDataSample
from PIL import Image

from infoclip_mmseg.engine.hooks import vocabulary
from infoclip_mmseg.engine.hooks.census import LabelCensus, looks_wrong
from infoclip_mmseg.engine.hooks.vocabulary import VocabularyHook, check_same_classes, members

REMEDY = 'VocabularyDataset(label_map={0: 0, 255: 1})'
STEPS = ('LoadImageFromFile', 'LoadLabelMap', 'CheckInputs', 'PackSegInputs')


def census_of(*maps, classes=('wall', 'cat'), ignore_index=255, limit=100):
    census = LabelCensus(classes, ignore_index, limit)
    for labels in maps:
        census.update(torch.as_tensor(labels))
    return census


def test_pixels_are_counted_by_class():
    maps = [[0, 2, 2, 255]], torch.tensor([[-1], [7], [0]]), np.array([[1]], np.uint8)
    census = census_of(*maps, classes='abc', limit=2)
    assert census.counts.tolist() == [2, 0, 2, 3, 2]
    level, text = census.report()
    assert text.startswith(
        "42.9 % of the pixels have no label, 1 of 3 classes have no pixel (1 'b')"
    )
    assert level == logging.WARNING and REMEDY in text and 'reduce_zero_label=False' in text


def test_a_class_can_be_the_ignored_value():
    census = census_of([[0, 0, 1, 2]], classes='abc', ignore_index=0)
    assert census.counts.tolist() == [0, 1, 1, 2, 1]


def test_nothing_to_warn_of():
    assert census_of([[0, 1, 255, 1]]).report() == (
        logging.INFO,
        '25 % of the pixels have no label, each of the 2 classes has pixels',
    )
    level, text = census_of([[0, 0]]).report()  # none was lost
    assert (level, text) == (
        logging.INFO,
        "0 % of the pixels have no label, 1 of 2 classes have no pixel (1 'cat')",
    )
    assert census_of([[255]]).report()[0] == logging.WARNING


@pytest.mark.parametrize(
    'absent, num_classes, share, wrong',
    [
        ([1], 2, 0.001, True),  # masks of 0 and 255, a small object
        ([1], 2, 0.9, True),
        ([4], 5, 0.1, True),  # labels from 0 that reduce_zero_label has shifted
        ([18], 19, 0.3, True),
        ([846], 847, 0.05, True),
        ([5, 9, 20], 21, 0.7, True),  # the same in a small set, background ignored
        (range(1, 20), 20, 0.2, True),  # masks of 0 and 255 with a long list
        ([18], 19, 0.0, False),
        ([], 2, 0.9, False),
        (range(300, 847), 847, 0.08, False),  # many of its classes are rare
        ([7, 12], 19, 0.1, False),  # a hundred crops of a set with rare classes
        ([3, 8], 20, 0.75, False),  # PAS-20: background ignored
        ([40, 100, 170], 171, 0.06, False),
    ],
)
def test_which_classes_may_have_lost_their_pixels(absent, num_classes, share, wrong):
    assert looks_wrong(list(absent), num_classes, share) is wrong


def write_masks(folder, values=(0, 255)):
    """Four images whose label maps hold the first value, and the second in a quarter."""
    for kind in ('images', 'labels'):
        (folder / kind).mkdir()
    for index in range(4):
        noise = np.random.default_rng(index).integers(0, 256, (48, 48, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f'images/{index}.png')
        labels = np.full((48, 48), values[0], np.uint8)
        labels[:24, :24] = values[1]
        Image.fromarray(labels).save(folder / f'labels/{index}.png')
    (folder / 'classes.txt').write_text('background\ncat\n')


def run(make_runner, toy_cfg, folder, monkeypatch, wrap=None, **options):
    """Two iterations, a validation and a test; what was logged about labels, and the figures."""
    dataset = dict(
        type='VocabularyDataset',
        data_root=str(folder),
        vocabulary='classes.txt',
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        pipeline=[dict(type=step) for step in STEPS],
        **options,
    )
    loader = dict(num_workers=0, dataset=wrap(dataset) if wrap else dataset)
    once = dict(**loader, batch_size=1, sampler=dict(type='DefaultSampler', shuffle=False))
    runner = make_runner(
        toy_cfg(),
        work_dir=folder / 'work',
        train_dataloader=dict(**loader, batch_size=2, sampler=dict(type='InfiniteSampler')),
        val_dataloader=once,
        test_dataloader=once,
        val_evaluator=dict(type='OpenVocabIoUMetric'),
        test_evaluator=dict(type='OpenVocabIoUMetric'),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2),
    )
    said = []
    monkeypatch.setattr(runner.logger, 'log', lambda *line: said.append(line))
    runner.train()
    figures = runner.test()
    return [line for line in said if line[1].startswith('labels of')], figures


def test_masks_of_0_and_255_end_to_end(make_runner, toy_cfg, tmp_path, monkeypatch):
    write_masks(tmp_path)
    said, _ = run(make_runner, toy_cfg, tmp_path, monkeypatch)
    assert [level for level, _ in said] == [logging.WARNING] * 3
    for (_, text), loop in zip(said, ('val', 'train', 'test')):
        start = f'labels of 4 images for {loop}: 25 % of the pixels have no label, 1 of 2 classes'
        assert text.startswith(f"{start} have no pixel (1 'cat'). ") and REMEDY in text


def test_the_remedy_end_to_end(make_runner, toy_cfg, tmp_path, monkeypatch):
    write_masks(tmp_path)
    said, figures = run(
        make_runner,
        toy_cfg,
        tmp_path,
        monkeypatch,
        wrap=lambda dataset: dict(type='RepeatDataset', times=2, dataset=dataset),
        label_map={0: 0, 255: 1},
    )
    fine = '0 % of the pixels have no label, each of the 2 classes has pixels'
    images = dict(val=8, train=4, test=8)
    expected = [f'labels of {count} images for {loop}: {fine}' for loop, count in images.items()]
    assert said == [(logging.INFO, text) for text in expected]
    assert figures['mIoU'] == figures['mIoU_present']


def test_labels_shifted_by_mistake_end_to_end(make_runner, toy_cfg, tmp_path, monkeypatch):
    write_masks(tmp_path, (0, 1))
    said, _ = run(make_runner, toy_cfg, tmp_path, monkeypatch, reduce_zero_label=True)
    assert [level for level, _ in said] == [logging.WARNING] * 3
    lost = "75 % of the pixels have no label, 1 of 2 classes have no pixel (1 'cat')"
    assert all(lost in text and 'reduce_zero_label=False' in text for _, text in said)


class Labels(list):
    """Data set of samples with label maps."""

    metainfo = dict(classes=['a', 'b', 'rest'], prompt_names=list('abcd'), fold_from=2)


class FakeRunner:
    """A runner with a model that takes any vocabulary, and a log."""

    def __init__(self, dataset):
        self.test_dataloader = SimpleNamespace(dataset=dataset)
        self.model = SimpleNamespace(set_vocabulary=lambda *_: None, dataset_meta={})
        self.visualizer, self.said = SimpleNamespace(), []
        self.logger = SimpleNamespace(info=print, log=lambda *line: self.said.append(line))


def sample(labels=None):
    item = SegDataSample()
    if labels is not None:
        item.gt_sem_seg = PixelData(data=torch.tensor(labels)[None])
    return item


def test_labels_are_of_classes_and_processes_are_summed(monkeypatch):
    monkeypatch.setattr(vocabulary, 'get_rank', lambda: 1)
    monkeypatch.setattr(vocabulary, 'get_world_size', lambda: 2)
    monkeypatch.setattr(vocabulary, 'all_reduce', lambda counts: counts.add_(torch.arange(5)))
    samples = Labels([sample([[0, 255]]), sample([[2, 0]]), sample([[1, 1]])])
    runner, hook = FakeRunner(samples), VocabularyHook()
    hook.before_test(runner)
    hook.after_test_iter(runner, 0, None, [samples[1]])
    hook.after_test_iter(runner, 1, None, [samples[0]])  # again, to have as many as process 0
    hook.after_test(runner)
    # [1, 0, 1, 0, 1] + [0, 1, 2, 3, 4]
    fine = 'each of the 3 classes has pixels'
    text = f'labels of 5 images for test: 37.5 % of the pixels have no label, {fine}'
    assert runner.said == [(logging.INFO, text)]


def test_nothing_is_said_of_images_without_label_maps():
    runner, hook = FakeRunner(Labels([sample()])), VocabularyHook()
    hook.before_test(runner)
    hook.after_test_iter(runner, 0, None, [sample()])
    hook.after_test(runner)
    assert runner.said == []


def empty_set(classes, root='data'):
    return BaseSegDataset(
        metainfo=dict(classes=classes) if classes else None,
        data_root=root,
        lazy_init=True,
        ann_file='a',
    )


def joined(*lists):
    sets = [empty_set(names, f'data/{index}') for index, names in enumerate(lists)]
    return ConcatDataset(sets, lazy_init=True, ignore_keys=['classes', 'palette'])


def test_joined_data_sets_have_one_list():
    nested = SimpleNamespace(dataset=joined(['a', 'b'], ('a', 'b'), None), metainfo={})
    assert len(list(members(nested))) == 3
    check_same_classes(nested)
    repeated = RepeatDataset(empty_set(['a', 'b']), 2, lazy_init=True)
    assert list(members(repeated)) == [repeated.dataset]
    named = SimpleNamespace(dataset='ade', metainfo=dict(classes=['a', 'b']))
    assert list(members(named)) == [named]


@pytest.mark.parametrize('loop', ['train', 'val', 'test'])
def test_joined_data_sets_with_other_lists_are_refused(loop):
    dataset = SimpleNamespace(dataset=joined(['a', 'b'], ['b', 'a', 'c']), metainfo={})
    runner = SimpleNamespace(**{f'{loop}_dataloader': SimpleNamespace(dataset=dataset)})
    expected = (
        r'BaseSegDataset in data/0 has 2 \(a, b\), BaseSegDataset in data/1 has 3 \(b, a, c\); '
        r"they differ in 0: 'a' and 'b', 1: 'b' and 'a', 2: None and 'c'\. .*label_map="
    )
    with pytest.raises(ValueError, match=expected):
        getattr(VocabularyHook(), f'before_{loop}')(runner)
