"""PASCAL Context on VOC 2010: PC-459 from .mat files, PC-59 from trainval_merged.json."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.io import loadmat

from infoclip_mmseg.datasets.benchmarks import BENCHMARKS, VOC2010
from infoclip_mmseg.datasets.layout import Layout
from infoclip_mmseg.datasets.prepare.label_files import (
    PrepareError,
    check_same_size,
    encode_label,
    map_labels,
    read_list,
    write_bytes,
)
from infoclip_mmseg.datasets.prepare.parallel import Task
from infoclip_mmseg.datasets.vocabularies import load_vocabulary

PC459, PC59 = BENCHMARKS['pc459'], BENCHMARKS['pc59']
MAT_FILES = Path(VOC2010, 'trainval')
JSON_FILE = Path(VOC2010, 'trainval_merged.json')
PC459_IGNORED = PC459.made.num_values
PC59_IGNORED, UNKNOWN = PC59.ignore_index, 254
PC59_TO_PC459 = {'diningtable': 'table'}
"""The one class that the two lists name differently."""


def read_label_map(path: Path) -> np.ndarray:
    """`LabelMap` of a .mat file: 1..459, 0 and 460 where nothing is labelled.

    Returns:
        (H, W), int64.

    Raises:
        ValueError: It is missing, damaged, or holds other values.
    """
    if not path.is_file():
        raise ValueError(f'label map {path} is missing; unpack the archive again')
    try:
        values = loadmat(str(path), variable_names=['LabelMap'])['LabelMap']
    except Exception as error:  # damaged bytes make the reader raise almost anything
        raise ValueError(
            f'label map {path} is damaged or has no LabelMap ({type(error).__name__}: {error}); '
            'unpack it again'
        ) from error
    if values.ndim != 2 or not np.array_equal(values, values.astype(np.int64)):
        raise ValueError(f'label map {path}: LabelMap must be a matrix (H, W) of whole numbers')
    if values.min() < 0 or values.max() > PC459_IGNORED + 1:
        raise ValueError(
            f'label map {path} holds {values.min()}..{values.max()}; expected 0..460. It is '
            'damaged or belongs to another data set.'
        )
    return values.astype(np.int64)


def convert_mat(image: Path, source: Path, output: Path) -> None:
    """Convert one .mat file: label minus 1, 459 where nothing is labelled, uint16.

    Raises:
        ValueError: The file can't be used, or its size is not the image's.
    """
    values = read_label_map(source)
    check_same_size(values.shape, source, image)
    label = np.where(values == 0, PC459_IGNORED, values - 1).astype(np.uint16)
    write_bytes(output, encode_label(label, output.suffix))


def pc59_table() -> np.ndarray:
    """New label of each category number of trainval_merged.json.

    The categories count as PC-459 does, from 1, so the two vocabularies define the table.

    Returns:
        (460,), uint8: 0..58, 255 for 0, UNKNOWN for categories outside of the 59.
    """
    numbers = {name: number for number, name in enumerate(load_vocabulary(PC459.vocabulary), 1)}
    table = np.full(len(numbers) + 1, UNKNOWN, np.uint8)
    table[0] = PC59_IGNORED
    for label, name in enumerate(load_vocabulary(PC59.vocabulary)):
        table[numbers[PC59_TO_PC459.get(name, name)]] = label
    return table


def decode_mask(segmentation: Any) -> np.ndarray:
    """A mask from COCO's `{'size': [H, W], 'counts': ...}`.

    Args:
        segmentation: Compressed (string) or uncompressed (list) counts, column by column, the first
            run is background.

    Returns:
        (H, W), bool.

    Raises:
        ValueError: The runs do not fill the mask, or it is something else (a polygon).
    """
    from pycocotools import mask as coco_mask

    if not isinstance(segmentation, Mapping) or not {'size', 'counts'} <= segmentation.keys():
        raise ValueError(f'a mask is {str(segmentation)[:60]}; expected a run-length encoded one')
    height, width = segmentation['size']
    counts = segmentation['counts']

    def decode(*size: int) -> np.ndarray:
        return coco_mask.decode(dict(size=size, counts=counts))

    try:
        if not isinstance(counts, (str, bytes)):
            counts = coco_mask.frPyObjects(dict(segmentation), height, width)['counts']
        mask = decode(height, width)
    except (ValueError, OverflowError) as error:
        raise ValueError(
            f'runs of a mask are damaged or more than its {height} x {width} pixels ({error})'
        ) from error
    # Missing runs are not noticed by pycocotools; too many are, so one pixel less must be too few.
    try:
        decode(height * width - 1, 1)
    except ValueError:
        return mask.astype(bool)
    raise ValueError(f'runs of a mask do not fill its {height} x {width} pixels')


def draw_masks(height: int, width: int, annotations: list[tuple[int, Any]]) -> np.ndarray:
    """Category numbers of an image; a later mask covers an earlier one, as in the `detail` API.

    Args:
        height: Of the image, in pixels.
        width: Likewise.
        annotations: Category and COCO run-length mask of each, in the file's order.

    Returns:
        (H, W), int64; 0 where there is no mask.

    Raises:
        ValueError: A mask is damaged or has another size.
    """
    values = np.zeros((height, width), np.int64)
    for category, segmentation in annotations:
        mask = decode_mask(segmentation)
        if mask.shape != values.shape:
            raise ValueError(f'a mask is {mask.shape}, its image {values.shape} (height, width)')
        values[mask] = category
    return values


def convert_annotations(
    image: Path, size: tuple[int, int], annotations: list[tuple[int, Any]], output: Path
) -> None:
    """Convert the annotations of one image.

    Args:
        image: Its file.
        size: Height and width by trainval_merged.json, in pixels.
        annotations: See :func:`draw_masks`.
        output: The label map.

    Raises:
        ValueError: They are damaged, do not fit the image, or a category is not of the 59.
    """
    source = Path(f'{JSON_FILE.name}:{image.stem}')
    check_same_size(size, source, image)
    try:
        values = draw_masks(*size, annotations)
    except ValueError as error:
        raise ValueError(f'{source}: {error}; fetch the file again') from error
    label = map_labels(values, pc59_table(), source, UNKNOWN)
    write_bytes(output, encode_label(label, output.suffix))


def read_annotations(path: Path) -> dict[str, tuple[tuple[int, int], list[tuple[int, Any]]]]:
    """Sizes and annotations of the validation images of trainval_merged.json, by file stem.

    Raises:
        PrepareError: The file is missing, cut short or of another format.
    """
    try:
        data = json.loads(path.read_bytes())
        images = {item['image_id']: item for item in data['images'] if item['phase'] == 'val'}
        by_id: dict[Any, tuple[str, tuple[int, int], list[tuple[int, Any]]]] = {
            number: (Path(item['file_name']).stem, (item['height'], item['width']), [])
            for number, item in images.items()
        }
        for item in data['annos_segmentation']:
            if item['image_id'] in by_id:
                pair = (item['category_id'], item['segmentation'])
                by_id[item['image_id']][2].append(pair)
    except FileNotFoundError as error:
        raise PrepareError(f'{path} is missing') from error
    except (ValueError, KeyError, TypeError) as error:
        raise PrepareError(
            f'{path} ({path.stat().st_size} bytes) is cut short, damaged or of another format '
            f'({type(error).__name__}: {error}); fetch it again'
        ) from error
    return {stem: (size, annotations) for stem, size, annotations in by_id.values()}


def find_pc459_tasks(root: Path) -> list[Task]:
    """The conversions of PC-459 below a data root.

    Raises:
        PrepareError: There is no list of the validation images.
    """
    layout, tasks = PC459.made, []
    for name in _read_val_list(layout, root):
        image, output = layout.image_file(name, root), layout.label_file(name, root)
        source = root / MAT_FILES / f'{name}.mat'
        tasks.append(Task((output,), partial(convert_mat, image, source, output)))
    return tasks


def find_pc59_tasks(root: Path) -> list[Task]:
    """The conversions of PC-59 below a data root.

    Raises:
        PrepareError: The list of the validation images or the JSON file can't be used.
    """
    layout, tasks = PC59.made, []
    names, annotations = _read_val_list(layout, root), read_annotations(root / JSON_FILE)
    unknown = [name for name in names if name not in annotations]
    if unknown:
        raise PrepareError(
            f'{root / JSON_FILE} has no validation image {unknown[0]} ({len(unknown)} such); it is '
            'another file than expected, fetch it again'
        )
    for name in names:
        image, output = layout.image_file(name, root), layout.label_file(name, root)
        function = partial(convert_annotations, image, *annotations[name], output)
        tasks.append(Task((output,), function))
    return tasks


def _read_val_list(layout: Layout, root: Path) -> list[str]:
    """Names of the validation images from CAT-Seg's or MMSegmentation's list."""
    paths = layout.listing_files(root)
    for path in paths:
        if path.is_file():
            return read_list(path)
    raise PrepareError(f'the list of the validation images, {paths[0]}, is missing')
