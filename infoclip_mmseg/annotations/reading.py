"""Annotations of labelling tools to label maps: labelme's files, COCO's JSON, CVAT's XML.

Legend: h w pixels of an image; shapes lie above those before them.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple
from xml.etree import ElementTree

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as coco_mask

Mask = NDArray[np.bool_]


class AnnotationError(ValueError):
    """Annotations that cannot be read; the message names the file and the place."""


class Shape(NamedTuple):
    """A named shape, and how its mask (h, w) is drawn."""

    name: str
    draw: Callable[[], Mask]


class Annotated(NamedTuple):
    """An image's file, its size (h, w), its shapes, and the kinds of shapes that have no area."""

    image: str
    size: tuple[int, int]
    shapes: list[Shape]
    left_out: list[str]


def read_annotations(path: Path) -> list[Annotated]:
    """All images of a folder of labelme files, a COCO .json or a CVAT .xml ("for images 1.1").

    Image names are as they stand there; those of labelme are made relative to the folder.

    Raises:
        FileNotFoundError: There is nothing of the kind.
        AnnotationError: A file is damaged or of another kind.
    """
    if path.is_dir():
        files = sorted(path.rglob('*.json'))
        if not files:
            raise FileNotFoundError(f'{path} has no .json files; expected those of labelme')
        return [_guarded(read_labelme, file, path) for file in files]
    readers: dict[str, Callable[..., Any]] = {'.json': read_coco, '.xml': read_cvat}
    reader = readers.get(path.suffix.lower())
    if not path.is_file() or reader is None:
        raise FileNotFoundError(
            f'{path} is neither a folder of labelme files nor a .json (COCO) or .xml (CVAT) file'
        )
    return _guarded(reader, path)


def _guarded(reader: Callable[..., Any], path: Path, *more: Any) -> Any:
    try:
        return reader(path, *more)
    except AnnotationError:
        raise
    except (KeyError, IndexError, TypeError, ValueError, AssertionError) as error:
        kind = type(error).__name__
        raise AnnotationError(
            f'{path}: not as expected ({kind}: {error}); is it of the tool, and whole?'
        ) from error
    except ElementTree.ParseError as error:
        raise AnnotationError(f'{path} is no valid XML: {error}') from error


def read_labelme(path: Path, folder: Path) -> Annotated:
    """An image of a labelme file: polygons, rectangles, circles and masks."""
    content = json.loads(path.read_text(encoding='utf-8'))
    size = int(content['imageHeight']), int(content['imageWidth'])
    image = (path.parent / content['imagePath'].replace('\\', '/')).resolve()
    shapes, left_out = [], []
    for shape in content['shapes']:
        draw = _labelme_mask(shape, size)
        if draw is None:
            left_out.append(str(shape['shape_type']))
        else:
            shapes.append(Shape(shape['label'], draw))
    root = folder.resolve()
    name = str(image.relative_to(root)) if image.is_relative_to(root) else str(image)
    return Annotated(name, size, shapes, left_out)


def _labelme_mask(shape: dict[str, Any], size: tuple[int, int]) -> Callable[[], Mask] | None:
    points = np.array(shape['points'], dtype=np.float64)
    kind = shape.get('shape_type', 'polygon')
    if kind == 'polygon':
        return lambda: fill([points], size)
    if kind == 'rectangle':
        (x, y), (right, bottom) = points.min(0), points.max(0)
        corners = np.array([[x, y], [right, y], [right, bottom], [x, bottom]])
        return lambda: fill([corners], size)
    if kind == 'circle':
        radius = float(np.linalg.norm(points[1] - points[0]))
        around = np.linspace(0, 2 * np.pi, 180, endpoint=False)
        ring = points[0] + radius * np.stack([np.cos(around), np.sin(around)], 1)
        return lambda: fill([ring], size)
    if kind == 'mask':
        left, top = np.rint(points.min(0)).astype(int)
        part = np.asarray(Image.open(io.BytesIO(base64.b64decode(shape['mask'])))) > 0
        return lambda: place(part, left, top, size)
    return None


def read_coco(path: Path) -> list[Annotated]:
    """Images of COCO's instances: polygons and run lengths; small ones lie above large ones."""
    content = json.loads(path.read_text(encoding='utf-8'))
    if not isinstance(content, dict) or not {'images', 'categories'} <= content.keys():
        raise AnnotationError(f'{path} has no images and categories: is it of COCO?')
    names = {category['id']: category['name'] for category in content['categories']}
    entries: dict[Any, list[dict[str, Any]]] = {}
    for entry in content.get('annotations', ()):
        entries.setdefault(entry['image_id'], []).append(entry)
    found = []
    for image in content['images']:
        size = int(image['height']), int(image['width'])
        own = sorted(entries.get(image['id'], ()), key=lambda entry: -entry.get('area', 0))
        with_area = [entry for entry in own if entry.get('segmentation')]
        shapes = [
            Shape(names[entry['category_id']], partial(_coco_mask, entry['segmentation'], size))
            for entry in with_area
        ]
        left_out = ['box'] * (len(own) - len(with_area))
        found.append(Annotated(image['file_name'], size, shapes, left_out))
    return found


