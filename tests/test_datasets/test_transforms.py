import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from mmengine.dataset import Compose
from mmseg.utils import register_all_modules
from PIL import Image

from infoclip_mmseg.datasets.checks import CheckInputs, check_image_file, has_end_marker

DATA = Path(__file__).parents[1] / 'data' / 'ade'
NAME = 'ADE_val_00000001'

register_all_modules(init_default_scope=True)


@pytest.fixture
def sample(tmp_path):
    """A real image and its label map, as a dataset hands them to a pipeline."""
    image, label = tmp_path / f'{NAME}.jpg', tmp_path / f'{NAME}.png'
    shutil.copy(DATA / 'images' / 'validation' / image.name, image)
    shutil.copy(DATA / 'annotations' / 'validation' / label.name, label)
    return dict(
        img_path=str(image),
        seg_map_path=str(label),
        reduce_zero_label=True,
        label_map=None,
        seg_fields=[],
    )


FIRST = [dict(type='CheckInputs'), dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
TRAIN = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations'), dict(type='CheckInputs')]
TEST = [
    dict(type='LoadImageFromFile'),
    dict(type='Resize', scale=(64, 48)),
    dict(type='LoadAnnotations'),
    dict(type='CheckInputs'),
]
PIPELINES = pytest.mark.parametrize(
    'pipeline', [FIRST, TRAIN, TEST], ids=['first', 'train', 'test']
)


def cut(path, share):
    data = Path(path).read_bytes()
    Path(path).write_bytes(data[: int(len(data) * share)])


@PIPELINES
def test_good_input_passes_unchanged(pipeline, sample):
    results = Compose(pipeline)(sample)
    assert results['gt_seg_map'].shape == results['ori_shape'] == (512, 683)


def test_every_real_image_passes():
    for image in (DATA / 'images' / 'validation').iterdir():
        label = DATA / 'annotations' / 'validation' / f'{image.stem}.png'
        results = dict(img_path=str(image), seg_map_path=str(label))
        assert CheckInputs()(dict(results)) == results


@PIPELINES
def test_label_of_another_size(pipeline, sample):
    with Image.open(sample['seg_map_path']) as label:
        label.resize((683, 500), Image.NEAREST).save(sample['seg_map_path'])
    with pytest.raises(ValueError) as error:
        Compose(pipeline)(sample)
    text = str(error.value)
    assert sample['img_path'] in text and sample['seg_map_path'] in text
    assert '500 x 683' in text and '512 x 683' in text and 'seg_map_suffix' in text


@pytest.mark.parametrize('share', [0.02, 0.5, 0.99])
def test_truncated_jpeg(share, sample):
    cut(sample['img_path'], share)
    with pytest.raises(ValueError) as error:
        Compose(FIRST)(sample)
    assert 'image ' + sample['img_path'] in str(error.value)
    assert 'truncated' in str(error.value) and 'again' in str(error.value)


def test_truncated_jpeg_that_was_loaded_as_half_grey(sample):
    cut(sample['img_path'], 0.5)
    sample['img'] = np.zeros((512, 683, 3), np.uint8)
    with pytest.raises(ValueError, match='truncated'):
        CheckInputs()(sample)


def test_truncated_label(sample):
    cut(sample['seg_map_path'], 0.5)
    with pytest.raises(ValueError, match=f'label map .*{NAME}.png is truncated'):
        Compose(FIRST)(sample)


@pytest.mark.parametrize(
    ('content', 'message'), [(b'', 'empty'), (b'<html>404</html>', 'not readable')]
)
@pytest.mark.parametrize('key', ['img_path', 'seg_map_path'])
def test_empty_and_foreign_files(content, message, key, sample):
    Path(sample[key]).write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        Compose(FIRST)(sample)
    assert sample[key] in str(error.value)


@pytest.mark.parametrize('trailer', [b'\0' * 7, b'camera data', b'\xff' * 100])
def test_trailing_bytes_are_no_truncation(trailer, sample):
    for key in ('img_path', 'seg_map_path'):
        with open(sample[key], 'ab') as file:
            file.write(trailer)
    assert Compose(FIRST)(sample)['img_path'] == sample['img_path']


def test_a_complete_file_is_not_decoded(sample, monkeypatch):
    def fail(self):
        raise AssertionError('decoded')

    monkeypatch.setattr('PIL.ImageFile.ImageFile.load', fail)
    assert check_image_file(sample['img_path']) == (512, 683)
    assert check_image_file(sample['seg_map_path'], 'label map') == (512, 683)


def test_has_end_marker(sample, tmp_path):
    assert has_end_marker(sample['img_path']) is True
    assert has_end_marker(sample['seg_map_path']) is True
    cut(sample['img_path'], 0.5)
    assert has_end_marker(sample['img_path']) is False
    (tmp_path / 'a.bmp').write_bytes(b'BM')
    assert has_end_marker(tmp_path / 'a.bmp') is None


def test_rotation_by_exif_counts_for_the_image(tmp_path):
    image, label = tmp_path / 'a.jpg', tmp_path / 'a.png'
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new('RGB', (30, 20)).save(image, exif=exif)
    Image.new('L', (20, 30)).save(label)
    sample = dict(
        img_path=str(image), seg_map_path=str(label), reduce_zero_label=False, seg_fields=[]
    )
    results = Compose(FIRST)(dict(sample))
    assert results['gt_seg_map'].shape == results['ori_shape'] == (30, 20)
    Image.new('L', (30, 20)).save(label)
    with pytest.raises(ValueError, match='20 x 30'):
        Compose(FIRST)(dict(sample))


def test_label_with_colours(sample):
    Image.new('RGB', (683, 512)).save(sample['seg_map_path'])
    with pytest.raises(ValueError, match=r'shape \(512, 683, 3\)'):
        Compose(TRAIN)({**sample, 'reduce_zero_label': False})


def test_formats_that_pillow_does_not_know_are_left_to_the_loader(tmp_path):
    path = tmp_path / 'a.npy'
    np.save(path, np.zeros(3))
    assert check_image_file(path) is None
    CheckInputs()(dict(img_path=str(path)))


@pytest.mark.parametrize('path', [None, 's3://bucket/a.jpg', 'https://host/a.jpg', 'gone.jpg'])
def test_no_local_file_is_no_error(path):
    results = dict(img=np.zeros((4, 5, 3)), img_path=path, ori_shape=(4, 5))
    assert CheckInputs()(results) is results
    CheckInputs()({**results, 'gt_seg_map': np.zeros((4, 5), np.uint8)})
    with pytest.raises(ValueError, match='5 x 4'):
        CheckInputs()({**results, 'gt_seg_map': np.zeros((5, 4), np.uint8)})


def test_path_objects(sample):
    CheckInputs()(dict(img_path=Path(sample['img_path'])))
    cut(sample['img_path'], 0.5)
    with pytest.raises(ValueError, match=os.path.basename(sample['img_path'])):
        CheckInputs()(dict(img_path=Path(sample['img_path'])))
