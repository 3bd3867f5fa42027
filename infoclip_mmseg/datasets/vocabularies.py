"""Vocabularies: lists of class names from files, and colours for them."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from mmengine.logging import print_log

from infoclip_mmseg.datasets.class_lists import parse_class_json, parse_class_list
from infoclip_mmseg.utils.files import first_few


def shipped_vocabularies() -> list[str]:
    """Names of the class lists that come with the package, e.g. 'ade847'; sorted."""
    return sorted(_lists())


def load_vocabulary(path: str | Path) -> list[str]:
    """Class names in label order, from a file or from the lists that come with the package.

    A name may hold comma-separated synonyms. A warning tells of names with underscores in a file.

    Args:
        path: Name of a shipped list (see :func:`shipped_vocabularies`), or a file: .json (see
            :func:`~infoclip_mmseg.datasets.class_lists.parse_class_json`) or text (one class a
            line, see :func:`~infoclip_mmseg.datasets.class_lists.parse_class_list`). A file that is
            named like a shipped list is read by './NAME'.

    Raises:
        FileNotFoundError: There is neither such a list nor such a file.
        ValueError: The file holds no list of names, or one that cannot be told from other columns.
    """
    shipped = _lists().get(str(path))
    if shipped is not None:
        return json.loads(shipped.read_text(encoding='utf-8'))
    path = Path(path)
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
        kinds = {
            UnicodeDecodeError: ' is not UTF-8 text',
            json.JSONDecodeError: ' is no valid JSON',
        }
        kind = kinds.get(type(error), '')
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


def check_several_classes(names: Sequence[str], owner: str) -> None:
    """A data set needs something that its class is told from.

    With a single class every labelled pixel is of it, and whatever else is taken for it stands
    where there is no label, that is, does not count.

    Raises:
        ValueError: There is only one; the owner is named.
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
