"""The evaluation sets of open-vocabulary segmentation, and where to find them below a folder.

Each of the six sets is found in mmseg's layout and in the detectron2-style one of CAT-Seg's
preparation scripts; the labels that come out are the same. Class names are CAT-Seg's lists.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

Cfg = dict[str, Any]
LOADER_DEFAULTS = dict(
    batch_size=1, num_workers=2, sampler=dict(type='DefaultSampler', shuffle=False)
)


class Layout(NamedTuple):
    """One way in which a data set may lie below the root of the data.

    Attributes:
        folder: Its folder below the root.
        images: Folder of the images below that.
        labels: Folder of the label maps below that.
        dataset: Config of the data set, without paths and pipeline.
        names: File with the images' names below the folder; '' takes all files.
    """

    folder: str
    images: str
    labels: str
    dataset: Cfg
    names: str = ''

    def paths(self, data_root: str | Path) -> list[Path]:
        """What must be there."""
        parts = [self.images, self.labels, *([self.names] if self.names else [])]
        return [Path(data_root, self.folder, part) for part in parts]


class Benchmark(NamedTuple):
    """One evaluation set.

    Attributes:
        key: Name on the command line and in metric keys.
        title: Name in the papers' tables.
        num_images: Images of the published evaluation.
        layouts: Ways in which it may lie on disk; the first that is there is taken.
        metric: Config of its metric.
    """

    key: str
    title: str
    num_images: int
    layouts: tuple[Layout, ...]
    metric: Cfg


def _voc(folder: str, labels: str, dataset: Cfg, names: str = '') -> Layout:
    listing = {} if names else dict(listing='labels')
    return Layout(folder, 'JPEGImages', labels, {**dataset, **listing}, names)


def _ade150(folder: str) -> list[Layout]:
    images, ade = 'images/validation', dict(type='ADE20KDataset')
    return [
        Layout(folder, images, 'annotations/validation', dict(ade, reduce_zero_label=True)),
        Layout(
            folder, images, 'annotations_detectron2/validation', dict(ade, reduce_zero_label=False)
        ),
    ]


def _ade847(folder: str) -> Layout:
    return Layout(
        folder,
        'images_detectron2/validation',
        'annotations_detectron2/validation',
        dict(type='ADE20K847Dataset'),
    )


_VOC2010, _VOC2012 = 'VOCdevkit/VOC2010', 'VOCdevkit/VOC2012'
_PC59 = dict(type='VocabularyDataset', vocabulary='pc59')
_PAS20, _PAS20B = dict(type='PascalVOC20Dataset'), dict(type='PascalVOC20bDataset')
_VOC_LABELS, _VOC_NAMES = 'SegmentationClass', 'ImageSets/Segmentation/val.txt'
_METRIC: Cfg = dict(type='OpenVocabIoUMetric', iou_metrics=['mIoU'])

BENCHMARKS: dict[str, Benchmark] = {
    benchmark.key: benchmark
    for benchmark in (
        Benchmark(
            'ade847',
            'A-847',
            2000,
            (_ade847('ADE20K_2021_17_01'), _ade847('ade/ADE20K_2021_17_01')),
            _METRIC,
        ),
        Benchmark(
            'pc459',
            'PC-459',
            5104,
            (
                _voc(
                    _VOC2010,
                    'annotations_detectron2/pc459_val',
                    dict(type='PascalContext459Dataset'),
                ),
            ),
            _METRIC,
        ),
        Benchmark(
            'ade150',
            'A-150',
            2000,
            (*_ade150('ade/ADEChallengeData2016'), *_ade150('ADEChallengeData2016')),
            _METRIC,
        ),
        Benchmark(
            'pc59',
            'PC-59',
            5104,
            (
                _voc(
                    _VOC2010,
                    'SegmentationClassContext',
                    dict(_PC59, reduce_zero_label=True),
                    'ImageSets/SegmentationContext/val.txt',
                ),
                _voc(_VOC2010, 'annotations_detectron2/pc59_val', _PC59),
            ),
            _METRIC,
        ),
        Benchmark(
            'voc20',
            'PAS-20',
            1449,
            (
                _voc(_VOC2012, _VOC_LABELS, _PAS20, _VOC_NAMES),
                *(
                    _voc(_VOC2012, labels, dict(_PAS20, reduce_zero_label=False))
                    for labels in ('annotations_detectron2/val', 'annotations_detectron2')
                ),
            ),
            _METRIC,
        ),
        Benchmark(
            'voc20b',
            'PAS-20b',
            1449,
            (
                _voc(_VOC2012, _VOC_LABELS, _PAS20B, _VOC_NAMES),
                *(
                    _voc(_VOC2012, labels, dict(_PAS20B, label_map=None))
                    for labels in ('annotations_detectron2_bg/val', 'annotations_detectron2_bg')
                ),
            ),
            _METRIC,
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
    for layout in benchmark.layouts:
        paths = layout.paths(data_root)
        if all(path.exists() for path in paths) and _has_label_maps(paths[1]):
            return layout
    return None


def describe_absence(benchmark: Benchmark, data_root: str | Path) -> str:
    """Where a benchmark's label maps have been looked for, in one line."""
    places = dict.fromkeys(str(layout.paths(data_root)[1]) for layout in benchmark.layouts)
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
        ann_file=layout.names,
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


def _has_label_maps(folder: Path) -> bool:
    suffixes = ('.png', '.tif')
    return any(path.suffix in suffixes for path in folder.iterdir())
