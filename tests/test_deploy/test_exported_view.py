"""Exported programs equal the segmentor: any batch and, where text is an input, any words."""

from __future__ import annotations

import copy
import json

import numpy as np
import pytest
import torch
from mmengine.utils import digit_version
from PIL import Image

from infoclip_mmseg.deploy import export
from infoclip_mmseg.deploy.export import check_export, describe, export_program, save_pt2
from infoclip_mmseg.models.layers import chunks

WORDS = ['cat', 'dog', 'tall tree', 'sky', 'car']
OTHER = ['road', 'grass', 'boat', 'sand', 'wall']
MANY = [f'thing {i}' for i in range(12)]  # more than the head's pad_len

needs_export = pytest.mark.skipif(
    digit_version(torch.__version__) < digit_version(export.MIN_TORCH),
    reason=f'exporting needs PyTorch {export.MIN_TORCH} or newer',
)


def embeddings(model, words=None):
    if words is not None:
        model.set_vocabulary(words)
    with torch.no_grad():
        return model.backbone.embed_prompts(model.prompts)


def shared_program(small, bake: bool, words=WORDS):
    model = small()
    return model, export_program(model, embeddings(model, words), bake)


@pytest.fixture(scope='module')
def small(toy):
    """Builder of a model with few layers, so that a trace is short."""
    clip = copy.deepcopy(toy().backbone.model_name)
    clip['vision_cfg']['layers'] = 3
    backbone = dict(model_name=clip, out_blocks=(0, 1))
    return lambda **options: toy(
        backbone=backbone, decode_head=dict(num_layers=1, **options)
    ).eval()


@pytest.fixture(scope='module')
def baked(small):
    return shared_program(small, True)


@pytest.fixture(scope='module')
def open_text(small):
    return shared_program(small, False)


@needs_export
@pytest.mark.parametrize('batch', [1, 3])
def test_baked_program_equals_the_segmentor(baked, batch):
    model, program = baked
    images = torch.rand(batch, 3, 48, 48) * 255
    with torch.no_grad():
        got = program.module()(images)
    torch.testing.assert_close(got, model.segment(images, WORDS, 'whole'), rtol=0, atol=1e-5)


@needs_export
def test_the_text_tower_stays_out(baked):
    _, program = baked
    assert program.state_dict['text_embeddings'].shape == (5, 1, 32)
    names = ' '.join(program.state_dict)
    assert 'visual.' in names and 'decode_head.' in names
    assert not any(part in names for part in ('token_embedding', 'ln_final', 'text_projection'))


@needs_export
@pytest.mark.parametrize('words', [['cat'], WORDS[:3], OTHER, [*OTHER, 'lamp', 'door']])
def test_words_change_without_another_export(open_text, words):
    model, program = open_text
    images = torch.rand(2, 3, 48, 48) * 255
    with torch.no_grad():
        got = program.module()(images, embeddings(model, words))
    torch.testing.assert_close(got, model.segment(images, words, 'whole'), rtol=0, atol=1e-5)
    if len(words) == len(WORDS):
        assert not torch.allclose(got, model.segment(images, WORDS, 'whole'), atol=1e-2)


@needs_export
def test_a_vocabulary_beyond_those_that_the_head_decodes(small):
    model, program = shared_program(small, False, MANY)
    images = torch.rand(1, 3, 48, 48) * 255
    for words in (MANY[:9], [*MANY, *WORDS, *OTHER]):
        with torch.no_grad():
            got = program.module()(images, embeddings(model, words))
        expected = model.segment(images, words, 'whole')
        assert (expected == -100).any()
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@needs_export
def test_each_image_selects_its_classes(small):
    model = small(num_decoded=3)
    program = export_program(model, embeddings(model, WORDS), bake=False)
    images = torch.rand(2, 3, 48, 48) * 255
    for words in (WORDS[:4], [*MANY, *WORDS]):
        with torch.no_grad():
            got = program.module()(images, embeddings(model, words))
        expected = model.segment(images, words, 'whole')
        assert ((expected != -100).all((2, 3)).sum(1) == 3).all()
        torch.testing.assert_close(got, expected, rtol=0, atol=1e-5)


@needs_export
def test_export_leaves_the_model_as_it_was_and_the_graph_whole(small, baked, monkeypatch):
    model = small()
    model.set_vocabulary(WORDS)
    images = torch.rand(1, 3, 48, 48) * 255
    before = model.segment(images, mode='whole')
    monkeypatch.setattr(chunks, 'CPU_CHUNK', 1)
    program = export_program(model, embeddings(model))
    assert model.decode_head.class_chunk is None
    torch.testing.assert_close(model.segment(images, mode='whole'), before, rtol=0, atol=1e-5)
    assert len(program.graph.nodes) == len(baked[1].graph.nodes)


def test_old_versions_are_refused(small, monkeypatch):
    monkeypatch.setattr(export, 'MIN_TORCH', '99')
    model = small()
    with pytest.raises(ImportError, match='exporting needs PyTorch 99 or newer, this is'):
        export_program(model, embeddings(model, WORDS))


def test_class_range():
    assert export.class_range(5, 8) == (1, 7)
    assert export.class_range(8, 8) == (8, 8)
    assert export.class_range(9, 8) == (9, export.MAX_CLASSES)
    assert export.class_range(9, 0) == (1, export.MAX_CLASSES)
    assert export.class_range(5, 8, 3) == export.class_range(9, 8, 3) == (4, export.MAX_CLASSES)
    assert export.class_range(3, 8, 3) == export.class_range(2, 0, 3) == (1, 3)
    assert export.class_range(8, 8, 9) == (8, 8)
    assert export.class_range(9, 8, 9) == (9, 9)


@needs_export
def test_file_metadata_and_check(baked, ade_root, tmp_path):
    model, program = baked
    model.set_vocabulary(WORDS)
    path = tmp_path / 'model.pt2'
    save_pt2(program, path, describe(model, 'toy', True))
    extra = {'metadata.json': ''}
    torch.export.load(path, extra_files=extra)
    meta = json.loads(extra['metadata.json'])
    assert meta['classes'] == WORDS and meta['input_size'] == [48, 48] and meta['config'] == 'toy'
    assert meta['palette'] == model.dataset_meta['palette'] and len(meta['mean']) == 3

    files = sorted((ade_root / 'images/validation').glob('*.jpg'))
    images = [np.asarray(Image.open(file).convert('RGB')) for file in files]
    assert len(images) == 3
    found = check_export(path, model, images, None, batch_size=2)
    assert found.good() and found.equal == 1
    with torch.no_grad():
        model.decode_head.conv_seg.bias += 0.01
    try:
        found = check_export(path, model, images, None)
    finally:
        model.decode_head.conv_seg.bias.data -= 0.01
    assert not found.good() and found.difference == pytest.approx(0.01, abs=1e-3)
    model.set_vocabulary(OTHER)
    assert check_export(path, model, images, None).equal < 0.99


@needs_export
def test_what_has_no_fixed_size_or_several_words_a_class_is_refused(small):
    model = small()
    text = embeddings(model, WORDS)
    with pytest.raises(ValueError, match='5 words for 4 classes'):
        model.set_vocabulary(WORDS[:4])
        export_program(model, text)
    model.input_size = None
    with pytest.raises(ValueError, match=r'set model\.input_size'):
        export_program(model, text)
