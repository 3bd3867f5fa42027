"""The row of the papers' main table, beside the published ones (pure functions)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from infoclip_mmseg.datasets.benchmarks import BENCHMARKS, PANOPTIC_BENCHMARKS

COLUMNS = ('ade847', 'pc459', 'ade150', 'pc59', 'voc20', 'voc20b')
BACKBONES = {
    'ViT-B/16': 'ViT-B-16',
    'ViT-L/14': 'ViT-L-14',
    'ConvNeXt-B': 'convnext_base_w_320',
    'ConvNeXt-L': 'convnext_large_d_320',
}
"""How open_clip's model names begin."""
PUBLISHED = {
    ('CAT-Seg', 'ViT-B/16'): (12.0, 19.0, 31.8, 57.5, 94.6, 77.3),
    ('InfoCLIP', 'ViT-B/16'): (12.6, 19.5, 32.1, 58.1, 95.5, 78.1),
    ('CAT-Seg', 'ViT-L/14'): (16.0, 23.8, 37.9, 63.3, 97.0, 82.5),
    ('InfoCLIP', 'ViT-L/14'): (16.6, 24.6, 38.5, 63.5, 97.5, 83.1),
    ('MAFT+', 'ConvNeXt-B'): (13.8, 16.2, 34.6, 57.5, 95.4),
    ('MAFT+', 'ConvNeXt-L'): (15.1, 21.6, 36.1, 59.4, 96.5),
    ('FC-CLIP', 'ConvNeXt-L'): (14.8, 18.2, 34.1, 58.4, 95.4),
}
"""mIoU in percent of method and backbone, from Table 1 of InfoCLIP (arXiv 2511.15967), and from the
READMEs of MAFT+ and FC-CLIP, which do not evaluate on PAS-20b."""
PUBLISHED_PANOPTIC = {
    ('MAFT+', 'ConvNeXt-L'): {'ade150-panoptic': dict(PQ=27.1, SQ=73.5, RQ=32.9)},
    ('FC-CLIP', 'ConvNeXt-L'): {'ade150-panoptic': dict(PQ=26.8)},
}
"""Figures in percent by benchmark key, from the same READMEs."""
CONVENTIONS = dict(mIoU_present='absent classes left out', mIoU='absent classes count 0')
"""Figure of a result and how it treats classes that the ground truth lacks."""
SEGMENT_FIGURES = tuple(
    f'{figure}{group}' for group in ('', '_things', '_stuff') for figure in ('PQ', 'SQ', 'RQ')
)
"""Figures of a result that counts segments; those over all classes first."""
MISSING, PARTIAL = '–', '*'

Results = Mapping[str, Mapping[str, Any]]


class Row(NamedTuple):
    """One row of a table, in percent: mIoU by benchmark key, or figures as 'ade150-panoptic/PQ'.

    The convention tells how classes are treated that the ground truth lacks; '' if it is not known
    or does not matter.
    """

    method: str
    convention: str
    published: bool
    values: dict[str, float]


def make_rows(name: str, results: Results) -> list[Row]:
    """Rows of a checkpoint's mIoU, one a convention, of its results by benchmark key."""
    measured = {key: result['figures'] for key, result in results.items() if key in BENCHMARKS}
    return [
        Row(name, text, False, {key: figures[figure] for key, figures in measured.items()})
        for figure, text in CONVENTIONS.items()
    ]


def published_rows(model_name: object) -> list[Row]:
    """Rows of the backbone that an open_clip model name tells; none for other backbones."""
    return [
        Row(f'{method} {backbone}', '', True, dict(zip(COLUMNS, values)))
        for (method, backbone), values in PUBLISHED.items()
        if str(model_name).startswith(BACKBONES[backbone])
    ]


def panoptic_rows(name: str, model_name: object, results: Results) -> list[Row]:
    """Figures of segments of a checkpoint, and published ones of its backbone."""
    figures = {key: r['figures'] for key, r in results.items() if key in PANOPTIC_BENCHMARKS}
    rows = [Row(name, '', False, _flatten(figures))]
    rows += [
        Row(f'{method} {backbone}', '', True, _flatten(values))
        for (method, backbone), values in PUBLISHED_PANOPTIC.items()
        if str(model_name).startswith(BACKBONES[backbone])
    ]
    return rows if figures else []


