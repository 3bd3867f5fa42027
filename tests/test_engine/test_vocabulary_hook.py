"""The vocabulary follows the data set being run."""

from __future__ import annotations

import json

import pytest

from infoclip_mmseg.datasets.vocabularies import load_vocabulary, make_palette
from infoclip_mmseg.engine import VocabularyHook


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
