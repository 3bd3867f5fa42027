"""What each data set is made of: records of its parts, archives, conversions."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

from infoclip_mmseg.datasets.benchmarks import BENCHMARKS, COCO_SPLITS, Benchmark
from infoclip_mmseg.datasets.prepare import ade847, conversions
from infoclip_mmseg.datasets.prepare.archives import Source
from infoclip_mmseg.datasets.prepare.parallel import Task

FindTasks = Callable[[Path], list[Task]]


@dataclass(frozen=True)
class Recipe:
    """How a data set, by its name on the command line, is prepared, and what has to be fetched.

    ``find_tasks`` gives the conversions below a data root; None where nothing is converted.
    """

    name: str
    parts: tuple[Benchmark, ...]
    sources: tuple[Source, ...]
    find_tasks: FindTasks | None = None

    def is_complete(self, root: Path) -> bool:
        """Whether one layout of each part has some image and as many label maps as needed."""
        return all(
            any(
                layout.image_names(root) and len(layout.label_names(root)) >= part.num_images
                for layout in part.accepted
            )
            for part in self.parts
        )


_FILE = files('infoclip_mmseg.datasets.prepare') / 'sources.json'
_RECORDS = json.loads(_FILE.read_text(encoding='utf-8'))
_COCO_STUFF = ('coco_train coco_val coco_labels', conversions.find_coco_stuff_tasks)
_BENCHMARKS: dict[str, tuple[str, FindTasks | None]] = {
    'ade150': ('ade_challenge', None),
    'ade847': ('ade_full', ade847.find_tasks),
    'pc459': ('voc2010 context_mat context_list', conversions.find_pc459_tasks),
    'pc59': ('voc2010 context_json context_list', conversions.find_pc59_tasks),
    'voc20': ('voc2012', partial(conversions.find_voc_tasks, 'voc20')),
    'voc20b': ('voc2012', partial(conversions.find_voc_tasks, 'voc20b')),
}


def _recipe(name: str, parts: tuple[Benchmark, ...], sources: str, tasks: Any) -> Recipe:
    return Recipe(name, parts, tuple(Source(**_RECORDS[key]) for key in sources.split()), tasks)


RECIPES: dict[str, Recipe] = {
    'coco-stuff': _recipe('coco-stuff', COCO_SPLITS, *_COCO_STUFF),
    **{key: _recipe(key, (BENCHMARKS[key],), *rest) for key, rest in _BENCHMARKS.items()},
}
