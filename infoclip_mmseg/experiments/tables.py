"""Tables of experiments as Markdown and CSV."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

GAP = '–'
"""Stands in a table for what is not known."""


def format_number(value: Any, spec: str) -> str:
    """A number in a format such as '.2f', or GAP for NaN and None."""
    return GAP if pd.isna(value) else format(value, spec)


def markdown_table(table: pd.DataFrame, spec: str = '.4g') -> str:
    """A table in Markdown, without its index; ``spec`` is the format of its floats."""

    def text(cell: Any) -> str:
        shown = format_number(cell, spec if isinstance(cell, float) else '')
        return shown.replace('|', r'\|')

    rows = table.itertuples(index=False, name=None)
    lines = [table.columns, ['---'] * len(table.columns), *rows]
    return '\n'.join(f'| {" | ".join(map(text, line))} |' for line in lines)


def write_csv(table: pd.DataFrame, path: Path) -> None:
    """Write a table, without its index, as CSV; None is an empty cell."""
    table.to_csv(path, index=False, lineterminator='\r\n')
