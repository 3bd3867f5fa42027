"""Panoptic data sets: id maps and segments in COCO's format, through a model to the metric."""

from __future__ import annotations

import json

import convnext
import numpy as np
import pytest
from mmengine.dataset import Compose
from mmseg.registry import DATASETS
from PIL import Image

from infoclip_mmseg.datasets.panoptic import number_segments, read_id_map

CATEGORIES = [
    dict(id=1, name='cat', isthing=1),
    dict(id=7, name='wall', isthing=0),
    dict(id=9, name='sky', isthing=0),
]
LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadPanoptic')]
PACK = dict(type='PackPanopticInputs')


@pytest.fixture
def root(tmp_path):
    """Two images of another size each; ids beyond one byte; a crowd; pixels without a segment."""
    (tmp_path / 'images').mkdir()
    (tmp_path / 'panoptic').mkdir()
    images, annotations = [], []
    for index, (height, width) in enumerate([(96, 128), (80, 150)]):
        rng = np.random.default_rng(index)
        pixels = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f'images/{index}.jpg')
        ids = np.zeros((height, width), dtype=np.int64)
        ids[:40], ids[40:, :50], ids[40:, 50:90], ids[40:, 90:100] = 300, 70000, 5, 8
        colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
        Image.fromarray(colours).save(tmp_path / f'panoptic/{index}.png')
        segments = [
            dict(id=300, category_id=7, iscrowd=0),
            dict(id=70000, category_id=1, iscrowd=0),
            dict(id=5, category_id=1, iscrowd=0),
            dict(id=8, category_id=1, iscrowd=1),
        ]
        images.append(dict(id=index, file_name=f'{index}.jpg', height=height, width=width))
        annotations.append(dict(image_id=index, file_name=f'{index}.png', segments_info=segments))
    content = dict(images=images, annotations=annotations, categories=CATEGORIES)
    (tmp_path / 'panoptic.json').write_text(json.dumps(content))
    return tmp_path


def config(root, pipeline, **changes) -> dict:
    prefix = dict(img_path='images', seg_map_path='panoptic')
    dataset = dict(type='PanopticDataset', ann_file='panoptic.json', data_root=str(root))
    return {**dataset, 'data_prefix': prefix, 'pipeline': pipeline, **changes}


def test_samples(root):
    dataset = DATASETS.build(config(root, [*LOAD, PACK]))
    assert len(dataset) == 2 and dataset.metainfo['classes'] == ['cat', 'wall', 'sky']
    assert dataset.metainfo['things'] == [0]
    sample = dataset[0]['data_samples']
    ids, labels = sample.gt_panoptic.data[0], sample.gt_sem_seg.data[0]
    assert [ids[0, 0], ids[50, 0], ids[50, 60], ids[50, 95], ids[50, 120]] == [1, 2, 3, 4, 0]
    assert [labels[0, 0], labels[50, 0], labels[50, 95], labels[50, 120]] == [1, 0, 255, 255]
    segments = [(s['id'], s['label'], s['is_thing'], s['iscrowd']) for s in sample.gt_segments]
    assert segments == [
        (1, 1, False, False),
        (2, 0, True, False),
        (3, 0, True, False),
        (4, 0, True, True),
    ]


def test_categories_in_another_order(root):
    dataset = DATASETS.build(config(root, [*LOAD, PACK], categories=[9, 7, 1]))
    assert dataset.metainfo['classes'] == ['sky', 'wall', 'cat']
    assert dataset.metainfo['things'] == [2]
    assert dataset[0]['data_samples'].gt_segments[1]['label'] == 2


def test_geometry_moves_ids_and_labels_alike(root):
    steps = [
        dict(type='Resize', scale=(75, 60), keep_ratio=True),
        dict(type='RandomFlip', prob=1.0),
        dict(type='RandomCrop', crop_size=(32, 32)),
    ]
    sample = DATASETS.build(config(root, [*LOAD, *steps, PACK]))[1]['data_samples']
    ids, labels = sample.gt_panoptic.data[0], sample.gt_sem_seg.data[0]
    assert ids.shape == labels.shape == (32, 32)
    left = {s['id']: s for s in sample.gt_segments}
    assert set(ids.unique().tolist()) - {0} == left.keys()
    for index, segment in left.items():
        expected = 255 if segment['iscrowd'] else segment['label']
        assert labels[ids == index].eq(expected).all()


