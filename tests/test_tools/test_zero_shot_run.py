"""tools/test.py on a ClearCLIP config, with a CLIP of toy size on a miniature of VOC."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from miniatures import make_voc
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
_base_ = ['{root}/configs/clearclip/clearclip_vitb16_voc21.py']
model = dict(
    backbone=dict(
        model_name=dict(
            _delete_=True,
            embed_dim=32,
            quick_gelu=True,
            vision_cfg=dict(image_size=32, layers=3, width=64, head_width=32, patch_size=8),
            text_cfg=dict(context_length=77, vocab_size=49408, width=32, heads=2, layers=1),
        ),
        pretrained=None,
    ),
    templates=['a photo of a {{}}.', 'a {{}}'],
    test_cfg=dict(window=64, stride=32),
)
resize = dict(type='Resize', scale=(2048, 70), keep_ratio=True)
steps = _base_.test_pipeline
pipeline = [*steps[:2], resize, *steps[3:]]
test_dataloader = dict(num_workers=0, persistent_workers=False, dataset=dict(pipeline=pipeline))
"""


@pytest.fixture
def evaluate(tmp_path, monkeypatch):
    """Runs tools/test.py on the config with options; gives the predicted label maps."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    make_voc(tmp_path / 'data', 'mmseg')
    (tmp_path / 'tiny.py').write_text(CONFIG.format(root=ROOT))
    spec = importlib.util.spec_from_file_location('tool_test', ROOT / 'tools/test.py')
    tool = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(tool)

    def run(name, *options):
        tool.main(
            ['tiny.py', '--out', name, '--work-dir', f'work_{name}', '--cfg-options', *options]
        )
        (log,) = Path(f'work_{name}').glob('*/*.json')
        maps = [np.asarray(Image.open(path)) for path in sorted(Path(name).glob('*.png'))]
        return maps, json.loads(log.read_text().splitlines()[-1])

    return run


def test_voc21_without_a_checkpoint(evaluate):
    maps, figures = evaluate('none', 'model.decode_head.threshold=0')
    assert [label.shape for label in maps] == [(40, 56)] * 2
    assert max(label.max() for label in maps) <= 20
    assert 0 <= figures['mIoU'] <= 100
    pixels = np.concatenate([label.ravel() for label in maps])
    assert len(np.unique(pixels)) > 1
    # A random CLIP is never half sure of one of 21 classes: with the threshold all is background.
    maps, figures = evaluate('half', 'model.decode_head.scale=1')
    assert all((label == 0).all() for label in maps)


def test_synonyms_and_background_words_of_another_list(evaluate):
    list_of_sclip = 'custom_hooks.0.vocabularies.test=sclip_voc21'
    maps, figures = evaluate('words', list_of_sclip, 'test_dataloader.batch_size=2')
    assert [label.shape for label in maps] == [(40, 56)] * 2
    assert max(label.max() for label in maps) <= 20 and 0 <= figures['mIoU'] <= 100
