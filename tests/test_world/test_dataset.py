import numpy as np
import pytest
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

from infoclip_mmseg.world import ComposedWorldDataset, export_world
from infoclip_mmseg.world.attributes import distractor_names

LOAD = [dict(type='LoadImageFromFile'), dict(type='LoadAnnotations')]
PACK = [*LOAD, dict(type='PackSegInputs')]


def build(**options):
    options = dict(length=6, split='val', pipeline=PACK, **options)
    return DATASETS.build(dict(type='ComposedWorldDataset', **options))


def test_items_are_what_other_data_sets_give():
    dataset = build()
    item = dataset[3]
    scene = dataset.scene(3)
    assert item['inputs'].shape == (3, 64, 64)
    rgb = item['inputs'].flip(0).permute(1, 2, 0).numpy()
    assert np.array_equal(rgb, scene.image)
    assert np.array_equal(item['data_samples'].gt_sem_seg.data[0].numpy(), scene.labels)
    assert item['data_samples'].ori_shape == (64, 64)
    assert item['data_samples'].img_path == 'world/val/000003.png'
    assert np.array_equal(dataset[3]['inputs'], item['inputs'])
    assert len(dataset) == 6 and len(build(indices=2)) == 2


def test_metainfo_of_the_class_is_that_of_the_default_world():
    assert {key: build().metainfo[key] for key in ComposedWorldDataset.METAINFO} == (
        ComposedWorldDataset.METAINFO
    )


def test_three_evaluation_sets():
    joint, many, shifted = (
        build(),
        build(vocabulary='distractors', num_distractors=150),
        build(domain='shifted'),
    )
    assert len(joint.metainfo['classes']) == 30 == len(shifted.metainfo['classes'])
    assert len(many.metainfo['classes']) == len(many.metainfo['palette']) == 180
    assert many.metainfo['classes'][30:] == distractor_names(many.spec, 150)
    first = [dataset.get_data_info(0) for dataset in (joint, many, shifted)]
    assert np.array_equal(first[0]['img'], first[1]['img'])
    assert np.array_equal(first[0]['gt_seg_map'], first[1]['gt_seg_map'])
    assert not np.array_equal(first[0]['img'], first[2]['img'])


def test_training_sees_the_seen_classes_only():
    dataset = build(objects='seen', vocabulary='seen')
    seen = dataset.metainfo['seen_classes']
    assert dataset.metainfo['classes'] == seen and len(seen) == 18
    for index in range(6):
        info, scene = dataset.get_data_info(index), dataset.scene(index)
        assert info['gt_seg_map'].max() < len(seen)
        names = np.array(dataset.spec.classes)[scene.labels]
        assert np.array_equal(np.array(seen)[info['gt_seg_map']], names)


def test_classes_outside_of_the_vocabulary_are_ignored():
    dataset = build(vocabulary='seen')
    labels = np.stack([dataset.get_data_info(index)['gt_seg_map'] for index in range(6)])
    scenes = np.stack([dataset.scene(index).labels for index in range(6)])
    unseen = [n not in dataset.metainfo['seen_classes'] for n in dataset.spec.classes]
    assert np.array_equal(labels == 255, np.array(unseen)[scenes])
    assert (labels == 255).any()


def test_exported_files_read_the_same(tmp_path):
    dataset = build(size=(32, 48))
    folder = export_world(dataset, tmp_path / 'world')
    classes = (folder / 'classes.txt').read_text().splitlines()
    assert tuple(classes) == dataset.metainfo['classes']
    files = BaseSegDataset(
        data_root=str(folder),
        data_prefix=dict(img_path='images/val', seg_map_path='annotations/val'),
        img_suffix='.png',
        metainfo=dict(classes=classes),
        pipeline=PACK,
    )
    assert len(files) == len(dataset)
    for ours, theirs in zip(dataset, files):
        assert np.array_equal(ours['inputs'], theirs['inputs'])
        expected, got = (item['data_samples'].gt_sem_seg.data for item in (ours, theirs))
        assert np.array_equal(expected, got)


@pytest.mark.parametrize(
    'options',
    [
        dict(split='training'),
        dict(objects='unseen'),
        dict(vocabulary='everything'),
        dict(domain='dark'),
        dict(size=(64,)),
        dict(size=(8, 64)),
    ],
)
def test_bad_options(options):
    name = next(iter(options))
    with pytest.raises(ValueError, match=f'{name} must be'):
        ComposedWorldDataset(**{'length': 2, **options})


def colour_bins(images: np.ndarray, bits: int = 4) -> np.ndarray:
    """RGB images (..., 3) to the index of each pixel's bin in a colour histogram."""
    red, green, blue = np.moveaxis(images >> (8 - bits), -1, 0).astype(np.int64)
    return (red << 2 * bits) + (green << bits) + blue


def test_the_colour_of_a_pixel_does_not_tell_its_class():
    """The best classifier that looks at single pixels: the likeliest class of each colour."""
    worlds = (ComposedWorldDataset(length=n, split=s) for n, s in ((400, 'train'), (100, 'test')))
    train, test = ([world.scene(i) for i in range(len(world))] for world in worlds)
    bins, labels = (
        np.stack(parts).astype(np.int64)
        for parts in ([colour_bins(s.image) for s in train], [s.labels for s in train])
    )
    counts = np.bincount((bins * 30 + labels).ravel(), minlength=16**3 * 30).reshape(16**3, 30)
    truth = np.stack([scene.labels for scene in test])
    guess = counts.argmax(1)[colour_bins(np.stack([scene.image for scene in test]))]
    both = np.array([np.sum((truth == c) & (guess == c)) for c in range(30)])
    either = np.array([np.sum((truth == c) | (guess == c)) for c in range(30)])
    iou = 100 * both / either
    assert iou[6:].mean() < 20
    assert (guess == truth).mean() > 0.15  # it is not a broken classifier either


@pytest.mark.parametrize('vocabulary', ['all', 'seen'])
def test_panoptic_ground_truth(vocabulary):
    """Objects are things, each by itself; each ground is one stuff segment."""
    pack = [dict(type='PackPanopticInputs')]
    dataset = ComposedWorldDataset(length=6, split='val', vocabulary=vocabulary, pipeline=pack)
    names, things = dataset.metainfo['classes'], dataset.metainfo['things']
    assert [names[i] for i in things] == [n for n in names if n.endswith(' object')]
    for index in range(6):
        scene, sample = dataset.scene(index), dataset[index]['data_samples']
        ids, labels = sample.gt_panoptic.data[0].numpy(), sample.gt_sem_seg.data[0].numpy()
        assert set(np.unique(ids)) - {0} == {s['id'] for s in sample.gt_segments}
        assert ((ids == 0) == (labels == 255)).all()
        for segment in sample.gt_segments:
            inside = ids == segment['id']
            assert (labels[inside] == segment['label']).all()
            assert segment['is_thing'] is (segment['label'] in things)
            owners = np.unique(scene.owners[inside])
            assert len(owners) == 1 and (owners[0] >= 0) is np.bool_(segment['is_thing'])
        stuff = [s['label'] for s in sample.gt_segments if not s['is_thing']]
        assert len(set(stuff)) == len(stuff)
    loads = ComposedWorldDataset(length=1, pipeline=[dict(type='LoadPanoptic'), *pack])
    assert 'gt_panoptic' in loads[0]['data_samples']  # what is drawn is not read from files
    plain = ComposedWorldDataset(length=1, pipeline=[dict(type='PackSegInputs')])
    assert 'gt_panoptic' not in plain[0]['data_samples']
