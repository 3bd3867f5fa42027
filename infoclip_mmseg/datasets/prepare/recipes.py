"""What each data set is made of: records of its parts, archives, conversions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from infoclip_mmseg.datasets.benchmarks import BENCHMARKS, COCO_SPLITS, Benchmark
from infoclip_mmseg.datasets.prepare import ade847, archive_list, coco_stuff, pascal_context, voc
from infoclip_mmseg.datasets.prepare.archive_list import Source
from infoclip_mmseg.datasets.prepare.parallel import Task
from infoclip_mmseg.datasets.prepare.verification import is_complete

FindTasks = Callable[[Path], list[Task]]


@dataclass(frozen=True)
class Recipe:
    """How a data set is prepared.

    Attributes:
        name: Name on the command line.
        parts: What is prepared.
        sources: What has to be fetched.
        find_tasks: Gives the conversions below a data root; None where nothing is converted.
    """

    name: str
    parts: tuple[Benchmark, ...]
    sources: tuple[Source, ...]
    find_tasks: FindTasks | None = None

    def is_complete(self, root: Path, counts: Mapping[str, int]) -> bool:
        """Whether one layout of each part has all of its files.

        Args:
            root: The data root.
            counts: Numbers of images by key of a part, in place of the published ones.
        """
        return all(
            any(
                is_complete(layout, root, counts.get(part.key, part.num_images))
                for layout in part.accepted
            )
            for part in self.parts
        )


def _recipe(key: str, *sources: Source, find_tasks: FindTasks | None = None) -> Recipe:
    return Recipe(key, (BENCHMARKS[key],), sources, find_tasks)


_COCO = (archive_list.COCO_TRAIN, archive_list.COCO_VAL, archive_list.COCO_LABELS)
_PC459 = (archive_list.VOC2010, archive_list.CONTEXT_MAT, archive_list.CONTEXT_LIST)
_PC59 = (archive_list.VOC2010, archive_list.CONTEXT_JSON, archive_list.CONTEXT_LIST)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe('coco-stuff', COCO_SPLITS, _COCO, coco_stuff.find_tasks),
        _recipe('ade150', archive_list.ADE_CHALLENGE),
        _recipe('ade847', archive_list.ADE_FULL, find_tasks=ade847.find_tasks),
        _recipe('pc459', *_PC459, find_tasks=pascal_context.find_pc459_tasks),
        _recipe('pc59', *_PC59, find_tasks=pascal_context.find_pc59_tasks),
        _recipe('voc20', archive_list.VOC2012, find_tasks=partial(voc.find_tasks, 'voc20')),
        _recipe('voc20b', archive_list.VOC2012, find_tasks=partial(voc.find_tasks, 'voc20b')),
    )
}
