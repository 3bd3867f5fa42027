"""Miniatures of the six benchmarks, in mmseg's and in CAT-Seg's layout, with equal content."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIZE = (40, 56)
SIX = ('ade847', 'pc459', 'ade150', 'pc59', 'voc20', 'voc20b')
"""Keys of the benchmarks of the papers' main table, in its order."""
VOC_NAMES = ('2008_000001', '2009_000002')


def _image(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8))


def _labels(seed: int, classes: int) -> NDArray[np.int64]:
    """Blocks of classes; -1 has no label."""
    rng = np.random.default_rng(seed)
    blocks = rng.integers(0, classes, (SIZE[0] // 8, SIZE[1] // 8))
    blocks[-1, -1] = -1
    return blocks.repeat(8, axis=0).repeat(8, axis=1)


def _save(path: Path, values: NDArray, dtype: type) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values.astype(dtype))
    if dtype is np.uint8 and 'SegmentationClass' in str(path.parent):
        image = image.convert('P')
    image.save(path)


def make_ade847(root: Path) -> None:
    folder = root / 'ADE20K_2021_17_01'
    for index in range(2):
        name = f'ADE_val_{index:08d}'
        path = folder / f'images_detectron2/validation/{name}.jpg'
        path.parent.mkdir(parents=True, exist_ok=True)
        _image(index).save(path)
        labels = _labels(index, 847)
        labels[0, :4] = (255, 300, 846, 0)
        labels = np.where(labels < 0, 65535, labels)
        _save(folder / f'annotations_detectron2/validation/{name}.tif', labels, np.uint16)


def make_context(root: Path, layout: str) -> None:
    folder = root / 'VOCdevkit/VOC2010'
    (folder / 'JPEGImages').mkdir(parents=True)
    for index, name in enumerate((*VOC_NAMES, 'not_in_val')):
        _image(10 + index).save(folder / f'JPEGImages/{name}.jpg')
    if layout == 'mmseg':
        (folder / 'ImageSets/SegmentationContext').mkdir(parents=True)
        names = folder / 'ImageSets/SegmentationContext/val.txt'
        names.write_text('\n'.join(VOC_NAMES) + '\n')
    for index, name in enumerate(VOC_NAMES):
        labels = _labels(10 + index, 59)
        if layout == 'mmseg':
            _save(folder / f'SegmentationClassContext/{name}.png', labels + 1, np.uint8)
        else:
            shifted = np.where(labels < 0, 255, labels)
            _save(folder / f'annotations_detectron2/pc59_val/{name}.png', shifted, np.uint8)
        labels = _labels(20 + index, 459)
        labels = np.where(labels < 0, 459, labels)
        _save(folder / f'annotations_detectron2/pc459_val/{name}.tif', labels, np.uint16)


def make_voc(root: Path, layout: str) -> None:
    folder = root / 'VOCdevkit/VOC2012'
    (folder / 'JPEGImages').mkdir(parents=True)
    for index, name in enumerate((*VOC_NAMES, 'not_in_val')):
        _image(30 + index).save(folder / f'JPEGImages/{name}.jpg')
    if layout == 'mmseg':
        (folder / 'ImageSets/Segmentation').mkdir(parents=True)
        names = folder / 'ImageSets/Segmentation/val.txt'
        names.write_text('\n'.join(VOC_NAMES) + '\n')
    for index, name in enumerate(VOC_NAMES):
        labels = _labels(30 + index, 20) + 1  # 0 is the background
        void = np.zeros(SIZE, bool)
        void[:4] = True
        if layout == 'mmseg':
            _save(folder / f'SegmentationClass/{name}.png', np.where(void, 255, labels), np.uint8)
            continue
        ignored = np.where(void | (labels == 0), 255, labels - 1)
        background = np.where(void, 255, np.where(labels == 0, 20, labels - 1))
        _save(folder / f'annotations_detectron2/val/{name}.png', ignored, np.uint8)
        _save(folder / f'annotations_detectron2_bg/val/{name}.png', background, np.uint8)


def make_ade150(root: Path, layout: str, source: Path) -> None:
    """The real images under tests/data, with their label maps in one of the layouts."""
    folder = root / ('ade/ADEChallengeData2016' if layout == 'mmseg' else 'ADEChallengeData2016')
    images = folder / 'images/validation'
    images.mkdir(parents=True)
    for path in sorted((source / 'images/validation').iterdir()):
        (images / path.name).write_bytes(path.read_bytes())
        raw = np.array(Image.open(source / f'annotations/validation/{path.stem}.png'))
        if layout == 'mmseg':
            _save(folder / f'annotations/validation/{path.stem}.png', raw, np.uint8)
        else:
            labels = np.where(raw == 0, 255, raw.astype(int) - 1)
            target = folder / f'annotations_detectron2/validation/{path.stem}.png'
            _save(target, labels, np.uint8)


def make_all(root: Path, layout: str, ade: Path) -> Path:
    """All six below a folder; `layout` is 'mmseg' or 'detectron2'."""
    make_ade847(root)
    make_context(root, layout)
    make_voc(root, layout)
    make_ade150(root, layout, ade)
    return root
