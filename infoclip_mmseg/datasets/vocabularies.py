"""Vocabularies: lists of class names from files, plain ones and those of other projects."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from infoclip_mmseg.utils.files import first_few
from infoclip_mmseg.utils.resources import find_file

Line = tuple[int, str]
"""Number of a line, from 1, and what it says."""

COMMENT = re.compile(r'^(?:#|//).*|\s#\s.*')
QUOTED = re.compile(r'(^|[,;:\t] *)"([^"]+)"(?= *(?:[,;:\t]|$))')
NAME_COLUMN = re.compile(
    r'ids?|idx|ind(?:ex|ices)|names?|(?:class|label|category|train)(?:id|name)s?|class(?:es)?|'
    r'labels?|(?:super)?categor(?:y|ies)|palette|rgb'
)
OTHER_COLUMN = re.compile(r'[rgb]|red|green|blue|colou?rs?|hex|train')
NO_CLASS = {'invalid_class_id', '__ignore__'}
"""Placeholders of OpenSeg's and labelme's lists, which hold no label of their own."""

SEPARATOR = r'(?:\s*[,;:|\t]\s*|\s+)'
BYTE = r'(?:25[0-5]|2[0-4]\d|1?\d?\d)'
RGB = rf'[(\[]?\s*{BYTE}{SEPARATOR}{BYTE}{SEPARATOR}{BYTE}\s*[)\]]?'
COLOURS = [
    re.compile(rf'(\d+{SEPARATOR}){RGB}{SEPARATOR}(.+)'),  # index, colour, name
    re.compile(rf'{RGB}{SEPARATOR}(.+)'),
    re.compile(rf'(.+?){SEPARATOR}{RGB}(?::[^:]*:[^:]*)?'),  # after colons CVAT's parts, actions
    re.compile(rf'(.+?){SEPARATOR}#[0-9a-fA-F]{{6}}'),
]
INDEX = re.compile(r'(\d{1,9})(\s*[:;,=|]\s*|\s*\t\s*|[.)]\s+|\s+-\s+|\s+)(.*)')
OTHER_SYNTAX = re.compile(r'[\[{]\s*(?:["\'\d\[{].*)?')
NUMBERS = re.compile(r'(?:.*[,;:|\t])?[\s.]*\d[\d.\s]*(?:[,;:|\t].*)?')
NUMBER_AT_AN_END = re.compile(r'\d+\s.*|.*\s\d+')

MEND = (
    'write one name a line and nothing else (or the same columns on all lines: index, name, three '
    'numbers 0..255 of a colour), or a .json list of strings, which are taken as they are'
)


def shipped_vocabularies() -> list[str]:
    """Names of the class lists that come with the package, e.g. 'ade847'; sorted."""
    return sorted(_lists())


def load_vocabulary(path: str | Path) -> list[str]:
    """Class names in label order, from a file or from the lists that come with the package.

    A name may hold comma-separated synonyms. A warning tells of names with underscores in a file.

    Args:
        path: Name of a shipped list (see :func:`shipped_vocabularies`), or a file: .json (see
            :func:`parse_class_json`) or text (one class a line, see :func:`parse_class_list`). A
            file that is named like a shipped list is read by './NAME'.

    Raises:
        FileNotFoundError: There is neither such a list nor such a file.
        ValueError: The file holds no list of names, or one that cannot be told from other columns.
    """
    shipped = _lists().get(str(path))
    if shipped is not None:
        return json.loads(shipped.read_text(encoding='utf-8'))
    path = find_file(path)
    if not path.is_file():
        known = ', '.join(shipped_vocabularies())
        raise FileNotFoundError(
            f'vocabulary file {str(path)!r} does not exist (working directory {Path.cwd()}), and '
            f'it is none of the lists that come with the package: {known}'
        )
    parse = parse_class_json if path.suffix.lower() == '.json' else parse_class_list
    try:
        names = parse(path.read_text(encoding='utf-8-sig'))
    except ValueError as error:
        told = {UnicodeDecodeError: ' is not UTF-8 text', json.JSONDecodeError: ' is no valid JSON'}
        kind = told.get(type(error), '')
        raise ValueError(f'vocabulary file {str(path)!r}{kind}: {error}') from error
    joined = [repr(name) for name in names if '_' in name]
    if joined:
        print_log(
            f'vocabulary file {str(path)!r}: {len(joined)} of {len(names)} names have underscores '
            f"({first_few(joined)}). CLIP knows 'traffic light' better than 'traffic_light': write "
            'spaces where words are meant',
            logger='current',
            level=logging.WARNING,
        )
    return names


def read_seen_classes(model: Any) -> None:
    """Read the vocabulary that a head's ensemble names for the seen classes, where it names one."""
    ensemble = getattr(getattr(model, 'decode_head', None), 'ensemble', None)
    if ensemble and isinstance(ensemble.get('seen'), str):
        ensemble['seen'] = load_vocabulary(ensemble['seen'])


