"""Curves of quality against the number of decoded classes."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from infoclip_mmseg.visualization.decoded import draw_decoded

TESTS = {'joint': 0.0, 'joint, K 4': -2.0, 'joint, K 16': -0.5, 'shifted': 1.0, 'shifted, K 8': 0.5}


def results(figure: str = 'harmonic') -> pd.DataFrame:
    """Seeds differ by 10 points, which pairing takes out; K 8 in training gives 3 more."""
    rows = [
        (run, seed, test, figure, 50 + 10 * seed + gain + value + spread * seed)
        for run, gain, spread in (('CAT-Seg', 0, 0.0), ('K 8', 3, 1.0))
        for seed in (0, 1, 2)
        for test, value in TESTS.items()
    ]
    return pd.DataFrame(rows, columns=['run', 'seed', 'test', 'figure', 'value'])


def test_curves_are_paired_differences_to_all_classes():
    picture = draw_decoded(pd.concat([results(), results('PQ')]))
    joint, shifted = picture.axes
    assert [axis.get_title() for axis in picture.axes] == ['joint', 'shifted']
    assert [text.get_text() for text in joint.get_xticklabels()] == ['4', '16', 'all']
    first, second = joint.containers
    assert np.allclose(first.lines[0].get_ydata(), [-2, -0.5, 0])
    assert np.allclose(second.lines[0].get_ydata(), [2, 3.5, 4])  # 3 and the mean of 0, 1, 2
    (bars,) = second.lines[2]
    (_, low), (_, high) = bars.get_segments()[0]
    assert high - low == pytest.approx(4 / np.sqrt(3))  # two standard errors up and down
    assert np.allclose(shifted.containers[0].lines[0].get_ydata(), [-0.5, 0])


def test_what_was_not_run_is_a_gap():
    table = results()
    left_out = (table['run'] == 'K 8') & (table['test'] == 'joint, K 16')
    _, second = draw_decoded(table[~left_out]).axes[0].containers
    values = second.lines[0].get_ydata()
    assert np.isnan(values[1]) and np.allclose(values[[0, 2]], [2, 4])


@pytest.mark.parametrize('figure', ['harmonic', 'mIoU'])
def test_results_without_such_tests_are_refused(figure):
    table = results()
    kept = table if figure == 'mIoU' else table[table['test'].isin(['joint', 'shifted'])]
    with pytest.raises(ValueError, match="'joint, K 8' with a figure '" + figure):
        draw_decoded(kept, figure)
