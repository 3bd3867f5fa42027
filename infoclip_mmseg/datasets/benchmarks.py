"""What is known of each public data set: one record a set.

A record says how many images the set has, where they may lie, what the label maps hold and which
data set class reads them. Preparation and its check, the data set classes and the evaluation take
it from here. Each of the six benchmarks is found in mmseg's layout and in the detectron2-style one
of CAT-Seg's preparation scripts; the labels that come out are the same. Class names are CAT-Seg's
lists.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from infoclip_mmseg.datasets.label_maps import IGNORED_8, IGNORED_16
from infoclip_mmseg.datasets.layout import Cfg, Layout

COCO_STUFF, ADE150, ADE847 = 'coco_stuff164k', 'ade/ADEChallengeData2016', 'ADE20K_2021_17_01'
VOC2010, VOC2012 = 'VOCdevkit/VOC2010', 'VOCdevkit/VOC2012'
"""Folders below the root of the data."""
METRIC: Cfg = dict(type='OpenVocabIoUMetric', iou_metrics=['mIoU'])
LOADER_DEFAULTS = dict(
    batch_size=1, num_workers=2, sampler=dict(type='DefaultSampler', shuffle=False)
)


class Benchmark(NamedTuple):
    """One data set.

    Attributes:
        key: Name on the command line and in metric keys.
        title: Name in the papers' tables.
        num_images: Images of the published set.
        vocabulary: Its class list, see :mod:`infoclip_mmseg.datasets.vocabularies`.
        layouts: Ways in which it may lie on disk; the first that is there is taken.
        prepared: Which of them tools/prepare_data.py accepts; it makes the first of these.
        ignore_index: Value of pixels without a label, once loaded.
        metric: Config of its metric.
    """

    key: str
    title: str
    num_images: int
    vocabulary: str
    layouts: tuple[Layout, ...]
    prepared: tuple[int, ...] = (0,)
    ignore_index: int = IGNORED_8
    metric: Cfg = METRIC

    @property
    def accepted(self) -> tuple[Layout, ...]:
        """The layouts that preparation accepts, the one that it makes first."""
        return tuple(self.layouts[index] for index in self.prepared)

    @property
    def made(self) -> Layout:
        """The layout that preparation makes."""
        return self.accepted[0]


def _coco_stuff(split: str, num_images: int) -> Benchmark:
    folders, dataset = (f'images/{split}', f'annotations/{split}'), dict(type='COCOStuffDataset')
    layout = Layout(COCO_STUFF, *folders, dataset, 171, (255,), '_labelTrainIds.png')
    return Benchmark(f'coco-stuff {split}', 'COCO-Stuff', num_images, 'coco', (layout,))


def _ade150(folder: str) -> tuple[Layout, Layout]:
    images, ade = 'images/validation', dict(type='ADE20KDataset')
    plain, shifted = dict(ade, reduce_zero_label=True), dict(ade, reduce_zero_label=False)
    return (
        Layout(folder, images, 'annotations/validation', plain, 151),
        Layout(folder, images, 'annotations_detectron2/validation', shifted, 150, (255,)),
    )


def _ade847(folder: str) -> Layout:
    folders = ('images_detectron2/validation', 'annotations_detectron2/validation')
    dataset = dict(type='ADE20K847Dataset')
    return Layout(folder, *folders, dataset, 847, (IGNORED_16,), '.tif')


def _context(
    labels: str, dataset: Cfg, num_values: int, ignored: tuple[int, ...], **rest: Any
) -> Layout:
    lists = ('pascalcontext_val.txt', 'ImageSets/SegmentationContext/val.txt')
    return Layout(
        VOC2010, 'JPEGImages', labels, dataset, num_values, ignored, **rest, listings=lists
    )


def _voc(folder: str, plain: Cfg, shifted: Cfg, num_values: int) -> tuple[Layout, ...]:
    """VOC's own label maps, and shifted ones in a folder for the split or beside it."""
    names, images = 'ImageSets/Segmentation/val.txt', 'JPEGImages'
    original = Layout(VOC2012, images, 'SegmentationClass', plain, 21, (255,), ann_file=names)
    shifted = dict(shifted, listing='labels')
    others = (
        Layout(VOC2012, images, labels, shifted, num_values, (255,), listings=(names,))
        for labels in (f'{folder}/val', folder)
    )
    return (original, *others)


_PC59 = dict(type='VocabularyDataset', vocabulary='pc59')
_PAS20, _PAS20B = dict(type='PascalVOC20Dataset'), dict(type='PascalVOC20bDataset')

