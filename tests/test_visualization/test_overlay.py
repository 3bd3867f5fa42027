from __future__ import annotations

import numpy as np
import pytest
from matplotlib import get_data_path
from PIL import Image

from infoclip_mmseg.visualization import fonts
from infoclip_mmseg.visualization.overlay import Entry, blend, draw_legend, draw_overlay

PALETTE = [[255, 0, 0], [0, 0, 255], [0, 0, 0]]


def test_blend():
    image = np.full((4, 4, 3), 100, np.uint8)
    labels = np.zeros((4, 4), np.uint8)
    assert blend(image, labels, PALETTE, 0.0)[0, 0].tolist() == [100, 100, 100]
    assert blend(image, labels, PALETTE, 1.0)[0, 0].tolist() == [255, 0, 0]
    assert blend(image, labels, PALETTE, 0.2)[0, 0].tolist() == [131, 80, 80]


@pytest.mark.parametrize(
    ('size', 'width'), [((50, 100), 640), ((500, 1000), 1000), ((400, 6000), 4096)]
)
def test_an_overlay_has_the_picture_and_a_legend_below(size, width):
    labels = np.zeros(size, np.uint8)
    labels[:, size[1] // 2 :] = 1
    image = np.full((*size, 3), 128, np.uint8)
    overlay = draw_overlay(image, labels, ['cat', 'dog', 'background'], PALETTE, 0.5)
    assert overlay.shape[1] == width
    height = round(size[0] * width / size[1])
    middle = overlay[height // 2]
    assert np.abs(middle[width // 4].astype(int) - (192, 64, 64)).max() <= 1
    assert np.abs(middle[3 * width // 4].astype(int) - (64, 64, 192)).max() <= 1
    legend = overlay[height:].reshape(-1, 3)
    assert len(legend) > 0
    for colour in PALETTE[:2]:
        assert (legend == colour).all(1).sum() > 100
    assert not (legend == 0).all(1).any()  # what is not there has no entry


def text_pixels(entries, width=640) -> np.ndarray:
    return draw_legend(entries, width).min(axis=2) < 128


def test_legend_tells_names_apart_and_counts_the_rest():
    cat, dog = ([Entry(name, [255, 255, 255], 0.5)] for name in ('cat', 'dog'))
    assert not np.array_equal(text_pixels(cat), text_pixels(dog))
    many = [Entry(f'thing {i}', [i % 256, 0, 0], 0.001) for i in range(500)]
    assert draw_legend(many, 640).shape[0] < 300
    assert not np.array_equal(draw_legend(many, 640), draw_legend(many[:490], 640))


@pytest.mark.parametrize(
    'name', ['very ' * 300, '猫' * 500, '🐱 cat', 'a\nb\x00\u202ec', '<b>x</b>', 'e\u0301', ' ']
)
def test_any_name_can_be_drawn(name):
    legend = draw_legend([Entry(name, [1, 2, 3], 1.0)], 320)
    assert legend.shape[1] == 320 and (legend[:, -6:] == 255).all()  # nothing is cut at the edge


@pytest.fixture
def candidates(monkeypatch):
    """Makes fonts of other files candidates, after Pillow's own."""

    def use(*paths):
        monkeypatch.setattr(fonts, '_candidates', lambda: [None, *paths])

    fonts._font_paths.cache_clear()
    yield use
    fonts._font_paths.cache_clear()


def test_letters_that_no_font_has_are_escaped(candidates):
    candidates('no_such_font.ttf')
    assert fonts.font_and_text('cat 猫\n\x00', 16)[1] == 'cat \\u732b\\n\\x00'


def test_the_first_font_that_has_the_letters(candidates, tmp_path):
    (tmp_path / 'broken.ttf').write_bytes(b'no font')
    folder = f'{get_data_path()}/fonts/ttf'
    candidates(str(tmp_path / 'broken.ttf'), f'{folder}/cmr10.ttf', f'{folder}/STIXGeneral.ttf')
    font, text = fonts.font_and_text('кошка', 16)
    assert text == 'кошка' and font.path == f'{folder}/STIXGeneral.ttf'
    assert fonts.font_and_text('cat', 16)[0] is fonts.font_and_text('dog', 16)[0]


def test_a_label_of_every_kind_of_image():
    labels = np.zeros((64, 64), np.uint16)
    overlay = draw_overlay(np.zeros((64, 64, 3), np.uint8), labels, ['x'] * 300, PALETTE * 100)
    assert Image.fromarray(overlay).mode == 'RGB'
