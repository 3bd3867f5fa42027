"""Label maps of 8 and 16 bits, and the rules that turn them into classes."""

from __future__ import annotations

import io

import numpy as np
import pytest
from mmseg.datasets.transforms import LoadAnnotations
from mmseg.registry import TRANSFORMS
from PIL import Image

from infoclip_mmseg.datasets.label_maps import LabelRule, apply_label_rule, decode_label_map

ADE847 = LabelRule(num_classes=847, ignore_index=65535)
PC459 = LabelRule(num_classes=459, ignore_index=65535, outside='ignore')


def save(path, values, mode=None):
    Image.fromarray(np.asarray(values)).save(path)
    return path


def load(path, **results):
    step = TRANSFORMS.build(dict(type='LoadLabelMap'))
    return step(dict(seg_map_path=str(path), img_path='a.jpg', **results))['gt_seg_map']


@pytest.mark.parametrize('suffix', ['.tif', '.png'])
def test_sixteen_bits_survive(tmp_path, suffix):
    values = np.array([[0, 255, 256], [300, 846, 65535]], np.uint16)
    labels = load(save(tmp_path / f'a{suffix}', values), label_rule=tuple(ADE847))
    assert labels.dtype == np.uint16
    assert np.array_equal(labels, values)


def test_class_255_is_not_ignored_in_sixteen_bits():
    values = np.array([[255, 65535]], np.uint16)
    assert apply_label_rule(values, ADE847).tolist() == [[255, 65535]]


def test_everything_outside_of_pc459_is_ignored():
    values = np.array([[0, 255, 458], [459, 460, 65535]], np.uint16)
    assert apply_label_rule(values, PC459).tolist() == [[0, 255, 458], [65535] * 3]


def test_zero_label_and_label_map():
    values = np.array([[0, 1, 20, 255]], np.uint8)
    labels = apply_label_rule(values, LabelRule(20, 255, reduce_zero_label=True))
    assert labels.dtype == np.uint8
    assert labels.tolist() == [[255, 0, 19, 255]]
    background = tuple({0: 20, **{k + 1: k for k in range(20)}}.items())
    labels = apply_label_rule(values, LabelRule(21, 255, label_map=background))
    assert labels.tolist() == [[20, 0, 19, 255]]


@pytest.mark.parametrize(
    ('rule', 'value', 'expected'),
    [
        (ADE847, 847, 'values 847 in 1 pixels.*847 classes .expected 0..846, 65535 for no label'),
        (LabelRule(20, 255, True), 21, 'values 21 in 1 pixels.*expected 1..20, 255'),
        (LabelRule(19, 255), 254, 'expected 0..18'),
        (LabelRule(2, 255, label_map=((0, 1), (7, 0))), 3, 'expected 0..7'),
    ],
)
def test_a_value_that_is_no_class(rule, value, expected):
    with pytest.raises(ValueError, match=expected):
        apply_label_rule(np.array([[value, rule.ignore_index]], np.uint16), rule, 'b.png')


@pytest.mark.parametrize(
    'options', [{}, dict(reduce_zero_label=True), dict(label_map={0: 3, 1: 0, 2: 255, 255: 255})]
)
def test_mmseg_data_sets_load_as_with_its_own_step(tmp_path, options):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    path = save(tmp_path / 'a.png', values)
    results = dict(reduce_zero_label=False, seg_fields=[], seg_map_path=str(path), **{})
    results.update(options)
    expected = LoadAnnotations()(dict(results))['gt_seg_map']
    labels = load(path, **options)
    assert labels.dtype == expected.dtype == np.uint8
    assert np.array_equal(labels, expected)


def test_palette_and_bilevel_images_give_their_indices(tmp_path):
    image = Image.fromarray(np.array([[0, 1, 2]], np.uint8), mode='P')
    image.putpalette([9, 9, 9, 200, 0, 0, 0, 200, 0])
    image.save(tmp_path / 'p.png')
    assert load(tmp_path / 'p.png').tolist() == [[0, 1, 2]]
    Image.fromarray(np.array([[0, 1]], bool)).save(tmp_path / 'b.png')
    assert load(tmp_path / 'b.png').tolist() == [[0, 1]]


def test_a_photo_in_the_place_of_a_label_map(tmp_path):
    save(tmp_path / 'a.jpg', np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(ValueError, match=r'a.jpg holds RGB pixels of shape \(4, 5, 3\)'):
        load(tmp_path / 'a.jpg')
    save(tmp_path / 'f.tif', np.zeros((4, 5), np.float32))
    with pytest.raises(ValueError, match='holds F pixels.*expected one channel of integers'):
        load(tmp_path / 'f.tif')


def test_thirty_two_bits_must_fit_in_sixteen(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(np.array([[1, 70000]], np.int32)).save(buffer, 'TIFF')
    with pytest.raises(ValueError, match='values from 1 to 70000; expected 0..65535'):
        decode_label_map(buffer.getvalue())
    buffer = io.BytesIO()
    Image.fromarray(np.array([[1, 300]], np.int32)).save(buffer, 'TIFF')
    assert decode_label_map(buffer.getvalue()).tolist() == [[1, 300]]


@pytest.mark.parametrize('suffix', ['.png', '.tif'])
def test_truncated_and_missing_files_are_named(tmp_path, suffix):
    rng = np.random.default_rng(0)
    path = save(tmp_path / f'a{suffix}', rng.integers(0, 60000, (50, 50)).astype(np.uint16))
    path.write_bytes(path.read_bytes()[:2000])
    with pytest.raises(ValueError, match=f'a{suffix} can not be read'):
        load(path)
    with pytest.raises(FileNotFoundError, match='b.png of image a.jpg does not exist'):
        load(tmp_path / 'b.png')
    load_map = TRANSFORMS.build(dict(type='LoadLabelMap'))
    with pytest.raises(ValueError, match='image a.jpg has no label map'):
        load_map(dict(img_path='a.jpg', reduce_zero_label=False))
    alone = dict(img_path='a.jpg')  # of no data set, as MMSegInferencer's
    assert load_map(alone) == {'img_path': 'a.jpg'}