COCO_SPLITS = (_coco_stuff('train2017', 118287), _coco_stuff('val2017', 5000))
"""What is trained on; not among the benchmarks."""
BENCHMARKS: dict[str, Benchmark] = {
    benchmark.key: benchmark
    for benchmark in (
        Benchmark(
            key='ade847',
            title='A-847',
            num_images=2000,
            vocabulary='ade847',
            layouts=(_ade847(ADE847), _ade847(f'ade/{ADE847}')),
            ignore_index=IGNORED_16,
        ),
        Benchmark(
            key='pc459',
            title='PC-459',
            num_images=5104,
            vocabulary='pc459',
            layouts=(
                _context(
                    'annotations_detectron2/pc459_val',
                    dict(type='PascalContext459Dataset', listing='labels'),
                    459,
                    (459, IGNORED_16),
                    label_suffix='.tif',
                ),
            ),
            ignore_index=IGNORED_16,
        ),
        Benchmark(
            key='ade150',
            title='A-150',
            num_images=2000,
            vocabulary='ade150',
            layouts=(*_ade150(ADE150), *_ade150('ADEChallengeData2016')),
        ),
        Benchmark(
            key='pc59',
            title='PC-59',
            num_images=5104,
            vocabulary='pc59',
            layouts=(
                _context(
                    'SegmentationClassContext',
                    dict(_PC59, reduce_zero_label=True),
                    60,
                    (),
                    ann_file='ImageSets/SegmentationContext/val.txt',
                ),
                _context(
                    'annotations_detectron2/pc59_val', dict(_PC59, listing='labels'), 59, (255,)
                ),
            ),
            prepared=(1, 0),
        ),
        Benchmark(
            key='voc20',
            title='PAS-20',
            num_images=1449,
            vocabulary='voc20',
            layouts=_voc(
                'annotations_detectron2', _PAS20, dict(_PAS20, reduce_zero_label=False), 20
            ),
            prepared=(2,),
        ),
        Benchmark(
            key='voc20b',
            title='PAS-20b',
            num_images=1449,
            vocabulary='voc20b',
            layouts=_voc('annotations_detectron2_bg', _PAS20B, dict(_PAS20B, label_map=None), 21),
            prepared=(2,),
        ),
    )
}


def select_benchmarks(keys: str | Iterable[str]) -> list[Benchmark]:
    """Benchmarks by their keys, in the order of the papers' tables.

    Args:
        keys: Keys as a list or in one string with commas; 'all' stands for all six.

    Raises:
        ValueError: A key is unknown, or there is none.
    """
    keys = keys.split(',') if isinstance(keys, str) else list(keys)
    wanted = {part.strip() for key in keys for part in key.split(',') if part.strip()}
    unknown = sorted(wanted - BENCHMARKS.keys() - {'all'})
    if unknown or not wanted:
        raise ValueError(
            f'unknown benchmarks {unknown}; expected all, or some of {", ".join(BENCHMARKS)}'
        )
    return [b for b in BENCHMARKS.values() if 'all' in wanted or b.key in wanted]


def find_layout(benchmark: Benchmark, data_root: str | Path) -> Layout | None:
    """The first of a benchmark's layouts whose folders are there and hold label maps, or None."""
    return next((layout for layout in benchmark.layouts if layout.is_there(data_root)), None)


def describe_absence(benchmark: Benchmark, data_root: str | Path) -> str:
    """Where a benchmark's label maps have been looked for, in one line."""
    places = dict.fromkeys(str(layout.label_folder(data_root)) for layout in benchmark.layouts)
    return f'{benchmark.title} not found: no images, or no label maps in {", ".join(places)}'


def make_dataset_cfg(layout: Layout, data_root: str | Path, pipeline: Sequence[Cfg]) -> Cfg:
    """Config of a benchmark's data set.

    Args:
        layout: From :func:`find_layout`.
        data_root: Folder of all data.
        pipeline: Test pipeline; mmseg's `LoadAnnotations` in it is replaced by
            :class:`~infoclip_mmseg.datasets.LoadLabelMap`.
    """
    return dict(
        copy.deepcopy(layout.dataset),
        data_root=str(Path(data_root, layout.folder)),
        data_prefix=dict(img_path=layout.images, seg_map_path=layout.labels),
        ann_file=layout.ann_file,
        pipeline=with_label_loader(pipeline),
    )


def make_dataloader_cfg(
    layout: Layout,
    data_root: str | Path,
    pipeline: Sequence[Cfg],
    template: Mapping[str, Any] | None = None,
) -> Cfg:
    """Config of a benchmark's data loader.

    Args:
        layout: From :func:`find_layout`.
        data_root: Folder of all data.
        pipeline: Test pipeline, see :func:`make_dataset_cfg`.
        template: A data loader's config, of which all but the data set is taken.
    """
    rest = {key: value for key, value in (template or {}).items() if key != 'dataset'}
    loader = {**copy.deepcopy(LOADER_DEFAULTS), **copy.deepcopy(rest)}
    return dict(loader, dataset=make_dataset_cfg(layout, data_root, pipeline))


def with_label_loader(steps: Any) -> Any:
    """A pipeline (nested lists and dicts) with LoadLabelMap for each LoadAnnotations."""
    if isinstance(steps, Mapping):
        if steps.get('type') == 'LoadAnnotations':
            return dict(type='LoadLabelMap')
        return {key: with_label_loader(value) for key, value in steps.items()}
    if isinstance(steps, (list, tuple)):
        return type(steps)(with_label_loader(step) for step in steps)
    return steps
