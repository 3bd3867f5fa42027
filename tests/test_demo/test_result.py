from __future__ import annotations

import base64
import html
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infoclip_mmseg.demo.engine import (
    DemoEngine,
    PageError,
    PageLimits,
    draw_examples,
    reduce_image,
)
from infoclip_mmseg.demo.result import (
    colour_bar,
    escape,
    heat_map,
    label_grid,
    render_error,
    render_labels,
)

ADE = Path(__file__).parents[1] / 'data/ade/images/validation'
HOSTILE = '<img src=x onerror="alert(1)">{{value}} ${alert(2)} `x` & \'quoted\''


@pytest.fixture(scope='module')
def engine():
    return DemoEngine(device='cpu', limits=PageLimits(max_pixels=200_000, max_words=100))


@pytest.fixture(scope='module')
def examples(tmp_path_factory):
    return draw_examples(tmp_path_factory.mktemp('examples'))


def decode(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.split(',', 1)[1])))


def maps_of(page: str) -> list:
    return json.loads(html.unescape(re.search('data-maps="([^"]*)"', page).group(1)))


def names_of(page: str) -> list[str]:
    return [html.unescape(name) for name in re.findall('<b>(.*?)</b>', page)]


def test_escape_leaves_no_sign_of_html_or_templates():
    text = escape(HOSTILE)
    assert not set('<>"\'{}$`') & set(text)
    assert html.unescape(text) == HOSTILE
    assert escape('猫 🐈\n') == '猫 🐈 '


def test_heat_map_spans_its_values():
    values = np.linspace(-1, 3, 12, dtype=np.float32).reshape(3, 4)
    heat = heat_map(values)
    pixels = np.asarray(decode(heat.uri).convert('RGB')).astype(int).sum(-1)
    assert (heat.low, heat.high) == (-1, 3) and pixels.shape == (3, 4)
    assert (np.diff(pixels.ravel()) > 0).all()
    assert max(decode(heat_map(np.zeros((400, 100), np.float32)).uri).size) == 160
    assert colour_bar().count('#') == 16


def test_label_grid():
    labels = np.repeat(np.arange(4, dtype=np.uint8), 100)[None].repeat(300, 0)
    grid = label_grid(labels, [3, 0])
    assert grid.shape == (144, 192)
    assert grid[0, [0, 60, 130, 190]].tolist() == [1, 255, 255, 0]
    assert label_grid(labels[:2, :2], [0]).tolist() == [[0, 0], [0, 0]]


def test_examples_are_segmented(engine, examples):
    assert len(examples) == 4
    for example in examples:
        outcome = engine.segment(example.path, example.words)
        page = render_labels(outcome)
        assert sorted(names_of(page)) == sorted(example.words.splitlines())
        # Largest first; the two words that are not there come last.
        assert outcome.prediction.shares[-2:].sum() < 0.1
        assert all([m['title'] for m in maps] == ['Probability', 'Cosine', 'LPAM']
                   for maps in maps_of(page))  # fmt: skip
        assert 'No trained LPAM' in maps_of(page)[0][2]['reason']


def test_words_change_labels_and_names(engine, examples):
    path = examples[0].path
    first, second = (engine.segment(path, w) for w in ('grass\nsnow', 'snow\nyellow dotted object'))
    assert first.prediction.names == ('grass', 'snow')
    assert second.prediction.names == ('snow', 'yellow dotted object')
    snow = (first.prediction.labels == 1) & (second.prediction.labels == 0)
    assert 0.1 < snow.mean() < 0.9  # the same place has the other label, and others changed
    assert names_of(render_labels(second))[0] in second.prediction.names


def test_names_are_text(engine, examples):
    words = f'{HOSTILE}; 猫; 🐈 cat; grass'.replace('; 猫', '\n猫')
    page = render_labels(engine.segment(examples[0].path, words, background='<b>snow</b>'))
    assert '<img src=x' not in page and '<b>snow' not in page and '{' not in page
    assert {'猫', '🐈 cat', 'background'} <= set(names_of(page))


def test_background_and_single_word(engine, examples):
    outcome = engine.segment(examples[0].path, 'grass', background='snow; purple checked object')
    assert outcome.prediction.names == ('grass', 'background')
    page = render_labels(outcome)
    place = names_of(page).index('background')
    assert maps_of(page)[place] == []
    assert engine.segment(examples[0].path, 'grass').prediction.background_index == 1


def test_long_and_equal_words_are_named(engine, examples):
    long = 'very ' * 300 + 'red object'
    page = render_labels(engine.segment(examples[0].path, f'{long}\ngrass\nGrass'))
    notes = re.findall('class="ic-note">(.*?)</p>', page)
    assert any('77 tokens' in note and 'very very' in note for note in notes)
    assert any('Grass' in note for note in notes)


def test_many_words(engine, examples):
    words = '\n'.join(f'word {index}' for index in range(90))
    page = render_labels(engine.segment(examples[0].path, words))
    assert len(names_of(page)) == 40 and 'and 50 more words' in page
    assert 'up to 64 words' in maps_of(page)[0][0]['reason'] and 'uri' in maps_of(page)[0][1]
    with pytest.raises(PageError, match='101 words, the limit of this page is 100'):
        engine.segment(examples[0].path, '\n'.join(f'w{i}' for i in range(101)))


def test_large_images_are_reduced(examples, tmp_path):
    engine = DemoEngine(device='cpu', limits=PageLimits(work_pixels=10_000))
    outcome = engine.segment(examples[0].path, 'grass; snow')
    assert outcome.image.shape == (100, 100, 3) and outcome.original == (384, 384)
    assert 'reduced to 100 × 100' in render_labels(outcome)
    assert reduce_image(np.zeros((1, 100_000, 3), np.uint8), 1000).shape[0] == 1


def test_bad_input_is_said(engine, examples, tmp_path):
    path = examples[0].path
    for arguments, message in (
        ((None, 'grass'), 'no image yet'),
        ((path, ' ; \n'), 'no words yet'),
        ((path, 'x' * 100_001), '100001 characters'),
    ):
        with pytest.raises(PageError, match=message):
            engine.segment(*arguments)
    assert 'role="alert"' in render_error('<script>') and '<script>' not in render_error('<script>')


@pytest.mark.parametrize('path', sorted(ADE.glob('*.jpg')), ids=lambda path: path.stem)
def test_real_images(path):
    outcome = DemoEngine(device='cpu').segment(path, 'grass; snow; red plain object')
    with Image.open(path) as image:
        assert outcome.original == (image.height, image.width)
        assert outcome.image.shape[:2] == outcome.prediction.labels.shape
        assert (outcome.image.shape[0] * outcome.image.shape[1]) <= 1_000_000
    page = render_labels(outcome)
    picture = re.search('class="ic-base" src="([^"]*)"', page).group(1)
    assert decode(picture).size == outcome.image.shape[1::-1]


def test_lpam_of_a_trained_model_is_shown(engine, examples):
    outcome = engine.segment(examples[0].path, 'grass; snow')
    relation = np.stack([np.full((8, 8), 3.0), np.eye(8)]).astype(np.float32)
    alignment = replace(outcome.alignment, relation=relation)
    page = render_labels(replace(outcome, alignment=alignment))
    maps = dict(zip(names_of(page), maps_of(page)))
    assert (maps['snow'][2]['low'], maps['snow'][2]['high']) == ('0.00', '1.00')
    assert maps['grass'][2]['low'] == maps['grass'][2]['high'] == '3.00'
