r"""Texts that pictures can show: cut to a length, in fonts that have their letters.

Letters that Matplotlib's own font lacks are taken from installed fonts, each from the first that
has it. What no font has, and what is not printable, is written as an escape (``\u732b``). Figures
are written with these texts.
"""

from __future__ import annotations

import bisect
import contextlib
import functools
import itertools
from pathlib import Path

import matplotlib
from matplotlib import get_data_path
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager, get_font
from matplotlib.text import Text
from PIL import ImageFont

USUAL = 'DejaVu Sans'
SUFFIXES = ('.png', '.pdf')
DPI = 150
# The same figure gives the same bytes.
_METADATA = {'.png': {'Software': None}, '.pdf': {'CreationDate': None}}
_LONGEST = 400
"""Letters of a line that are looked at."""


def spell(text: str) -> str:
    """A line of text with escapes in place of letters that no font has."""
    families = _families(text)
    return ''.join(c if c in families else c.encode('unicode_escape').decode() for c in text)


def runs(text: str, size: int) -> list[tuple[ImageFont.FreeTypeFont, str]]:
    """Pillow's fonts, ``size`` pixels high, for the parts of a line from :func:`spell`."""
    parts = itertools.groupby(text, _families(text).__getitem__)
    return [(_pillow_font(family, size), ''.join(letters)) for family, letters in parts]


def text_width(text: str, size: int) -> float:
    """Pixels that :func:`runs` of a text take side by side."""
    return sum(font.getlength(part) for font, part in runs(text, size))


def fit(text: str, size: int, width: float) -> str:
    """The text as :func:`spell` writes it, cut where it is wider than so many pixels."""
    text = spell(text)
    if len(text) <= _LONGEST and text_width(text, size) <= width:
        return text
    lengths = range(1, min(len(text), _LONGEST))
    cut = bisect.bisect_right(lengths, width, key=lambda n: text_width(f'{text[:n]}...', size))
    return f'{text[:cut].rstrip()}...'


def set_fonts(text: Text) -> None:
    """Give a text of a Matplotlib figure the fonts of its letters; see the module."""
    lines = text.get_text().split('\n')
    families = {family for line in lines for family in _families(line).values()} - {USUAL}
    text.set_text('\n'.join(map(spell, lines)))
    if families:
        text.set_fontfamily([USUAL, *sorted(families)])


def plain(text: str, length: int = 28) -> str:
    """A text that Matplotlib takes as it is (no formulas), cut to ``length`` characters."""
    text = ' '.join(text.split())
    if len(text) > length:
        text = text[: length - 3].rstrip() + '...'
    return text.replace('$', r'\$')


def class_label(name: str, length: int = 28) -> str:
    """The first of a class's synonyms as a :func:`plain` text."""
    return plain(name.split(',')[0], length)


def figure_paths(out: Path) -> list[Path]:
    """The files of a figure: the one that is named, or PNG and PDF where no suffix is."""
    if out.suffix.lower() in SUFFIXES:
        return [out]
    if out.suffix:
        raise ValueError(
            f'{out}: figures are written as .png or .pdf; a name without suffix gives both'
        )
    return [out.with_name(out.name + suffix) for suffix in SUFFIXES]


def save_figure(figure: Figure, out: Path) -> list[Path]:
    """Write a figure to the files of :func:`figure_paths`, and return them."""
    paths = figure_paths(out)
    for text in figure.findobj(Text):
        set_fonts(text)
    out.parent.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context({'pdf.fonttype': 42}):  # text of PDF files stays text
        for path in paths:
            figure.savefig(path, dpi=DPI, metadata=_METADATA[path.suffix.lower()])
    return paths


def _families(text: str) -> dict[str, str]:
    """The font family of each letter of a text, where there is one."""
    return _find_families(''.join(sorted(c for c in set(text) if c.isprintable())))


@functools.lru_cache(maxsize=4096)
def _find_families(letters: str) -> dict[str, str]:
    families: dict[str, str] = {}
    for family, file in _font_files().items():
        if len(families) == len(letters):
            break
        with contextlib.suppress(OSError, RuntimeError):  # a file that is gone or damaged
            font = get_font(file)
            here = [c for c in letters if c not in families and font.get_char_index(ord(c))]
            families.update(dict.fromkeys(here, family))
    return families


def _font_files() -> dict[str, str]:
    """Families and files: Matplotlib's own, then those of the system, upright and regular first.

    Other fonts that Matplotlib brings are left out: several have other signs for the letters.
    """
    files = {USUAL: str(fontManager.findfont(USUAL))}
    order = sorted(
        fontManager.ttflist, key=lambda f: (f.style != 'normal', f.weight != 400, f.name)
    )
    for font in order:
        if not font.fname.startswith(get_data_path()):
            files.setdefault(font.name, str(font.fname))
    return files


@functools.lru_cache(maxsize=64)
def _pillow_font(family: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_font_files()[family], size)
