import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest

from infoclip_mmseg.world import (
    DOMAINS,
    WorldSpec,
    caption,
    caption_words,
    render_scene,
    scene_rng,
)
from infoclip_mmseg.world.attributes import COLOURS, SHAPES, TEXTURES
from infoclip_mmseg.world.render import object_pattern

ROOT = Path(__file__).parents[2]
SPEC = WorldSpec()


def scene(index=0, size=(64, 64), split='val', **options):
    return render_scene(scene_rng(0, split, index), size, SPEC, **options)


@pytest.mark.parametrize('size', [(16, 16), (64, 96), (200, 120)])
@pytest.mark.parametrize('domain', DOMAINS)
def test_any_size(size, domain):
    drawn = scene(size=size, domain=DOMAINS[domain])
    assert drawn.image.shape == (*size, 3) and drawn.image.dtype == np.uint8
    assert drawn.labels.shape == size and drawn.labels.max() < len(SPEC.classes)
    assert drawn.image.std() > 5
    assert drawn.owners.max() >= 0


def test_larger_scenes_hold_more_objects():
    large, small = (scene(size=(side, side)).owners.max() + 1 for side in (192, 64))
    assert large > 2 * small


def test_two_processes_draw_the_same_bytes():
    program = (
        'import zlib; from infoclip_mmseg.world import *;'
        's = render_scene(scene_rng(0, "val", 3), (64, 64), WorldSpec());'
        'print(zlib.crc32(s.image.tobytes()), zlib.crc32(s.labels.tobytes()))'
    )
    run = [sys.executable, '-c', program]
    out = subprocess.run(run, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    drawn = scene(3)
    expected = [zlib.crc32(drawn.image.tobytes()), zlib.crc32(drawn.labels.tobytes())]
    assert [int(v) for v in out.splitlines()[-1].split()] == expected
    assert not np.array_equal(drawn.image, scene(3, split='test').image)
    assert not np.array_equal(drawn.image, scene(4).image)


def test_every_class_occurs_and_only_what_is_allowed():
    labels = np.concatenate([scene(index).labels.ravel() for index in range(80)])
    assert set(np.unique(labels)) == set(range(len(SPEC.classes)))
    few = np.concatenate([scene(i, compositions=[2, 5]).labels.ravel() for i in range(20)])
    assert set(np.unique(few)) <= {*range(6), 8, 11}
    with pytest.raises(ValueError, match='no composition'):
        scene(compositions=[])
    with pytest.raises(ValueError, match='16 x 16 pixels, got 8 x 40'):
        scene(size=(8, 40))


def test_owners_tell_the_visible_part_of_objects():
    for index in range(20):
        drawn = scene(index)
        assert np.array_equal(drawn.owners >= 0, drawn.labels >= len(SPEC.grounds))
        for number in range(drawn.owners.max() + 1):
            labels = np.unique(drawn.labels[drawn.owners == number])
            assert len(labels) <= 1  # none where others cover it


def test_plain_objects_look_like_their_colour():
    far = {name: [] for name in COLOURS}
    for index in range(150):
        drawn = scene(index)
        for number, (colour, texture, _) in enumerate(SPEC.compositions):
            mask = drawn.labels == number + len(SPEC.grounds)
            if texture == 'plain' and mask.sum() > 40:
                mean = drawn.image[mask].mean(0)
                near = min(COLOURS, key=lambda name: np.linalg.norm(mean - COLOURS[name]))
                far[colour].append(near != colour)
    assert all(len(wrong) > 5 and np.mean(wrong) < 0.25 for wrong in far.values()), far


def test_the_shifted_domain_is_darker_and_noisier():
    base, shifted = (
        [scene(index, domain=DOMAINS[name]).image for index in range(20)]
        for name in ('base', 'shifted')
    )
    assert np.mean(shifted) < 0.85 * np.mean(base)


def test_the_large_domain_is_the_base_at_twice_the_size():
    def covered(size, name):
        scenes = [scene(index, size, domain=DOMAINS[name]) for index in range(30)]
        counts = [len(np.unique(drawn.owners)) for drawn in scenes]
        return np.mean([(drawn.owners >= 0).mean() for drawn in scenes]), np.mean(counts)

    base, large = covered((64, 64), 'base'), covered((128, 128), 'large')
    np.testing.assert_allclose(large, base, rtol=0.12)
    assert covered((128, 128), 'base')[1] > 2 * large[1]


@pytest.mark.parametrize('shape', SHAPES)
def test_outlines_are_different(shape):
    grid = np.linspace(-1.5, 1.5, 61, dtype=np.float32)
    masks = {name: SHAPES[name](grid[None], grid[:, None]) for name in SHAPES}
    assert 0.1 < masks[shape].mean() < 0.5
    others = [np.mean(masks[shape] != masks[name]) for name in SHAPES if name != shape]
    assert min(others) > 0.02


@pytest.mark.parametrize('texture', TEXTURES)
def test_textures_have_the_right_share_of_the_second_colour(texture):
    y, x = np.ogrid[:60, :60]
    pattern = object_pattern(np.random.default_rng(0), texture, y, x, period=5.0)
    share = dict(plain=0.0, striped=0.5, checked=0.5, dotted=0.31)[texture]
    assert pattern.mean() == pytest.approx(share, abs=0.03)


def test_unknown_texture():
    with pytest.raises(KeyError, match='furry'):
        object_pattern(np.random.default_rng(0), 'furry', np.zeros(1), np.zeros(1), 5.0)


def test_captions_name_what_is_there_largest_first():
    rng = np.random.default_rng(0)
    words = ' '.join(caption_words(SPEC))
    for index in range(30):
        drawn = scene(index)
        text = caption(rng, drawn.labels, SPEC, max_named=3)
        named = [name for name in SPEC.classes if name in text]
        present = {SPEC.classes[i] for i in np.unique(drawn.labels)}
        assert 1 <= len(named) <= 3 and set(named) <= present
        assert all(word in words for word in text.replace(',', ' ,').split())
    labels = np.zeros((10, 10), np.uint8)
    labels[:4] = 7
    labels[0] = 9
    text = caption(rng, labels, SPEC)
    first, second = SPEC.classes[7], SPEC.classes[9]
    assert f'a {first} and a {second} on bricks' in text
    labels[:] = 3
    assert 'water' in caption(rng, labels, SPEC)
