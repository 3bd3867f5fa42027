"""Which benchmarks are there, and whether their files are complete."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import DATASETS

from infoclip_mmseg.datasets.benchmarks import (
    METRIC,
    Benchmark,
    describe_absence,
    find_layout,
    make_dataloader_cfg,
)
from infoclip_mmseg.utils.files import first_few, value_digest


class Plan(NamedTuple):
    """A benchmark that is there, checked and ready to be evaluated.

    Attributes:
        benchmark: Which.
        dataloader: Config of the data loader.
        evaluator: Config of the metric; the benchmark's key is its prefix.
        images: Number of images.
        data: Fingerprint of the files.
    """

    benchmark: Benchmark
    dataloader: dict[str, Any]
    evaluator: dict[str, Any]
    images: int
    data: str


def make_plans(
    benchmarks: Sequence[Benchmark],
    data_root: str | Path,
    pipeline: Sequence[dict],
    template: Mapping[str, Any] | None = None,
) -> tuple[list[Plan], list[str]]:
    """Find the benchmarks below a folder and check that all of their files are there.

    `pipeline` and `template` as in :func:`make_dataloader_cfg`.

    Returns:
        Plans of those that are there, and for each of the others where it was looked for.

    Raises:
        FileNotFoundError: None of them is there; or one is, but label maps of some images are not.
    """
    init_default_scope('mmseg')
    plans, absent = [], []
    for benchmark in benchmarks:
        layout = find_layout(benchmark, data_root)
        if layout is None:
            absent.append(describe_absence(benchmark, data_root))
            continue
        dataloader = make_dataloader_cfg(layout, data_root, pipeline, template)
        dataset = DATASETS.build({**dataloader['dataset'], 'pipeline': []})
        files = check_files(dataset, benchmark)
        evaluator = dict(METRIC, prefix=benchmark.key)
        data = hash_listing([path for pair in files for path in pair])
        plans.append(Plan(benchmark, dataloader, evaluator, len(files), data))
    if not plans:
        raise FileNotFoundError('\n  '.join(['none of the benchmarks is there:', *absent]))
    return plans, absent


def check_files(dataset: Any, benchmark: Benchmark) -> list[tuple[str, str]]:
    """Paths of each image and label map of a data set.

    Raises:
        FileNotFoundError: The data set is empty, or a label map is missing.
    """
    infos = [dataset.get_data_info(index) for index in range(len(dataset))]
    files = [(info['img_path'], info['seg_map_path']) for info in infos]
    missing = [label for _, label in files if not os.path.isfile(label)]
    if missing or not files:
        raise FileNotFoundError(
            f'{benchmark.title}: {len(missing)} of {len(files)} label maps are missing in '
            f'{dataset.data_prefix["seg_map_path"]}: {first_few(missing, 3, rest=" ...")}. Make '
            'them again, or take their images out.'
        )
    return files


def hash_listing(paths: Sequence[str | os.PathLike[str]]) -> str:
    """SHA-256 of the names and sizes of files, in this order, wherever their folder is."""
    return value_digest([[Path(path).name, os.path.getsize(path)] for path in paths])


def evaluation_pipeline(cfg: Config) -> list[dict]:
    """The pipeline with which a config evaluates.

    Raises:
        ValueError: The config has neither a test nor a validation set.
    """
    for key in ('test_dataloader', 'val_dataloader'):
        dataset = (cfg.get(key) or {}).get('dataset')
        while dataset is not None and 'pipeline' not in dataset:
            dataset = (dataset.get('datasets') or [dataset.get('dataset')])[0]
        if dataset is not None:
            return dataset['pipeline']
    raise ValueError(
        'the config has no test_dataloader and no val_dataloader whose pipeline could be used'
    )
