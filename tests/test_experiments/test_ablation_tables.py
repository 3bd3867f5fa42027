"""Aggregation, tables and pictures of an ablation, against numbers worked out by hand."""

from __future__ import annotations

import csv
import math

import numpy as np
import pytest
from PIL import Image

from infoclip_mmseg.experiments.ablation.plots import (
    draw_curves,
    draw_table,
    loss_curve,
    mean_curve,
)
from infoclip_mmseg.experiments.ablation.tables import (
    Record,
    paired_differences,
    spread,
    summarise,
    to_markdown,
    write_tables,
)

VALUES = {
    'base': {0: 40.0, 1: 42.0, 2: 44.0},
    'ours': {0: 41.0, 1: 41.0, 2: 47.0},
    'zero': {None: 43.0},
    'gap': {1: 50.0},
}
EXPECTED = {'base': 3, 'ours': 3, 'zero': 1, 'gap': 3, 'nothing': 3}


def records(test: str = 'joint', figure: str = 'mIoU') -> list[Record]:
    return [
        Record(run, seed, test, figure, value)
        for run, values in VALUES.items()
        for seed, value in values.items()
    ]


def cells(baseline: str | None = 'base'):
    return summarise(records(), EXPECTED, ['joint'], ['mIoU'], baseline)


def test_mean_and_sample_standard_deviation():
    assert spread([1.0, 2.0, 6.0]) == spread([1.0, math.nan, 2.0, 6.0])
    result = spread([1.0, 2.0, 6.0])
    assert (result.count, result.mean) == (3, 3.0)
    assert result.std == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert math.isnan(spread([5.0]).std) and math.isnan(spread([]).mean)


@pytest.mark.parametrize(
    ('values', 'baseline', 'expected'),
    [
        ({0: 2.0, 1: 5.0}, {0: 1.0, 1: 7.0}, [1.0, -2.0]),
        ({1: 5.0, 2: 9.0}, {0: 1.0, 1: 7.0}, [-2.0]),
        ({None: 4.0}, {0: 1.0, 1: 7.0}, [3.0, -3.0]),
        ({0: 1.0, 1: 7.0}, {None: 4.0}, [-3.0, 3.0]),
        ({None: 4.0}, {None: 1.0}, [3.0]),
        ({0: math.nan, 1: 1.0}, {0: 1.0, 1: 0.5}, [0.5]),
        ({}, {0: 1.0}, []),
    ],
)
def test_differences_are_taken_seed_by_seed(values, baseline, expected):
    assert paired_differences(values, baseline) == expected


def test_rows_of_the_summary():
    by_run = {cell.run: cell for cell in cells()}
    ours = by_run['ours']
    assert (ours.values.count, ours.values.mean) == (3, 43.0)
    assert ours.values.std == pytest.approx(math.sqrt(12))
    assert (ours.difference.mean, ours.in_favour) == (1.0, 2)
    assert ours.difference.std == pytest.approx(2.0)
    assert by_run['base'].difference is None
    assert (by_run['zero'].difference.mean, by_run['zero'].in_favour) == (1.0, 2)
    assert (by_run['gap'].difference.count, by_run['nothing'].values.count) == (1, 0)
    assert all(cell.difference is None for cell in cells(baseline=None))


def test_markdown():
    training = [
        dict(run='ours', seed=0, seconds=10.0, loss=0.5),
        dict(run='ours', seed=1, seconds=20.0, loss=0.25),
    ]
    lines = to_markdown(cells(), 'base', training).splitlines()
    assert '| base | 42.00 ± 2.00 |' in lines
    assert '| ours | 43.00 ± 3.46 |' in lines
    assert '| zero | 43.00 |' in lines
    assert '| gap | 50.00 (1 of 3) |' in lines
    assert '| nothing | – |' in lines
    assert '| ours | +1.00 ± 2.00 (2/3) |' in lines
    assert '| gap | +8.00 (1/1) |' in lines
    assert '| ours | 15 | 0.375 |' in lines
    assert not any(line.startswith('| base | +') for line in lines)


def test_a_bar_in_a_name_does_not_break_the_table():
    own = summarise([Record('a|b', 0, 't', 'f', 1.0)], {'a|b': 1}, ['t'], ['f'])
    assert '| a\\|b | 1.00 |' in to_markdown(own)


def test_csv_files(tmp_path):
    training = [dict(run='ours', seed=0, seconds=10.0), dict(run='ours', seed=1, loss=2.0)]
    paths = write_tables(tmp_path / 'new', records(), cells(), 'base', training)
    assert [path.name for path in paths] == [
        *('table.md', 'table.csv', 'results.csv', 'training.csv')
    ]
    table, results, trained = (list(csv.DictReader(path.open())) for path in paths[1:])
    ours = next(row for row in table if row['run'] == 'ours')
    assert ours == {
        **dict(run='ours', test='joint', figure='mIoU', seeds='3', mean='43.0', std='3.464102'),
        **dict(difference='1.0', difference_std='2.0', difference_seeds='3', in_favour='2'),
    }
    assert table[0]['difference'] == '' and table[-1]['mean'] == ''
    assert len(results) == 8
    assert results[6] == dict(run='zero', seed='', test='joint', figure='mIoU', value='43.0')
    assert trained[1] == dict(run='ours', seed='1', seconds='', loss='2.0')


def colours(path) -> int:
    """How many colours more than a picture of text and frames has."""
    pixels = np.array(Image.open(path).convert('RGB')).reshape(-1, 3)
    strong = pixels[np.ptp(pixels.astype(int), axis=1) > 60]
    return len(np.unique(strong // 32, axis=0))


def test_the_picture_of_the_figures_has_a_colour_for_each_run(tmp_path):
    both = [*records(), *records('shifted')]
    own = summarise(both, EXPECTED, ['joint', 'shifted'], ['mIoU'], 'base')
    draw_table(both, own, tmp_path / 'table.png')
    draw_table([], summarise([], EXPECTED, ['joint'], ['mIoU']), tmp_path / 'empty.png')
    assert colours(tmp_path / 'table.png') >= 4 > colours(tmp_path / 'empty.png') == 0
    with Image.open(tmp_path / 'table.png') as full, Image.open(tmp_path / 'empty.png') as empty:
        assert full.height == pytest.approx(2 * empty.height, rel=0.02)


def test_curves_are_means_over_seeds(tmp_path):
    seeds = [
        [dict(step=10, loss=1.0), dict(step=20, loss=0.5), dict(step=30, loss=0.25)],
        [dict(step=10, loss=2.0), dict(step=20, loss=math.nan), dict(step=30, loss=0.75)],
    ]
    singles = [loss_curve(seed, 'loss') for seed in seeds]
    assert mean_curve(singles) == {10: 1.5, 30: 0.5}
    assert mean_curve([]) == {} == loss_curve(seeds[0], 'loss_ib')
    draw_curves({'ours': seeds}, ['base', 'ours'], tmp_path / 'curves.png')
    assert colours(tmp_path / 'curves.png') >= 1
    draw_curves({}, ['base'], tmp_path / 'none.png')
    assert not (tmp_path / 'none.png').exists()