def _coco_mask(segmentation: Any, size: tuple[int, int]) -> Mask:
    """Mask of COCO's polygons, or of its run lengths, packed or not."""
    if isinstance(segmentation, list):
        runs = coco_mask.merge(coco_mask.frPyObjects(segmentation, *size))
    elif isinstance(segmentation['counts'], list):
        runs = coco_mask.frPyObjects(segmentation, *size)
    else:
        runs = segmentation
    return coco_mask.decode(runs).astype(bool)


def read_cvat(path: Path) -> list[Annotated]:
    """Images of "CVAT for images 1.1": polygons, boxes and masks, by their z order."""
    root = ElementTree.parse(path).getroot()
    if root.tag != 'annotations':
        raise AnnotationError(f'{path}: expected <annotations> of CVAT, got <{root.tag}>')
    found = []
    for image in root.iter('image'):
        size = int(image.attrib['height']), int(image.attrib['width'])
        elements = sorted(image, key=lambda element: int(element.get('z_order', 0)))
        shapes, left_out = [], []
        for element in elements:
            draw = _cvat_mask(element, size)
            if draw is not None:
                shapes.append(Shape(element.attrib['label'], draw))
            elif element.tag != 'tag':
                left_out.append(element.tag)
        found.append(Annotated(image.attrib['name'], size, shapes, left_out))
    return found


def _cvat_mask(element: ElementTree.Element, size: tuple[int, int]) -> Callable[[], Mask] | None:
    about = element.attrib
    if element.tag == 'polygon':
        corners = [pair.split(',') for pair in about['points'].split(';')]
        points = np.array(corners, dtype=np.float64)
        return lambda: fill([points], size)
    if element.tag == 'box':
        x, y, right, bottom = (float(about[key]) for key in ('xtl', 'ytl', 'xbr', 'ybr'))
        points = np.array([[x, y], [right, y], [right, bottom], [x, bottom]])
        return lambda: fill([points], size)
    if element.tag == 'mask':
        left, top, width, height = (int(about[k]) for k in ('left', 'top', 'width', 'height'))
        runs = [int(run) for run in about['rle'].split(',')]
        flat = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
        part = flat.reshape(height, width)
        return lambda: place(part, left, top, size)
    return None


def fill(rings: Sequence[NDArray[np.float64]], size: tuple[int, int]) -> Mask:
    """Mask (h, w) of rings (n, 2) of x and y, their edges with them."""
    canvas = np.zeros(size, np.uint8)
    cv2.fillPoly(canvas, [np.rint(ring).astype(np.int32) for ring in rings], 1)
    return canvas.astype(bool)


def place(part: Mask, left: int, top: int, size: tuple[int, int]) -> Mask:
    """Mask (h, w) with a smaller one at a place; what lies outside is cut."""
    whole = np.zeros(size, bool)
    inner = whole[max(0, top) : top + part.shape[0], max(0, left) : left + part.shape[1]]
    y, x = max(0, -top), max(0, -left)
    inner[:] = part[y : y + inner.shape[0], x : x + inner.shape[1]]
    return whole


def label_names(annotated: Sequence[Annotated]) -> list[str]:
    """All names, in the order in which they come."""
    return list(dict.fromkeys(shape.name for one in annotated for shape in one.shapes))


def label_map(one: Annotated, names: Sequence[str], empty: int) -> NDArray[np.integer]:
    """Label map (h, w): the index of the topmost shape's name, ``empty`` where there is none."""
    labels = np.full(one.size, empty, np.uint8 if empty <= 255 else np.uint16)
    for shape in one.shapes:
        labels[shape.draw()] = names.index(shape.name)
    return labels


def split(count: int, share: float, seed: int = 0) -> Iterator[str]:
    """'train' or 'val' for each of so many images: a share of them, at random, is for validation.

    At least one is where there are two or more and the share is not 0.
    """
    held = min(count - 1, max(1, round(share * count))) if share and count > 1 else 0
    chosen = set(np.random.default_rng(seed).permutation(count)[:held].tolist())
    return ('val' if number in chosen else 'train' for number in range(count))
