"""Heat map of a figure of merit over two loss weights (paper, Figure 5)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from infoclip_mmseg.visualization.saving import plain

if TYPE_CHECKING:
    import pandas as pd

PANEL = (3.3, 2.9)
_PAIR = re.compile(r'\s*(.+?)[\s=]+([-+.\deE]+)\s*,\s*(.+?)[\s=]+([-+.\deE]+)\s*')


class Weights(NamedTuple):
    """What a run's name says: 'L_c 0.1, L_d 1' has names ('L_c', 'L_d') and values (0.1, 1)."""

    names: tuple[str, str]
    values: tuple[float, float]


def parse_weights(run: str) -> Weights | None:
    """The two weights in a run's name, or None where it is not of this form."""
    match = _PAIR.fullmatch(run)
    if match is None:
        return None
    try:
        return Weights((match[1], match[3]), (float(match[2]), float(match[4])))
    except ValueError:
        return None


def draw_weights(
    results: pd.DataFrame, tests: Sequence[str] = (), figures: Sequence[str] = ()
) -> Figure:
    """A panel for each test (down) and figure (across): means over seeds, the weights as axes.

    Runs whose names hold no weights are baselines: their means stand in the titles. What was not
    run stays white.

    Args:
        results: Columns `run`, `test`, `figure` and `value`, a row a seed.
        tests: Those to show; empty shows all.
        figures: The same.

    Raises:
        ValueError: No run's name holds two weights, they are not of the same two losses, or a test
            or figure is unknown.
    """
    runs = list(results['run'].unique())
    grid = {run: weights for run in runs if (weights := parse_weights(run)) is not None}
    kinds = {weights.names for weights in grid.values()}
    if len(kinds) != 1:
        raise ValueError(
            "expected runs named after the weights of two losses, 'L_c 0.1, L_d 1.0', got "
            f'{", ".join(map(repr, runs)) or "no run"}'
        )
    tests = _choose('test', tests, results['test'])
    figures = _choose('figure', figures, results['figure'])
    size = (PANEL[0] * len(figures), PANEL[1] * len(tests))
    picture = Figure(size, layout='constrained')
    axes = picture.subplots(len(tests), len(figures), squeeze=False)
    for line, test in zip(axes, tests):
        for axis, figure in zip(line, figures):
            values = _spread(results, test, figure).reindex(runs)
            _draw_panel(picture, axis, values, grid)
            axis.set_title(_title(test, figure, values['mean'].drop(grid), len(tests)), fontsize=9)
    for axis in axes[-1]:
        axis.set_xlabel(f'weight of {plain(next(iter(kinds))[1])}', fontsize=9)
    for axis in axes[:, 0]:
        axis.set_ylabel(f'weight of {plain(next(iter(kinds))[0])}', fontsize=9)
    return picture


def _spread(results: pd.DataFrame, test: str, figure: str) -> pd.DataFrame:
    """Count, mean and sample standard deviation of the finite values, by run."""
    chosen = (results['test'] == test) & (results['figure'] == figure)
    values = results[chosen & np.isfinite(results['value'])].groupby('run')['value']
    return values.agg(['count', 'mean', 'std'])


def _draw_panel(
    picture: Figure, axis: Any, values: pd.DataFrame, grid: Mapping[str, Weights]
) -> None:
    rows, columns = (sorted({w.values[k] for w in grid.values()}) for k in (0, 1))
    cells = np.full((len(rows), len(columns)), np.nan)
    places = {
        run: (rows.index(weights.values[0]), columns.index(weights.values[1]))
        for run, weights in grid.items()
    }
    for run, place in places.items():
        cells[place] = values['mean'][run]
    drawn = axis.imshow(cells, cmap='viridis', origin='lower', aspect='auto')
    for run, (row, column) in places.items():
        colour = 'white' if drawn.norm(cells[row, column]) < 0.6 else 'black'
        style = dict(ha='center', va='center', fontsize=8, color=colour)
        axis.text(column, row, _cell_text(*values.loc[run]), **style)
    axis.set_xticks(range(len(columns)), [f'{value:g}' for value in columns])
    axis.set_yticks(range(len(rows)), [f'{value:g}' for value in rows])
    axis.tick_params(labelsize=8)
    picture.colorbar(drawn, ax=axis, fraction=0.05, pad=0.02).ax.tick_params(labelsize=7)


def _cell_text(count: float, mean: float, std: float) -> str:
    """Mean, standard deviation and number of seeds."""
    if np.isnan(mean):
        return ''
    more = '' if np.isnan(std) else f'\n± {std:.2f}\nn = {count:.0f}'
    return f'{mean:.2f}{more}'


def _title(test: str, figure: str, baselines: pd.Series, tests: int) -> str:
    title = plain(f'{figure} · {test}' if tests > 1 else figure, 44)
    others = [f'{plain(run)} {mean:.2f}' for run, mean in baselines.items()]
    return '\n'.join([title, ', '.join(others)]) if others else title


def _choose(kind: str, wanted: Sequence[str], known: Iterable[str]) -> list[str]:
    known = list(dict.fromkeys(known))
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ValueError(f'no {kind} {", ".join(map(repr, unknown))}; there are {known}')
    return list(wanted) or known
