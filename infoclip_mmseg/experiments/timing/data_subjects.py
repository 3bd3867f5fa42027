"""What runs outside of the model: evaluation and training by file, and converting data sets.

Files are drawn at the size of the real ones; none of a data set is needed.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.dataset import pseudo_collate
from mmseg.registry import DATASETS, METRICS
from PIL import Image
from scipy.io import savemat
from torch.utils.data import DataLoader

from .bench import IGNORED, PHOTO, Bench, Call, Size, SkippedError
from .measure import Clock

SIZES = ((375, 500), (512, 683))
"""Smallest and largest height and width of the evaluation: PASCAL VOC's, ADE20K's."""
UNLABELLED = 65535
OBJECTS = 3689
"""Of ADE20K's index, the first of which is none."""
SIXTEEN_BITS = ('ade847', 'pc459')
"""Data sets whose label maps have so many."""
CONVERSIONS: dict[str, tuple[Size, int]] = {
    'ade847 512 x 683': ((512, 683), OBJECTS),
    'ade847 1024 x 1366, reduced': ((1024, 1366), OBJECTS),
    'pc459 375 x 500': ((375, 500), 460),
    'voc20 375 x 500': ((375, 500), 21),
    'coco-stuff 480 x 640': ((480, 640), 11),
}
"""By data set: height and width of its images, values of its label maps."""


def evaluation(bench: Bench) -> Call:
    """A config's test pipeline by steps, and the metric, of images with random predictions."""
    classes, bench.images = bench.setting.num_classes, bench.setting.images
    pipeline = _pipeline(bench, 'test_dataloader')
    shares = np.linspace(0, 1, bench.images)
    sizes = [tuple(round(a + x * (b - a)) for a, b in zip(*SIZES)) for x in shares]

    def call() -> None:
        with TemporaryDirectory(prefix='timing-') as folder:
            _evaluate(_drawn(folder, sizes, classes, UNLABELLED, pipeline), classes, bench)

    return call


def loading(bench: Bench) -> Call:
    """A config's training pipeline by steps in one process, and its loader with workers.

    Images are as large as most of COCO's; the time of the loader is that of an image, from the
    first batch on.
    """
    setting, clock = bench.setting, bench.clock
    bench.images = setting.images
    pipeline = _pipeline(bench, 'train_dataloader')
    bench.info['loading_workers'] = setting.workers

    def call() -> None:
        """Draw the files, load them once one by one and once by the loader."""
        cv2.setNumThreads(0)  # as mmengine's runners do: each worker has one
        with TemporaryDirectory(prefix='timing-') as folder:
            sizes, classes = [PHOTO] * bench.images, min(setting.num_classes, IGNORED)
            dataset = _drawn(folder, sizes, classes, IGNORED, pipeline)
            bytes_read = sum(path.stat().st_size for path in Path(folder, 'images').iterdir())
            bench.info['bytes_of_an_image'] = bytes_read // bench.images
            for index in range(bench.images):
                _run_steps(dataset, index, clock)
            loader: DataLoader = DataLoader(
                dataset, setting.batch_size, num_workers=setting.workers, collate_fn=pseudo_collate
            )
            batches = iter(loader)
            next(batches)
            left = max(bench.images - setting.batch_size, 1)
            with clock('loader', left):
                for _ in batches:
                    pass

    return call


def prepare(bench: Bench) -> Call:
    """The conversions of tools/prepare_data.py, by image."""
    from infoclip_mmseg.datasets.prepare import label_files

    count = bench.images = bench.setting.images

    def call() -> None:
        """Draw and convert the files of each data set."""
        for name, drawn in CONVERSIONS.items():
            with TemporaryDirectory(prefix='timing-') as folder:
                images = (Path(folder, f'{number:08}.jpg') for number in range(count))
                tasks = [
                    _conversion(name.split()[0], image, _draw(image, number, *drawn))
                    for number, image in enumerate(images)
                ]
                with bench.clock(name, count):
                    label_files.run_tasks(tasks, bench.setting.workers, lambda **done: None)

    return call


def _pipeline(bench: Bench, loader: str) -> list:
    """Steps of a config's loader, which read label maps of any data set."""
    steps = bench.cfg.get(loader, {}).get('dataset', {}).get('pipeline')
    if steps is None:
        raise SkippedError(f'the config has no {loader} with one data set')
    reader = dict(type='LoadLabelMap')  # of 8 and 16 bits
    return [reader if step.type == 'LoadAnnotations' else step for step in steps]


