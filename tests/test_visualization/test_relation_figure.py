from __future__ import annotations

import numpy as np
import pytest

from infoclip_mmseg.visualization.relation_figure import draw_alignment, limits

IMAGE = np.full((30, 40, 3), 128, np.uint8)


@pytest.mark.parametrize('scale', ['row', 'map'])
def test_alignment_has_a_column_a_word_and_a_row_a_map(scale, texts):
    maps = np.linspace(0, 1, 2 * 3 * 4, dtype=np.float32).reshape(2, 3, 4)
    rows = {'cosine': [maps, maps], 'LPAM': [maps * 9, maps]}
    figure = draw_alignment([IMAGE, IMAGE], rows, ['cat', 'dog'], scale)
    drawn = [image for axis in figure.axes for image in axis.get_images()]
    heats = [image for image in drawn if image.get_array().shape == (3, 4)]
    assert len(heats) == 2 * 2 * 2
    scales = {tuple(np.round(image.get_clim(), 2)) for image in heats}
    wide = limits(maps * 9)[1] if scale == 'row' else limits(maps[1] * 9)[1]
    assert max(high for _, high in scales) == pytest.approx(wide, abs=0.01)
    assert len(scales) == (2 if scale == 'row' else 4)
    assert {'cat', 'dog', 'image', 'cosine', 'LPAM'} <= set(texts(figure))


def test_alignment_checks():
    maps = np.zeros((2, 3, 4), np.float32)
    assert limits(maps)[0] < limits(maps)[1]
    with pytest.raises(
        ValueError, match=r"row 'cosine' needs maps of 3 words for each of 1 images"
    ):
        draw_alignment([IMAGE], {'cosine': [maps]}, ['a', 'b', 'c'])
    with pytest.raises(ValueError, match="scale must be 'row' or 'map', got 'x'"):
        draw_alignment([IMAGE], {'cosine': [maps]}, ['a', 'b'], 'x')
