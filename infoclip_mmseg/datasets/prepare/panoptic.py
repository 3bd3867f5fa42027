"""Panoptic sets: ADE20K's id maps out of its label and instance maps; JSON files of segments.

ADE20K panoptic is MaskFormer's (Cheng et al., 2021): stuff of the scene parsing challenge's label
maps, and above it the instances of the Places Challenge 2017.

Legend: H W size of an image.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.ndimage import find_objects

from infoclip_mmseg.datasets.benchmarks import PANOPTIC_BENCHMARKS, Layout
from infoclip_mmseg.datasets.checks import check_image_file
from infoclip_mmseg.datasets.panoptic import read_id_map
from infoclip_mmseg.datasets.prepare.label_files import (
    PrepareError,
    Task,
    Update,
    check_same_size,
    explain_full_disk,
    map_parallel,
    read_indices,
    write_image,
)
from infoclip_mmseg.datasets.vocabularies import load_vocabulary
from infoclip_mmseg.utils.files import write_text

Segment = dict[str, Any]

ADE150 = PANOPTIC_BENCHMARKS['ade150-panoptic']
SOURCES = ('annotations', 'annotations_instance')
"""Folders of the label maps and of the instance maps."""
CLASSES = 150
# fmt: off
STUFF = (
    0, 1, 2, 3, 4, 5, 6, 9, 11, 13, 16, 17, 21, 25, 26, 28, 29, 34, 40, 46, 48, 51, 52, 54, 59, 60,
    61, 63, 68, 77, 79, 84, 91, 94, 96, 99, 100, 101, 105, 106, 109, 113, 114, 117, 122, 128, 131,
    140, 141, 145,
)
# fmt: on
"""Classes, from 0, whose objects are not told apart."""
THINGS = tuple(label for label in range(CLASSES) if label not in STUFF)
"""The other 100; category k of the instance maps, from 1, is the k-th of them."""
IDS = 1000
"""An id is that many times the class, from 1, and above it the number of the instance."""


def merge_maps(
    labels: NDArray[np.integer], instances: NDArray[np.integer], source: str = 'instance map'
) -> NDArray[np.int64]:
    """Ids (H, W) of stuff, and of instances above it; 0 where there is neither.

    Things of the label map without an instance have no id.

    Args:
        labels: (H, W), 1..150, 0 where there is no label.
        instances: (H, W, 3): category 1..100 of the things, and number of the instance in the
            image; 0 where there is none.
        source: Name of the instance map in errors.

    Raises:
        ValueError: A label, or the category of an instance, is no class; or an instance is of
            several.
    """
    if labels.max(initial=0) > CLASSES:
        raise ValueError(
            f'the label map beside {source} holds {labels.max()}; expected 0..{CLASSES}'
        )
    stuff = np.where(np.isin(np.arange(CLASSES + 1) - 1, STUFF), np.arange(CLASSES + 1), 0)
    ids = stuff[labels].astype(np.int64) * IDS
    category, number = (instances[..., channel].astype(np.int64) for channel in (0, 1))
    inside = number > 0
    pairs = np.unique(np.stack([number[inside], category[inside]]), axis=1)
    wrong = pairs[1][(pairs[1] < 1) | (pairs[1] > len(THINGS))]
    if wrong.size:
        raise ValueError(
            f'{source} has instances of category {wrong[0]}; expected 1..{len(THINGS)}. It is '
            'damaged or of another data set; unpack the archive again'
        )
    several = pairs[0, 1:][np.diff(pairs[0]) == 0]
    if several.size:
        raise ValueError(
            f'{source}: instance {several[0]} is of several categories; it is damaged, unpack the '
            'archive again'
        )
    table = np.array([0, *THINGS]) + 1
    ids[inside] = table[category[inside]] * IDS + number[inside]
    return ids


def describe_segments(ids: NDArray[np.integer]) -> list[Segment]:
    """Segments of an id map (H, W) of :func:`merge_maps` as in COCO's JSON; categories from 0."""
    values, inverse, areas = np.unique(ids, return_inverse=True, return_counts=True)
    boxes = find_objects(inverse.reshape(ids.shape) + 1)
    return [
        dict(
            id=int(value),
            category_id=int(value) // IDS - 1,
            area=int(area),
            bbox=[x.start, y.start, x.stop - x.start, y.stop - y.start],
            iscrowd=0,
        )
        for value, area, (y, x) in zip(values, areas, boxes)
        if value
    ]


