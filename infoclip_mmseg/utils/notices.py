"""Notices that other packages print while they are imported, about parts that nothing here uses."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import TextIO

# The maintained forks look for a company's data set package; their mmcv has no compiled operators.
_LINES = ('Could not import OneDL',)
_WARNING = 'Fail to import ``MultiScaleDeformableAttention``'


class _Filter(io.TextIOBase):
    """Passes text on to a stream, without lines that consist of a known notice."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.line = ''

    def write(self, text: str) -> int:
        *lines, self.line = (self.line + text).split('\n')
        for line in lines:
            if line not in _LINES:
                self.stream.write(f'{line}\n')
        return len(text)

    def finish(self) -> None:
        """Pass on what came after the last line break."""
        self.stream.write(self.line)


@contextmanager
def without_import_notices() -> Iterator[None]:
    """Leave out known notices on standard output and among warnings; all else is passed on."""
    output = _Filter(sys.stdout)
    warnings.filterwarnings('ignore', message=_WARNING)
    entry = warnings.filters[0]
    try:
        with redirect_stdout(output):
            yield
    finally:
        output.finish()
        if entry in warnings.filters:
            warnings.filters.remove(entry)  # type: ignore[attr-defined]
