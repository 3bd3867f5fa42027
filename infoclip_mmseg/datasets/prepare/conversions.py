"""What the label maps of COCO-Stuff, PASCAL VOC and PASCAL Context become.

- COCO-Stuff 164k: stuffthingmaps to MMSegmentation's labelTrainIds.
- PASCAL VOC 2012: PAS-20 (background ignored) and PAS-20b (background is class 20).
- PASCAL Context on VOC 2010: PC-459 from .mat files, PC-59 from trainval_merged.json.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from infoclip_mmseg.datasets.benchmarks import BENCHMARKS, COCO_SPLITS, VOC2010, VOC2012, Layout
from infoclip_mmseg.datasets.prepare.label_files import (
    PrepareError,
    Task,
    convert_label,
    read_indices,
    read_list,
)
from infoclip_mmseg.datasets.vocabularies import load_vocabulary

IGNORED = 255
COCO_VALUES = 182
COCO_UNUSED = (11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90)
"""Values of the 182 that no image has; 171 classes remain."""
VOC_CLASSES = 20
VOC_FOLDERS = ('SegmentationClass', 'SegmentationClassAug')
PC459, PC59 = BENCHMARKS['pc459'], BENCHMARKS['pc59']
PC459_TABLE = {0: 459, **{number: number - 1 for number in range(1, 461)}}
"""New label of each value: 0 and 460 have no label."""
PC59_TO_PC459 = {'diningtable': 'table'}
"""The one class that the two lists name differently."""
JSON_FILE = 'trainval_merged.json'
Annotations = list[tuple[int, Any]]
"""Category and COCO run-length mask of each, in the file's order."""


def coco_stuff_table() -> dict[int, int]:
    """New label of each value of a stuffthingmap: the used ones in order, 255 stays."""
    used = [value for value in range(COCO_VALUES) if value not in COCO_UNUSED]
    return {**{value: label for label, value in enumerate(used)}, IGNORED: IGNORED}


def voc_table(background: int) -> dict[int, int]:
    """New label of each of VOC's values: 1..20 become 0..19, 255 stays, 0 as is said."""
    return {0: background, **{k + 1: k for k in range(VOC_CLASSES)}, IGNORED: IGNORED}


def pc59_table() -> dict[int, int]:
    """New label of each category number of trainval_merged.json: 0..58, and 255 for 0.

    The categories count as PC-459 does, from 1, so the two vocabularies define the table.
    """
    numbers = {name: number for number, name in enumerate(load_vocabulary(PC459.vocabulary), 1)}
    names = [PC59_TO_PC459.get(name, name) for name in load_vocabulary(PC59.vocabulary)]
    return {0: IGNORED, **{numbers[name]: label for label, name in enumerate(names)}}


def read_label_map(path: Path) -> np.ndarray:
    """`LabelMap` of a .mat file, (H, W), int64: 1..459, 0 and 460 where nothing is labelled.

    A ValueError where it is damaged or holds other values.
    """
    try:
        values = loadmat(str(path), variable_names=['LabelMap'])['LabelMap']
    except FileNotFoundError:
        raise
    except Exception as error:  # damaged bytes make the reader raise almost anything
        raise ValueError(
            f'label map {path} is damaged or has no LabelMap ({type(error).__name__}: {error}); '
            'unpack it again'
        ) from error
    if values.ndim != 2 or not np.array_equal(values, values.astype(np.int64)):
        raise ValueError(f'label map {path}: LabelMap must be a matrix (H, W) of whole numbers')
    if values.min() < 0 or values.max() > max(PC459_TABLE):
        raise ValueError(
            f'label map {path} holds {values.min()}..{values.max()}; expected 0..460. It is '
            'damaged or belongs to another data set.'
        )
    return values.astype(np.int64)


def decode_mask(segmentation: Any) -> np.ndarray:
    """A mask (H, W), bool, from COCO's `{'size': [H, W], 'counts': ...}`.

    Counts are compressed (string) or not (list), column by column; the first run is background. A
    ValueError where the runs do not fill the mask, or it is something else (a polygon).
    """
    from pycocotools import mask as coco_mask

    if not isinstance(segmentation, Mapping) or not {'size', 'counts'} <= segmentation.keys():
        raise ValueError(f'a mask is {str(segmentation)[:60]}; expected a run-length encoded one')
    height, width = segmentation['size']
    counts = segmentation['counts']
    try:
        if not isinstance(counts, (str, bytes)):
            counts = coco_mask.frPyObjects(dict(segmentation), height, width)['counts']
        mask = coco_mask.decode(dict(size=[height, width], counts=counts))
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f'runs of a mask are damaged or more than its {height} x {width} pixels ({error})'
        ) from error
    # Missing runs are not noticed by pycocotools; too many are, so one pixel less must be too few.
    try:
        coco_mask.decode(dict(size=[height * width - 1, 1], counts=counts))
    except ValueError:
        return mask.astype(bool)
    raise ValueError(f'runs of a mask do not fill its {height} x {width} pixels')


