"""JSON and Markdown of a benchmark."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from infoclip_mmseg.experiments.timing.measure import summarise
from infoclip_mmseg.experiments.timing.memory import Cell
from infoclip_mmseg.experiments.timing.results import MEASURED, Outcome, derive, find
from infoclip_mmseg.experiments.timing.runs import Side

TITLES = {
    'train': 'training step',
    'train_plain': 'training step without teacher',
    'inference': 'inference of an image, text cached',
    'image': 'image tower',
    'head': 'decode head',
    'text': 'text, in evaluation',
    'text_train': 'text, in training',
    'teacher': 'teacher, text cached',
    'lpam': 'LPAM, both branches',
    'losses': 'losses',
    'entropy': 'mutual information, 2304 samples',
    'matrix': 'product of matrices',
    'profile_train': 'training step',
    'profile_inference': 'inference of an image',
}
Table = list[list[str]]


def seconds_text(seconds: float) -> str:
    """'12.3 s', '45.6 ms' or '78.9 µs'."""
    for limit, factor, unit in ((1, 1, 's'), (1e-3, 1e3, 'ms')):
        if seconds >= limit:
            return f'{factor * seconds:.3g} {unit}'
    return f'{1e6 * seconds:.3g} µs'


def spread_text(values: Sequence[float]) -> str:
    """Median with the extremes in brackets."""
    spread = summarise(values)
    return f'{seconds_text(spread.median)} ({spread.low:.3g}..{spread.high:.3g} s)'


def memory_text(num_bytes: float) -> str:
    """'1.23 GB', of 10^9 bytes; '–' for 0, which stands for unknown."""
    return f'{num_bytes / 1e9:.2f} GB' if num_bytes else '–'


def markdown_table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [header, ['---'] * len(header), *rows]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)


def make_markdown(
    header: Mapping[str, str],
    outcomes: Sequence[Outcome],
    sides: Sequence[Side],
    cells: Sequence[Cell] = (),
    pictures: Sequence[str] = (),
) -> str:
    """The report as a page."""
    labels = [side.label for side in sides]
    allocators = list(dict.fromkeys(outcome.allocator for outcome in outcomes))
    parts = ['# Benchmark', markdown_table(['', ''], [[k, v] for k, v in header.items()])]
    for allocator in allocators:
        own = [outcome for outcome in outcomes if outcome.allocator == allocator]
        for title, make in _SECTIONS.items():
            rows = make(own, labels, allocator)
            if len(rows) > 1:
                parts += [f'## {title}, {allocator} allocator', markdown_table(rows[0], rows[1:])]
    if cells:
        parts += ['## Peak memory of a training step', _guide_text(cells)]
    missing = [f'- {_name(o)}, {o.side}: {o.reason}' for o in outcomes if o.status != MEASURED]
    if missing:
        parts += ['## Not measured', '\n'.join(dict.fromkeys(missing))]
    parts += [f'![{name}]({name})' for name in pictures]
    return '\n\n'.join(parts) + '\n'


def make_json(
    header: Mapping[str, str],
    outcomes: Sequence[Outcome],
    sides: Sequence[Side],
    cells: Sequence[Cell] = (),
) -> dict[str, Any]:
    """The report as plain values: every second, every byte."""
    runs = dict.fromkeys((outcome.side, outcome.allocator) for outcome in outcomes)
    return dict(
        header=dict(header),
        sides=[side._asdict() if hasattr(side, '_asdict') else vars(side) for side in sides],
        outcomes=[outcome.to_dict() for outcome in outcomes],
        derived=[
            dict(side=side, allocator=allocator, **derive(outcomes, side, allocator))
            for side, allocator in runs
        ],
        memory_guide=[
            dict(
                side=cell.row.side.label,
                dtype=cell.row.dtype,
                checkpointing=cell.row.checkpointing,
                batch_size=cell.batch_size,
                peak=cell.peak,
                measured=cell.measured,
                reason=cell.reason,
            )
            for cell in cells
        ],
    )


def write_report(folder: Path, content: Mapping[str, Any], page: str) -> None:
    """Write benchmark.json and benchmark.md."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(content, indent=1, ensure_ascii=False)
    (folder / 'benchmark.json').write_text(text + '\n', encoding='utf-8')
    (folder / 'benchmark.md').write_text(page, encoding='utf-8')


def _name(outcome: Outcome) -> str:
    title = TITLES.get(outcome.part, outcome.part)
    return f'{title}, {outcome.sweep[0]} {outcome.sweep[1]}' if outcome.sweep else title


