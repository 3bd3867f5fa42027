"""MMSegInferencer hands its words to the visualizer alone; that is said, and mending it works."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.apis import MMSegInferencer

WORDS, COLOURS = ['cat', 'dog'], [[1, 2, 3], [40, 50, 60]]


def inferencer(model, **options):
    cfg = Config(
        dict(
            model=model,
            test_dataloader=dict(dataset=dict(pipeline=PIPELINE)),
            test_pipeline=PIPELINE,
            visualizer=dict(type='OpenVocabVisualizer'),
            default_scope='mmseg',
        )
    )
    return MMSegInferencer(cfg, device='cpu', show_progress=False, **options)


PIPELINE = [dict(type='LoadImageFromFile'), dict(type='PackSegInputs')]


def test_words_of_the_inferencer_are_not_the_models(toy_cfg):
    with pytest.warns(UserWarning, match=r"\['cat', 'dog'\].*set_vocabulary") as caught:
        mmseg = inferencer(toy_cfg(), classes=WORDS, palette=COLOURS)
    assert mmseg.model.dataset_meta['classes'] != tuple(WORDS)
    assert len([w for w in caught if 'set_vocabulary' in str(w.message)]) == 1
    mmseg.model.set_vocabulary(WORDS, COLOURS)
    image = np.random.default_rng(0).integers(0, 256, (48, 56, 3), dtype=np.uint8)
    with warnings.catch_warnings(record=True) as later:
        warnings.simplefilter('always')
        result = mmseg(image, return_vis=True)
    assert not [w for w in later if 'set_vocabulary' in str(w.message)]
    assert set(np.unique(result['predictions'])) <= {0, 1}
    assert mmseg.visualizer.dataset_meta['classes'] == tuple(WORDS)


def test_no_words_no_warning(toy_cfg):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        inferencer(toy_cfg())
    assert not [w for w in caught if 'set_vocabulary' in str(w.message)]
