from __future__ import annotations

import pytest
from matplotlib.figure import Figure


@pytest.fixture(scope='session')
def texts():
    """Finds all texts of a figure."""

    def find(figure: Figure) -> list[str]:
        return [text.get_text() for text in figure.findobj(lambda a: hasattr(a, 'get_text'))]

    return find