def _drawn(folder: str, sizes: list, classes: int, unlabelled: int, pipeline: list) -> Any:
    """A data set of drawn images, with the height and width of each."""
    names = '\n'.join(f'class {i}' for i in range(classes))
    Path(folder, 'classes.txt').write_text(names)
    for kind in ('images', 'labels'):
        Path(folder, kind).mkdir()
    wide = unlabelled > 255
    for index, size in enumerate(sizes):
        labels = _draw(Path(folder, f'images/{index:04d}.jpg'), index, size, classes)
        labels[:8] = unlabelled
        image = Image.fromarray(labels.astype(np.uint16 if wide else np.uint8))
        options = dict(compression='tiff_lzw') if wide else {}
        image.save(Path(folder, f'labels/{index:04d}.{"tif" if wide else "png"}'), **options)
    config = dict(
        type='VocabularyDataset',
        vocabulary='classes.txt',
        ignore_index=unlabelled,
        data_prefix=dict(img_path='images', seg_map_path='labels'),
        pipeline=pipeline,
        data_root=folder,
    )
    return DATASETS.build(config)


def _run_steps(dataset: Any, index: int, clock: Clock) -> dict:
    """An image through the pipeline, all of it and each step timed."""
    with clock('pipeline'):
        results = dataset.get_data_info(index)
        for number, step in enumerate(dataset.pipeline.transforms, 1):
            with clock(f'{number} {type(step).__name__}'):
                results = step(results)
    return results


def _evaluate(dataset: Any, classes: int, bench: Bench) -> None:
    metric, clock = METRICS.build(dict(type='OpenVocabIoUMetric')), bench.clock
    metric.dataset_meta = dataset.metainfo
    generator = torch.Generator().manual_seed(0)
    for index in range(len(dataset)):
        truth = _run_steps(dataset, index, clock)['data_samples'].gt_sem_seg.data
        prediction = torch.randint(classes, truth.shape, generator=generator)
        sample = dict(pred_sem_seg=dict(data=prediction), gt_sem_seg=dict(data=truth))
        with clock('metric'):
            metric.process({}, [sample])
    with clock('metric, at the end', len(dataset)):
        metric.evaluate(size=len(dataset))


def _conversion(key: str, image: Path, labels: np.ndarray) -> Any:
    """Write the label map of an image as a data set does; gives the task that converts them."""
    from infoclip_mmseg.datasets.prepare import ade847, conversions
    from infoclip_mmseg.datasets.prepare.label_files import Task, convert_label

    source = image.with_name(f'{image.stem}_seg.{"mat" if key == "pc459" else "png"}')
    output = image.parent / f'labels/{image.stem}.{"tif" if key in SIXTEEN_BITS else "png"}'
    if key == 'ade847':
        colours = np.stack([labels // 256 * 10, labels % 256, labels * 0], -1).astype(np.uint8)
        Image.fromarray(colours).save(source)
        outputs = (image.parent / 'images' / image.name, output)
        table = ade847.label_table(range(1, 848), OBJECTS - 1)
        return Task(outputs, partial(ade847.convert_image, image, outputs, table))
    if key == 'pc459':
        savemat(str(source), {'LabelMap': labels.astype(np.uint16)}, do_compression=True)
        mat = (conversions.PC459_TABLE, conversions.read_label_map)
        return Task((output,), partial(convert_label, image, source, output, *mat))
    Image.fromarray(labels.astype(np.uint8)).save(source)
    rule = conversions.voc_table(255) if key == 'voc20' else conversions.coco_stuff_table()
    return Task((output,), partial(convert_label, image, source, output, rule))


def _draw(image: Path, seed: int, size: Size, values: int) -> np.ndarray:
    """Write a noisy picture; gives a map (H, W) of blobs of 0..values - 1, int64."""
    height, width = size
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (24, 32, 3), dtype=np.uint8)
    smooth = Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
    noise = rng.integers(-8, 9, (height, width, 3))
    picture = np.clip(np.asarray(smooth) + noise, 0, 255).astype(np.uint8)
    Image.fromarray(picture).save(image, quality=95)
    return rng.integers(0, values, 32)[picture[..., 0] // 32 + picture[..., 1] // 64 * 8]