def draw_masks(height: int, width: int, annotations: Annotations, source: Path) -> np.ndarray:
    """Category numbers (H, W), int64, of an image; 0 where there is no mask.

    A later mask covers an earlier one, as in the `detail` API. A ValueError, which names the
    source, where a mask is damaged or has another size.
    """
    values = np.zeros((height, width), np.int64)
    try:
        for category, segmentation in annotations:
            mask = decode_mask(segmentation)
            if mask.shape != values.shape:
                raise ValueError(
                    f'a mask is {mask.shape}, its image {values.shape} (height, width)'
                )
            values[mask] = category
    except ValueError as error:
        raise ValueError(f'{source}: {error}; fetch the file again') from error
    return values


def read_annotations(path: Path) -> dict[str, tuple[int, int, Annotations]]:
    """Height, width and annotations of the validation images of trainval_merged.json, by stem.

    A PrepareError where the file is missing, cut short or of another format.
    """
    try:
        data = json.loads(path.read_bytes())
        masks: dict[Any, Annotations] = {
            item['image_id']: [] for item in data['images'] if item['phase'] == 'val'
        }
        for item in data['annos_segmentation']:
            if item['image_id'] in masks:
                masks[item['image_id']].append((item['category_id'], item['segmentation']))
        return {
            Path(item['file_name']).stem: (item['height'], item['width'], masks[item['image_id']])
            for item in data['images']
            if item['image_id'] in masks
        }
    except FileNotFoundError as error:
        raise PrepareError(f'{path} is missing') from error
    except (ValueError, KeyError, TypeError) as error:
        raise PrepareError(
            f'{path} ({path.stat().st_size} bytes) is cut short, damaged or of another format '
            f'({type(error).__name__}: {error}); fetch it again'
        ) from error


def find_coco_stuff_tasks(root: Path) -> list[Task]:
    """The conversions of all images below a data root."""
    tasks = []
    for layout in (split.made for split in COCO_SPLITS):
        names, folder = layout.image_names(root), layout.label_folder(root)
        sources = [(name, folder / f'{name}.png', read_indices) for name in names]
        tasks += _label_tasks(layout, root, coco_stuff_table(), sources)
    return tasks


def find_voc_tasks(key: str, root: Path) -> list[Task]:
    """The conversions of 'voc20' or 'voc20b' below a data root."""
    layout = BENCHMARKS[key].made
    background = IGNORED if layout.num_values == VOC_CLASSES else VOC_CLASSES
    sources = []
    for name in read_list(layout.listing_files(root)):
        paths = [root / VOC2012 / folder / f'{name}.png' for folder in VOC_FOLDERS]
        sources.append((name, next(filter(Path.is_file, paths), paths[0]), read_indices))
    return _label_tasks(layout, root, voc_table(background), sources)


def find_pc459_tasks(root: Path) -> list[Task]:
    """The conversions of PC-459 below a data root; a PrepareError without the list of images."""
    names, folder = read_list(PC459.made.listing_files(root)), root / VOC2010 / 'trainval'
    sources = [(name, folder / f'{name}.mat', read_label_map) for name in names]
    return _label_tasks(PC459.made, root, PC459_TABLE, sources)


def find_pc59_tasks(root: Path) -> list[Task]:
    """The conversions of PC-59 below a data root; a PrepareError without list or JSON file."""
    path, names = root / VOC2010 / JSON_FILE, read_list(PC59.made.listing_files(root))
    annotations = read_annotations(path)
    unknown = [name for name in names if name not in annotations]
    if unknown:
        raise PrepareError(
            f'{path} has no validation image {unknown[0]} ({len(unknown)} such); it is another '
            'file than expected, fetch it again'
        )
    readers = {name: partial(draw_masks, *annotations[name]) for name in names}
    sources = [(name, Path(f'{JSON_FILE}:{name}'), read) for name, read in readers.items()]
    return _label_tasks(PC59.made, root, pc59_table(), sources)


def _label_tasks(
    layout: Layout,
    root: Path,
    table: Mapping[int, int],
    sources: Iterable[tuple[str, Path, Callable[[Path], np.ndarray]]],
) -> list[Task]:
    """A conversion for each name, source and what reads it."""
    tasks = []
    for name, source, read in sources:
        image, output = layout.image_file(name, root), layout.label_file(name, root)
        tasks.append(Task((output,), partial(convert_label, image, source, output, table, read)))
    return tasks
