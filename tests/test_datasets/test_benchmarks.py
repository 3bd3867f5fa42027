"""The table of benchmarks: both layouts are found and give equal labels."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from miniatures import SIX, make_all
from mmseg.registry import DATASETS

from infoclip_mmseg.datasets.benchmarks import (
    BENCHMARKS,
    describe_absence,
    find_layout,
    select_benchmarks,
)
from infoclip_mmseg.datasets.loaders import (
    make_dataloader_cfg,
    make_dataset_cfg,
    with_label_loader,
)

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='CheckInputs'),
    dict(type='PackSegInputs'),
]
VALUES = dict(
    ade847=(847, 65535), pc459=(459, 65535), ade150=(150, 255), pc59=(59, 255), voc20=(20, 255)
)
VALUES['voc20b'] = (21, 255)


@pytest.fixture(scope='module')
def roots(tmp_path_factory, ade_root):
    """Folder of all six miniatures, by layout."""
    folder = tmp_path_factory.mktemp('data')
    return {name: make_all(folder / name, name, ade_root) for name in ('mmseg', 'detectron2')}


def labels_of(key, root):
    """Label map of each image by its name."""
    layout = find_layout(BENCHMARKS[key], root)
    dataset = DATASETS.build(make_dataset_cfg(layout, root, PIPELINE))
    samples = [dataset[index]['data_samples'] for index in range(len(dataset))]
    return {s.img_path.rsplit('/')[-1]: s.gt_sem_seg.data[0].numpy() for s in samples}


@pytest.mark.parametrize('key', SIX)
def test_both_layouts_give_equal_labels(roots, key):
    ours, theirs = (labels_of(key, root) for root in roots.values())
    assert ours.keys() == theirs.keys()
    assert len(ours) == (3 if key == 'ade150' else 2)
    classes, ignored = VALUES[key]
    for name, labels in ours.items():
        assert np.array_equal(labels, theirs[name])
        assert labels[labels != ignored].max() < classes
        assert (labels == ignored).any()
    if key == 'ade847':
        assert [int(value) for value in ours['ADE_val_00000000.jpg'][0, :4]] == [255, 300, 846, 0]
    if key in ('voc20', 'voc20b'):
        assert any((labels == 20).any() for labels in ours.values()) is (key == 'voc20b')


def test_the_table_is_the_papers():
    six = list(BENCHMARKS.values())[:6]  # others follow
    assert [b.key for b in six] == ['ade847', 'pc459', 'ade150', 'pc59', 'voc20', 'voc20b']
    assert [b.title for b in six] == [
        'A-847',
        'PC-459',
        'A-150',
        'PC-59',
        'PAS-20',
        'PAS-20b',
    ]
    assert [b.num_images for b in six] == [2000, 5104, 2000, 5104, 1449, 1449]


def test_only_the_folders_that_are_there_are_found(tmp_path, roots):
    root = tmp_path / 'data'
    shutil.copytree(roots['detectron2'], root)
    shutil.rmtree(root / 'VOCdevkit/VOC2012/annotations_detectron2')
    assert find_layout(BENCHMARKS['voc20'], root) is None
    assert find_layout(BENCHMARKS['voc20b'], root).labels == 'annotations_detectron2_bg/val'
    text = describe_absence(BENCHMARKS['voc20'], root)
    assert text.startswith('PAS-20 not found')
    for part in ('SegmentationClass', 'annotations_detectron2/val'):
        assert str(root / 'VOCdevkit/VOC2012' / part) in text


def test_an_empty_folder_of_label_maps_is_no_layout(tmp_path):
    folder = tmp_path / 'ADEChallengeData2016'
    (folder / 'images/validation').mkdir(parents=True)
    (folder / 'annotations/validation').mkdir(parents=True)
    assert find_layout(BENCHMARKS['ade150'], tmp_path) is None


def test_label_maps_beside_their_split_folder(tmp_path, roots):
    root = tmp_path / 'data'
    shutil.copytree(roots['detectron2'], root)
    folder = root / 'VOCdevkit/VOC2012/annotations_detectron2'
    for path in (folder / 'val').iterdir():
        path.rename(folder / path.name)
    (folder / 'val').rmdir()
    assert find_layout(BENCHMARKS['voc20'], root).labels == 'annotations_detectron2'
    expected = labels_of('voc20', roots['detectron2'])
    assert all(np.array_equal(v, expected[k]) for k, v in labels_of('voc20', root).items())


def test_keys():
    assert [b.key for b in select_benchmarks('all')] == list(BENCHMARKS)
    wanted = ['all', 'ade150-panoptic']
    assert [b.key for b in select_benchmarks(wanted)] == [*BENCHMARKS, 'ade150-panoptic']
    assert [b.key for b in select_benchmarks(['voc20', 'ade150,pc59'])] == [
        'ade150',
        'pc59',
        'voc20',
    ]
    for keys in (['voc21'], [], '', ['ade150', 'x']):
        with pytest.raises(ValueError, match='expected all, or some of ade847, pc459'):
            select_benchmarks(keys)


def test_the_loader_takes_over_all_but_the_data_set(roots):
    layout = find_layout(BENCHMARKS['voc20'], roots['mmseg'])
    template = dict(batch_size=7, num_workers=3, sampler=dict(type='X'), dataset=dict(type='Y'))
    loader = make_dataloader_cfg(layout, roots['mmseg'], PIPELINE, template)
    assert (loader['batch_size'], loader['num_workers'], loader['sampler']['type']) == (7, 3, 'X')
    assert loader['dataset']['type'] == 'PascalVOC20Dataset'
    assert make_dataloader_cfg(layout, 'data', PIPELINE)['batch_size'] == 1


def test_nested_pipelines_get_the_sixteen_bit_loader():
    sizes = [dict(type='Resize', scale=(8, 6))]
    steps = [dict(type='TestTimeAug', transforms=[[dict(type='LoadAnnotations')], sizes])]
    assert with_label_loader(steps) == [
        dict(type='TestTimeAug', transforms=[[dict(type='LoadLabelMap')], sizes])
    ]


def test_steps_that_load_and_pack_follow_the_data_set():
    """A config of either kind evaluates on benchmarks of both."""
    resize = dict(type='Resize', scale=(8, 6))
    keys = ('img_path', 'ori_shape')
    labels = [dict(type='LoadLabelMap'), resize, dict(type='PackSegInputs', meta_keys=keys)]
    segments = [dict(type='LoadPanoptic'), resize, dict(type='PackPanopticInputs', meta_keys=keys)]
    assert with_label_loader(labels, panoptic=True) == segments
    assert with_label_loader(segments) == with_label_loader(labels) == labels
    annotations = [dict(type='LoadAnnotations', reduce_zero_label=True)]
    assert with_label_loader(annotations, panoptic=True) == [dict(type='LoadPanoptic')]
