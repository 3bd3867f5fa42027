"""Segments on the page: what is asked of the model, and the HTML of what it finds."""

from __future__ import annotations

import base64
import html
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
import quarter_masks
from PIL import Image

from infoclip_mmseg.datasets.panoptic import read_id_map
from infoclip_mmseg.demo.engine import DemoEngine, PageError, PageLimits
from infoclip_mmseg.demo.result import render_labels
from infoclip_mmseg.demo.segment_result import render_segments
from infoclip_mmseg.utils.images import ImageError

WORDS = 'sky, clouds\ncat\n<b>dog</b>'


@pytest.fixture(scope='module')
def engine(toy_cfg, tmp_path_factory):
    config = quarter_masks.write_config(toy_cfg, tmp_path_factory.mktemp('model'))
    limits = PageLimits(max_words=100, work_pixels=20_000)
    return DemoEngine(str(config), str(config.with_suffix('.pth')), 'cpu', limits=limits)


def rows_of(page: str) -> list[list[str]]:
    rows = re.findall('<tr>(.*?)</tr>', page)[1:]
    return [[html.unescape(re.sub('<i.*?</i>', '', c)) for c in re.findall('<td>(.*?)</td>', row)]
            for row in rows]  # fmt: skip


def names_of(page: str) -> list[str]:
    return [html.unescape(name) for name in re.findall('<b>(.*?)</b>', page)]


def files_of(page: str) -> dict[str, bytes]:
    links = re.findall('<a href="data:[^,]*,([^"]*)" download="([^"]*)"', page)
    return {html.unescape(name): base64.b64decode(data) for data, name in links}


def test_tasks_are_those_of_the_model(engine):
    assert engine.tasks == ('semantic', 'panoptic', 'instance')
    assert DemoEngine(device='cpu').tasks == ('semantic',)


def test_panoptic(engine, photo):
    page = render_segments(engine.find(photo, WORDS, 'cat'))
    assert names_of(page) == ['sky, clouds', 'cat', '<b>dog</b>'] and '<b>dog' not in page
    assert rows_of(page) == [
        ['sky, clouds', 'stuff', '0.90', '1,536'],
        ['cat', 'thing', '0.80', '768'],
        ['<b>dog</b>', 'stuff', '0.70', '768'],
    ]
    maps = json.loads(html.unescape(re.search('data-maps="([^"]*)"', page).group(1)))
    assert [[m['title'] for m in entry] for entry in maps] == [['Mask']] * 3
    with Image.open(io.BytesIO(base64.b64decode(maps[1][0]['uri'].split(',')[1]))) as mask:
        bright = np.asarray(mask.convert('L')) > 100
    assert bright[:24, 32:].all() and bright.sum() == 24 * 32  # upper right
    grid = np.frombuffer(base64.b64decode(re.search('data-grid="([^"]*)"', page).group(1)), 'u1')
    assert np.bincount(grid).tolist() == [1536, 768, 768]


def test_files_are_those_of_the_command(engine, photo, tmp_path):
    outcome = engine.find(photo, WORDS, 'cat')
    files = files_of(render_segments(outcome))
    assert list(files) == ['photo.png', 'photo.json', 'panoptic.json']
    (tmp_path / 'ids.png').write_bytes(files['photo.png'])
    np.testing.assert_array_equal(read_id_map(tmp_path / 'ids.png'), outcome.found.ids)
    assert json.loads(files['photo.json']) == outcome.found.to_dict()
    content = json.loads(files['panoptic.json'])
    assert [c['isthing'] for c in content['categories']] == [0, 1, 0]
    assert [s['area'] for s in content['annotations'][0]['segments_info']] == [1536, 768, 768]


def test_instances(engine, photo):
    page = render_segments(engine.find(photo, WORDS, 'cat;<b>dog</b>', 'instance'))
    assert rows_of(page)[0] == ['cat', 'thing', '0.80', '768']
    assert rows_of(page)[2] == ['cat', 'thing', '0.30', '1,536']  # by score, not by area
    assert list(files_of(page)) == ['photo.png', 'photo.json']
    assert len(engine.find(photo, WORDS, '', 'instance').found.segments) > len(rows_of(page))


def test_labels_of_the_same_model(engine, photo):
    outcome = engine.segment(photo, WORDS, background='wall')
    assert outcome.prediction.names == ('sky, clouds', 'cat', '<b>dog</b>', 'background')
    assert names_of(render_labels(outcome))[0] == 'sky, clouds'


def test_many_segments_and_none(engine, photo):
    outcome = engine.find(photo, WORDS)
    [first, *_] = outcome.found.segments
    many = [dict(first, id=index, area=1) for index in range(1, 51)]
    page = render_segments(replace(outcome, found=replace(outcome.found, segments=many)))
    assert len(rows_of(page)) == 40 and 'and 10 more segments' in page
    assert len(json.loads(files_of(page)['photo.json'])['segments_info']) == 50
    empty = replace(outcome.found, segments=[], ids=np.zeros_like(outcome.found.ids))
    page = render_segments(replace(outcome, found=empty))
    assert 'No segment was found' in page and '<table' not in page


def test_large_images_are_reduced(engine, tmp_path):
    Image.new('RGB', (400, 200)).save(tmp_path / 'large.jpg')
    outcome = engine.find(tmp_path / 'large.jpg', WORDS)
    assert outcome.found.ids.shape == (100, 200) and outcome.original == (200, 400)


def test_wrong_requests_are_said(engine, photo, tmp_path):
    with pytest.raises(PageError, match="things 'horse' are none of the 3 classes"):
        engine.find(photo, WORDS, 'horse')
    with pytest.raises(PageError, match='no image yet'):
        engine.find(None, WORDS)
    with pytest.raises(PageError, match='no words yet'):
        engine.find(photo, '')
    with pytest.raises(PageError, match='one word is all it would find'):
        engine.find(photo, 'cat')
    with pytest.raises(PageError, match="task must be one of .* got 'stuff'"):
        engine.find(photo, WORDS, task='stuff')
    Image.new('RGB', (9, 9)).save(tmp_path / 'small.png')
    with pytest.raises(ImageError, match='small.png: 9 x 9 pixels are less than one patch'):
        engine.find(tmp_path / 'small.png', WORDS)
    with pytest.raises(PageError, match='needs a head that finds masks'):
        DemoEngine(device='cpu').find(photo, WORDS)
