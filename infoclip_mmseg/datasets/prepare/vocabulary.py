"""Tables that ship inside the package."""

from __future__ import annotations

import json
from importlib.resources import files


def read_names(name: str) -> list[str]:
    """The class names of a benchmark in label order, for example 'ade847'."""
    folder = files('infoclip_mmseg.datasets') / 'vocabulary_lists'
    return json.loads((folder / f'{name}.json').read_text(encoding='utf-8'))


def read_ade847_objects() -> list[int]:
    """ADE20K's own number (from 1) of each of the 847 classes, in label order.

    These numbers are those of release 2021_17_01, by which MaskFormer defined the benchmark.
    """
    path = files('infoclip_mmseg.datasets.prepare') / 'ade847_objects.json'
    return json.loads(path.read_text(encoding='utf-8'))
