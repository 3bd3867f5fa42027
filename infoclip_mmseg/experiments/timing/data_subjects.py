"""What runs outside of the model: evaluation by file, and the conversion of data sets.

Files are drawn at the size of the real ones; none of a data set is needed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmseg.registry import DATASETS, METRICS
from PIL import Image
from scipy.io import savemat

from .building import Built
from .measure import Clock, Task
from .settings import SkippedError

Size = tuple[int, int]
SIZES = ((375, 500), (512, 683))
"""Smallest and largest height and width of the evaluation: PASCAL VOC's, ADE20K's."""
UNLABELLED = 65535
CONVERSIONS: dict[str, tuple[str, Size, int]] = {
    'ade847 512 x 683': ('ade847', (512, 683), 3689),
    'ade847 1024 x 1366, reduced': ('ade847', (1024, 1366), 3689),
    'pc459 375 x 500': ('pc459', (375, 500), 460),
    'voc20 375 x 500': ('voc20', (375, 500), 21),
    'coco-stuff 480 x 640': ('coco-stuff', (480, 640), 11),
}
"""Data set, height and width of its images, values of its label maps."""


def evaluation(built: Built, clock: Clock) -> Task:
    """A config's test pipeline by steps, and the metric, of images with random predictions."""
    setting = built.setting
    pipeline = built.cfg.get('test_dataloader', {}).get('dataset', {}).get('pipeline')
    if pipeline is None:
        raise SkippedError('the config has no test_dataloader with one data set')
    loader = dict(type='LoadLabelMap')  # whatever the data set, labels of 16 bits
    pipeline = [loader if step.type == 'LoadAnnotations' else step for step in pipeline]

    def call() -> None:
        with _folder() as folder:
            _draw_evaluation(folder, setting.images, setting.num_classes)
            dataset = DATASETS.build(
                dict(
                    type='VocabularyDataset',
                    vocabulary='classes.txt',
                    ignore_index=UNLABELLED,
                    data_root=str(folder),
                    data_prefix=dict(img_path='images', seg_map_path='labels'),
                    pipeline=pipeline,
                )
            )
            _evaluate(dataset, setting.num_classes, clock)

    return Task(call, setting.images)


def prepare(built: Built, clock: Clock) -> Task:
    """The conversions of tools/prepare_data.py, by image."""
    from infoclip_mmseg.datasets.prepare.label_files import run_tasks

    setting = built.setting

    def call() -> None:
        for name, (key, size, values) in CONVERSIONS.items():
            with _folder() as folder:
                tasks = [_conversion(folder, i, key, size, values) for i in range(setting.images)]
                with clock(name, setting.images):
                    run_tasks(tasks, setting.workers, lambda **done: None)

    return Task(call, setting.images)


@contextmanager
def _folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix='timing-') as name:
        yield Path(name)


def _draw_evaluation(folder: Path, images: int, classes: int) -> None:
    """Write photos with noise and label maps of 32 x 32 blocks; some pixels have no label."""
    rng = np.random.default_rng(0)
    (folder / 'classes.txt').write_text('\n'.join(f'class {i}' for i in range(classes)))
    (folder / 'images').mkdir()
    (folder / 'labels').mkdir()
    for index in range(images):
        share = index / max(images - 1, 1)
        height, width = (round(a + share * (b - a)) for a, b in zip(*SIZES))
        blocks = rng.integers(0, classes, (height // 32 + 1, width // 32 + 1), dtype=np.uint16)
        labels = blocks.repeat(32, axis=0).repeat(32, axis=1)[:height, :width]
        photo = (labels[..., None] % 200 + rng.integers(0, 50, (height, width, 3))).astype(np.uint8)
        labels[:8] = UNLABELLED
        Image.fromarray(photo).save(folder / f'images/{index:04d}.jpg', quality=90)
        Image.fromarray(labels).save(folder / f'labels/{index:04d}.tif', compression='tiff_lzw')


def _evaluate(dataset: Any, classes: int, clock: Clock) -> None:
    metric = METRICS.build(dict(type='OpenVocabIoUMetric'))
    metric.dataset_meta = dataset.metainfo
    generator = torch.Generator().manual_seed(0)
    for index in range(len(dataset)):
        with clock('pipeline'):
            results = dataset.get_data_info(index)
            for number, step in enumerate(dataset.pipeline.transforms, 1):
                with clock(f'{number} {type(step).__name__}'):
                    results = step(results)
        truth = results['data_samples'].gt_sem_seg.data
        prediction = torch.randint(classes, truth.shape, generator=generator)
        sample = dict(pred_sem_seg=dict(data=prediction), gt_sem_seg=dict(data=truth))
        with clock('metric'):
            metric.process({}, [sample])
    with clock('metric, at the end', len(dataset)):
        metric.evaluate(size=len(dataset))


def _conversion(folder: Path, number: int, key: str, size: Size, values: int) -> Any:
    """Draw an image and its label map of a data set; gives the task that converts them."""
    from infoclip_mmseg.datasets.prepare import ade847, conversions
    from infoclip_mmseg.datasets.prepare.label_files import Task as Conversion
    from infoclip_mmseg.datasets.prepare.label_files import convert_label

    image = folder / f'{number:08}.jpg'
    labels = _draw_image(image, number, size, values)
    source, output = image.with_name(f'{image.stem}_seg.png'), folder / f'labels/{image.stem}.png'
    if key == 'ade847':
        colours = np.stack([labels // 256 * 10, labels % 256, labels * 0], -1).astype(np.uint8)
        Image.fromarray(colours).save(source)
        outputs = (folder / 'images' / image.name, output.with_suffix('.tif'))
        table = ade847.label_table(range(1, 848), values - 1)
        return Conversion(outputs, partial(ade847.convert_image, image, outputs, table))
    if key == 'pc459':
        source, output = image.with_suffix('.mat'), output.with_suffix('.tif')
        savemat(str(source), {'LabelMap': labels.astype(np.uint16)}, do_compression=True)
        mat = (conversions.PC459_TABLE, conversions.read_label_map)
        return Conversion((output,), partial(convert_label, image, source, output, *mat))
    Image.fromarray(labels.astype(np.uint8)).save(source)
    rule = conversions.voc_table(255) if key == 'voc20' else conversions.coco_stuff_table()
    return Conversion((output,), partial(convert_label, image, source, output, rule))


def _draw_image(image: Path, seed: int, size: Size, values: int) -> np.ndarray:
    """Write a noisy picture; gives a map (H, W) of blobs of 0..values - 1, int64."""
    height, width = size
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.integers(-8, 9, (height, width, 3))
    picture = np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(picture).save(image, quality=95)
    return rng.integers(0, values, 32)[picture[..., 0] // 32 + picture[..., 1] // 64 * 8]