def _by_side(
    outcomes: Sequence[Outcome], labels: Sequence[str]
) -> dict[tuple[str, tuple[str, int] | None], list[Outcome | None]]:
    """Outcomes of each part and point, in the order of the sides."""
    keys = dict.fromkeys((o.part, o.sweep) for o in outcomes if o.status == MEASURED)
    allocator = outcomes[0].allocator if outcomes else ''
    return {
        (part, sweep): [find(outcomes, label, allocator, part, sweep) for label in labels]
        for part, sweep in keys
    }


def _time_rows(outcomes: Sequence[Outcome], labels: Sequence[str], allocator: str) -> Table:
    rows = [['part', 'section', *labels, *_ratio_titles(labels)]]
    for found in _by_side(outcomes, labels).values():
        present = [outcome for outcome in found if outcome is not None]
        if present[0].part.startswith('profile'):
            continue
        for section in present[0].seconds:
            values = [o.seconds.get(section, []) if o is not None else [] for o in found]
            medians = [summarise(v).median if v else 0.0 for v in values]
            texts = [spread_text(v) if v else '–' for v in values]
            rows.append([_name(present[0]), section, *texts, *_ratios(medians)])
    return rows


def _memory_rows(outcomes: Sequence[Outcome], labels: Sequence[str], allocator: str) -> Table:
    rows = [['part', *labels, *_ratio_titles(labels)]]
    for found in _by_side(outcomes, labels).values():
        present = [outcome for outcome in found if outcome is not None]
        if present[0].part.startswith('profile'):
            continue
        texts = [
            f'{memory_text(o.peak)} ({memory_text(o.own)} of it by the part)' if o else '–'
            for o in found
        ]
        ratios = _ratios([float(o.peak) if o else 0.0 for o in found])
        rows.append([_name(present[0]), *texts, *ratios])
    return rows


def _derived_rows(outcomes: Sequence[Outcome], labels: Sequence[str], allocator: str) -> Table:
    figures = [derive(outcomes, label, allocator) for label in labels]
    names = dict.fromkeys(name for figure in figures for name in figure)
    rows = [['figure', *labels]]
    for name in names:
        texts = [_figure_text(name, figure[name]) if name in figure else '–' for figure in figures]
        rows.append([name.replace('_', ' '), *texts])
    return rows


def _operator_rows(outcomes: Sequence[Outcome], labels: Sequence[str], allocator: str) -> Table:
    rows = [['part', 'operators', *labels]]
    for found in _by_side(outcomes, labels).values():
        groups = [o.info.get('operators', {}).get('groups', {}) if o else {} for o in found]
        for group in dict.fromkeys(name for one in groups for name in one):
            title = next(_name(o) for o in found if o is not None)
            rows.append([title, group, *(_share_text(one, group) for one in groups)])
    return rows


_SECTIONS: dict[str, Callable[[Sequence[Outcome], Sequence[str], str], Table]] = {
    'Time, median (extremes)': _time_rows,
    'Peak memory': _memory_rows,
    'What follows': _derived_rows,
    'Where the time goes': _operator_rows,
}


def _share_text(groups: Mapping[str, float], group: str) -> str:
    total = sum(groups.values())
    return f'{100 * groups.get(group, 0) / total:.1f} %' if total else '–'


def _figure_text(name: str, value: float) -> str:
    if '_share' in name:
        return f'{100 * value:.1f} %'
    if 'flops' in name:
        return f'{value / 1e9:.1f} G'
    return f'{value:.3g}'


def _ratio_titles(labels: Sequence[str]) -> list[str]:
    return [f'{label} / {labels[0]}' for label in labels[1:]]


def _ratios(values: Sequence[float]) -> list[str]:
    first = values[0]
    return [f'{value / first:.3f}' if value and first else '–' for value in values[1:]]


def _guide_text(cells: Sequence[Cell]) -> str:
    batches = list(dict.fromkeys(cell.batch_size for cell in cells))
    rows = []
    for row in dict.fromkeys(cell.row for cell in cells):
        own = {cell.batch_size: cell for cell in cells if cell.row == row}
        texts = [
            f'{own[b].peak / 1e9:.1f}' if own[b].measured else f'*{own[b].peak / 1e9:.1f}*'
            for b in batches
        ]
        rows.append([row.side.label, row.dtype, row.checkpointing, *texts])
    header = ['config', 'precision', 'checkpointing', *(f'batch {batch}' for batch in batches)]
    note = 'GB. Upright: measured; *in italics*: computed, see experiments/timing/memory.py.'
    return f'{markdown_table(header, rows)}\n\n{note}'