def check_several_classes(names: Sequence[str], owner: str) -> None:
    """Raise a ValueError, which names the owner, for a single class.

    Every labelled pixel is of it, and whatever else is taken for it stands where there is no label,
    that is, does not count.
    """
    if len(names) == 1:
        raise ValueError(
            f'{owner} has one class, {names[0]!r}: nothing is there to tell it from, and what is '
            'wrongly taken for it would not count. Name everything else too: a vocabulary of two '
            'lines, "background" and the class, and their labels 0 and 1 in the label maps (for '
            'maps of 0 and 255 label_map={0: 0, 255: 1}, without reduce_zero_label)'
        )


def _lists() -> dict[str, Any]:
    """Files of the class lists by name; those of a family lie in a folder of their own."""
    folder = resources.files('infoclip_mmseg.datasets').joinpath('vocabulary_lists')
    entries = [*folder.iterdir()]
    entries += [file for entry in entries if entry.is_dir() for file in entry.iterdir()]
    return {e.name.removesuffix('.json'): e for e in entries if e.name.endswith('.json')}


def parse_class_list(text: str) -> list[str]:
    """Names in label order from lines of text.

    Empty lines, comments (``#``, ``//``) and a header are skipped; indices in front and colours at
    either end are taken off where all lines have them; lines whose indices are 0..n-1 or 1..n in
    another order are sorted by them. With a mere space after it a number is an index only where
    the lines count up and the rests differ: '1 euro coin', '2 euro coin' are names.

    Raises:
        ValueError: There is no name, or columns that are not understood; shows the line.
    """
    cut = enumerate((COMMENT.sub('', line).strip() for line in text.splitlines()), 1)
    lines = [(number, QUOTED.sub(r'\1\2', line)) for number, line in cut if line]
    lines = lines[len(lines) > 1 and _is_header(lines[0][1]) :]
    texts = [line for _, line in lines]
    if texts and OTHER_SYNTAX.fullmatch(texts[0]):
        raise _refuse(lines[0], 'looks like JSON or code (a JSON file is named .json)')
    colourless = _drop_colours(lines)
    names = _drop_indices(lines, colourless)
    coloured = colourless != texts
    left = [NUMBERS.fullmatch(n) or (coloured and NUMBER_AT_AN_END.fullmatch(n)) for n in names]
    digits = all(line.isdecimal() for line in texts)  # names of handwritten digits
    for line, name in zip(lines, names):
        if not name:
            raise _refuse(line, 'has no name')
        if '\t' in name or (all(left) and not digits):
            raise _refuse(line, f'has more columns than are understood: {name!r:.100} is left')
    names = [name for name in names if name not in NO_CLASS]
    if not names:
        raise ValueError(f'holds no class name (comments and empty lines do not count); {MEND}')
    return names


