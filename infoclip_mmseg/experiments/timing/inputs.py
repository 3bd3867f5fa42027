"""Class names, images and labels of a measurement, made up at real size.

Legend: B images, T classes, P prompts a class, C channels, h and w pixels.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from .settings import TimingError

LISTS = Path(__file__).resolve().parents[2] / 'datasets' / 'vocabulary_lists'
"""Of the tree that measures, so that all sides get the same names."""
ORDER = ('coco', 'ade847', 'pc459')
ADJECTIVES = (
    *('old', 'small', 'red', 'wooden', 'white', 'wet', 'striped', 'broken', 'shiny', 'dark'),
    *('large', 'new', 'blue', 'metal', 'round', 'dusty', 'folded', 'green', 'narrow', 'plastic'),
)
BLOCK = 32
"""Side of a block of one colour or one label, in pixels."""
IGNORED = 255
Size = tuple[int, int]


def class_names(count: int) -> list[str]:
    """Distinct names of real length: those of the benchmarks, then with one or two adjectives.

    Raises:
        TimingError: There are fewer.
    """
    distinct = dict.fromkeys(itertools.islice(_every_name(), 2 * max(count, 0)))
    names = list(itertools.islice(distinct, max(count, 0)))
    if count < 1 or len(names) < count:
        most = len(dict.fromkeys(_every_name()))
        raise TimingError(f'the number of classes must be 1 to {most}, got {count}')
    return names


def _every_name() -> Iterator[str]:
    lists = (json.loads((LISTS / f'{key}.json').read_text(encoding='utf-8')) for key in ORDER)
    known = list(dict.fromkeys(name.split(',')[0].strip() for names in lists for name in names))
    for length in range(3):
        for words in itertools.permutations(ADJECTIVES, length):
            yield from (' '.join((*words, noun)) for noun in known)


def random_images(count: int, size: Size) -> Tensor:
    """Images (B, 3, h, w), uint8: blocks of colour with noise on them."""
    generator = torch.Generator().manual_seed(0)
    colours = torch.randint(0, 200, (count, 3, *_blocks(size)), generator=generator)
    photo = _enlarge(colours, size)
    return (photo + torch.randint(0, 56, photo.shape, generator=generator)).to(torch.uint8)


def random_labels(count: int, size: Size, num_classes: int) -> Tensor:
    """Label maps (B, h, w), int64: blocks of one class, a strip at the top without a label."""
    generator = torch.Generator().manual_seed(1)
    classes = min(num_classes, IGNORED)
    labels = _enlarge(torch.randint(0, classes, (count, *_blocks(size)), generator=generator), size)
    labels[:, : max(size[0] // 48, 1)] = IGNORED
    return labels


def training_batch(images: Tensor, labels: Tensor) -> dict[str, list]:
    """What a training loader gives of images (B, 3, h, w) and labels (B, h, w)."""
    batch = test_batch(images, (images.shape[-2], images.shape[-1]))
    for sample, label in zip(batch['data_samples'], labels):
        sample.gt_sem_seg = PixelData(data=label[None])
    return batch


def test_batch(images: Tensor, original: Size) -> dict[str, list]:
    """What a test loader gives of images (B, 3, h, w) whose files have the size ``original``."""
    size = tuple(images.shape[-2:])
    meta = dict(ori_shape=original, img_shape=size, pad_shape=size)
    samples = [SegDataSample(metainfo=dict(meta)) for _ in images]
    return dict(inputs=list(images), data_samples=samples)


def random_text(num_classes: int, prompts: int, channels: int) -> Tensor:
    """Normalised text embeddings (T, P, C) in the place of encoded ones."""
    generator = torch.Generator().manual_seed(2)
    return F.normalize(torch.randn(num_classes, prompts, channels, generator=generator), dim=-1)


def _blocks(size: Size) -> Size:
    return -(-size[0] // BLOCK), -(-size[1] // BLOCK)


def _enlarge(blocks: Tensor, size: Size) -> Tensor:
    large = blocks.repeat_interleave(BLOCK, -2).repeat_interleave(BLOCK, -1)
    return large[..., : size[0], : size[1]]
