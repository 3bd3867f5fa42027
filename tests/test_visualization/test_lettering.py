"""Letters of any script in Pillow's pictures and Matplotlib's figures."""

from __future__ import annotations

import pytest
from matplotlib import get_data_path
from matplotlib.figure import Figure

from infoclip_mmseg.visualization import lettering
from infoclip_mmseg.visualization.lettering import (
    USUAL,
    class_label,
    fit,
    plain,
    runs,
    save_figure,
    spell,
)

RARE = '\u1d81'  # d with a hook: STIX has it, DejaVu Sans has not


@pytest.fixture
def fonts(monkeypatch):
    """Sets the fonts after the usual one, by family."""
    usual = lettering._font_files()[USUAL]

    def use(**files: str) -> None:
        monkeypatch.setattr(lettering, '_font_files', lambda: {USUAL: usual, **files})

    lettering._find_families.cache_clear()
    yield use
    lettering._find_families.cache_clear()
    lettering._pillow_font.cache_clear()


def stix() -> str:
    return f'{get_data_path()}/fonts/ttf/STIXGeneral.ttf'


def test_letters_that_no_font_has_are_escaped(fonts):
    fonts()
    assert spell('cat 猫 кошка\n\x00') == r'cat \u732b кошка\n\x00'


def test_each_letter_is_taken_from_the_first_font_that_has_it(fonts, tmp_path):
    (tmp_path / 'broken.ttf').write_bytes(b'no font')
    bad = dict(Broken=str(tmp_path / 'broken.ttf'), Gone=str(tmp_path / 'gone.ttf'))
    fonts(**bad, STIXGeneral=stix(), Other=stix())
    parts = runs(f'cat {RARE} кошка', 16)
    assert [text for _, text in parts] == ['cat ', RARE, ' кошка']
    assert parts[1][0].path == stix() and parts[0][0] is parts[2][0] is not parts[1][0]


def test_figures_draw_letters_from_several_fonts(fonts, tmp_path):
    fonts(STIXGeneral=stix())
    figure = Figure((2, 1))
    usual, mixed = figure.text(0, 0, 'Ж ± 1'), figure.text(0, 0.5, f'a{RARE}\nb猫')
    before = usual.get_fontfamily()
    save_figure(figure, tmp_path / 'a.png')
    assert usual.get_text() == 'Ж ± 1' and usual.get_fontfamily() == before
    assert mixed.get_text() == f'a{RARE}\n' + r'b\u732b'
    assert mixed.get_fontfamily() == [USUAL, 'STIXGeneral']


def test_texts_are_cut_to_a_width():
    assert fit('cat', 16, 100) == 'cat'
    short = fit('very ' * 300, 16, 100)
    assert short.endswith('...') and 80 < lettering.text_width(short, 16) <= 100


def test_names_are_no_formulas():
    assert plain('a  $b$\nc') == r'a \$b\$ c'
    assert plain('x' * 50, 10) == 'x' * 7 + '...'
    assert class_label('red car, automobile') == 'red car'
