"""The page in a real browser.

``DEMO_SCREENSHOTS=DIR python -m pytest tests/test_demo/test_browser.py`` keeps its screenshots.
"""

from __future__ import annotations

import io
import json
import os
from contextlib import contextmanager
from pathlib import Path

import pytest
from PIL import Image

from infoclip_mmseg.datasets.panoptic import read_id_map

SIZES = dict(laptop=(1366, 768), phone=(390, 844))
HOSTILE = '<img src=x onerror="window.hacked=1"><b>bold</b> {{value}} ${window.hacked=2}'
MILLISECONDS = 60_000
# Of Gradio's own scripts, before 6.20, where a page is closed while it still draws.
KNOWN = ["Cannot read properties of undefined (reading '0')"]


@pytest.fixture(params=SIZES)
def page(request, address, browser):
    """The loaded page."""
    with visit(address, browser, request.param) as page:
        yield page


@pytest.fixture(params=SIZES)
def mask_page(request, mask_address, browser):
    """The loaded page of a model that finds masks."""
    with visit(mask_address, browser, request.param) as page:
        yield page


@contextmanager
def visit(address, browser, size):
    """Load a page; afterwards: no error in its console, nothing asked of other servers."""
    width, height = SIZES[size]
    page = browser.new_page(viewport=dict(width=width, height=height), device_scale_factor=1)
    page.set_default_timeout(MILLISECONDS)
    asked, complaints = [], []
    page.on('request', lambda r: asked.append(r.url))
    page.on('console', lambda m: complaints.append(m.text) if m.type == 'error' else None)
    page.on('pageerror', lambda error: complaints.append(str(error)))
    page.goto(address)
    page.wait_for_selector('#ic-words textarea')
    page.name = size
    yield page
    page.close()
    allowed = (address, 'data:', 'blob:')
    assert [url for url in asked if not url.startswith(allowed)] == []
    assert [text for text in complaints if text not in KNOWN] == []


def segment(page, words: str) -> list[str]:
    """Type words, press the button, wait for the answer: names in the legend."""
    marked = page.locator('.ic-result, .ic-error, .ic-empty')
    marked.first.evaluate('element => element.classList.add("ic-old")')
    page.fill('#ic-words textarea', words)
    page.click('#ic-segment')
    page.wait_for_selector('#ic-result :is(.ic-result, .ic-error):not(.ic-old)')
    return page.locator('.ic-chip b').all_text_contents()


def opacity(page) -> float:
    script = 'document.querySelector(".ic-labels") && getComputedStyle('
    return float(page.evaluate(f'{script}document.querySelector(".ic-labels")).opacity'))


def fits(page) -> bool:
    """Nothing is wider than the screen, and each name of the legend can be read."""
    return page.evaluate(
        """() => document.documentElement.scrollWidth <= window.innerWidth &&
        [...document.querySelectorAll('.ic-result, .ic-result *')].every((element) => {
          const box = element.getBoundingClientRect();
          return box.left >= 0 && box.right <= window.innerWidth + 0.5;
        }) && [...document.querySelectorAll('.ic-chip')].every((chip) =>
          parseFloat(getComputedStyle(chip).fontSize) >= 12)"""
    )


def keep(page, title: str) -> None:
    folder = os.environ.get('DEMO_SCREENSHOTS')
    if folder:
        page.wait_for_timeout(800)
        picture = Image.open(io.BytesIO(page.screenshot())).convert('RGB')
        picture.save(Path(folder) / f'demo_{page.name}_{title}.jpg', quality=88)


def test_example_heat_maps_and_opacity(page):
    assert fits(page)
    page.locator('#ic-examples button').nth(1).click()
    page.wait_for_selector('.ic-stack')
    words = page.input_value('#ic-words textarea').split('\n')
    chips = page.locator('.ic-chip')
    assert sorted(page.locator('.ic-chip b').all_text_contents()) == sorted(words)
    assert 's · 384 × 384 pixels' in page.inner_text('.ic-status')
    page.wait_for_function('document.querySelector(".ic-base").naturalWidth === 384')
    page.wait_for_function(  # it is seen without scrolling
        'document.querySelector(".ic-stack").getBoundingClientRect().top < innerHeight * 0.5'
    )
    assert fits(page)
    keep(page, 'labels')

    assert opacity(page) == pytest.approx(0.6)
    page.locator('.ic-opacity').fill('25')
    assert opacity(page) == pytest.approx(0.25)
    page.locator('.ic-opacity').fill('70')

    chips.nth(2).click()
    name = chips.nth(2).locator('b').inner_text()
    assert page.locator('.ic-title b').inner_text() == name
    titles = page.locator('.ic-map > b').all_text_contents()
    assert titles == ['Probability', 'Cosine', 'LPAM']
    assert 'No trained LPAM' in page.inner_text('.ic-none')
    assert page.locator('.ic-heat').is_visible() and not page.locator('.ic-labels').is_visible()
    first = page.get_attribute('.ic-heat', 'src')
    page.locator('.ic-map').nth(1).click()
    assert page.get_attribute('.ic-heat', 'src') != first
    assert fits(page)
    page.locator('.ic-maps').scroll_into_view_if_needed()
    keep(page, 'heat')
    page.locator('.ic-back').click()
    assert page.locator('.ic-labels').is_visible() and not page.locator('.ic-heat').is_visible()

    # Water is on the left, bricks are on the right.
    for x, expected in ((0.03, 'water'), (0.95, 'bricks')):
        box = page.locator('.ic-stack').bounding_box()
        page.locator('.ic-stack').click(position=dict(x=box['width'] * x, y=box['height'] * 0.4))
        assert page.locator('.ic-title b').inner_text() == expected
        assert page.locator('.ic-chip[aria-pressed=true] b').inner_text() == expected


