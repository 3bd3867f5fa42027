"""Vocabularies: lists of class names from files, and colours for them."""

from __future__ import annotations

import colorsys
import json
from pathlib import Path


def load_vocabulary(path: str | Path) -> list[str]:
    """Class names from a file: .json (a list of strings) or text (one class a line).

    A name may hold comma-separated synonyms; empty lines of a text file are skipped.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file holds no list of names.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'vocabulary file {str(path)!r} does not exist')
    text = path.read_text(encoding='utf-8')
    if path.suffix == '.json':
        names = json.loads(text)
    else:
        names = [line.strip() for line in text.splitlines() if line.strip()]
    if not names or not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        raise ValueError(
            f'vocabulary file {str(path)!r} must hold a JSON list of strings (.json) or one class '
            'name a line (any other suffix)'
        )
    return names


def make_palette(num_classes: int) -> list[list[int]]:
    """Distinct colours [r, g, b], 0..255; colour i does not depend on ``num_classes``."""
    golden, palette = 0.618033988749895, []
    for index in range(num_classes):
        saturation, value = (0.85, 0.6, 0.95)[index % 3], (0.95, 0.75, 0.55)[index // 3 % 3]
        red, green, blue = colorsys.hsv_to_rgb(index * golden % 1, saturation, value)
        palette.append([round(255 * c) for c in (red, green, blue)])
    return palette
