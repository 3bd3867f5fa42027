import itertools

import numpy as np
import pytest

from infoclip_mmseg.world import WorldSpec
from infoclip_mmseg.world.attributes import (
    compose,
    distractor_names,
    seen_classes,
    seen_compositions,
    world_palette,
)

SHAPED = dict(shapes=('disc', 'cross', 'triangle'))


def test_class_names_are_different_and_start_with_the_grounds():
    for overrides in ({}, dict(SHAPED, num_seen=20)):
        spec = WorldSpec(**overrides)
        assert spec.classes[: len(spec.grounds)] == spec.grounds
        assert len(set(spec.classes)) == len(spec.classes)
    assert compose('red', 'striped', None) == 'red striped object'
    assert 'red striped disc' in WorldSpec(**SHAPED, num_seen=20).classes


@pytest.mark.parametrize('overrides', [dict(num_seen=6), dict(num_seen=12), dict(num_seen=23)])
@pytest.mark.parametrize('shapes', [{}, SHAPED])
@pytest.mark.parametrize('seed', [0, 1])
def test_every_attribute_is_seen(overrides, shapes, seed):
    spec = WorldSpec(**overrides, **shapes, split_seed=seed)
    seen = seen_compositions(spec)
    assert len(seen) == len(set(seen)) == spec.num_seen < len(spec.compositions)
    parts = [spec.compositions[index] for index in seen]
    assert {p[0] for p in parts} == set(spec.colours)
    assert {p[1] for p in parts} == set(spec.textures)
    assert {p[2] for p in parts} == set(spec.shapes or (None,))
    assert seen == seen_compositions(spec)


@pytest.mark.parametrize('overrides', [{}, dict(SHAPED, num_seen=20)])
def test_colours_of_label_maps_recall_the_classes(overrides):
    spec = WorldSpec(**overrides)
    palette = np.array(world_palette(spec))
    assert palette.shape == (len(spec.classes), 3) and palette.min() >= 0 and palette.max() < 256
    assert len({tuple(colour) for colour in palette.tolist()}) == len(spec.classes)
    if not spec.shapes:
        distance = np.abs(palette[:, None] - palette[None]).sum(-1)
        assert distance[~np.eye(len(palette), dtype=bool)].min() > 25
    for name, (red, _, blue) in zip(spec.classes, palette):
        if name.startswith(('red ', 'blue ')):
            assert bool(red > blue) is name.startswith('red '), name


def test_pairs_of_attributes_are_seen_where_there_is_room():
    spec = WorldSpec(**SHAPED, num_seen=40)
    parts = [spec.compositions[index] for index in seen_compositions(spec)]
    for first, second in itertools.combinations(range(3), 2):
        pairs = {(p[first], p[second]) for p in parts}
        assert pairs == {(p[first], p[second]) for p in spec.compositions}


def test_few_seen_compositions_share_no_attribute_before_they_must():
    parts = [WorldSpec().compositions[i] for i in seen_compositions(WorldSpec(num_seen=4))]
    assert len({p[0] for p in parts}) == len({p[1] for p in parts}) == 4


def test_another_split_seed_is_another_split():
    assert seen_classes(WorldSpec()) != seen_classes(WorldSpec(split_seed=1))


def test_distractors_never_occur():
    spec = WorldSpec()
    names = distractor_names(spec, 150)
    assert len(set(names)) == 150
    assert not set(names) & set(spec.classes)
    assert names[:20] == distractor_names(spec, 20)
    with pytest.raises(ValueError, match='num_distractors=100000'):
        distractor_names(spec, 100_000)


@pytest.mark.parametrize(
    ('overrides', 'message'),
    [
        (dict(colours=('red', 'mauve')), 'colours must be different names'),
        (dict(textures=('plain', 'plain')), 'textures must be different names'),
        (dict(shapes=('blob',)), 'shapes must be different names'),
        (dict(grounds=('sand',)), 'two grounds'),
        (dict(num_seen=0), 'num_seen=0 of 24 compositions: expected 1 or more'),
        (dict(num_seen=24), 'at least one that is unseen'),
    ],
)
def test_impossible_worlds(overrides, message):
    with pytest.raises(ValueError, match=message):
        WorldSpec(**overrides)
