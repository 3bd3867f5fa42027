"""What each data set is made of: sources, conversions, checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from infoclip_mmseg.datasets.prepare import ade847, coco_stuff, pascal_context, sources, voc
from infoclip_mmseg.datasets.prepare.check import Layout
from infoclip_mmseg.datasets.prepare.parallel import Task
from infoclip_mmseg.datasets.prepare.sources import Source
from infoclip_mmseg.datasets.prepare.voc import read_list

ADE150 = Path('ade/ADEChallengeData2016')
CONTEXT_COUNT, VOC_COUNT = 5104, 1449


@dataclass(frozen=True)
class Recipe:
    """How a data set is prepared.

    Attributes:
        name: Name on the command line.
        sources: What has to be fetched.
        layouts: For each part of it the layouts that are accepted; the first one is made.
        find_tasks: Gives the conversions below a data root; None where nothing is converted.
    """

    name: str
    sources: tuple[Source, ...]
    layouts: tuple[tuple[Layout, ...], ...]
    find_tasks: Callable[[Path], list[Task]] | None = None

    def is_complete(self, root: Path, counts: Mapping[str, int]) -> bool:
        """Whether one layout of each part has all of its files.

        Args:
            root: The data root.
            counts: Numbers of images by title, in place of the published ones.
        """
        return all(
            any(one.is_complete(root, counts.get(one.title, one.count)) for one in alternatives)
            for alternatives in self.layouts
        )


def _coco_layout(split: str, count: int) -> tuple[Layout, ...]:
    images, labels = coco_stuff.COCO / 'images' / split, coco_stuff.COCO / 'annotations' / split
    suffix, ignored = coco_stuff.OUTPUT_SUFFIX, (coco_stuff.IGNORED,)
    return (Layout(f'coco-stuff {split}', count, images, labels, suffix, 171, ignored),)


def _voc_recipe(name: str, num_labels: int) -> Recipe:
    layout = Layout(
        name,
        VOC_COUNT,
        voc.VOC2012 / 'JPEGImages',
        voc.VOC2012 / voc.FOLDERS[name],
        '.png',
        num_labels,
        (voc.IGNORED,),
        names=_voc_names,
    )
    return Recipe(name, (sources.VOC2012,), ((layout,),), partial(voc.find_tasks, name))


def _voc_names(root: Path) -> list[str]:
    return read_list(root / voc.VAL_LIST)


def _context_layout(
    title: str, labels: Path, suffix: str, num_labels: int, ignored: tuple[int, ...], bits: int = 8
) -> Layout:
    images, names = pascal_context.IMAGES, pascal_context.read_val_list
    return Layout(
        title, CONTEXT_COUNT, images, labels, suffix, num_labels, ignored, names=names, bits=bits
    )


_ADE847 = Layout(
    'ade847', 2000, ade847.IMAGES, ade847.LABELS, '.tif', 847, (ade847.IGNORED,), bits=16
)
_ADE150 = Layout(
    'ade150', 2000, ADE150 / 'images/validation', ADE150 / 'annotations/validation', '.png', 151
)
_PC459 = _context_layout('pc459', pascal_context.PC459_LABELS, '.tif', 459, (459, 65535), 16)
_PC59 = _context_layout('pc59', pascal_context.PC59_LABELS, '.png', 59, (255,))
_PC59_MMSEG = _context_layout(
    'pc59', pascal_context.VOC2010 / 'SegmentationClassContext', '.png', 60, ()
)

RECIPES: dict[str, Recipe] = {
    recipe.name: recipe
    for recipe in (
        Recipe(
            'coco-stuff',
            (sources.COCO_TRAIN, sources.COCO_VAL, sources.COCO_LABELS),
            (_coco_layout('train2017', 118287), _coco_layout('val2017', 5000)),
            coco_stuff.find_tasks,
        ),
        Recipe('ade150', (sources.ADE_CHALLENGE,), ((_ADE150,),)),
        Recipe('ade847', (sources.ADE_FULL,), ((_ADE847,),), ade847.find_tasks),
        Recipe(
            'pc459',
            (sources.VOC2010, sources.CONTEXT_MAT, sources.CONTEXT_LIST),
            ((_PC459,),),
            pascal_context.find_pc459_tasks,
        ),
        Recipe(
            'pc59',
            (sources.VOC2010, sources.CONTEXT_JSON, sources.CONTEXT_LIST),
            ((_PC59, _PC59_MMSEG),),
            pascal_context.find_pc59_tasks,
        ),
        _voc_recipe('voc20', 20),
        _voc_recipe('voc20b', 21),
    )
}