def test_own_image_and_changing_words(page, tmp_path):
    Image.new('RGB', (300, 200), (60, 150, 60)).save(tmp_path / 'green.png')
    page.set_input_files('#ic-image input[type=file]', tmp_path / 'green.png')
    page.wait_for_selector('#ic-image img')
    assert set(segment(page, 'grass; water')) == {'grass', 'water'}
    page.locator('.ic-opacity').fill('25')
    assert set(segment(page, 'sand\nsnow')) == {'sand', 'snow'}
    assert page.input_value('.ic-opacity') == '25' and opacity(page) == pytest.approx(0.25)
    assert set(segment(page, 'grass; water')) == {'grass', 'water'}
    keep(page, 'own')


def download(page, suffix: str) -> Path:
    """The file of a link."""
    with page.expect_download() as waiting:
        page.click(f'.ic-files a[download$="{suffix}"]')
    assert waiting.value.suggested_filename.endswith(suffix)
    return waiting.value.path()


def test_segments(mask_page, tmp_path):
    page = mask_page
    Image.new('RGB', (320, 192), (60, 150, 60)).save(tmp_path / 'green.png')
    page.set_input_files('#ic-image input[type=file]', tmp_path / 'green.png')
    page.wait_for_selector('#ic-image img')
    background, things = page.locator('#ic-background'), page.locator('#ic-things')
    assert background.is_visible() and not things.is_visible()
    assert len(segment(page, 'sky\ncat\ndog')) == 3 and not page.locator('.ic-table').count()

    page.get_by_label('panoptic').check()
    assert things.is_visible() and not background.is_visible()
    things.locator('textarea').fill('cat; dog')
    assert segment(page, 'sky\ncat\ndog') == ['sky', 'cat', 'dog']
    rows = page.locator('.ic-table tbody tr')
    assert rows.nth(0).locator('td').all_inner_texts()[:3] == ['sky', 'stuff', '0.90']
    assert rows.nth(2).locator('td').all_inner_texts()[:3] == ['dog', 'thing', '0.70']
    assert fits(page)
    keep(page, 'panoptic')
    ids = read_id_map(download(page, '.png'))
    assert (
        ids.shape == (192, 320)
        and rows.nth(0).locator('td').nth(3).inner_text() == f'{(ids == 1).sum():,}'
    )
    assert (ids == 1).mean() == pytest.approx(0.5, abs=0.01)
    content = json.loads(download(page, 'panoptic.json').read_text('utf-8'))
    assert [c['isthing'] for c in content['categories']] == [0, 1, 1]

    page.locator('.ic-chip', has_text='cat').click()
    assert page.locator('.ic-map > b').all_text_contents() == ['Mask']
    assert page.locator('.ic-heat').is_visible()
    box = page.locator('.ic-stack').bounding_box()
    page.locator('.ic-stack').click(position=dict(x=box['width'] * 0.2, y=box['height'] * 0.8))
    assert page.locator('.ic-title b').inner_text() == 'dog'
    assert fits(page)

    page.get_by_label('instance').check()
    assert segment(page, 'sky\ncat\ndog')[:2] == ['cat', 'dog']
    assert rows.nth(0).locator('td').nth(1).inner_text() == 'thing' and fits(page)
    things.locator('textarea').fill('horse')
    segment(page, 'sky\ncat\ndog')
    assert page.inner_text('.ic-error').startswith("things 'horse' are none of the 3 classes")


def test_a_model_without_masks_has_no_choice(page):
    assert page.locator('#ic-task').count() == page.locator('#ic-things').count() == 0


def test_names_are_shown_as_text(page, tmp_path):
    Image.new('RGB', (64, 64), (60, 150, 60)).save(tmp_path / 'green.png')
    page.set_input_files('#ic-image input[type=file]', tmp_path / 'green.png')
    page.wait_for_selector('#ic-image img')
    names = segment(page, f'{HOSTILE}\n猫\n🐈 cat\nred object {"and so on " * 40}')
    assert {HOSTILE, '猫', '🐈 cat'} <= set(names)
    assert page.locator('#ic-result img[src=x]').count() == 0
    page.locator('.ic-chip', has_text='onerror').click()
    assert page.locator('.ic-title b').inner_text() == HOSTILE
    page.locator('.ic-stack').hover()
    assert page.evaluate('window.hacked') is None
    assert '77 tokens' in page.inner_text('.ic-note')
    assert fits(page)
    keep(page, 'text')


def test_errors_are_text(page, tmp_path):
    segment(page, 'grass')
    assert page.inner_text('.ic-error').startswith('There is no image yet')
    (tmp_path / 'text.jpg').write_text('no image')
    page.set_input_files('#ic-image input[type=file]', tmp_path / 'text.jpg')
    page.wait_for_selector('#ic-image img', state='attached')
    segment(page, 'grass; <b>snow</b>')
    assert 'text.jpg: no image of a known format' in page.inner_text('.ic-error')
    assert fits(page)
    keep(page, 'error')
