"""Writers of annotations: one class a format, chosen by name.

Categories keep their number whatever an image shows: the index of the name among the classes.
"""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol
from uuid import NAMESPACE_URL, uuid5
from xml.etree import ElementTree

import numpy as np
import yaml
from numpy.typing import NDArray
from pycocotools import mask as coco_mask

from infoclip_mmseg.annotations.regions import Regions, rings
from infoclip_mmseg.utils.files import write_text

LABELME_VERSION = '5.5.0'


class Writer(Protocol):
    """Takes the images one after the other; what describes all of them is written at the end."""

    def add(self, regions: Regions) -> None:
        """Write, or note, the regions of an image."""

    def close(self) -> Path:
        """Write what is left; returns the file or folder that tools read."""


def coco_rle(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """COCO's run lengths of a mask (h, w): ``size`` [h, w] and ``counts``, a string."""
    packed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return dict(size=list(packed['size']), counts=packed['counts'].decode('ascii'))


def rle_mask(runs: dict[str, Any]) -> NDArray[np.bool_]:
    """The mask (h, w) of :func:`coco_rle`."""
    return coco_mask.decode(dict(runs, counts=runs['counts'].encode('ascii'))).astype(bool)


def cvat_runs(mask: NDArray[np.bool_]) -> list[int]:
    """Lengths of runs of a mask (h, w), row by row, in turn without and with it; CVAT's form."""
    flat = mask.ravel().astype(np.int8)
    changes = np.flatnonzero(np.diff(flat)) + 1
    runs = np.diff([0, *changes, flat.size]).tolist()
    return [0, *runs] if flat[0] else runs


def coco_annotations(regions: Regions) -> list[dict[str, Any]]:
    """Entries of COCO's annotations without their ids; categories count from 1."""
    found = [
        dict(
            category_id=region.label + 1,
            segmentation=coco_rle(region.mask),
            area=region.area,
            bbox=list(region.box),
            iscrowd=0,
            score=region.score,
        )
        for region in regions.regions
    ]
    return [{k: v for k, v in entry.items() if v is not None} for entry in found]


def labelme_content(regions: Regions) -> dict[str, Any]:
    """What labelme's file of an image holds; parts of one region share their group."""
    shapes = [
        dict(
            label=region.name,
            points=ring.tolist(),
            group_id=group,
            description='',
            shape_type='polygon',
            flags={},
        )
        for group, region in enumerate(regions.regions)
        for ring in rings(region.mask)
    ]
    return dict(
        version=LABELME_VERSION,
        flags={},
        shapes=shapes,
        imagePath=regions.image,
        imageData=None,
        imageHeight=regions.size[0],
        imageWidth=regions.size[1],
    )


class CocoWriter:
    """``annotations.json``, COCO's instances: run lengths, exact; category ids count from 1."""

    def __init__(
        self, folder: Path, names: Sequence[str], palette: Sequence[Sequence[int]]
    ) -> None:
        self.path = folder / 'annotations.json'
        self.content: dict[str, list[Any]] = dict(images=[], annotations=[], categories=[])
        for number, name in enumerate(names, start=1):
            self.content['categories'].append(dict(id=number, name=name, supercategory=''))

    def add(self, regions: Regions) -> None:
        """Note an image."""
        images, annotations = self.content['images'], self.content['annotations']
        height, width = regions.size
        number = len(images) + 1
        images.append(dict(id=number, file_name=regions.image, height=height, width=width))
        for entry in coco_annotations(regions):
            annotations.append(dict(id=len(annotations) + 1, image_id=number, **entry))

    def close(self) -> Path:
        """Write the file."""
        write_text(self.path, json.dumps(self.content, ensure_ascii=False), shared=True)
        return self.path


class LabelmeWriter:
    """``labelme/STEM.json``, see :func:`labelme_content`."""

    def __init__(
        self, folder: Path, names: Sequence[str], palette: Sequence[Sequence[int]]
    ) -> None:
        self.folder = folder / 'labelme'

    def add(self, regions: Regions) -> None:
        """Write an image's file."""
        content = labelme_content(regions)
        if os.path.isfile(regions.image):  # labelme looks for it from where its file lies
            content['imagePath'] = os.path.relpath(regions.image, self.folder)
        text = json.dumps(content, ensure_ascii=False)
        write_text(self.folder / f'{regions.stem}.json', text, shared=True)

    def close(self) -> Path:
        """All is written."""
        return self.folder


class CvatWriter:
    """``annotations.xml``, "CVAT for images 1.1" with masks, exact."""

    def __init__(
        self, folder: Path, names: Sequence[str], palette: Sequence[Sequence[int]]
    ) -> None:
        self.path = folder / 'annotations.xml'
        self.root = ElementTree.Element('annotations')
        ElementTree.SubElement(self.root, 'version').text = '1.1'
        task = ElementTree.SubElement(ElementTree.SubElement(self.root, 'meta'), 'task')
        labels = ElementTree.SubElement(task, 'labels')
        for name, colour in zip(names, palette):
            label = ElementTree.SubElement(labels, 'label')
            ElementTree.SubElement(label, 'name').text = name
            ElementTree.SubElement(label, 'color').text = '#' + bytes(colour).hex()
            ElementTree.SubElement(label, 'type').text = 'mask'
        self.count = 0

    def add(self, regions: Regions) -> None:
        """Note an image."""
        height, width = regions.size
        place = dict(id=self.count, name=regions.image, width=width, height=height)
        image = ElementTree.SubElement(self.root, 'image', _strings(place))
        self.count += 1
        for region in regions.regions:
            x, y, w, h = region.box
            runs = ', '.join(map(str, cvat_runs(region.mask[y : y + h, x : x + w])))
            about = dict(label=region.name, source='semi-auto', occluded=0, z_order=0)
            mask = dict(rle=runs, left=x, top=y, width=w, height=h)
            ElementTree.SubElement(image, 'mask', _strings({**about, **mask}))

    def close(self) -> Path:
        """Write the file."""
        ElementTree.indent(self.root)
        text = ElementTree.tostring(self.root, encoding='unicode') + '\n'
        write_text(self.path, text, shared=True)
        return self.path


class LabelStudioWriter:
    """``tasks.json`` with predictions, and ``labels.xml``, the labelling interface; brush, exact.

    The run lengths are those of Label Studio's SDK: ``pip install label-studio-sdk``.
    """

    def __init__(
        self, folder: Path, names: Sequence[str], palette: Sequence[Sequence[int]]
    ) -> None:
        try:
            from label_studio_sdk.converter.brush import mask2rle
        except ImportError as error:
            raise ValueError(
                'the format label-studio needs its SDK: pip install "infoclip_mmseg[label-studio]"'
            ) from error
        self.encode = mask2rle
        self.path, self.tasks = folder / 'tasks.json', list[dict[str, Any]]()
        view = ElementTree.Element('View')
        ElementTree.SubElement(view, 'Image', name='image', value='$image', zoom='true')
        labels = ElementTree.SubElement(view, 'BrushLabels', name='tag', toName='image')
        for name, colour in zip(names, palette):
            about = dict(value=name, background='#' + bytes(colour).hex())
            ElementTree.SubElement(labels, 'Label', about)
        ElementTree.indent(view)
        text = ElementTree.tostring(view, encoding='unicode') + '\n'
        write_text(folder / 'labels.xml', text, shared=True)

    def add(self, regions: Regions) -> None:
        """Note an image."""
        height, width = regions.size
        results: list[dict[str, Any]] = []
        for region in regions.regions:
            runs = self.encode(region.mask.astype(np.uint8) * 255)
            result = dict(
                id=uuid5(NAMESPACE_URL, f'{regions.image}#{len(results)}').hex[:10],
                type='brushlabels',
                from_name='tag',
                to_name='image',
                original_width=width,
                original_height=height,
                image_rotation=0,
                value=dict(format='rle', rle=list(runs), brushlabels=[region.name]),
            )
            results.append(result if region.score is None else {**result, 'score': region.score})
        prediction = dict(model_version='infoclip_mmseg', result=results)
        self.tasks.append(dict(data=dict(image=regions.image), predictions=[prediction]))

    def close(self) -> Path:
        """Write the file."""
        write_text(self.path, json.dumps(self.tasks, ensure_ascii=False), shared=True)
        return self.path


class YoloWriter:
    """``labels/STEM.txt`` and ``data.yaml`` of YOLO-seg: corners as shares of width and height."""

    def __init__(
        self, folder: Path, names: Sequence[str], palette: Sequence[Sequence[int]]
    ) -> None:
        self.folder = folder / 'labels'
        content = dict(path='.', train='images', val='images', names=dict(enumerate(names)))
        text = yaml.safe_dump(content, allow_unicode=True, sort_keys=False)
        write_text(folder / 'data.yaml', text, shared=True)

    def add(self, regions: Regions) -> None:
        """Write an image's file."""
        scale = np.array(regions.size[::-1], dtype=np.float64)
        lines = []
        for region in regions.regions:
            for ring in rings(region.mask):
                corners = ' '.join(f'{value:.6g}' for value in (ring / scale).ravel())
                lines.append(f'{region.label} {corners}\n')
        write_text(self.folder / f'{regions.stem}.txt', ''.join(lines), shared=True)

    def close(self) -> Path:
        """All is written."""
        return self.folder


FORMATS: dict[str, type] = {
    'coco': CocoWriter,
    'labelme': LabelmeWriter,
    'cvat': CvatWriter,
    'label-studio': LabelStudioWriter,
    'yolo-seg': YoloWriter,
}


def make_writer(
    name: str, folder: Path, names: Sequence[str], palette: Sequence[Sequence[int]]
) -> Writer:
    """The writer of a format into a folder.

    Args:
        name: One of :data:`FORMATS`; another is a ValueError.
        folder: Where files go.
        names, palette: The classes and their colours [r, g, b], 0..255.
    """
    if name not in FORMATS:
        raise ValueError(f'format must be one of {tuple(FORMATS)}, got {name!r}')
    folder.mkdir(parents=True, exist_ok=True)
    return FORMATS[name](folder, names, palette)


def _strings(values: dict[str, Any]) -> dict[str, str]:
    return {key: str(value) for key, value in values.items()}
