"""Curves of quality against the number of classes that are decoded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, NullLocator

from infoclip_mmseg.visualization.lettering import plain

if TYPE_CHECKING:
    import pandas as pd

_TEST = re.compile(r'(.+), K (\d+)')
ALL = 'all'
_TICKS = (-50, -20, -10, -5, -2, -1, -0.5, 0, 0.5, 1, 2, 5, 10, 20, 50)


def draw_decoded(results: pd.DataFrame, figure: str = 'harmonic') -> Figure:
    """A panel for each test that was also run with K classes ('joint' and 'joint, K 8').

    A curve is a run: its differences to the first run with all classes, paired by seed, as mean and
    two standard errors, in points, with gaps where something was not run. Results have the columns
    `run`, `seed`, `test`, `figure` and `value`. ValueError: no such test or figure.
    """
    chosen = results[results['figure'] == figure]
    table = chosen.pivot_table(index='seed', columns=['run', 'test'], values='value')
    tests: dict[str, dict[str, str]] = {}
    for test in results['test'].unique():
        if match := _TEST.fullmatch(test):
            tests.setdefault(match[1], {ALL: match[1]})[match[2]] = test
    if not tests or table.empty:
        raise ValueError(
            "expected tests such as 'joint' and 'joint, K 8' with a figure "
            f'{figure!r}, got tests {", ".join(map(repr, results["test"].unique())) or "none"} '
            f'with {", ".join(map(repr, results["figure"].unique())) or "none"}'
        )
    runs = list(results['run'].unique())
    names = results['test'].unique()
    table = table.reindex(columns=[(run, test) for run in runs for test in names])
    picture = Figure((3.6 * len(tests), 3.2), layout='constrained')
    for axis, (base, columns) in zip(
        picture.subplots(1, len(tests), squeeze=False)[0], tests.items()
    ):
        counts = [*sorted((k for k in columns if k != ALL), key=int), ALL]
        for run in runs:
            pairs = [table[run, columns[k]] - table[runs[0], base] for k in counts]
            means = [pair.mean() for pair in pairs]
            errors = [2 * pair.sem() for pair in pairs]
            axis.errorbar(
                counts, means, errors, marker='o', ms=4, lw=1.2, capsize=2, label=plain(run)
            )
        axis.axhline(0, color='#8c8c8c', lw=0.8, zorder=0)
        axis.set_yscale('symlog', linthresh=1, linscale=1.5)  # a tenth of a point beside twenty
        axis.yaxis.set_major_locator(FixedLocator(_TICKS))
        axis.yaxis.set_major_formatter('{x:g}')
        axis.yaxis.set_minor_locator(NullLocator())
        axis.set_title(plain(base, 44), fontsize=9)
        axis.set_xlabel('decoded classes K', fontsize=9)
        axis.spines[['top', 'right']].set_visible(False)
    picture.axes[0].set_ylabel(f'{figure} against {plain(runs[0])}, all', fontsize=9)
    picture.axes[-1].legend(frameon=False, fontsize=8)
    return picture