def _flatten(figures: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    return {
        f'{key}/{figure}': values[figure]
        for key, values in figures.items()
        for figure in SEGMENT_FIGURES
        if figure in values
    }


def make_notes(results: Results, absent: Sequence[str]) -> list[str]:
    """Sentences below the table: what was evaluated in part, and what was not."""
    records = {**BENCHMARKS, **PANOPTIC_BENCHMARKS}
    notes = [
        f'{PARTIAL} {records[key].title}: {result["images"]} images, the published evaluation '
        f'has {records[key].num_images}.'
        for key, result in results.items()
        if _is_partial(key, result)
    ]
    return notes + [f'Skipped: {text}' for text in absent]


def to_markdown(rows: Sequence[Row], results: Results) -> str:
    """The table, mIoU in percent."""
    titles = ['mIoU', *(benchmark.title for benchmark in BENCHMARKS.values())]
    lines = [
        [
            f'{row.method} ({"published" if row.published else row.convention})',
            *(_cell(row, key, results) for key in BENCHMARKS),
        ]
        for row in rows
    ]
    return _table(titles, lines)


def panoptic_markdown(rows: Sequence[Row], results: Results) -> str:
    """A table a benchmark that counts segments, in percent."""
    tables = []
    for key in (key for key in results if key in PANOPTIC_BENCHMARKS):
        columns = [f'{key}/{figure}' for figure in SEGMENT_FIGURES]
        titles = [PANOPTIC_BENCHMARKS[key].title, *(f.replace('_', ' ') for f in SEGMENT_FIGURES)]
        lines = [
            [
                f'{row.method} (published)' if row.published else row.method,
                *(_cell(row, column, results) for column in columns),
            ]
            for row in rows
        ]
        tables.append(_table(titles, lines))
    return '\n\n'.join(tables)


def _table(titles: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rule = ['---', *['---:'] * (len(titles) - 1)]
    return '\n'.join(f'| {" | ".join(cells)} |' for cells in [titles, rule, *lines])


def make_tables(
    name: str, model_name: object, results: Results, absent: Sequence[str]
) -> dict[str, str]:
    """The tables of a checkpoint beside the published rows of its backbone, by file name.

    Markdown; CSV with one column a benchmark key and one a figure of segments, empty where there is
    none; JSON with all figures of each data set, by benchmark key, and the notes. ``model_name`` is
    open_clip's.
    """
    segments = panoptic_rows(name, model_name, results)
    only_segments = bool(segments) and not BENCHMARKS.keys() & results.keys()
    rows = [] if only_segments else [*make_rows(name, results), *published_rows(model_name)]
    notes = make_notes(results, absent)
    texts = [to_markdown(rows, results)] if rows else []
    texts += [panoptic_markdown(segments, results)] if segments else []
    table = [row._asdict() for row in (*rows, *segments)]
    content = dict(table=table, results=dict(results), notes=notes)
    file = io.StringIO()
    columns = [*Row._fields[:-1], *BENCHMARKS, *(segments[0].values if segments else ())]
    writer = csv.DictWriter(file, columns, extrasaction='ignore', lineterminator='\n')
    writer.writeheader()
    writer.writerows({**cells, **cells['values']} for cells in table)
    return {
        'table1.md': '\n\n'.join([*texts, *notes]) + '\n',
        'table1.csv': file.getvalue(),
        'table1.json': json.dumps(content, indent=1) + '\n',
    }


def _cell(row: Row, column: str, results: Results) -> str:
    if column not in row.values:
        return MISSING
    if row.published:
        return f'{row.values[column]:.1f}'
    key = column.split('/')[0]
    return f'{row.values[column]:.2f}{PARTIAL if _is_partial(key, results[key]) else ""}'


def _is_partial(key: str, result: Mapping[str, Any]) -> bool:
    return result['images'] != {**BENCHMARKS, **PANOPTIC_BENCHMARKS}[key].num_images
