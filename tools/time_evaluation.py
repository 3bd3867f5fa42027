#!/usr/bin/env python
"""Measure what an evaluation costs an image outside of the model: loading, checks, metric.

Draws images and 16-bit label maps of the size of the benchmarks' into a temporary folder and runs
a config's test pipeline and metric on them, with random predictions in the place of the model's.

Usage: python tools/time_evaluation.py [CONFIG] [--images 200] [--classes 847]
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS, METRICS
from PIL import Image

from infoclip_mmseg.datasets.benchmarks import with_label_loader
from infoclip_mmseg.evaluation.benchmarks import evaluation_pipeline

CONFIG = Path(__file__).resolve().parents[1] / 'configs/infoclip_vitb16_ade847.py'
SIZES = ((375, 500), (512, 683))
"""Smallest and largest height and width, pixels: PASCAL VOC's, ADE20K's."""


def draw_data(folder: Path, images: int, classes: int) -> None:
    """Write photos with noise and label maps of 32 x 32 blocks; some pixels have no label."""
    rng = np.random.default_rng(0)
    for name in ('images', 'labels'):
        (folder / name).mkdir()
    for index in range(images):
        share = index / max(images - 1, 1)
        height, width = (round(a + share * (b - a)) for a, b in zip(*SIZES))
        blocks = rng.integers(0, classes, (height // 32 + 1, width // 32 + 1), dtype=np.uint16)
        labels = blocks.repeat(32, axis=0).repeat(32, axis=1)[:height, :width]
        photo = (labels[..., None] % 200 + rng.integers(0, 50, (height, width, 3))).astype(np.uint8)
        labels[:8] = 65535
        Image.fromarray(photo).save(folder / f'images/{index:04d}.jpg', quality=90)
        Image.fromarray(labels).save(folder / f'labels/{index:04d}.tif', compression='tiff_lzw')


def measure(cfg: Config, folder: Path, classes: int) -> dict[str, float]:
    """Milliseconds an image by step, in the order of the pipeline."""
    (folder / 'classes.txt').write_text('\n'.join(f'class {i}' for i in range(classes)))
    dataset = DATASETS.build(
        dict(
            type='VocabularyDataset',
            vocabulary='classes.txt',
            ignore_index=65535,
            data_root=str(folder),
            data_prefix=dict(img_path='images', seg_map_path='labels'),
            pipeline=with_label_loader(evaluation_pipeline(cfg)),
        )
    )
    metric = METRICS.build(dict(type='OpenVocabIoUMetric'))
    metric.dataset_meta = dataset.metainfo
    seconds: dict[str, float] = defaultdict(float)
    generator = torch.Generator().manual_seed(0)
    for index in range(len(dataset)):
        results = dataset.get_data_info(index)
        for number, step in enumerate(dataset.pipeline.transforms, 1):
            start = time.perf_counter()
            results = step(results)
            seconds[f'{number} {type(step).__name__}'] += time.perf_counter() - start
        truth = results['data_samples'].gt_sem_seg.data
        prediction = torch.randint(classes, truth.shape, generator=generator)
        sample = dict(pred_sem_seg=dict(data=prediction), gt_sem_seg=dict(data=truth))
        start = time.perf_counter()
        metric.process({}, [sample])
        seconds['metric, an image'] += time.perf_counter() - start
    start = time.perf_counter()
    metric.evaluate(size=len(dataset))
    seconds['metric, at the end'] += time.perf_counter() - start
    return {name: 1000 * value / len(dataset) for name, value in seconds.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program."""
    parser = argparse.ArgumentParser(description='Measure an evaluation outside of the model.')
    parser.add_argument('config', nargs='?', default=str(CONFIG))
    parser.add_argument('--images', type=int, default=200)
    parser.add_argument('--classes', type=int, default=847)
    args = parser.parse_args(argv)
    if min(args.images, args.classes) < 1:
        parser.error('--images and --classes must be at least 1')
    init_default_scope('mmseg')
    with tempfile.TemporaryDirectory() as name:
        draw_data(Path(name), args.images, args.classes)
        rows = measure(Config.fromfile(args.config), Path(name), args.classes)
    rows['in total'] = sum(rows.values())
    print(f'\n{args.images} images, {args.classes} classes; milliseconds an image')
    for row, value in rows.items():
        print(f'{row:26}{value:8.2f}')


if __name__ == '__main__':
    main()
