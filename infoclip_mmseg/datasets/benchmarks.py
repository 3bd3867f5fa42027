"""What is known of each public data set: one record a set.

A record says how many images the set has, where they may lie, what the label maps hold and which
data set class reads them. Preparation and its check, the data set classes and the evaluation take
it from here. Each of the six benchmarks is found in mmseg's layout and in the detectron2-style one
of CAT-Seg's preparation scripts; the labels that come out are the same. Class names are CAT-Seg's
lists.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from infoclip_mmseg.datasets.label_maps import IGNORED_8, IGNORED_16

Cfg = dict[str, Any]

COCO_STUFF, ADE150, ADE847 = 'coco_stuff164k', 'ade/ADEChallengeData2016', 'ADE20K_2021_17_01'
VOC2010, VOC2012 = 'VOCdevkit/VOC2010', 'VOCdevkit/VOC2012'
COCO_PANOPTIC = 'coco'
"""Folders below the root of the data."""
METRIC: Cfg = dict(type='OpenVocabIoUMetric', iou_metrics=['mIoU'])
PANOPTIC_METRIC: Cfg = dict(type='PanopticMetric')


class Layout(NamedTuple):
    """One way in which a data set may lie below the root of the data.

    Attributes:
        folder, images, labels: Its folder below the root, and those of images and label maps below
            that.
        dataset: Config of the data set that reads it, without paths and pipeline.
        num_values: Label maps hold 0..num_values - 1,
        ignored: and these values, which are no class.
        label_suffix: What follows an image's name in the name of its label map.
        ann_file: File with the images' names below the folder, as of ``BaseSegDataset``; '' takes
            all files. Of a panoptic set the JSON file of its segments.
        listings: Files below the folder any of which tells the names of the images when the set is
            prepared and checked; a single one has to be there. None: all images.
    """

    folder: str
    images: str
    labels: str
    dataset: Cfg
    num_values: int
    ignored: tuple[int, ...] = ()
    label_suffix: str = '.png'
    ann_file: str = ''
    listings: tuple[str, ...] = ()

    @property
    def is_panoptic(self) -> bool:
        """Whether the label maps are id maps, whose segments a JSON file lists."""
        return self.dataset['type'] == 'PanopticDataset'

    @property
    def bits(self) -> int:
        """Bits of a pixel that the label maps need: 8 or 16."""
        return 8 if max(self.num_values - 1, *self.ignored, 0) < 1 << 8 else 16

    def image_folder(self, root: str | Path = '') -> Path:
        """Folder of the images below the root of the data."""
        return Path(root, self.folder, self.images)

    def label_folder(self, root: str | Path = '') -> Path:
        """Folder of the label maps below the root of the data."""
        return Path(root, self.folder, self.labels)

    def image_file(self, name: str, root: str | Path = '') -> Path:
        """Image of a name."""
        return self.image_folder(root) / f'{name}.jpg'

    def label_file(self, name: str, root: str | Path = '') -> Path:
        """Label map of a name."""
        return self.label_folder(root) / f'{name}{self.label_suffix}'

    def image_names(self, root: str | Path) -> list[str]:
        """Names of the images that are there."""
        return _stems(self.image_folder(root), '.jpg')

    def label_names(self, root: str | Path) -> list[str]:
        """Names of the label maps that are there."""
        return _stems(self.label_folder(root), self.label_suffix)

    def segments_file(self, root: str | Path = '') -> Path:
        """The JSON file of a panoptic set."""
        return Path(root, self.folder, self.ann_file)

    def listing_files(self, root: str | Path = '') -> list[Path]:
        """Where lists of the names may be."""
        return [Path(root, self.folder, name) for name in self.listings]

    def is_there(self, root: str | Path) -> bool:
        """Whether its folders are below the root of the data, and label maps in them."""
        names = Path(root, self.folder, self.ann_file)
        return self.image_folder(root).exists() and names.exists() and bool(self.label_names(root))


class Benchmark(NamedTuple):
    """One data set.

    Attributes:
        key, title: Name on the command line and in metric keys, and in the papers' tables.
        num_images: Images of the published set.
        vocabulary: Its class list, see :mod:`infoclip_mmseg.datasets.vocabularies`.
        layouts: Ways in which it may lie on disk; the first that is there is taken.
        prepared: Which of them tools/prepare_data.py accepts; it makes the first of these.
        ignore_index: Value of pixels without a label, once loaded.
    """

    key: str
    title: str
    num_images: int
    vocabulary: str
    layouts: tuple[Layout, ...]
    prepared: tuple[int, ...] = (0,)
    ignore_index: int = IGNORED_8

    @property
    def is_panoptic(self) -> bool:
        """Whether it has segments, which only heads that find masks give."""
        return self.layouts[0].is_panoptic

    @property
    def metric(self) -> Cfg:
        """Config of the metric, its results prefixed with the key."""
        return dict(PANOPTIC_METRIC if self.is_panoptic else METRIC, prefix=self.key)

    @property
    def accepted(self) -> tuple[Layout, ...]:
        """The layouts that preparation accepts, the one that it makes first."""
        return tuple(self.layouts[index] for index in self.prepared)

    @property
    def made(self) -> Layout:
        """The layout that preparation makes."""
        return self.accepted[0]


def _stems(folder: Path, suffix: str) -> list[str]:
    """Names in a folder that end so, without that end; hidden files do not count."""
    names = (path.name for path in folder.iterdir()) if folder.is_dir() else ()
    return sorted(n.removesuffix(suffix) for n in names if n.endswith(suffix) and n[0] != '.')


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


def _coco_panoptic(split: str, num_images: int) -> Benchmark:
    maps = f'annotations/panoptic_{split}'
    layout = Layout(COCO_PANOPTIC, split, maps, _PANOPTIC, 133, ann_file=f'{maps}.json')
    key, words = f'coco-panoptic {split}', 'maftp_coco_panoptic'
    return Benchmark(key, 'COCO panoptic', num_images, words, (layout,))


def _ade150_panoptic(folder: str) -> Layout:
    maps = 'ade20k_panoptic_val'
    return Layout(folder, 'images/validation', maps, _PANOPTIC, 150, ann_file=f'{maps}.json')


COCO_SPLITS = (_coco_stuff('train2017', 118287), _coco_stuff('val2017', 5000))
_PANOPTIC = dict(type='PanopticDataset')
COCO_PANOPTIC_SPLITS = (_coco_panoptic('train2017', 118287), _coco_panoptic('val2017', 5000))
"""What is trained on; not among the benchmarks."""
_LISTED = 'ImageSets/SegmentationContext/val.txt'
_context = partial(Layout, VOC2010, 'JPEGImages', listings=('pascalcontext_val.txt', _LISTED))
_DETECTRON2 = ('images_detectron2/validation', 'annotations_detectron2/validation')
_ADE847, _PC59 = dict(type='ADE20K847Dataset'), dict(type='VocabularyDataset', vocabulary='pc59')
_PC459 = dict(type='PascalContext459Dataset', listing='labels')
_PAS20, _PAS20B = dict(type='PascalVOC20Dataset'), dict(type='PascalVOC20bDataset')
_LAYOUTS: dict[str, tuple[Layout, ...]] = dict(
    ade847=tuple(
        Layout(folder, *_DETECTRON2, _ADE847, 847, (IGNORED_16,), '.tif')
        for folder in (ADE847, f'ade/{ADE847}')
    ),
    pc459=(_context('annotations_detectron2/pc459_val', _PC459, 459, (459, IGNORED_16), '.tif'),),
    ade150=(*_ade150(ADE150), *_ade150('ADEChallengeData2016')),
    pc59=(
        _context(
            'SegmentationClassContext', dict(_PC59, reduce_zero_label=True), 60, ann_file=_LISTED
        ),
        _context('annotations_detectron2/pc59_val', dict(_PC59, listing='labels'), 59, (255,)),
    ),
    voc20=_voc('annotations_detectron2', _PAS20, dict(_PAS20, reduce_zero_label=False), 20),
    voc20b=_voc('annotations_detectron2_bg', _PAS20B, dict(_PAS20B, label_map=None), 21),
)


def _benchmark(key: str, title: str, num_images: int, **rest: Any) -> Benchmark:
    return Benchmark(key, title, num_images, key, _LAYOUTS[key], **rest)


_SIX = (
    _benchmark('ade847', 'A-847', 2000, ignore_index=IGNORED_16),
    _benchmark('pc459', 'PC-459', 5104, ignore_index=IGNORED_16),
    _benchmark('ade150', 'A-150', 2000),
    _benchmark('pc59', 'PC-59', 5104, prepared=(1, 0)),
    _benchmark('voc20', 'PAS-20', 1449, prepared=(2,)),
    _benchmark('voc20b', 'PAS-20b', 1449, prepared=(2,)),
)
BENCHMARKS: dict[str, Benchmark] = {benchmark.key: benchmark for benchmark in _SIX}
_ADE150_PANOPTIC = tuple(_ade150_panoptic(folder) for folder in (ADE150, ADE150.split('/')[-1]))
_PANOPTIC_SETS = (Benchmark('ade150-panoptic', 'A-150 panoptic', 2000, 'ade150', _ADE150_PANOPTIC),)
PANOPTIC_BENCHMARKS: dict[str, Benchmark] = {
    benchmark.key: benchmark for benchmark in _PANOPTIC_SETS
}
"""For heads that find masks; 'all' does not ask for them."""


def select_benchmarks(keys: str | Iterable[str]) -> list[Benchmark]:
    """Benchmarks by their keys, in the order of the papers' tables; a ValueError for unknown ones.

    Keys come as a list or in one string with commas; 'all' stands for the six that measure mIoU.
    """
    known = {**BENCHMARKS, **PANOPTIC_BENCHMARKS}
    keys = keys.split(',') if isinstance(keys, str) else list(keys)
    wanted = {part.strip() for key in keys for part in key.split(',') if part.strip()}
    unknown = sorted(wanted - known.keys() - {'all'})
    if unknown or not wanted:
        raise ValueError(
            f'unknown benchmarks {unknown}; expected all, or some of {", ".join(known)}'
        )
    wanted |= BENCHMARKS.keys() if 'all' in wanted else set()
    return [benchmark for benchmark in known.values() if benchmark.key in wanted]


def find_layout(benchmark: Benchmark, data_root: str | Path) -> Layout | None:
    """The first of a benchmark's layouts whose folders are there and hold label maps, or None."""
    return next((layout for layout in benchmark.layouts if layout.is_there(data_root)), None)


def describe_absence(benchmark: Benchmark, data_root: str | Path) -> str:
    """Where a benchmark's label maps have been looked for, in one line."""
    places = dict.fromkeys(str(layout.label_folder(data_root)) for layout in benchmark.layouts)
    return f'{benchmark.title} not found: no images, or no label maps in {", ".join(places)}'
