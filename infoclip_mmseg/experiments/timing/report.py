"""What follows from measurements: JSON, Markdown and pictures."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.figure import Figure

from infoclip_mmseg.experiments.tables import markdown_table
from infoclip_mmseg.experiments.timing.measure import GROUPS
from infoclip_mmseg.experiments.timing.runs import Measurement
from infoclip_mmseg.experiments.timing.sides import Side
from infoclip_mmseg.experiments.timing.subjects import SUBJECTS

OWN = 'of it by the part'
UNTIMED = ('profile_train', 'profile_inference', 'memory')
PANEL = (5.0, 3.6)
"""Width and height of a picture's panel, in inches."""
BAR = 0.55
"""Height of a bar and its gap, in inches."""
LOG_FACTOR = 20
"""Values that span more than this are drawn on a logarithmic axis."""
AXES = {'classes': 'classes', 'image-size': 'image side in pixels'}


def title(one: Measurement) -> str:
    """Of what it is a measurement."""
    return ', '.join([SUBJECTS[one.part].title, *(f'{k} {v}' for k, v in one.point.items())])


def calls(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """One row a call and section, with peak memory in GB and what of it was not in use before."""
    names = ['allocator', 'side', 'subject', 'part', 'peak', OWN, 'section', 'seconds']
    rows = [
        (one.allocator, one.side, one.part, title(one), one.peak / 1e9, own, section, seconds)
        for one in measurements
        for own in [max(one.peak - one.start, 0) / 1e9]
        for section, values in one.seconds.items()
        for seconds in values
    ]
    return pd.DataFrame(rows, columns=names).astype({'seconds': float})


def by_allocator(measurements: Sequence[Measurement]) -> dict[str, list[Measurement]]:
    """The measurements of each allocator."""
    names = dict.fromkeys(one.allocator for one in measurements)
    return {name: [one for one in measurements if one.allocator == name] for name in names}


def main_seconds(one: Measurement) -> float:
    """Median of the section that stands for a part."""
    return float(pd.Series(one.seconds[SUBJECTS[one.part].section]).median())


def time_table(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """Seconds of each section: median, extremes, and the median's ratio to the first side's."""
    table = calls([one for one in measurements if one.part not in UNTIMED])
    groups = table.groupby(['part', 'section', 'side'], sort=False)['seconds']
    table = groups.agg(['median', 'min', 'max']).reset_index()
    return _with_ratio(table, ['part', 'section'], 'median')


def memory_table(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """Peak of each part in GB."""
    table = calls([one for one in measurements if one.part not in UNTIMED])
    groups = table.groupby(['part', 'side'], sort=False)[['peak', OWN]]
    return _with_ratio(groups.max().reset_index(), ['part'], 'peak')


def _with_ratio(table: pd.DataFrame, names: list[str], column: str) -> pd.DataFrame:
    """Put the sides of each row together, with the ratio of a column to the first side's."""
    groups = table.groupby(names, sort=False)
    table['ratio'] = table[column] / groups[column].transform('first')
    return table.iloc[groups.ngroup().argsort(kind='stable')]


def training_memory_table(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """Peak memory of a training step in GB by batch size; what was not measured stays empty."""
    rows = [
        dict(config=one.side, **one.point, GB=one.peak / 1e9 if one.peak else math.nan)
        for one in measurements
        if one.part == 'memory'
    ]
    names = ['config', 'precision', 'recomputed']
    table = pd.DataFrame(rows, columns=[*names, 'batch', 'GB'])
    order = pd.MultiIndex.from_frame(table[names].drop_duplicates())
    table = table.pivot(index=names, columns='batch', values='GB').reindex(order)
    return table.add_prefix('batch ').reset_index()


def operator_table(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """Seconds by group of operators, a column a group."""
    names = ['part', 'side', 'allocator']
    rows = [
        {**groups, 'part': title(one), 'side': one.side, 'allocator': one.allocator}
        for one in measurements
        for groups in [one.info.get('operators', {}).get('groups')]
        if groups
    ]
    return pd.DataFrame(rows, columns=[*names, *GROUPS]).groupby(names, sort=False).mean()


def share_table(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """Percent of the time by group of operators."""
    table = operator_table(measurements).droplevel('allocator')
    return (100 * table.div(table.sum(axis=1), axis=0)).reset_index()


def figure_table(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """What :func:`derive` gives, by side."""

    def text(name: str, value: float) -> str:
        if '_share' in name:
            return f'{100 * value:.1f} %'
        return f'{value / 1e9:.1f} G' if 'flops' in name else f'{value:.3g}'

    figures = {one.side: derive(measurements, one.side) for one in measurements}
    texts = {s: {k: text(k, v) for k, v in these.items()} for s, these in figures.items()}
    table = pd.DataFrame(texts).rename_axis('figure').reset_index()
    return table.assign(figure=table['figure'].str.replace('_', ' '))


def derive(measurements: Sequence[Measurement], side: str) -> dict[str, float]:
    """Figures of one side that follow from several measurements, those that can be computed.

    Returns:
        `distillation_share` (of the time of a step without it), `eigenvalues_over_order_2` (the
        loss with its gradient; `, value`: without; `, entropy`: that of a Gram matrix),
        `matrix_flops_per_second`, `loading_images_per_second`, also by worker, and for training and
        inference `images_per_second`, `flops` of a call, `flops_per_second` and their
        `share_of_matrix_rate`.
    """
    here = [one for one in measurements if one.side == side and not one.point]
    medians = calls(here).groupby(['subject', 'section'])['seconds'].median().to_dict()
    infos = {one.part: one.info for one in here}

    def seconds(part: str, section: str = '') -> float:
        return medians.get((part, section or SUBJECTS[part].section), math.nan)

    def info(part: str, name: str) -> float:
        return infos.get(part, {}).get(name, math.nan)

    rate = info('matrix', 'flops') / seconds('matrix')
    figures = {'distillation_share': seconds('train') / seconds('train_plain') - 1}
    for end in ('', ', value', ', entropy'):
        slow, fast = (seconds('entropy', way + end) for way in ('eigenvalues', 'order 2'))
        figures[f'eigenvalues_over_order_2{end}'] = slow / fast
    figures['matrix_flops_per_second'] = rate
    for part, name in (('train', 'training'), ('inference', 'inference')):
        flops = info(f'profile_{part}', 'flops')
        figures[f'{name}_images_per_second'] = info(part, 'images') / seconds(part)
        figures[f'{name}_flops'] = flops
        figures[f'{name}_flops_per_second'] = flops / seconds(part)
        figures[f'{name}_share_of_matrix_rate'] = flops / seconds(part) / rate
    rate = 1 / seconds('loading')
    figures['loading_images_per_second'] = rate
    figures['loading_images_per_second_and_worker'] = rate / info('loading', 'loading_workers')
    return {name: value for name, value in figures.items() if not math.isnan(value)}


TABLES = {
    'Seconds': (time_table, '.3g'),
    'Peak memory in GB': (memory_table, '.2f'),
    'What follows': (figure_table, '.3g'),
    'Where the time goes, in percent': (share_table, '.1f'),
    'Peak memory of a training step in GB': (training_memory_table, '.1f'),
}


def make_markdown(
    header: Mapping[str, str], measurements: Sequence[Measurement], pictures: Sequence[str] = ()
) -> str:
    """The report as a page."""
    about = pd.DataFrame(header.items(), columns=['measured', 'with'])
    parts = ['# Time and memory', markdown_table(about)]
    for allocator, here in by_allocator(measurements).items():
        for heading, (make, spec) in TABLES.items():
            table = make(here)
            if len(table):
                parts += [f'## {heading}, {allocator} allocator', markdown_table(table, spec)]
    missing = [f'- {one.label}: {one.reason}' for one in measurements if one.reason]
    if missing:
        parts += ['## Not measured', '\n'.join(dict.fromkeys(missing))]
    return '\n\n'.join([*parts, *(f'![{name}]({name})' for name in pictures)]) + '\n'


def make_json(
    header: Mapping[str, str], measurements: Sequence[Measurement], sides: Sequence[Side]
) -> dict[str, Any]:
    """The report as plain values: every second and every byte of each process."""
    keys = ['allocator', 'side', 'subject', 'part', 'section']
    spread = calls(measurements).groupby(keys, sort=False)['seconds'].describe().reset_index()
    return dict(
        header=dict(header),
        sides=[side._asdict() for side in sides],
        measurements=[asdict(one) for one in measurements],
        spread=spread.to_dict('records'),
        derived=[
            dict(side=side.label, allocator=allocator, **derive(here, side.label))
            for allocator, here in by_allocator(measurements).items()
            for side in sides
        ],
    )


def write_report(
    folder: Path,
    header: Mapping[str, str],
    measurements: Sequence[Measurement],
    sides: Sequence[Side],
    sweeps: Iterable[str] = (),
) -> str:
    """Write benchmark.json, benchmark.md and pictures; gives the page."""
    files = draw_operators(measurements, folder)
    for name in sweeps:
        files += draw_sweep(measurements, name, folder)
    page = make_markdown(header, measurements, [f.name for f in files if f.suffix == '.png'])
    text = json.dumps(make_json(header, measurements, sides), indent=1, ensure_ascii=False)
    (folder / 'benchmark.json').write_text(text + '\n', encoding='utf-8')
    (folder / 'benchmark.md').write_text(page, encoding='utf-8')
    return page


def draw_sweep(measurements: Sequence[Measurement], name: str, folder: Path) -> list[Path]:
    """Draw time (left) and peak memory (right) over the values of a sweep, a key of AXES.

    Returns:
        sweep_<name>.png and .svg; none where nothing was measured.
    """
    rows = [
        (f'{SUBJECTS[one.part].title}: {one.place}', one.point[name], seconds, one.peak / 1e9)
        for one in measurements
        if name in one.point
        for seconds in one.seconds.get(SUBJECTS[one.part].section, ())
    ]
    if not rows:
        return []
    table = pd.DataFrame(rows, columns=['line', AXES[name], 'seconds', 'GB'])
    table['line'] = pd.Categorical(table['line'], table['line'].unique())  # in this order
    cells = table.groupby([AXES[name], 'line'], observed=True)
    spread = cells['seconds'].agg(['median', 'min', 'max']).unstack()
    wide = bool(spread.index.max() > LOG_FACTOR * spread.index.min())
    style: dict[str, Any] = dict(marker='o', markersize=4, legend=False, loglog=wide)
    figure = Figure((2 * PANEL[0], PANEL[1] + 0.5), dpi=130, layout='constrained')
    times, memories = figure.subplots(1, 2)
    spread['median'].plot(ax=times, title='seconds, median and extremes', **style)
    for line in spread['median']:
        times.fill_between(spread.index, spread['min', line], spread['max', line], alpha=0.2)
    cells['GB'].max().unstack().plot(ax=memories, title='peak memory, GB', **style)
    for axes in (times, memories):
        axes.title.set_fontsize(10)
        axes.grid(alpha=0.3, which='both')
        if not wide:
            axes.set_ylim(bottom=0)
    return _save(figure, times, 2, folder / f'sweep_{name}')


def draw_operators(measurements: Sequence[Measurement], folder: Path) -> list[Path]:
    """Draw the seconds by group of operators as bars; writes operators.png and .svg."""
    table = operator_table(measurements)
    if table.empty:
        return []
    table.index = [f'{part}\n{side}, {name} allocator' for part, side, name in table.index]
    figure = Figure((2 * PANEL[0], BAR * len(table) + 1.8), dpi=130, layout='constrained')
    axes = figure.subplots()
    table.plot.barh(stacked=True, ax=axes, legend=False, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel('seconds in operators')
    return _save(figure, axes, 4, folder / 'operators')


def _save(figure: Figure, axes: Any, columns: int, stem: Path) -> list[Path]:
    handles, labels = axes.get_legend_handles_labels()
    place: dict[str, Any] = dict(loc='outside lower center', ncols=columns, frameon=False)
    figure.legend(handles, labels, fontsize=9, **place)
    stem.parent.mkdir(parents=True, exist_ok=True)
    paths = [stem.with_suffix(suffix) for suffix in ('.png', '.svg')]
    for path in paths:
        figure.savefig(path)
    return paths