def test_bad_files_are_named(root):
    with pytest.raises(FileNotFoundError, match="panoptic annotations '.*none.json' do not exist"):
        DATASETS.build(config(root, [], ann_file='none.json'))
    content = json.loads((root / 'panoptic.json').read_text())
    (root / 'boxes.json').write_text(json.dumps({**content, 'annotations': [dict(bbox=[])]}))
    with pytest.raises(
        ValueError, match='no file of panoptic annotations: it has no segments_info'
    ):
        DATASETS.build(config(root, [], ann_file='boxes.json'))
    with pytest.raises(ValueError, match='segment 300 is of category 7, which is none of the 2'):
        DATASETS.build(config(root, [], categories=[1, 9]))
    with pytest.raises(ValueError, match=r'has 2 ids without an entry in the JSON file \(5, 300\)'):
        number_segments(np.array([[300, 5, 0, 8]]), [dict(id=8)])
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(root / 'grey.png')
    with pytest.raises(ValueError, match='picture of mode L; expected RGB'):
        read_id_map(root / 'grey.png')
    assert Compose(LOAD)


def test_things_that_are_no_class(root):
    with pytest.raises(ValueError, match=r'metainfo.things 3, -1 are no class; .* 0..2'):
        DATASETS.build(config(root, [], metainfo=dict(things=[0, 3, -1])))
    with pytest.raises(ValueError, match='metainfo.classes has 2 names for 3 categories'):
        DATASETS.build(config(root, [], metainfo=dict(classes=['cat', 'wall'])))
    dataset = DATASETS.build(config(root, [], metainfo=dict(things=[2])))
    infos = dataset.get_data_info(0)['gt_segments']
    assert dataset.metainfo['things'] == [2] and not any(s['is_thing'] for s in infos)


def test_an_id_of_a_file_without_an_entry_names_the_file(root):
    """Loading stops where the maps are those of another JSON file."""
    content = json.loads((root / 'panoptic.json').read_text())
    segments = content['annotations'][1]['segments_info']
    del segments[1]
    (root / 'panoptic.json').write_text(json.dumps(content))
    dataset = DATASETS.build(config(root, [*LOAD, PACK]))
    assert dataset[0]['data_samples'].gt_panoptic.data.max() == 4
    words = r'id map .*panoptic/1.png has 1 ids without an entry in the JSON file \(70000\)'
    with pytest.raises(ValueError, match=words):
        dataset[1]


def test_crowds_and_pixels_without_a_segment_have_no_label(root):
    sample = DATASETS.build(config(root, [*LOAD, PACK]))[0]['data_samples']
    ids, labels = sample.gt_panoptic.data[0], sample.gt_sem_seg.data[0]
    crowds = [s['id'] for s in sample.gt_segments if s['iscrowd']]
    assert ((labels == 255) == ((ids == 0) | (ids == crowds[0]))).all()


@pytest.mark.parametrize('batch_size', [1, 2])
def test_training_and_panoptic_quality(root, make_runner, toy_cfg, batch_size):
    """Images of different sizes through training, prediction at their own sizes, and the metric."""
    model = toy_cfg(**convnext.mask_config(test_cfg=dict(mode='whole', panoptic=True)))
    model['decode_head'] = dict(convnext.MASKS, score=0.0, overlap=0.0)
    model['data_preprocessor'] = dict(
        type='OpenVocabDataPreProcessor',
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size_divisor=32,
    )
    loader = dict(num_workers=0, persistent_workers=False, batch_size=batch_size)
    shuffle = dict(type='InfiniteSampler', shuffle=True)
    data = config(root, [*LOAD, PACK])
    test = dict(**loader, dataset=data, sampler=dict(type='DefaultSampler', shuffle=False))
    runner = make_runner(
        model,
        max_iters=2,
        train_dataloader=dict(**loader, dataset=data, sampler=shuffle),
        val_dataloader=test,
        test_dataloader=test,
        val_evaluator=dict(type='PanopticMetric'),
        test_evaluator=dict(type='PanopticMetric'),
        custom_hooks=[dict(type='VocabularyHook'), dict(type='NonFiniteLossHook')],
    )
    runner.train()
    figures = runner.test()
    expected = {f'{n}{s}' for n in ('PQ', 'SQ', 'RQ') for s in ('', '_things', '_stuff')}
    assert figures.keys() >= expected
    assert runner.model.vocabulary.meta['things'] == [0]
