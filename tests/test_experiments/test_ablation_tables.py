"""Aggregation, tables and pictures of an ablation, against numbers worked out by hand."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from infoclip_mmseg.experiments.ablation.report import (
    draw_curves,
    draw_table,
    loss_curves,
    mean_curve,
)
from infoclip_mmseg.experiments.ablation.tables import (
    DIFFERENCE,
    make_results,
    paired_differences,
    read_results,
    spread,
    summarise,
    to_markdown,
    write_tables,
)

ROOT = Path(__file__).resolve().parents[2]
VALUES = {
    'base': {0: 40.0, 1: 42.0, 2: 44.0},
    'ours': {0: 41.0, 1: 41.0, 2: 47.0},
    'zero': {None: 43.0},
    'gap': {1: 50.0},
}
EXPECTED = {'base': 3, 'ours': 3, 'zero': 1, 'gap': 3, 'nothing': 3}


def results_of(*tests: str) -> pd.DataFrame:
    return make_results(
        (run, seed, test, 'mIoU', value)
        for test in tests
        for run, values in VALUES.items()
        for seed, value in values.items()
    )


RESULTS = results_of('joint')


def summary_of(baseline: str | None = 'base') -> pd.DataFrame:
    return summarise(RESULTS, EXPECTED, ['joint'], ['mIoU'], baseline)


def one_run(name: str, values: dict[int | None, float]) -> list[tuple]:
    return [(name, seed, 't', 'f', value) for seed, value in values.items()]


def spread_of(values: list[float]) -> tuple[int, float, float]:
    return tuple(spread(make_results(one_run('a', dict(enumerate(values))))).iloc[0])


def test_mean_and_sample_standard_deviation():
    assert spread_of([1.0, 2.0, 6.0]) == spread_of([1.0, math.nan, 2.0, 6.0, math.inf])
    count, mean, std = spread_of([1.0, 2.0, 6.0])
    assert (count, mean) == (3, 3.0)
    assert std == pytest.approx(math.sqrt((4 + 1 + 9) / 2))
    assert math.isnan(spread_of([5.0])[2]) and spread(make_results([])).empty


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
    results = make_results([*one_run('base', baseline), *one_run('ours', values)])
    differences = paired_differences(results, 'base')
    assert differences['value'].tolist() == expected
    assert set(differences['run']) <= {'ours'}


def test_rows_of_the_summary():
    by_run = summary_of().set_index('run')
    ours = by_run.loc['ours']
    assert (ours['seeds'], ours['mean']) == (3, 43.0)
    assert ours['std'] == pytest.approx(math.sqrt(12))
    assert (ours['difference'], ours['in_favour']) == (1.0, 2)
    assert ours['difference_std'] == pytest.approx(2.0)
    assert by_run.loc['base', DIFFERENCE].isna().all()
    assert (by_run['difference']['zero'], by_run['in_favour']['zero']) == (1.0, 2)
    assert (by_run['difference_seeds']['gap'], by_run['seeds']['nothing']) == (1, 0)
    assert summary_of(baseline=None)[DIFFERENCE].isna().all(axis=None)


def test_an_infinite_difference_is_in_nobodys_favour():
    results = make_results([*one_run('base', {0: 1.0}), *one_run('ours', {0: math.inf})])
    row = summarise(results, {'base': 1, 'ours': 1}, ['t'], ['f'], 'base').iloc[1]
    assert (row['difference_seeds'], row['in_favour']) == (0, 0)


def test_markdown():
    training = [
        dict(run='ours', seed=0, seconds=10.0, loss=0.5),
        dict(run='ours', seed=1, seconds=20.0, loss=0.25),
    ]
    lines = to_markdown(summary_of(), 'base', training).splitlines()
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
    summary = summarise(make_results(one_run('a|b', {0: 1.0})), {'a|b': 1}, ['t'], ['f'])
    assert '| a\\|b | 1.00 |' in to_markdown(summary)


def test_csv_files(tmp_path):
    training = [dict(run='ours', seed=0, seconds=10.0), dict(run='ours', seed=1, loss=2.0)]
    write_tables(tmp_path / 'new', RESULTS, summary_of(), 'base', training)
    assert {path.name for path in (tmp_path / 'new').iterdir()} == {
        *('table.md', 'table.csv', 'results.csv', 'training.csv')
    }
    table, results, trained = (
        list(csv.DictReader((tmp_path / f'new/{name}.csv').open()))
        for name in ('table', 'results', 'training')
    )
    ours = next(row for row in table if row['run'] == 'ours')
    assert ours == {
        **dict(run='ours', test='joint', figure='mIoU', seeds='3', mean='43.0', std='3.464102'),
        **dict(difference='1.0', difference_std='2.0', difference_seeds='3', in_favour='2'),
    }
    assert table[0]['difference'] == '' and table[-1]['mean'] == ''
    assert len(results) == 8
    assert results[6] == dict(run='zero', seed='', test='joint', figure='mIoU', value='43.0')
    assert trained[1] == dict(run='ours', seed='1', seconds='', loss='2.0')


def test_values_that_are_no_numbers_are_told_from_missing_ones(tmp_path):
    results = make_results([*one_run('a', {None: math.nan}), *one_run('b', {0: math.inf})])
    summary = summarise(results, {'a': 1, 'b': 1}, ['t'], ['f'])
    training = [dict(run='b', seed=0, loss=math.nan), dict(run='b', seed=1)]
    write_tables(tmp_path, results, summary, training=training)
    assert (tmp_path / 'results.csv').read_text().splitlines()[1:] == ['a,,t,f,nan', 'b,0,t,f,inf']
    assert (tmp_path / 'training.csv').read_text().splitlines()[1:] == ['b,0,nan', 'b,1,']
    pd.testing.assert_frame_equal(read_results([tmp_path / 'results.csv']), results)


@pytest.mark.parametrize('name', ['ablation', 'ablation_lambda', 'ablation_forgetting'])
def test_tables_of_the_repository(name):
    """The figures of a page of configs/world/results come out of its results again."""
    results = read_results([ROOT / f'configs/world/results/{name}.csv'])
    page = (ROOT / f'configs/world/results/{name}.md').read_text(encoding='utf-8')
    seeds = results.groupby('run', sort=False)['seed'].agg(lambda seeds: len(set(seeds)))
    names = (results[column].unique() for column in ('test', 'figure'))
    summary = summarise(results, seeds.to_dict(), *names, baseline='CAT-Seg')
    assert to_markdown(summary, 'CAT-Seg') == page.split('\n## Training')[0]


def colours(path) -> int:
    """How many colours more than a picture of text and frames has."""
    pixels = np.array(Image.open(path).convert('RGB')).reshape(-1, 3)
    strong = pixels[np.ptp(pixels.astype(int), axis=1) > 60]
    return len(np.unique(strong // 32, axis=0))


def test_the_picture_of_the_figures_has_a_colour_for_each_run(tmp_path):
    both = results_of('joint', 'shifted')
    summary = summarise(both, EXPECTED, ['joint', 'shifted'], ['mIoU'], 'base')
    draw_table(both, summary, tmp_path / 'table.png')
    nothing = make_results([])
    draw_table(nothing, summarise(nothing, EXPECTED, ['joint'], ['mIoU']), tmp_path / 'empty.png')
    assert colours(tmp_path / 'table.png') >= 4 > colours(tmp_path / 'empty.png') == 0
    with Image.open(tmp_path / 'table.png') as full, Image.open(tmp_path / 'empty.png') as empty:
        assert full.height == pytest.approx(2 * empty.height, rel=0.02)


def test_curves_are_means_over_seeds(tmp_path):
    seeds = [
        [dict(step=10, loss=1.0), dict(step=20, loss=0.5), dict(step=30, loss=0.25)],
        [dict(step=10, loss=2.0), dict(step=20, loss=math.nan), dict(step=30, loss=0.75)],
    ]
    singles = loss_curves(seeds, 'loss')
    assert singles[1].dropna().to_dict() == {10: 2.0, 30: 0.75}
    assert mean_curve(singles).to_dict() == {10: 1.5, 30: 0.5}
    assert mean_curve(loss_curves([], 'loss')).empty and loss_curves(seeds, 'loss_ib').empty
    draw_curves({'ours': seeds}, ['base', 'ours'], tmp_path / 'curves.png')
    assert colours(tmp_path / 'curves.png') >= 1
    draw_curves({}, ['base'], tmp_path / 'none.png')
    assert not (tmp_path / 'none.png').exists()