def parse_class_json(text: str) -> list[str]:
    """Names in label order from a JSON list of strings, id2label, or COCO's categories.

    Strings of a list are taken as they are. id2label is ``{"0": "road", "1": "sky"}``, counted
    from 0 or 1; categories are ``[{"id": 7, "name": "road"}, ...]``, sorted by `id` where all have
    one.

    Raises:
        ValueError: No valid JSON, or something else.
    """
    content = found = json.loads(text)
    if isinstance(found, dict) and all(key.isdecimal() for key in found):
        indices, found = [int(key) for key in found], list(found.values())
        place = _find_misfit(indices)
        if place is not None:
            raise ValueError(
                f'the key "{indices[place]}", {found[place]!r:.100}, is repeated or out of range: '
                f'{_expected(indices)}'
            )
        found = _sort(indices, found)
    elif isinstance(found, list) and found and all(isinstance(x, dict) for x in found):
        ids = [entry.get('id') for entry in found]
        found = _sort(ids, found) if all(type(i) is int for i in ids) else found
        found = [entry.get('name') for entry in found]
    if not isinstance(found, list) or not found or not all(isinstance(x, str) for x in found):
        raise ValueError(
            'must hold a JSON list of strings, an object {"0": "road", "1": "sky"} or a list of '
            f'objects with "name" (.json), or one class name a line (any other suffix); got '
            f'{json.dumps(content, ensure_ascii=False):.100}'
        )
    return found


def _is_header(line: str) -> bool:
    words = re.findall(r'[^\W_]+', line.lower())
    others = [word for word in words if not NAME_COLUMN.fullmatch(word)]
    return len(others) < len(words) and all(map(OTHER_COLUMN.fullmatch, others))


def _drop_colours(lines: Sequence[Line]) -> list[str]:
    columns = [[pattern.fullmatch(line) for _, line in lines] for pattern in COLOURS]
    for found in columns:
        if all(found):
            return [''.join(match.groups()) for match in found if match]
    most = max(columns, key=lambda found: sum(map(bool, found)))
    if any(most):
        with_colour = next(line for line, match in zip(lines, most) if match)
        raise _refuse(
            lines[most.index(None)],
            f'has no colour (three numbers 0..255, or #rrggbb) where line {with_colour[0]}, '
            f'{with_colour[1]!r:.100}, has one',
        )
    return [line for _, line in lines]


def _drop_indices(lines: Sequence[Line], names: list[str]) -> list[str]:
    found = [INDEX.fullmatch(name) for name in names]
    separated = [match is not None and bool(match[2].strip(' ')) for match in found]
    indices = [int(match[1]) for match in found if match]
    rests = [match[3] for match in found if match]
    if names and all(separated):
        place = _find_misfit(indices)
        if place is None:
            return _sort(indices, rests)
        raise _refuse(lines[place], f'has the index {indices[place]}: {_expected(indices)}')
    for line, match in zip(lines, found):
        if match is None or not match[2].strip(' '):
            continue
        # '747, jumbo jet', '1,000 rupee note' and '16:9 screen' are names.
        is_number = match[2] in ',:' and match[3][:1].isdecimal()
        if not is_number and (',' not in match[2] or int(match[1]) <= len(lines)):
            raise _refuse(
                lines[separated.index(False)],
                f'has no index in front like that of line {line[0]}, {line[1]!r:.100}',
            )
    count = len(names)
    counts_up = indices in ([*range(count)], [*range(1, count + 1)])
    return rests if counts_up and count > 1 and len(set(rests)) == count else names


def _find_misfit(indices: Sequence[int]) -> int | None:
    """Place of the first one that keeps indices from being 0..n-1 or 1..n in some order."""
    first = int(0 not in indices)
    left = set(range(first, first + len(indices)))
    for place, index in enumerate(indices):
        if index not in left:
            return place
        left.remove(index)
    return None


def _expected(indices: Sequence[int]) -> str:
    first = int(0 not in indices)
    return f'expected {first}..{first + len(indices) - 1}, each once'


def _sort(indices: Sequence[Any], values: Sequence[Any]) -> list[Any]:
    return [values[place] for place in sorted(range(len(indices)), key=indices.__getitem__)]


def _refuse(line: Line, problem: str) -> ValueError:
    return ValueError(f'line {line[0]}, {line[1]!r:.100}, {problem}; {MEND}')
