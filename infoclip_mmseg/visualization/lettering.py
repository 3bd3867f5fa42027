"""Fonts that have the letters of a text, for pictures drawn with Pillow."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

from PIL import ImageFont

# A code point that no font has; what is drawn for it is drawn for every missing letter.
_MISSING = '\U0010ffff'


def font_and_text(text: str, size: int) -> tuple[Any, str]:
    r"""A font for a text, and the text as that font can draw it.

    The first of these that has all letters: Pillow's own font, the one that Matplotlib comes with,
    those of the system. Where none has, missing letters are written as escapes (``\u732b``).

    Args:
        text: One line; control characters are escaped too.
        size: Height in pixels.
    """
    text = ''.join(c if c.isprintable() else _escape(c) for c in text)
    letters = ''.join(sorted(set(text)))
    for path in _font_paths(letters):
        return _load(path, size), text
    default = _load(None, size)
    missing = set(_missing(None, letters))
    return default, ''.join(_escape(c) if c in missing else c for c in text)


@functools.lru_cache(maxsize=4096)
def _font_paths(letters: str) -> tuple[str | None, ...]:
    """The first font that has the letters; None stands for Pillow's own. Empty if there is none."""
    for path in _candidates():
        if not _missing(path, letters):
            return (path,)
    return ()


def _candidates() -> Iterator[str | None]:
    yield None
    from matplotlib import font_manager, get_data_path

    yield f'{get_data_path()}/fonts/ttf/DejaVuSans.ttf'
    yield from sorted(font_manager.findSystemFonts())


def _missing(path: str | None, letters: str) -> str:
    """Those of the letters that a font lacks; all of them where it cannot be loaded."""
    try:
        font = _load(path, 16)
        nothing = _drawn(font, _MISSING)
        return ''.join(c for c in letters if not c.isspace() and _drawn(font, c) == nothing)
    except (OSError, ValueError):  # bitmap fonts have a few sizes only
        return letters


def _drawn(font: Any, text: str) -> tuple[Any, bytes]:
    mask = font.getmask(text)
    return mask.size, bytes(mask)


@functools.lru_cache(maxsize=64)
def _load(path: str | None, size: int) -> Any:
    return ImageFont.load_default(size) if path is None else ImageFont.truetype(path, size)


def _escape(letter: str) -> str:
    return letter.encode('unicode_escape').decode()
