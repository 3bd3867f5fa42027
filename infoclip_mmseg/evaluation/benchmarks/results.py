"""Finished results on disk, found again by what they depend on."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from infoclip_mmseg.utils.files import value_digest, write_text

SHOWN = 12
"""Characters of a fingerprint in a file name."""


def hash_listing(paths: Iterable[str | os.PathLike[str]]) -> str:
    """SHA-256 of the names and sizes of files, in this order, wherever their folder is."""
    return value_digest([[Path(path).name, os.path.getsize(path)] for path in paths])


def result_path(folder: str | Path, key: str, fingerprint: str) -> Path:
    """File of one result."""
    return Path(folder, f'{key}_{fingerprint[:SHOWN]}.json')


def load_result(folder: str | Path, key: str, fingerprint: str) -> dict[str, Any] | None:
    """A finished result, or None where there is none of this fingerprint or it is damaged."""
    path = result_path(folder, key, fingerprint)
    if not path.is_file():
        return None
    try:
        result = json.loads(path.read_text(encoding='utf-8'))
    except json.JSONDecodeError:
        return None
    fits = isinstance(result, dict) and result.get('fingerprint') == fingerprint
    return result if fits and isinstance(result.get('figures'), dict) else None


def save_result(folder: str | Path, result: Mapping[str, Any]) -> Path:
    """Write a result, which has a `key` and a `fingerprint`; whole or not at all."""
    path = result_path(folder, result['key'], result['fingerprint'])
    write_text(path, json.dumps(result, indent=1) + '\n')
    return path
