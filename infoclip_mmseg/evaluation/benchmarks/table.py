"""The row of the papers' main table, beside the published ones (pure functions)."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from infoclip_mmseg.datasets.benchmarks import BENCHMARKS
from infoclip_mmseg.evaluation.benchmarks.published import PublishedRow

CONVENTIONS = dict(
    mIoU_present='absent classes left out',
    mIoU='absent classes count 0',
)
"""Figure of a result and how it treats classes that the ground truth lacks."""
MISSING, PARTIAL = '–', '*'

Results = Mapping[str, Mapping[str, Any]]


class Row(NamedTuple):
    """One row of the table.

    Attributes:
        method: Name.
        convention: How classes are treated that the ground truth lacks; '' where it is not known.
        published: Whether the figures come from a paper.
        values: mIoU in percent by benchmark key.
    """

    method: str
    convention: str
    published: bool
    values: dict[str, float]

    @property
    def label(self) -> str:
        """First cell."""
        return f'{self.method} ({"published" if self.published else self.convention})'


def make_rows(name: str, results: Results, published: Sequence[PublishedRow]) -> list[Row]:
    """Rows of a checkpoint, one a convention, and the published ones.

    Args:
        name: Of the checkpoint.
        results: Result by benchmark key, each with `figures`.
        published: Rows to compare with.
    """
    measured = [
        Row(name, text, False, {key: r['figures'][figure] for key, r in results.items()})
        for figure, text in CONVENTIONS.items()
    ]
    return measured + [Row(f'{p.method} {p.backbone}', '', True, p.values) for p in published]


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
    head = ['mIoU', *(benchmark.title for benchmark in BENCHMARKS.values())]
    lines = [head, ['---'] + ['---:'] * len(BENCHMARKS)]
    lines += [[row.label, *(_cell(row, key, results) for key in BENCHMARKS)] for row in rows]
    table = '\n'.join(f'| {" | ".join(cells)} |' for cells in lines)
    return '\n\n'.join([table, *notes]) + '\n'


def to_csv(rows: Sequence[Row]) -> str:
    """The table with one column a benchmark key; empty cells where there is no figure."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator='\n')
    writer.writerow(['method', 'convention', 'published', *BENCHMARKS])
    for row in rows:
        values = [row.values.get(key, '') for key in BENCHMARKS]
        writer.writerow([row.method, row.convention, row.published, *values])
    return file.getvalue()


def to_json(rows: Sequence[Row], results: Results, notes: Sequence[str]) -> str:
    """The table, all figures of each data set, and the notes."""
    table = [row._asdict() for row in rows]
    return json.dumps(dict(table=table, results=dict(results), notes=list(notes)), indent=1) + '\n'


def _cell(row: Row, key: str, results: Results) -> str:
    if key not in row.values:
        return MISSING
    star = PARTIAL if not row.published and _is_partial(key, results[key]) else ''
    return f'{row.values[key]:.1f}{star}' if row.published else f'{row.values[key]:.2f}{star}'


def _is_partial(key: str, result: Mapping[str, Any]) -> bool:
    return result['images'] != BENCHMARKS[key].num_images
