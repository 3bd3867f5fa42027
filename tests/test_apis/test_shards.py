from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from infoclip_mmseg.annotations.formats import coco_rle
from infoclip_mmseg.apis.image_sources import list_sources
from infoclip_mmseg.apis.runs import Run, Shard, annotate, find_shard, join_panoptic, read_regions
from infoclip_mmseg.apis.segments import Segments, save_segments

WORDS = ['grass', 'red striped object']
SETTINGS = dict(config='world/zero_shot', classes=WORDS)


@pytest.fixture
def photos(tmp_path, world):
    folder = tmp_path / 'photos'
    folder.mkdir()
    for number, image in enumerate(world['images']):
        Image.fromarray(image).save(folder / f'{number}.png')
    return folder


def work(inferencer, photos, folder, shard, resume=False, limit=None, settings=SETTINGS):
    run = Run(folder, settings, inferencer.plan(WORDS), shard, resume)
    sources = run.pending(list_sources([str(photos)]))[:limit]
    for found in inferencer.stream(sources, WORDS, out_dir=folder) if sources else ():
        run.add_file(found.to_dict())
    return len(sources), run.close(), run


def test_shards():
    assert find_shard(None, {}) == Shard(1, 1)
    assert find_shard('2/3', {}) == Shard(2, 3)
    assert find_shard(None, dict(RANK='0', WORLD_SIZE='4')) == Shard(1, 4)
    items = list(range(10))
    parts = [Shard(n, 3).take(items) for n in (1, 2, 3)]
    assert sorted(item for part in parts for item in part) == items
    assert parts[0] == [0, 3, 6, 9]
    for text in ('0/3', '4/3', '1', 'a/b', '1/-1', '/'):
        with pytest.raises(ValueError, match='--shard must be i/n'):
            find_shard(text, {})


def test_one_summary_of_all_shards(inferencer, photos, tmp_path):
    _, complete, whole = work(inferencer, photos, tmp_path / 'one', Shard(1, 1))
    assert complete
    ends = [work(inferencer, photos, tmp_path / 'two', Shard(n, 2)) for n in (2, 1)]
    assert [end[:2] for end in ends] == [(3, False), (3, True)]
    first, second = (
        json.loads((tmp_path / f / 'summary.json').read_text()) for f in ('one', 'two')
    )
    assert first['images'] == second['images'] == 6 == ends[1][2].images
    assert first['found'] == second['found'] == whole.found()
    for path in (tmp_path / 'one/pred').iterdir():
        assert path.read_bytes() == (tmp_path / 'two/pred' / path.name).read_bytes()


def test_going_on(inferencer, photos, tmp_path):
    out = tmp_path / 'out'
    assert work(inferencer, photos, out, Shard(1, 1), limit=2)[0] == 2
    (out / 'pred/1.json').unlink()  # as if it had been killed before this was written
    before = (out / 'pred/0.json').stat().st_mtime_ns
    count, complete, run = work(inferencer, photos, out, Shard(1, 1), resume=True)
    assert (count, complete, run.images) == (5, True, 6)
    assert (out / 'pred/0.json').stat().st_mtime_ns == before
    whole = work(inferencer, photos, tmp_path / 'whole', Shard(1, 1))[2]
    assert run.found() == whole.found()
    assert work(inferencer, photos, out, Shard(1, 1), resume=True)[0] == 0
    with pytest.raises(ValueError, match=r"results with another config: 'world/zero_shot', now"):
        other = {**SETTINGS, 'config': 'other'}
        work(inferencer, photos, out, Shard(1, 1), resume=True, settings=other)


def test_parts_of_another_run_do_not_count(inferencer, photos, tmp_path):
    out = tmp_path / 'out'
    work(inferencer, photos, out, Shard(1, 2), settings={**SETTINGS, 'config': 'other'})
    assert work(inferencer, photos, out, Shard(2, 2))[1] is False
    assert not (out / 'summary.json').exists()


def test_regions_are_read_back(inferencer, photos, tmp_path):
    [expected, *_] = inferencer([str(photos / '0.png')], WORDS, ['snow'], out_dir=tmp_path)
    regions = read_regions(tmp_path / 'pred/0.json')
    wanted = expected.regions()
    assert regions.size == wanted.size and regions.image == wanted.image
    assert [r.name for r in regions.regions] == [r.name for r in wanted.regions]
    for got, region in zip(regions.regions, wanted.regions):
        assert np.array_equal(got.mask, region.mask)
        assert got.score == pytest.approx(region.score, abs=1e-5)
    path = annotate(tmp_path, 'coco', inferencer.plan(WORDS, ['snow']))
    content = json.loads(path.read_text())
    assert [c['name'] for c in content['categories']] == WORDS
    assert len(content['annotations']) == len(wanted.regions)


@pytest.mark.parametrize('task', ['panoptic', 'instance'])
def test_segments_are_read_back(task, tmp_path):
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 300, (20, 30)).astype(np.int32)
    segments = [
        dict(
            id=number,
            label=number % 2,
            is_thing=True,
            score=0.5,
            area=1,
            **{'class': 'ab'[number % 2]},
        )
        for number in (1, 299)
    ]
    if task == 'instance':
        for segment in segments:
            segment['mask'] = rng.random((20, 30)) > 0.5  # they overlap
    found = Segments('x.jpg', 'x', task, ids, segments, ('a', 'b'), (0,))
    save_segments(found, tmp_path)
    regions = read_regions(tmp_path / 'pred/x.json').regions
    for region, wanted, segment in zip(regions, found.regions().regions, segments, strict=True):
        assert np.array_equal(region.mask, wanted.mask)
        mask = segment.get('mask', ids == segment['id'])
        assert coco_rle(region.mask) == coco_rle(mask)
    if task == 'panoptic':
        joined = json.loads(join_panoptic(tmp_path, ['a', 'b'], [0]).read_text())
        assert joined['categories'][0] == dict(id=1, name='a', isthing=1)
        assert [s['id'] for s in joined['annotations'][0]['segments_info']] == [1, 299]
