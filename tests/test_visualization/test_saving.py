from __future__ import annotations

from pathlib import Path

import pytest
from matplotlib.figure import Figure
from PIL import Image

from infoclip_mmseg.visualization.lettering import figure_paths, plain, save_figure


def test_suffixes(tmp_path):
    assert figure_paths(Path('a/b.PDF')) == [Path('a/b.PDF')]
    assert figure_paths(Path('a/b')) == [Path('a/b.png'), Path('a/b.pdf')]
    with pytest.raises(ValueError, match='b.jpg: figures are written as .png or .pdf'):
        figure_paths(Path('b.jpg'))


def test_files_hold_the_figure_and_do_not_change(tmp_path):
    figure = Figure((2, 1))
    figure.text(0.1, 0.5, plain('a $x_1$ b'))
    first = save_figure(figure, tmp_path / 'new/one')
    second = save_figure(figure, tmp_path / 'two')
    assert Image.open(first[0]).size == (300, 150)
    assert first[1].read_bytes().startswith(b'%PDF')
    assert [p.read_bytes() for p in first] == [p.read_bytes() for p in second]
