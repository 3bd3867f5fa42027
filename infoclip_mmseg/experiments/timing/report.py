"""What follows from measurements; JSON and Markdown."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pandas as pd

from infoclip_mmseg.experiments.tables import markdown_table
from infoclip_mmseg.experiments.timing.runs import MEASURED, Measurement
from infoclip_mmseg.experiments.timing.sides import Side

SUBJECTS = {
    'train': ('training step', 'step'),
    'train_plain': ('training step without teacher', 'step'),
    'inference': ('inference of an image, text cached', 'image'),
    'image': ('image tower', 'view'),
    'head': ('decode head', 'view'),
    'text': ('text, in evaluation', 'embeddings'),
    'text_train': ('text, in training', 'embeddings'),
    'teacher': ('teacher, text cached', 'views'),
    'lpam': ('LPAM, both branches', 'relation maps'),
    'losses': ('losses', 'task'),
    'entropy': ('mutual information, 2304 samples', 'order 2'),
    'matrix': ('product of matrices', 'product'),
    'profile_train': ('training step', 'call'),
    'profile_inference': ('inference of an image', 'call'),
    'memory': ('training step', 'step'),
    'evaluation': ('evaluation outside of the model, by image', 'pipeline'),
    'prepare': ('conversion of data sets, by image', 'ade847 512 x 683'),
}
"""Title of each subject, and the section that stands for it in pictures and rates."""
UNTIMED = ('profile_train', 'profile_inference', 'memory')


def title(one: Measurement) -> str:
    """Of what it is a measurement."""
    return ', '.join([SUBJECTS[one.part][0], *(f'{k} {v}' for k, v in one.point.items())])


def calls(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """One row a call and section."""
    names = ['allocator', 'side', 'subject', 'part', 'section', 'seconds']
    rows = [
        (one.allocator, one.side, one.part, title(one), section, seconds)
        for one in measurements
        for section, values in one.seconds.items()
        for seconds in values
    ]
    return pd.DataFrame(rows, columns=names).astype({'seconds': float})


def main_seconds(one: Measurement) -> float:
    """Median of the section that stands for a part."""
    return float(pd.Series(one.seconds[SUBJECTS[one.part][1]]).median())


def time_table(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """Seconds of each section: median, extremes, and the median's ratio to the first side's."""
    table = calls([one for one in measurements if one.part not in UNTIMED])
    groups = table.groupby(['part', 'section', 'side'], sort=False)['seconds']
    table = groups.agg(['median', 'min', 'max']).reset_index()
    return _with_ratio(table, ['part', 'section'], 'median')


def memory_table(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """Peak of each part in GB, and what of it was not in use before."""
    rows = [
        (title(one), one.side, one.peak / 1e9, max(one.peak - one.start, 0) / 1e9)
        for one in measurements
        if one.status == MEASURED and one.part not in UNTIMED
    ]
    table = pd.DataFrame(rows, columns=['part', 'side', 'peak', 'of it by the part'])
    table = table.groupby(['part', 'side'], sort=False).max().reset_index()
    return _with_ratio(table, ['part'], 'peak')


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
    """Percent of the time by group of operators."""
    profiled = [one for one in measurements if 'operators' in one.info]
    table = pd.DataFrame([one.info['operators']['groups'] for one in profiled])
    table = 100 * table.div(table.sum(axis=1), axis=0)
    table.insert(0, 'part', [title(one) for one in profiled])
    table.insert(1, 'side', [one.side for one in profiled])
    return table.groupby(['part', 'side'], sort=False).mean().reset_index()


def figure_table(measurements: Sequence[Measurement]) -> pd.DataFrame:
    """What :func:`derive` gives, by side."""
    sides = dict.fromkeys(one.side for one in measurements)
    figures = {side: derive(measurements, side) for side in sides}
    texts = {s: {k: _figure_text(k, v) for k, v in these.items()} for s, these in figures.items()}
    table = pd.DataFrame(texts).rename_axis('figure').reset_index()
    return table.assign(figure=table['figure'].str.replace('_', ' '))


def _figure_text(name: str, value: float) -> str:
    if '_share' in name:
        return f'{100 * value:.1f} %'
    return f'{value / 1e9:.1f} G' if 'flops' in name else f'{value:.3g}'


def derive(measurements: Sequence[Measurement], side: str) -> dict[str, float]:
    """Figures of one side that follow from several measurements, those that can be computed.

    Returns:
        `distillation_share` (of the time of a step without it), `eigenvalues_over_order_2` (the
        loss with its gradient; `, value`: without; `, entropy`: that of a Gram matrix),
        `matrix_flops_per_second`, and for training and inference `images_per_second`, `flops` of a
        call, `flops_per_second` and their `share_of_matrix_rate`.
    """
    here = [one for one in measurements if one.side == side and not one.point]
    medians = calls(here).groupby(['subject', 'section'])['seconds'].median().to_dict()
    infos = {one.part: one.info for one in here}

    def seconds(part: str, section: str = '') -> float:
        return medians.get((part, section or SUBJECTS[part][1]), math.nan)

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
    return {name: value for name, value in figures.items() if not math.isnan(value)}


TABLES = {
    'Seconds': (time_table, '.3g'),
    'Peak memory in GB': (memory_table, '.2f'),
    'What follows': (figure_table, '.3g'),
    'Where the time goes, in percent': (operator_table, '.1f'),
    'Peak memory of a training step in GB': (training_memory_table, '.1f'),
}


def make_markdown(
    header: Mapping[str, str],
    measurements: Sequence[Measurement],
    pictures: Sequence[str] = (),
) -> str:
    """The report as a page."""
    about = pd.DataFrame(header.items(), columns=['measured', 'with'])
    parts = ['# Time and memory', markdown_table(about)]
    for allocator in dict.fromkeys(one.allocator for one in measurements):
        here = [one for one in measurements if one.allocator == allocator]
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
    allocators = dict.fromkeys(one.allocator for one in measurements)
    return dict(
        header=dict(header),
        sides=[asdict(side) for side in sides],
        measurements=[asdict(one) for one in measurements],
        spread=spread.to_dict('records'),
        derived=[
            dict(side=side.label, allocator=name, **derive(here, side.label))
            for name in allocators
            for here in [[one for one in measurements if one.allocator == name]]
            for side in sides
        ],
    )


def write_report(folder: Path, content: Mapping[str, Any], page: str) -> None:
    """Write benchmark.json and benchmark.md."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (folder / 'benchmark.json').write_text(text + '\n', encoding='utf-8')
    (folder / 'benchmark.md').write_text(page, encoding='utf-8')
