"""Notices that other packages print while they are imported, about parts that nothing here uses."""

from __future__ import annotations

import io
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout

# The maintained forks look for a company's data set package; their mmcv has no compiled operators.
_LINES = ('Could not import OneDL',)
_WARNING = 'Fail to import ``MultiScaleDeformableAttention``'


@contextmanager
def without_import_notices() -> Iterator[None]:
    """Leave out known notices on standard output and among warnings; all else is passed on."""
    output = io.StringIO()
    warnings.filterwarnings('ignore', message=_WARNING)
    entry = warnings.filters[0]
    try:
        with redirect_stdout(output):
            yield
    finally:
        lines = output.getvalue().split('\n')
        sys.stdout.write('\n'.join(line for line in lines if line not in _LINES))
        if entry in warnings.filters:
            warnings.filters.remove(entry)  # type: ignore[attr-defined]
