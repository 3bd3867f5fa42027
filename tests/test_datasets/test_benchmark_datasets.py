"""Values that A-847 and COCO-Object refuse, and the two forms of COCO-Object."""

from __future__ import annotations

import numpy as np
import pytest
from mmseg.registry import DATASETS
from PIL import Image

PIPELINE = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadLabelMap'),
    dict(type='CheckInputs'),
    dict(type='PackSegInputs'),
]


def read(folder, values, **cfg):
    """Labels of a data set with one image whose label map holds these values."""
    values = np.asarray(values)
    (folder / 'images').mkdir()
    (folder / 'labels').mkdir()
    Image.new('RGB', values.shape[::-1]).save(folder / 'images/a.jpg')
    suffix = '.tif' if values.dtype == np.uint16 else '.png'
    Image.fromarray(values).save(folder / f'labels/a{suffix}')
    prefix = dict(img_path='images', seg_map_path='labels')
    dataset = DATASETS.build(
        dict(data_root=str(folder), data_prefix=prefix, pipeline=PIPELINE, **cfg)
    )
    return dataset, dataset[0]['data_samples'].gt_sem_seg.data[0].tolist()


def test_a_847_refuses_other_labels(tmp_path):
    with pytest.raises(ValueError, match='values 847, 1000 in 2 pixels'):
        read(tmp_path, np.array([[1000, 847, 1]], np.uint16), type='ADE20K847Dataset')


@pytest.mark.parametrize(
    ('suffix', 'options', 'values'),
    [
        ('_labelTrainIds', {}, [[0, 9, 79, 80, 170, 255]]),
        (
            '_instanceTrainIds',
            dict(label_map=None, seg_map_suffix='_instanceTrainIds.png'),
            [[1, 10, 80, 0, 0, 0]],
        ),
    ],
)
def test_coco_object(tmp_path, suffix, options, values):
    for folder in ('images', 'labels'):
        (tmp_path / folder).mkdir()
    Image.new('RGB', (6, 1)).save(tmp_path / 'images/a.jpg')
    label = Image.fromarray(np.array(values, np.uint8))
    label.save(tmp_path / f'labels/a{suffix}.png')
    label.save(tmp_path / 'labels/a.png')  # the original map lies beside the converted one
    dataset = DATASETS.build(
        dict(
            type='COCOObjectDataset',
            data_root=str(tmp_path),
            data_prefix=dict(img_path='images', seg_map_path='labels'),
            pipeline=PIPELINE,
            **options,
        )
    )
    assert len(dataset) == 1
    assert dataset[0]['data_samples'].gt_sem_seg.data[0].tolist() == [[1, 10, 80, 0, 0, 0]]
    assert len(dataset.metainfo['classes']) == 81
    assert dataset.metainfo['classes'][0] == 'background'


def test_coco_object_refuses_other_labels(tmp_path):
    with pytest.raises(ValueError, match='value'):
        read(
            tmp_path,
            np.array([[0, 171]], np.uint8),
            type='COCOObjectDataset',
            seg_map_suffix='.png',
        )
