"""Tables of an ablation: means over seeds, paired differences, Markdown and CSV."""

from __future__ import annotations

import csv
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

GAP = '–'


@dataclass(frozen=True)
class Record:
    """One figure of one evaluation; `seed` is None for a run that was not trained."""

    run: str
    seed: int | None
    test: str
    figure: str
    value: float


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation of `count` values; NaN where there are too few."""

    count: int
    mean: float
    std: float


@dataclass(frozen=True)
class Cell:
    """One figure of a run on a test.

    Attributes:
        values: Over the seeds.
        expected: How many seeds there should be.
        difference: To the baseline, seed by seed; None without a baseline and for itself.
        in_favour: For how many of these seeds the run is better (higher).
    """

    run: str
    test: str
    figure: str
    values: Spread
    expected: int
    difference: Spread | None = None
    in_favour: int = 0


def spread(values: Iterable[float]) -> Spread:
    """Mean and sample standard deviation (divisor n - 1); NaN and infinite values are left out."""
    finite = [value for value in values if math.isfinite(value)]
    mean = statistics.fmean(finite) if finite else math.nan
    return Spread(len(finite), mean, statistics.stdev(finite) if len(finite) > 1 else math.nan)


def paired_differences(
    values: Mapping[int | None, float], baseline: Mapping[int | None, float]
) -> list[float]:
    """Differences to the baseline over the seeds that both have.

    A run that was not trained has the seed None alone; its value is compared with each seed of the
    other.

    Args:
        values: Value by seed.
        baseline: The same of the baseline.

    Returns:
        value - baseline for each pair in which both are finite.
    """
    seeds: list[int | None] = [seed for seed in {**baseline, **values} if seed is not None]
    seeds = seeds or [None]
    pairs = [(_of_seed(values, seed), _of_seed(baseline, seed)) for seed in seeds]
    differences = [first - second for first, second in pairs]
    return [value for value in differences if math.isfinite(value)]


def summarise(
    records: Sequence[Record],
    expected: Mapping[str, int],
    tests: Sequence[str],
    figures: Sequence[str],
    baseline: str | None = None,
) -> list[Cell]:
    """Aggregate over seeds.

    Args:
        records: All figures.
        expected: Number of seeds of each run; its order is that of the rows.
        tests: Names of the tests.
        figures: Names of the figures.
        baseline: The run to compare with.

    Returns:
        A cell for each test, run and figure, in this order, also where there is no value.
    """
    values: dict[tuple[str, str, str], dict[int | None, float]] = {}
    for record in records:
        key = (record.test, record.run, record.figure)
        values.setdefault(key, {})[record.seed] = record.value
    cells = []
    for test, run, figure in ((t, r, f) for t in tests for r in expected for f in figures):
        own = values.get((test, run, figure), {})
        difference, in_favour = None, 0
        if baseline is not None and run != baseline:
            differences = paired_differences(own, values.get((test, baseline, figure), {}))
            difference, in_favour = spread(differences), sum(d > 0 for d in differences)
        cell = Cell(run, test, figure, spread(own.values()), expected[run], difference, in_favour)
        cells.append(cell)
    return cells


def to_markdown(
    cells: Sequence[Cell], baseline: str | None = None, training: Sequence[Mapping[str, Any]] = ()
) -> str:
    """Tables of an ablation: for each test the figures and the differences to the baseline.

    Args:
        cells: From :func:`summarise`.
        baseline: Name of the run that `difference` refers to.
        training: A row for each training with `run`, `seed`, `seconds` and last logged scalars.
    """
    parts = ['Mean ± sample standard deviation over seeds; (m of n) where results are missing.']
    for test in _unique(cell.test for cell in cells):
        own = [cell for cell in cells if cell.test == test]
        figures = _unique(cell.figure for cell in own)
        rows = {cell.run: [c for c in own if c.run == cell.run] for cell in own}
        body = [[run, *map(format_values, row)] for run, row in rows.items()]
        parts += [f'## {test}', _markdown_table(['run', *figures], body)]
        if baseline is not None:
            body = [[r, *map(format_difference, row)] for r, row in rows.items() if r != baseline]
            parts += [
                f'Paired difference to {baseline} (seeds in favour / seeds):',
                _markdown_table(['run', *figures], body),
            ]
    if training:
        columns = _unique(key for row in training for key in row if key not in ('run', 'seed'))
        body = []
        for run in _unique(row['run'] for row in training):
            own_rows = [row for row in training if row['run'] == run]
            means = [spread(row.get(column, math.nan) for row in own_rows) for column in columns]
            body.append([run, *(f'{m.mean:.4g}' if m.count else GAP for m in means)])
        parts += ['## Training', 'Last logged values, mean over seeds.']
        parts.append(_markdown_table(['run', *columns], body))
    return '\n\n'.join(parts) + '\n'


def format_values(cell: Cell) -> str:
    """'41.20 ± 0.31', with '(2 of 3)' behind it where seeds are missing."""
    values = cell.values
    if values.count == 0:
        return GAP
    missing = '' if values.count == cell.expected else f' ({values.count} of {cell.expected})'
    return f'{values.mean:.2f}{_plus_minus(values)}{missing}'


def format_difference(cell: Cell) -> str:
    """'+1.20 ± 0.31 (3/3)': seeds in favour and seeds compared."""
    difference = cell.difference
    if difference is None or difference.count == 0:
        return GAP
    seeds = f'({cell.in_favour}/{difference.count})'
    return f'{difference.mean:+.2f}{_plus_minus(difference)} {seeds}'


def write_tables(
    folder: Path,
    records: Sequence[Record],
    cells: Sequence[Cell],
    baseline: str | None = None,
    training: Sequence[Mapping[str, Any]] = (),
) -> list[Path]:
    """Write table.md, table.csv (aggregated), results.csv (one value a line) and training.csv.

    Args:
        folder: Where to; made if it is not there.
        records: All figures.
        cells: What :func:`summarise` made of them.
        baseline: See :func:`to_markdown`.
        training: See :func:`to_markdown`.

    Returns:
        The files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    names = ('table.md', 'table.csv', 'results.csv', 'training.csv')
    paths = [folder / name for name in names]
    paths[0].write_text(to_markdown(cells, baseline, training), encoding='utf-8')
    header = ['run', 'test', 'figure', 'seeds', 'mean', 'std']
    rows: list[list[Any]] = [_csv_cells(cell) for cell in cells]
    compared = ['difference', 'difference_std', 'difference_seeds', 'in_favour']
    _write_csv(paths[1], [*header, *compared], rows)
    rows = [[r.run, r.seed, r.test, r.figure, r.value] for r in records]
    _write_csv(paths[2], ['run', 'seed', 'test', 'figure', 'value'], rows)
    columns = _unique(key for row in training for key in row) or ['run', 'seed', 'seconds']
    _write_csv(paths[3], columns, [[row.get(key) for key in columns] for row in training])
    return paths


def _csv_cells(cell: Cell) -> list[Any]:
    """A line of table.csv; what is not known stays empty."""
    spreads = [cell.values, cell.difference or Spread(0, math.nan, math.nan)]
    first, second = ([s.count, *(_known(v) for v in (s.mean, s.std))] for s in spreads)
    line = [cell.run, cell.test, cell.figure, *first]
    if cell.difference is None:
        return [*line, None, None, None, None]
    return [*line, *second[1:], second[0], cell.in_favour]


def _known(value: float) -> float | None:
    return round(value, 6) if math.isfinite(value) else None


def _of_seed(values: Mapping[int | None, float], seed: int | None) -> float:
    return values.get(seed, values.get(None, math.nan))


def _plus_minus(values: Spread) -> str:
    return f' ± {values.std:.2f}' if values.count > 1 else ''


def _unique(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ['---'] * len(header), *rows]
    cells = [[str(cell).replace('|', '\\|') for cell in line] for line in lines]
    return '\n'.join(f'| {" | ".join(line)} |' for line in cells)


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    with path.open('w', newline='', encoding='utf-8') as file:
        writer = csv.writer(file)
        writer.writerow(header)
        writer.writerows(rows)
