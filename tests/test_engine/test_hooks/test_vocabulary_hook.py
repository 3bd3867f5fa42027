"""The vocabulary follows the data set being run."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from infoclip_mmseg.datasets.vocabularies import load_vocabulary
from infoclip_mmseg.engine import VocabularyHook
from infoclip_mmseg.engine.hooks.vocabulary import class_names
from infoclip_mmseg.utils.palette import make_palette


def test_validation_vocabulary_comes_and_goes(make_runner, toy_cfg, tmp_path):
    names = [f'name {i}' for i in range(150)]
    (tmp_path / 'names.txt').write_text('\n'.join(names))
    seen = []
    runner = make_runner(
        toy_cfg(),
        max_iters=2,
        custom_hooks=[
            dict(type='VocabularyHook', vocabularies=dict(val=str(tmp_path / 'names.txt')))
        ],
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=2, val_interval=1),
    )
    model = runner.model
    predict, loss = model.predict, model.loss
    model.predict = lambda *a: seen.append(('val', model.dataset_meta['classes'][0])) or predict(*a)
    model.loss = lambda *a: seen.append(('train', model.dataset_meta['classes'][0])) or loss(*a)
    runner.train()
    assert seen == [('train', 'wall'), *[('val', 'name 0')] * 3] * 2
    assert runner.visualizer.dataset_meta['classes'][0] == 'wall'


def test_wrong_number_of_names(make_runner, toy_cfg, tmp_path):
    path = tmp_path / 'names.json'
    path.write_text(json.dumps(['a', 'b']))
    hook = dict(type='VocabularyHook', vocabularies=dict(train=str(path)))
    with pytest.raises(ValueError, match='has 2 names, but ADE20KDataset has 150 classes'):
        make_runner(toy_cfg(), custom_hooks=[hook]).train()


def test_vocabulary_files(tmp_path):
    (tmp_path / 'a.txt').write_text('cat\n\n red car, automobile \n')
    assert load_vocabulary(tmp_path / 'a.txt') == ['cat', 'red car, automobile']
    (tmp_path / 'b.json').write_text('{"a": 1}')
    with pytest.raises(ValueError, match='JSON list of strings'):
        load_vocabulary(tmp_path / 'b.json')
    with pytest.raises(FileNotFoundError, match='c.txt'):
        load_vocabulary(tmp_path / 'c.txt')
    with pytest.raises(ValueError, match="got \\['training'\\]"):
        VocabularyHook(dict(training='a.txt'))


def test_palette_is_distinct_and_stable():
    palette = make_palette(171)
    assert len({tuple(colour) for colour in palette}) > 165
    assert palette[:20] == make_palette(20)
    assert all(0 <= value <= 255 for colour in palette for value in colour)


def sixteen_bit_set(folder):
    """Config of a data set with one image and the labels 0, 255 (a class) and 65535 (none)."""
    (folder / 'images').mkdir()
    (folder / 'labels').mkdir()
    Image.new('RGB', (90, 64)).save(folder / 'images/a.jpg')
    labels = np.zeros((64, 90), np.uint16)
    labels[:9], labels[9:20] = 255, 65535
    Image.fromarray(labels).save(folder / 'labels/a.tif')
    steps = ('LoadImageFromFile', 'LoadLabelMap', 'PackSegInputs')
    return dict(
        type='ADE20K847Dataset',
        data_root=str(folder),
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        pipeline=[dict(type=step) for step in steps],
    )


def test_the_ignored_value_follows_the_data_set(make_runner, toy_cfg, tmp_path):
    loader = dict(batch_size=1, num_workers=0, dataset=sixteen_bit_set(tmp_path))
    loader['sampler'] = dict(type='DefaultSampler', shuffle=False)
    seen = []
    runner = make_runner(
        toy_cfg(data_preprocessor=dict(seg_pad_val=254)),
        max_iters=1,
        custom_hooks=[dict(type='VocabularyHook')],
        val_dataloader=loader,
        val_evaluator=dict(type='IoUMetric', ignore_index=65535),
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=1, val_interval=1),
    )
    model = runner.model
    predict = model.predict

    def record(*arguments):
        seen.append((model.decode_head.ignore_index, model.data_preprocessor.seg_pad_val))
        return predict(*arguments)

    model.predict = record
    runner.train()
    assert seen == [(65535, 65535)]
    assert (model.decode_head.ignore_index, model.data_preprocessor.seg_pad_val) == (255, 254)


def test_names_to_ask_for_go_before_the_file_of_the_config(tmp_path):
    """A benchmark is asked for its own names, whatever the config's test set is asked for."""
    (tmp_path / 'names.txt').write_text('c\nd\n')
    meta = dict(classes=['a', 'b'], prompt_names=['a, x', 'b'])
    file = str(tmp_path / 'names.txt')
    assert class_names(SimpleNamespace(metainfo=meta), file)[0] == ['a, x', 'b']
    assert class_names(SimpleNamespace(metainfo=dict(classes='ab')), file)[0] == ['c', 'd']


def test_names_to_ask_for_are_not_for_training():
    dataset = SimpleNamespace(metainfo=dict(classes=['a', 'b'], prompt_names=['a', 'x', 'y']))
    assert class_names(dataset, None)[0] == ['a', 'x', 'y']
    dataset.metainfo['fold_from'] = 1
    runner = SimpleNamespace(train_dataloader=SimpleNamespace(dataset=dataset))
    with pytest.raises(ValueError, match='for evaluation only'):
        VocabularyHook().before_train(runner)
