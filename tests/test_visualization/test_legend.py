from __future__ import annotations

import numpy as np
import pytest

from infoclip_mmseg.visualization.legend import Entry, draw_legend, legend_columns, rank_entries


def entry(name: str, colour=(255, 255, 255), share: float = 0.5) -> Entry:
    return Entry(0, name, colour, share)


def text_pixels(entries, width=640) -> np.ndarray:
    return draw_legend(entries, width).min(axis=2) < 128


def test_the_largest_come_first():
    entries = rank_entries(np.array([0, 6, 2, 6]), 'abcd', [[i] * 3 for i in range(4)])
    assert [e.name for e in entries] == ['b', 'd', 'c', 'a']
    assert entries[1] == (3, 'd', [3, 3, 3], 6 / 14)


def test_legend_tells_names_apart_and_counts_the_rest():
    assert not np.array_equal(text_pixels([entry('cat')]), text_pixels([entry('dog')]))
    many = [entry(f'thing {i}', [i % 256, 0, 0], 0.001) for i in range(500)]
    assert draw_legend(many, 640).shape[0] < 300
    assert not np.array_equal(draw_legend(many, 640), draw_legend(many[:490], 640))


@pytest.mark.parametrize(
    'name', ['very ' * 300, '猫' * 500, '🐱 cat', 'a\nb\x00\u202ec', '<b>x</b>', 'e\u0301', ' ']
)
def test_any_name_can_be_drawn(name):
    legend = draw_legend([entry(name, [1, 2, 3], 1.0)], 320)
    assert legend.shape[1] == 320 and (legend[:, -6:] == 255).all()  # nothing is cut at the edge


def test_columns_of_a_legend():
    assert legend_columns(['x' * 20] * 9, 6.0) == 3
    assert legend_columns(['x'], 6.0) == 1 and legend_columns(['x' * 200] * 3, 2.0) == 1
