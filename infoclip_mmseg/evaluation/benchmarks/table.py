"""The row of the papers' main table, beside the published ones (pure functions)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from infoclip_mmseg.datasets.benchmarks import BENCHMARKS

COLUMNS = ('ade847', 'pc459', 'ade150', 'pc59', 'voc20', 'voc20b')
PUBLISHED = {
    ('CAT-Seg', 'ViT-B/16'): (12.0, 19.0, 31.8, 57.5, 94.6, 77.3),
    ('InfoCLIP', 'ViT-B/16'): (12.6, 19.5, 32.1, 58.1, 95.5, 78.1),
    ('CAT-Seg', 'ViT-L/14'): (16.0, 23.8, 37.9, 63.3, 97.0, 82.5),
    ('InfoCLIP', 'ViT-L/14'): (16.6, 24.6, 38.5, 63.5, 97.5, 83.1),
}
"""mIoU in percent of method and backbone, from Table 1 of InfoCLIP (arXiv 2511.15967)."""
CONVENTIONS = dict(mIoU_present='absent classes left out', mIoU='absent classes count 0')
"""Figure of a result and how it treats classes that the ground truth lacks."""
MISSING, PARTIAL = '–', '*'

Results = Mapping[str, Mapping[str, Any]]


class Row(NamedTuple):
    """One row of the table: mIoU in percent by benchmark key, of a method or of a paper.

    The convention tells how classes are treated that the ground truth lacks; '' if it is not known.
    """

    method: str
    convention: str
    published: bool
    values: dict[str, float]


def make_rows(name: str, results: Results) -> list[Row]:
    """Rows of a checkpoint, one a convention, of its results by benchmark key."""
    return [
        Row(name, text, False, {key: r['figures'][figure] for key, r in results.items()})
        for figure, text in CONVENTIONS.items()
    ]


def published_rows(model_name: object) -> list[Row]:
    """Rows of the backbone that an open_clip model name tells; none for other backbones."""
    return [
        Row(f'{method} {backbone}', '', True, dict(zip(COLUMNS, values)))
        for (method, backbone), values in PUBLISHED.items()
        if str(model_name).startswith(backbone.replace('/', '-'))
    ]


def make_notes(results: Results, absent: Sequence[str]) -> list[str]:
    """Sentences below the table: what was evaluated in part, and what was not."""
    notes = [
        f'{PARTIAL} {BENCHMARKS[key].title}: {result["images"]} images, the published evaluation '
        f'has {BENCHMARKS[key].num_images}.'
        for key, result in results.items()
        if _is_partial(key, result)
    ]
    return notes + [f'Skipped: {text}' for text in absent]


def to_markdown(rows: Sequence[Row], results: Results, notes: Sequence[str]) -> str:
    """The table, mIoU in percent, with the notes below."""
    lines = [
        ['mIoU', *(benchmark.title for benchmark in BENCHMARKS.values())],
        ['---'] + ['---:'] * len(BENCHMARKS),
    ]
    for row in rows:
        label = f'{row.method} ({"published" if row.published else row.convention})'
        lines.append([label, *(_cell(row, key, results) for key in BENCHMARKS)])
    table = '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)
    return '\n\n'.join([table, *notes]) + '\n'


def make_tables(
    name: str, model_name: object, results: Results, absent: Sequence[str]
) -> dict[str, str]:
    """The table of a checkpoint beside the published rows of its backbone, by file name.

    Markdown; CSV with one column a benchmark key, empty where there is no figure; JSON with all
    figures of each data set, by benchmark key, and the notes. ``model_name`` is open_clip's.
    """
    rows = [*make_rows(name, results), *published_rows(model_name)]
    notes = make_notes(results, absent)
    table = [row._asdict() for row in rows]
    content = dict(table=table, results=dict(results), notes=notes)
    file = io.StringIO()
    columns = [*Row._fields[:-1], *BENCHMARKS]
    writer = csv.DictWriter(file, columns, extrasaction='ignore', lineterminator='\n')
    writer.writeheader()
    writer.writerows({**cells, **cells['values']} for cells in table)
    return {
        'table1.md': to_markdown(rows, results, notes),
        'table1.csv': file.getvalue(),
        'table1.json': json.dumps(content, indent=1) + '\n',
    }


def _cell(row: Row, key: str, results: Results) -> str:
    if key not in row.values:
        return MISSING
    if row.published:
        return f'{row.values[key]:.1f}'
    return f'{row.values[key]:.2f}{PARTIAL if _is_partial(key, results[key]) else ""}'


def _is_partial(key: str, result: Mapping[str, Any]) -> bool:
    return result['images'] != BENCHMARKS[key].num_images
