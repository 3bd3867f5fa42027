"""A folder of images, a folder of label maps, a list of names."""

from __future__ import annotations

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS
from PIL import Image

from infoclip_mmseg.datasets import VocabularyDataset
from infoclip_mmseg.datasets.checks import check_dataloader_cfg

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadLabelMap'),
    dict(type='CheckInputs'),
    dict(type='PackSegInputs'),
]
PREFIX = dict(img_path='images', seg_map_path='labels')


@pytest.fixture
def root(tmp_path):
    """Three images of 6 x 8 pixels; label map i holds class i."""
    (tmp_path / 'images/sub').mkdir(parents=True)
    (tmp_path / 'labels/sub').mkdir(parents=True)
    for index, name in enumerate(('a', 'b', 'sub/c')):
        suffix = '.JPG' if name == 'b' else '.jpg'
        Image.new('RGB', (8, 6)).save(tmp_path / f'images/{name}{suffix}', 'JPEG')
        labels = np.full((6, 8), index, np.uint8)
        labels[0] = 255
        Image.fromarray(labels).save(tmp_path / f'labels/{name}.png')
    (tmp_path / 'classes.txt').write_text('sky\nroad, street\ngrass verge\n')
    return tmp_path


def build(root, **options):
    options = {'vocabulary': 'classes.txt', 'data_prefix': PREFIX, **options}
    return DATASETS.build(dict(type='VocabularyDataset', data_root=str(root), **options))


def labels_of(dataset, index=0):
    return dataset[index]['data_samples'].gt_sem_seg.data[0].numpy()


def test_folders_and_names_are_enough(root):
    dataset = build(root, pipeline=PIPELINE)
    assert dataset.metainfo['classes'] == ['sky', 'road, street', 'grass verge']
    assert dataset.metainfo['ignore_index'] == dataset.ignore_index == 255
    assert len(dataset.metainfo['palette']) == 3
    assert [np.unique(labels_of(dataset, i)).tolist() for i in range(3)] == [
        [0, 255],
        [1, 255],
        [2, 255],
    ]


def test_shipped_names_and_many_classes(root):
    assert len(build(root, vocabulary='pc59').metainfo['classes']) == 59
    dataset = build(root, vocabulary='pc459', pipeline=PIPELINE)
    assert dataset.ignore_index == dataset.metainfo['ignore_index'] == 65535
    assert 255 in labels_of(dataset)  # now a class


def test_words_for_the_background(root):
    (root / 'classes.txt').write_text('sky\nroad\ngrass\nhedge\n')
    meta = build(root, background_from=2).metainfo
    assert meta['classes'] == ['sky', 'road', 'background']
    assert meta['prompt_names'] == ['sky', 'road', 'grass', 'hedge']
    assert meta['fold_from'] == 2
    with pytest.raises(ValueError, match='background_from must be 1..3 for 4 names, got 4'):
        build(root, background_from=4)


def test_a_list_of_names_and_a_listing_by_label_maps(root):
    (root / 'val.txt').write_text('sub/c\na\n')
    dataset = build(root, ann_file='val.txt')
    names = [dataset.get_data_info(i)['img_path'] for i in range(2)]
    assert [name.rsplit('images/')[1] for name in names] == ['sub/c.jpg', 'a.jpg']
    (root / 'labels/a.png').unlink()
    assert len(build(root, listing='labels')) == 2


def test_labels_that_count_from_one(root):
    Image.fromarray(np.array([[0, 1, 3]], np.uint8)).save(root / 'labels/a.png')
    Image.new('RGB', (3, 1)).save(root / 'images/a.jpg')
    dataset = build(root, pipeline=PIPELINE, reduce_zero_label=True)
    assert labels_of(dataset).tolist() == [[255, 0, 2]]


def test_label_maps_beside_the_images(root):
    for path in (root / 'labels').rglob('*.png'):
        path.rename(root / 'images' / path.relative_to(root / 'labels').with_suffix('.labels.png'))
    options = dict(data_prefix=dict(img_path='images', seg_map_path='images'))
    assert len(build(root, seg_map_suffix='.labels.png', img_suffix='.jpg', **options)) == 3


def test_a_missing_label_map_or_image_is_named(root):
    (root / 'labels/b.png').unlink()
    with pytest.raises(FileNotFoundError, match=r'1 of 3 label maps.*not in .*labels: b\. '):
        build(root)
    (root / 'images/a.jpg').unlink()
    with pytest.raises(FileNotFoundError, match=r'1 of 2 images.*not in .*images: a\. '):
        build(root, listing='labels')


def test_swapped_folders_are_told(root):
    prefix = dict(img_path='labels', seg_map_path='images')
    with pytest.raises(FileNotFoundError, match='3 of 3 label maps'):
        build(root, data_prefix=prefix)
    with pytest.raises(ValueError, match=r'a.jpg holds RGB pixels'):
        build(
            root, data_prefix=prefix, img_suffix='.png', seg_map_suffix='.jpg', pipeline=PIPELINE
        )[0]


def test_a_label_map_of_another_size_is_told(root):
    Image.new('L', (6, 8)).save(root / 'labels/a.png')
    with pytest.raises(ValueError, match=r'a.png is 8 x 6 pixels .*a.jpg is 6 x 8'):
        build(root, pipeline=PIPELINE)[0]


def test_a_class_out_of_range_is_told(root):
    (root / 'classes.txt').write_text('sky\nroad\n')
    with pytest.raises(ValueError, match=r'c.png has the values 2 in 40 pixels.*the 2 classes'):
        build(root, pipeline=PIPELINE)[2]


def test_bad_options(root):
    with pytest.raises(ValueError, match="listing must be one of .*got 'files'"):
        build(root, listing='files')
    with pytest.raises(ValueError, match="outside must be one of .*got 'skip'"):
        build(root, outside='skip')
    with pytest.raises(ValueError, match='take `classes` out of metainfo'):
        build(root, metainfo=dict(classes=['a']))
    with pytest.raises(FileNotFoundError, match=r'names.txt.*lists that come with the package'):
        build(root, vocabulary='names.txt')
    with pytest.raises(FileNotFoundError, match='seg_map_path is no folder'):
        build(root, data_prefix=dict(img_path='images', seg_map_path='label'))
    with pytest.raises(ValueError, match='no file that ends in'):
        build(root, img_suffix='.bmp')
    Image.new('RGB', (8, 6)).save(root / 'images/a.png')
    with pytest.raises(ValueError, match='have the same name'):
        build(root)


def test_a_missing_vocabulary_is_found_before_anything_is_built(root):
    dataset = dict(
        type='VocabularyDataset',
        vocabulary='names.txt',
        data_root=str(root),
        data_prefix=PREFIX,
        img_suffix=['.jpg'],
    )
    with pytest.raises(FileNotFoundError, match=r"dataset.vocabulary='names.txt': no file"):
        check_dataloader_cfg(Config(dict(train_dataloader=dict(dataset=dataset))))
    check_dataloader_cfg(
        Config(dict(train_dataloader=dict(dataset={**dataset, 'vocabulary': 'voc20'})))
    )


def test_the_type_is_registered():
    assert DATASETS.get('VocabularyDataset') is VocabularyDataset
