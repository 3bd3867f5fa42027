#!/usr/bin/env python
"""Time the conversions of tools/prepare_data.py on generated images of real size.

Usage: python tools/time_prepare.py [--images 200] [--workers 1]

Nothing of a real data set is needed. Shown is the wall time an image, without generating the input.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from PIL import Image
from scipy.io import savemat

from infoclip_mmseg.datasets.prepare import ade847, coco_stuff, pascal_context, voc
from infoclip_mmseg.datasets.prepare.parallel import Task, run_tasks

OBJECTS = 3688
Maker = Callable[[Path, int], Task]


def draw(height: int, width: int, values: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture (H, W, 3), uint8, and a map (H, W) of blobs of 0..values - 1, int64."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.integers(-8, 9, (height, width, 3))
    picture = np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)
    blobs = picture[..., 0] // 32 + picture[..., 1] // 64 * 8
    return picture, rng.integers(0, values, 32)[blobs]


def make_ade847(root: Path, number: int, size: tuple[int, int]) -> Task:
    """An image of ADE20K's full release."""
    picture, numbers = draw(*size, OBJECTS + 1, number)
    image = root / f'ADE_val_{number:08}.jpg'
    Image.fromarray(picture).save(image, quality=95)
    colours = np.stack([numbers // 256 * 10, numbers % 256, numbers * 0], -1).astype(np.uint8)
    Image.fromarray(colours).save(image.with_name(f'{image.stem}_seg.png'))
    outputs = (root / 'images' / image.name, root / 'labels' / f'{image.stem}.tif')
    table = ade847.label_table(ade847.read_ade847_objects(), OBJECTS)
    return Task(outputs, partial(ade847.convert_image, image, outputs, table))


def make_pc459(root: Path, number: int) -> Task:
    """An image of PASCAL Context, 375 x 500 pixels."""
    picture, values = draw(375, 500, 460, number)
    image, source = root / f'{number}.jpg', root / f'{number}.mat'
    Image.fromarray(picture).save(image)
    savemat(str(source), {'LabelMap': values.astype(np.uint16)}, do_compression=True)
    output = root / 'labels' / f'{number}.tif'
    return Task((output,), partial(pascal_context.convert_mat, image, source, output))


def make_voc20(root: Path, number: int) -> Task:
    """An image of PASCAL VOC, 375 x 500 pixels."""
    picture, values = draw(375, 500, 21, number)
    image, source, output = root / f'{number}.jpg', root / f'{number}.png', root / f'l/{number}.png'
    Image.fromarray(picture).save(image)
    Image.fromarray(values.astype(np.uint8)).save(source)
    return Task((output,), partial(voc.convert_label, image, (source,), output, voc.IGNORED))


def make_coco(root: Path, number: int) -> Task:
    """An image of COCO, 480 x 640 pixels."""
    picture, values = draw(480, 640, 11, number)
    image, source, output = root / f'{number}.jpg', root / f'{number}.png', root / f'l/{number}.png'
    Image.fromarray(picture).save(image)
    Image.fromarray(values.astype(np.uint8)).save(source)
    return Task((output,), partial(coco_stuff.convert_label, image, source, output))


MAKERS: dict[str, Maker] = {
    'ade847 512 x 683': partial(make_ade847, size=(512, 683)),
    'ade847 1024 x 1366, reduced': partial(make_ade847, size=(1024, 1366)),
    'pc459 375 x 500': make_pc459,
    'voc20 375 x 500': make_voc20,
    'coco-stuff 480 x 640': make_coco,
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description='Time the conversions of prepare_data.py.')
    parser.add_argument('--images', type=int, default=200)
    parser.add_argument('--workers', type=int, default=1)
    args = parser.parse_args(argv)
    for name, maker in MAKERS.items():
        with tempfile.TemporaryDirectory() as folder:
            tasks = [maker(Path(folder), number) for number in range(args.images)]
            start = time.perf_counter()
            run_tasks(tasks, args.workers, lambda number: None)
            elapsed = (time.perf_counter() - start) / args.images
        print(f'{name}: {1000 * elapsed:.1f} ms an image ({args.images}, {args.workers} workers)')


if __name__ == '__main__':
    main()
