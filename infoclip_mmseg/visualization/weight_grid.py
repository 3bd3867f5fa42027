"""Heat map of a figure of merit over two loss weights (paper, Figure 5)."""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from infoclip_mmseg.experiments.ablation.tables import Record, Spread, spread
from infoclip_mmseg.visualization.lettering import plain

COLUMNS = ['run', 'seed', 'test', 'figure', 'value']
PANEL = (3.3, 2.9)
_PAIR = re.compile(r'\s*(.+?)[\s=]+([-+.\deE]+)\s*,\s*(.+?)[\s=]+([-+.\deE]+)\s*')


class Weights(NamedTuple):
    """What a run's name says: 'L_c 0.1, L_d 1' has names ('L_c', 'L_d') and values (0.1, 1)."""

    names: tuple[str, str]
    values: tuple[float, float]


def parse_weights(run: str) -> Weights | None:
    """The two weights in a run's name, or None where it is not of this form."""
    found = _PAIR.fullmatch(run)
    if found is None:
        return None
    try:
        return Weights((found[1], found[3]), (float(found[2]), float(found[4])))
    except ValueError:
        return None


def read_results(paths: Sequence[Path]) -> list[Record]:
    """Records of ``results.csv`` files of tools/ablation.py; equal lines count once.

    Raises:
        FileNotFoundError: A file is not there.
        ValueError: A file has other columns or a value that is no number, or two lines give one
            figure two values.
    """
    found: dict[tuple[str, int | None, str, str], Record] = {}
    for path in paths:
        with path.open(newline='', encoding='utf-8', errors='replace') as file:
            reader = csv.DictReader(file)
            if reader.fieldnames != COLUMNS:
                raise ValueError(
                    f'{path}: expected the results.csv of tools/ablation.py with columns '
                    f'{COLUMNS}, got {str(reader.fieldnames)[:200]}'
                )
            for row in reader:
                record = _read_row(row, f'{path}, line {reader.line_num}')
                key = (record.run, record.seed, record.test, record.figure)
                if found.setdefault(key, record).value != record.value:
                    raise ValueError(
                        f'{path}, line {reader.line_num}: {record.run!r}, seed {record.seed}, '
                        f'{record.figure} is {record.value}, but {found[key].value} before'
                    )
    return list(found.values())


def draw_weights(
    records: Sequence[Record], tests: Sequence[str] = (), figures: Sequence[str] = ()
) -> Figure:
    """A panel for each test (down) and figure (across): means over seeds, the weights as axes.

    Runs whose names hold no weights are baselines: their means stand in the titles. What was not
    run stays white.

    Args:
        records: From :func:`read_results`.
        tests: Those to show; empty shows all.
        figures: The same.

    Raises:
        ValueError: No run's name holds two weights, they are not of the same two losses, or a test
            or figure is unknown.
    """
    named = {record.run: parse_weights(record.run) for record in records}
    grid = {run: weights for run, weights in named.items() if weights is not None}
    kinds = {weights.names for weights in grid.values()}
    if len(kinds) != 1:
        raise ValueError(
            "expected runs named after the weights of two losses, 'L_c 0.1, L_d 1.0', got "
            f'{", ".join(map(repr, named)) or "no run"}'
        )
    tests = _choose('test', tests, [record.test for record in records])
    figures = _choose('figure', figures, [record.figure for record in records])
    size = (PANEL[0] * len(figures), PANEL[1] * len(tests))
    picture = Figure(size, layout='constrained')
    axes = picture.subplots(len(tests), len(figures), squeeze=False)
    for line, test in zip(axes, tests):
        for axis, figure in zip(line, figures):
            own = [r for r in records if (r.test, r.figure) == (test, figure)]
            values = {run: spread(r.value for r in own if r.run == run) for run in named}
            _draw_panel(picture, axis, values, grid)
            axis.set_title(_title(test, figure, values, grid, len(tests)), fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel(f'weight of {plain(next(iter(kinds))[1])}', fontsize=9)
    for axis in axes[:, 0]:
        axis.set_ylabel(f'weight of {plain(next(iter(kinds))[0])}', fontsize=9)
    return picture


def _draw_panel(
    picture: Figure, axis: Any, values: dict[str, Spread], grid: dict[str, Weights]
) -> None:
    rows, columns = (sorted({w.values[k] for w in grid.values()}) for k in (0, 1))
    cells = np.full((len(rows), len(columns)), math.nan)
    texts = {}
    for run, weights in grid.items():
        place = rows.index(weights.values[0]), columns.index(weights.values[1])
        cells[place] = values[run].mean
        texts[place] = _cell_text(values[run])
    drawn = axis.imshow(cells, cmap='viridis', origin='lower', aspect='auto')
    for (row, column), text in texts.items():
        dark = drawn.norm(cells[row, column]) < 0.6
        axis.text(
            column,
            row,
            text,
            ha='center',
            va='center',
            fontsize=8,
            color='white' if dark else 'black',
        )
    axis.set_xticks(range(len(columns)), [f'{value:g}' for value in columns])
    axis.set_yticks(range(len(rows)), [f'{value:g}' for value in rows])
    axis.tick_params(labelsize=8)
    picture.colorbar(drawn, ax=axis, fraction=0.05, pad=0.02).ax.tick_params(labelsize=7)


def _cell_text(values: Spread) -> str:
    """Mean, standard deviation and number of seeds."""
    if not values.count:
        return ''
    more = f'\n± {values.std:.2f}\nn = {values.count}' if values.count > 1 else ''
    return f'{values.mean:.2f}{more}'


def _title(
    test: str, figure: str, values: dict[str, Spread], grid: dict[str, Weights], tests: int
) -> str:
    title = plain(f'{figure} · {test}' if tests > 1 else figure, 44)
    others = [f'{plain(run)} {v.mean:.2f}' for run, v in values.items() if run not in grid]
    return '\n'.join([title, ', '.join(others)]) if others else title


def _choose(kind: str, wanted: Sequence[str], known: Sequence[str]) -> list[str]:
    known = list(dict.fromkeys(known))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(f'no {kind} {", ".join(map(repr, unknown))}; there are {known}')
    return list(wanted) or known


def _read_row(row: dict[str, str], place: str) -> Record:
    try:
        seed = int(row['seed']) if row['seed'] else None
        return Record(row['run'], seed, row['test'], row['figure'], float(row['value']))
    except (TypeError, ValueError) as error:
        raise ValueError(f'{place}: expected {COLUMNS}, got {row}') from error
