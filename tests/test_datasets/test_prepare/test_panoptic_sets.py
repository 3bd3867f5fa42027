"""ADE20K's id maps: what the recipe says, and maps that break it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from original_archives import ade_panoptic_maps

from infoclip_mmseg.datasets.prepare.panoptic import (
    STUFF,
    THINGS,
    describe_segments,
    merge_maps,
)
from infoclip_mmseg.datasets.vocabularies import load_vocabulary

SHARED = Path(__file__).parents[4] / 'shared/vocabularies/maftp/order_and_things.json'
SCENE_NUMBERS = [
    *(8, 9, 11, 13, 15, 16, 19, 20, 21, 23, 24, 25, 28, 31, 32, 33, 34, 36, 37, 38, 39, 40, 42, 43),
    *(44, 45, 46, 48, 50, 51, 54, 56, 57, 58, 59, 63, 65, 66, 67, 68, 70, 71, 72, 73, 74, 75, 76),
    *(77, 79, 81, 82, 83, 84, 86, 87, 88, 89, 90, 91, 93, 94, 96, 98, 99, 103, 104, 105, 108, 109),
    *(111, 112, 113, 116, 117, 119, 120, 121, 122, 124, 125, 126, 127, 128, 130, 131, 133, 134),
    *(135, 136, 137, 138, 139, 140, 143, 144, 145, 147, 148, 149, 150),
]
"""Class of the scene parsing challenge of each category 1..100 of the Places Challenge 2017."""


def test_the_hundred_things():
    assert [label + 1 for label in THINGS] == SCENE_NUMBERS
    assert len(STUFF) == 50 and sorted({*STUFF, *THINGS}) == list(range(150))
    names = load_vocabulary('ade150')
    assert {'wall', 'sky', 'sea'} <= {names[label] for label in STUFF}
    assert {'person', 'car', 'flag'} <= {names[label] for label in THINGS}


def test_the_things_are_those_of_the_published_lists():
    if not SHARED.exists():
        pytest.skip('../shared is not there')
    lists = json.loads(SHARED.read_text())
    assert lists['ade20k_150']['things'] == list(THINGS)


@pytest.mark.parametrize('seed', [1, 2])
def test_instances_lie_above_stuff(seed):
    labels, instances, expected = ade_panoptic_maps(seed)
    np.testing.assert_array_equal(merge_maps(labels, instances), expected)
    assert (expected == 0).any(), 'things of the label map without an instance have no id'


def test_every_category_gets_its_class():
    instances = np.zeros((1, 100, 3), np.uint8)
    instances[0, :, 0] = instances[0, :, 1] = np.arange(1, 101)
    ids = merge_maps(np.zeros((1, 100), np.uint8), instances)
    np.testing.assert_array_equal(ids[0] // 1000, SCENE_NUMBERS)
    np.testing.assert_array_equal(ids[0] % 1000, np.arange(1, 101))


def test_segments_are_those_of_the_map():
    _, _, ids = ade_panoptic_maps(1)
    segments = {segment['id']: segment for segment in describe_segments(ids)}
    assert segments.keys() == set(np.unique(ids).tolist()) - {0}
    for key, segment in segments.items():
        y, x = np.nonzero(ids == key)
        assert segment['area'] == len(y) and segment['iscrowd'] == 0
        assert segment['category_id'] == key // 1000 - 1
        width, height = x.max() - x.min() + 1, y.max() - y.min() + 1
        assert segment['bbox'] == [x.min(), y.min(), width, height]
    assert describe_segments(np.zeros((3, 4), int)) == []


@pytest.mark.parametrize(
    ('change', 'words'),
    [
        (lambda labels, instances: instances[:1, :, :2].fill(101), 'of category 101'),
        (lambda labels, instances: instances[:1, :, 1].fill(9), 'of category 0; expected 1..100'),
        (lambda labels, instances: instances[3, 20:22, 0].fill(7), 'instance 51 is of several'),
        (lambda labels, instances: labels[:1].fill(151), 'holds 151; expected 0..150'),
    ],
)
def test_what_is_no_class_is_named(change, words):
    labels, instances, _ = ade_panoptic_maps(1)
    change(labels, instances)
    with pytest.raises(ValueError, match=words):
        merge_maps(labels, instances, 'a.png')
