"""Predictions go back into the numbers and the folders of a data set's own files."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmseg.registry import DATASETS
from PIL import Image

from infoclip_mmseg.datasets.label_maps import (
    FileNumbering,
    LabelRule,
    apply_label_rule,
    file_values,
    numberings_of,
    place_of,
)
from infoclip_mmseg.engine import VocabularyHook
from infoclip_mmseg.evaluation import OpenVocabIoUMetric, SeenUnseenIoUMetric

RULES = {
    'plain': (LabelRule(), 5, [0, 1, 2, 3, 4]),
    'from 1': (LabelRule(reduce_zero_label=True), 3, [1, 2, 3]),
    'masks': (LabelRule(label_map=((0, 0), (255, 1))), 2, [0, 255]),
    'subset': (LabelRule(label_map=((0, 255), (1, 1), (2, 255), (3, 0))), 2, [3, 1]),
    'subset from 1': (
        LabelRule(reduce_zero_label=True, label_map=((0, 255), (1, 1), (2, 0))),
        2,
        [3, 2],
    ),
    '16 bits': (LabelRule(ignore_index=65535), 300, list(range(300))),
    '255 from 1': (LabelRule(reduce_zero_label=True, ignore_index=65535), 255, [*range(1, 256)]),
}


@pytest.mark.parametrize('name', RULES)
def test_both_directions(name):
    rule, num_classes, expected = RULES[name]
    values = file_values(rule, num_classes)
    assert values.tolist() == expected
    files = values.astype(np.uint16)[None]
    back = apply_label_rule(files, rule._replace(num_classes=num_classes))
    assert back.tolist() == [list(range(num_classes))]


def test_the_last_of_255_classes_from_1_is_not_no_label(tmp_path):
    with pytest.raises(ValueError, match=r'can mean class 254.*ignore_index=65535'):
        file_values(LabelRule(reduce_zero_label=True), 255)
    with pytest.raises(ValueError, match='can mean class 255'):
        file_values(LabelRule(), 256)
    (tmp_path / 'names.txt').write_text('\n'.join(f'name {i}' for i in range(255)))
    config = dict(type='VocabularyDataset', vocabulary='names.txt', data_root=str(tmp_path))
    config.update(reduce_zero_label=True, lazy_init=True)
    assert DATASETS.build(config).label_rule.ignore_index == 65535
    with pytest.raises(ValueError, match='can mean class 254'):
        DATASETS.build({**config, 'ignore_index': 255})


def write_set(folder, name: str, values: list[int], size=(4, 3)) -> dict:
    """A data set whose images lie in folders below its own, with equal names."""
    for index, part in enumerate(('a', 'b')):
        for kind in ('images', 'labels'):
            (folder / name / kind / part).mkdir(parents=True)
        labels = np.full(size, values[index % len(values)], np.uint8)
        Image.fromarray(labels).save(folder / name / 'labels' / part / '0001.png')
        Image.new('RGB', size[::-1]).save(folder / name / 'images' / part / '0001.png')
    (folder / 'names.txt').write_text('background\ncrack\n')
    return dict(
        type='VocabularyDataset',
        vocabulary='../names.txt',
        data_root=str(folder / name),
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        test_mode=True,
        pipeline=[dict(type='LoadLabelMap')],
    )


def run(dataset, metric, predictions):
    """Hand predictions over as a test loop does."""
    metric.dataset_meta = dataset.metainfo
    loader = SimpleNamespace(dataset=dataset)
    evaluator = SimpleNamespace(metrics=[metric])
    model = SimpleNamespace(set_vocabulary=lambda *a: None, dataset_meta={})
    runner = SimpleNamespace(
        model=model,
        test_dataloader=loader,
        test_loop=SimpleNamespace(evaluator=evaluator),
        visualizer=SimpleNamespace(),
        logger=SimpleNamespace(info=lambda text: None),
    )
    VocabularyHook().before_test(runner)
    for index, prediction in enumerate(predictions):
        maps = dict(data=torch.as_tensor(prediction)[None])
        image = dataset.get_data_info(index)['img_path']
        metric.process({}, [dict(pred_sem_seg=maps, img_path=image)])


@pytest.mark.parametrize('metric', [OpenVocabIoUMetric, SeenUnseenIoUMetric])
def test_folders_of_a_data_set_stay_apart_and_masks_stay_masks(tmp_path, metric):
    config = write_set(tmp_path, 'set', [0, 255])
    dataset = DATASETS.build({**config, 'label_map': {0: 0, 255: 1}})
    options = dict(seen=['crack']) if metric is SeenUnseenIoUMetric else {}
    metric = metric(format_only=True, output_dir=str(tmp_path / 'out'), **options)
    predictions = [np.zeros((4, 3), np.int64), np.ones((4, 3), np.int64)]
    run(dataset, metric, predictions)
    for part, value in (('a', 0), ('b', 255)):
        written = np.array(Image.open(tmp_path / 'out' / part / '0001.png'))
        assert written.dtype == np.uint8 and (written == value).all()
        original = np.array(Image.open(tmp_path / 'set/labels' / part / '0001.png'))
        assert (written == original).all()


def test_joined_data_sets_each_keep_their_own(tmp_path):
    masks = {**write_set(tmp_path, 'masks', [0, 255]), 'label_map': {0: 0, 255: 1}}
    plain = write_set(tmp_path, 'plain', [0, 1])
    dataset = DATASETS.build(dict(type='ConcatDataset', datasets=[masks, plain]))
    metric = OpenVocabIoUMetric(format_only=True, output_dir=str(tmp_path / 'out'))
    run(dataset, metric, [np.ones((4, 3), np.int64)] * 4)
    written = {
        str(path.relative_to(tmp_path / 'out')): int(np.array(Image.open(path)).max())
        for path in (tmp_path / 'out').rglob('*.png')
    }
    assert written == {
        'masks/images/a/0001.png': 255,
        'masks/images/b/0001.png': 255,
        'plain/images/a/0001.png': 1,
        'plain/images/b/0001.png': 1,
    }


def test_a_class_subset_of_mmsegs_data_set(tmp_path):
    (tmp_path / 'images').mkdir()
    Image.new('RGB', (3, 4)).save(tmp_path / 'images/x.jpg')
    dataset = DATASETS.build(
        dict(
            type='ADE20KDataset',
            metainfo=dict(classes=('tree', 'wall')),
            data_root=str(tmp_path),
            data_prefix=dict(img_path='images', seg_map_path='labels'),
            reduce_zero_label=True,
            test_mode=True,
        )
    )
    (numbering,) = numberings_of(dataset)
    assert file_values(numbering.rule, 2).tolist() == [5, 1]  # as in ADE20K's files
    metric = OpenVocabIoUMetric(format_only=True, output_dir=str(tmp_path / 'out'))
    run(dataset, metric, [np.array([[0, 1]])])
    assert np.array(Image.open(tmp_path / 'out/x.png')).tolist() == [[5, 1]]


def test_wrappers_are_looked_through(tmp_path):
    config = write_set(tmp_path, 'set', [0])
    dataset = DATASETS.build(dict(type='RepeatDataset', dataset=config, times=2))
    (numbering,) = numberings_of(dataset)
    assert numbering.folder == str(tmp_path / 'set' / 'images')
    assert numberings_of(SimpleNamespace()) == [FileNumbering('', LabelRule())]


def test_without_folders_equal_names_are_refused(tmp_path):
    metric = OpenVocabIoUMetric(format_only=True, output_dir=str(tmp_path))
    metric.dataset_meta = dict(classes=['a', 'b'])
    maps = dict(data=torch.zeros(1, 2, 2, dtype=torch.long))
    metric.process({}, [dict(pred_sem_seg=maps, img_path='images/a/1.png')])
    with pytest.raises(ValueError, match=r'images/a/1\.png and images/b/1\.png would both'):
        metric.process({}, [dict(pred_sem_seg=maps, img_path='images/b/1.png')])


def test_images_of_nowhere_go_by_their_name():
    numberings = [FileNumbering('/data/images', LabelRule(reduce_zero_label=True))]
    place, rule = place_of('s3://bucket/a/b.jpg', numberings)
    assert str(place) == 'b' and rule.reduce_zero_label


def test_no_label_maps_for_predictions_alone(tmp_path):
    config = write_set(tmp_path, 'set', [0])
    config['data_prefix'] = dict(img_path='images')
    dataset = DATASETS.build(config)
    assert 'gt_seg_map' not in dataset[0] and dataset[1]['seg_map_path'] is None
    metric = OpenVocabIoUMetric(format_only=True, output_dir=str(tmp_path / 'out'))
    run(dataset, metric, [np.zeros((4, 3), np.int64)] * 2)
    assert metric.evaluate(size=2) == {}
    with pytest.raises(ValueError, match='there is no ground truth .* format_only=True'):
        run(dataset, OpenVocabIoUMetric(), [np.zeros((4, 3), np.int64)])
    for change in (dict(test_mode=False), dict(listing='labels')):
        with pytest.raises(ValueError, match=r'set data_prefix\.seg_map_path'):
            DATASETS.build({**config, **change})


def test_a_list_of_images_with_a_byte_order_mark(tmp_path):
    config = write_set(tmp_path, 'set', [0])
    (tmp_path / 'set/list.txt').write_text('\ufeffa/0001\nb/0001\n', encoding='utf-8')
    dataset = DATASETS.build({**config, 'ann_file': 'list.txt'})
    assert [dataset.get_data_info(i)['img_path'][-10:] for i in range(2)] == [
        'a/0001.png',
        'b/0001.png',
    ]
