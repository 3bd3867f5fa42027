"""Tables of an ablation: means over seeds, paired differences, Markdown and CSV."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from infoclip_mmseg.experiments.tables import GAP, markdown_table, write_csv

RESULT_COLUMNS = ['run', 'seed', 'test', 'figure', 'value']
CELL = ['test', 'run', 'figure']
SPREAD = ['seeds', 'mean', 'std']
DIFFERENCE = ['difference', 'difference_std', 'difference_seeds', 'in_favour']


def make_results(values: Iterable[Sequence[Any]]) -> pd.DataFrame:
    """Figures of evaluations from tuples of RESULT_COLUMNS; an untrained run has the seed None."""
    results = pd.DataFrame(values, columns=RESULT_COLUMNS)
    return results.astype({'seed': 'Int64', 'value': float})


def read_results(paths: Sequence[Path]) -> pd.DataFrame:
    """Join files written as ``results.csv`` by :func:`write_tables`; equal lines count once.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: A file has other columns or a value that is no number, or two lines give one
            figure two values.
    """
    known: dict[tuple[Any, ...], float] = {}
    for path in paths:
        with path.open(newline='', encoding='utf-8', errors='replace') as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != RESULT_COLUMNS:
                raise ValueError(
                    f'{path}: expected the results.csv of tools/ablation.py with columns '
                    f'{RESULT_COLUMNS}, got {str(reader.fieldnames)[:200]}'
                )
            for row in reader:
                place = f'{path}, line {reader.line_num}'
                try:
                    seed = int(row['seed']) if row['seed'] else None
                    key, value = (row['run'], seed, row['test'], row['figure']), float(row['value'])
                except (TypeError, ValueError) as error:
                    raise ValueError(f'{place}: expected {RESULT_COLUMNS}, got {row}') from error
                before = known.setdefault(key, value)
                if str(before) != str(value):  # by text, in which NaN is the same as NaN
                    raise ValueError(f'{place}: {key} is {value}, but {before} before')
    return make_results((*key, value) for key, value in known.items())


def spread(results: pd.DataFrame) -> pd.DataFrame:
    """SPREAD of the finite values of :func:`make_results` by test, run and figure.

    The sample standard deviation has the divisor n - 1; that of a single value is NaN.
    """
    values = _finite(results).groupby(CELL)['value']
    return values.agg(['count', 'mean', 'std']).set_axis(SPREAD, axis=1)


def paired_differences(results: pd.DataFrame, baseline: str | None) -> pd.DataFrame:
    """The results of the other runs less the baseline's, where both are finite.

    Compared are seeds that both have. A run that was not trained has no seed; its value is compared
    with each seed of the other.
    """
    results = _finite(results)
    others, base = results[results['run'] != baseline], results[results['run'] == baseline]
    pairs = others.merge(base, on=['test', 'figure'], suffixes=('', '_baseline'))
    pairs = pairs[(pairs['seed'] == pairs['seed_baseline']).fillna(True)]
    return pairs.assign(value=pairs['value'] - pairs['value_baseline'])[RESULT_COLUMNS]


def summarise(
    results: pd.DataFrame,
    expected: Mapping[str, int],
    tests: Sequence[str],
    figures: Sequence[str],
    baseline: str | None = None,
) -> pd.DataFrame:
    """Aggregate over seeds: a row for each test, run and figure, also where there is no value.

    Columns are these names, SPREAD, DIFFERENCE (missing without a baseline and for itself;
    `in_favour` counts the seeds for which the run is higher) and `expected`, the number of seeds of
    each run, whose order is that of the rows.
    """
    cells = pd.MultiIndex.from_product([tests, list(expected), figures], names=CELL)
    differences = paired_differences(results, baseline)
    higher = differences[differences['value'] > 0]
    compared = spread(differences)[['mean', 'std', 'seeds']].set_axis(DIFFERENCE[:3], axis=1)
    compared['in_favour'] = higher.groupby(CELL).size()
    summary = pd.DataFrame(index=cells).join(spread(results)).join(compared).reset_index()
    counts = ['seeds', 'difference_seeds', 'in_favour']
    summary[counts] = summary[counts].fillna(0).astype('Int64')
    alone = (summary['run'] == baseline) | (baseline is None)
    summary.loc[alone, ['difference_seeds', 'in_favour']] = pd.NA
    summary['expected'] = summary['run'].map(dict(expected))
    return summary[['run', 'test', 'figure', *SPREAD, *DIFFERENCE, 'expected']]


def to_markdown(
    summary: pd.DataFrame,
    baseline: str | None = None,
    training: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Tables of an ablation: for each test the figures and the differences to the baseline.

    ``training`` has a row for each training with `run`, `seed`, `seconds` and last logged scalars.
    """
    parts = ['Mean ± sample standard deviation over seeds; (m of n) where results are missing.']
    for test, cells in summary.groupby('test', sort=False):
        figures = cells['figure'].unique()
        parts += [f'## {test}', _runs_by_figures(cells, figures, format_values)]
        if baseline is not None:
            others = cells[cells['run'] != baseline]
            parts.append(f'Paired difference to {baseline} (seeds in favour / seeds):')
            parts.append(_runs_by_figures(others, figures, format_difference))
    if training:
        scalars = pd.DataFrame(training).drop(columns='seed').replace([np.inf, -np.inf], np.nan)
        means = scalars.groupby('run', sort=False).mean().reset_index()
        parts += ['## Training', 'Last logged values, mean over seeds.', markdown_table(means)]
    return '\n\n'.join(parts) + '\n'


def format_values(cell: Any) -> str:
    """'41.20 ± 0.31' of a row of the summary, with '(2 of 3)' behind it where seeds are missing."""
    if cell.seeds == 0:
        return GAP
    missing = '' if cell.seeds == cell.expected else f' ({cell.seeds} of {cell.expected})'
    return f'{cell.mean:.2f}{_plus_minus(cell.std)}{missing}'


def format_difference(cell: Any) -> str:
    """'+1.20 ± 0.31 (3/3)' of a row of the summary: seeds in favour and seeds compared."""
    if cell.difference_seeds == 0:
        return GAP
    seeds = f'({cell.in_favour}/{cell.difference_seeds})'
    return f'{cell.difference:+.2f}{_plus_minus(cell.difference_std)} {seeds}'


def write_tables(
    folder: Path,
    results: pd.DataFrame,
    summary: pd.DataFrame,
    baseline: str | None = None,
    training: Sequence[Mapping[str, Any]] = (),
) -> None:
    """Write table.md, table.csv (aggregated), results.csv (one value a line) and training.csv."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / 'table.md').write_text(to_markdown(summary, baseline, training), encoding='utf-8')
    write_csv(summary.drop(columns='expected').round(6), folder / 'table.csv')
    # As text, so that a value that is NaN is told from one that is not there.
    write_csv(results.assign(value=results['value'].map(str)), folder / 'results.csv')
    rows = [{name: str(value) for name, value in row.items()} for row in training]
    columns = None if rows else ['run', 'seed', 'seconds']
    write_csv(pd.DataFrame(rows, columns=columns), folder / 'training.csv')


def _finite(results: pd.DataFrame) -> pd.DataFrame:
    return results[np.isfinite(results['value'])]


def _runs_by_figures(
    cells: pd.DataFrame, figures: Sequence[str], show: Callable[[Any], str]
) -> str:
    rows = [[run, *map(show, one.itertuples())] for run, one in cells.groupby('run', sort=False)]
    return markdown_table(pd.DataFrame(rows, columns=['run', *figures]))


def _plus_minus(std: float) -> str:
    return '' if np.isnan(std) else f' ± {std:.2f}'