def convert_image(image: Path, labels: Path, instances: Path, output: Path) -> None:
    """Write the id map of an image; a ValueError for a missing, damaged or swapped file."""
    try:
        label_map, instance_map = read_indices(labels), _read_instances(instances)
    except FileNotFoundError as error:
        raise ValueError(f'{error.filename} is missing; unpack the archive again') from error
    check_same_size(label_map.shape, labels, image)
    check_same_size(instance_map.shape[:2], instances, image)
    ids = merge_maps(label_map, instance_map, f'instance map {instances}')
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], -1).astype(np.uint8)
    write_image(output, colours)


def find_ade_tasks(root: Path) -> list[Task]:
    """The conversions of ADE20K's validation images below a data root."""
    layout, tasks = ADE150.made, []
    labels, instances = (root / layout.folder / f'{kind}/validation' for kind in SOURCES)
    for name in layout.image_names(root):
        image, output = layout.image_file(name, root), layout.label_file(name, root)
        maps = labels / f'{name}.png', instances / f'{name}.png'
        tasks.append(Task((output,), partial(convert_image, image, *maps, output)))
    return tasks


def write_ade_segments(root: Path, workers: int, update: Update) -> None:
    """Write the JSON file of all id maps that are there."""
    layout = ADE150.made
    names = layout.label_names(root)
    update(total=len(names))
    images, annotations = [], []
    for name, entry in zip(names, map_parallel(partial(_describe, layout, root), names, workers)):
        (height, width), segments = entry
        images.append(dict(id=name, file_name=f'{name}.jpg', height=height, width=width))
        annotations.append(dict(image_id=name, file_name=f'{name}.png', segments_info=segments))
        update(advance=1)
    categories = [
        dict(id=label, name=name.strip(), isthing=int(label in THINGS))
        for label, name in enumerate(load_vocabulary(ADE150.vocabulary))
    ]
    content = dict(images=images, annotations=annotations, categories=categories)
    path = layout.segments_file(root)
    with explain_full_disk(path):
        write_text(path, json.dumps(content) + '\n')


def _describe(layout: Layout, root: Path, name: str) -> tuple[tuple[int, int], list[Segment]]:
    path = layout.label_file(name, root)
    ids = read_id_map(path)
    segments = describe_segments(ids)
    for segment in segments:
        label, number = segment['category_id'], segment['id'] % IDS
        if not 0 <= label < CLASSES or (number > 0) != (label in THINGS):
            raise PrepareError(
                f'{path} has the id {segment["id"]}, which this program does not give: it was made '
                'by another one, and its JSON file is not there. Remove the folder and start again.'
            )
    return (ids.shape[0], ids.shape[1]), segments


def _read_instances(path: Path) -> NDArray[np.uint8]:
    """(H, W, 3)."""
    check_image_file(path, 'instance map')
    with Image.open(path) as image:
        if image.mode != 'RGB':
            raise ValueError(
                f'instance map {path} is a picture of mode {image.mode}; expected RGB: category, '
                'number of the instance, nothing'
            )
        return np.asarray(image)


def read_segments(layout: Layout, root: Path) -> dict[str, list[int]]:
    """Ids of the segments of each image's id map, by its name; a PrepareError for a bad file."""
    path = layout.segments_file(root)
    try:
        content = json.loads(path.read_bytes())
        categories = {category['id'] for category in content['categories']}
        segments: dict[str, Sequence[Mapping[str, Any]]] = {
            Path(entry['file_name']).stem: entry['segments_info']
            for entry in content['annotations']
        }
        unknown = {s['category_id'] for infos in segments.values() for s in infos} - categories
        ids = {name: [int(s['id']) for s in infos] for name, infos in segments.items()}
    except FileNotFoundError as error:
        raise PrepareError(f'{path} is missing: prepare it first') from error
    except (ValueError, KeyError, TypeError) as error:
        raise PrepareError(
            f'{path} is cut short, damaged or no panoptic JSON ({type(error).__name__}: {error}); '
            'unpack or make it again'
        ) from error
    if len(categories) != layout.num_values or unknown:
        raise PrepareError(
            f'{path} has {len(categories)} categories, expected {layout.num_values}; segments of '
            f'other ones: {sorted(unknown)[:5]}'
        )
    return ids


def inspect_id_map(layout: Layout, root: Path, item: tuple[str, Sequence[int]]) -> tuple[str, str]:
    """What is wrong with files or sizes of a pair, and with its ids; '' for nothing.

    The item is a name and the ids that the JSON file has for it. It may have more than the map,
    where a segment is covered by others.
    """
    name, known = item
    image, path = layout.image_file(name, root), layout.label_file(name, root)
    try:
        check_image_file(path, 'id map')
        ids = read_id_map(path)
        check_same_size(ids.shape, path, image)
        check_image_file(image)
    except (ValueError, OSError) as error:
        return str(error), ''
    unknown = sorted(set(np.unique(ids).tolist()) - {0, *known})
    return '', f'{path} has {unknown[:5]}' if unknown else ''
