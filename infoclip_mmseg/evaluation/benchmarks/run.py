"""Which benchmarks are there and complete; one checkpoint on all of them in one process."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, TestLoop
from mmseg.registry import DATASETS, MODELS

from infoclip_mmseg.datasets.benchmarks import Benchmark, describe_absence, find_layout
from infoclip_mmseg.datasets.loaders import make_dataloader_cfg
from infoclip_mmseg.datasets.vocabularies import load_vocabulary, shipped_vocabularies
from infoclip_mmseg.evaluation.benchmarks.table import make_tables
from infoclip_mmseg.utils.files import file_digest, first_few, value_digest, write_text
from infoclip_mmseg.version import __version__

FOLDER = 'benchmarks'
"""Folder of the results below the working folder."""


class Plan(NamedTuple):
    """A benchmark that is there, checked and ready to be evaluated.

    It has the configs of the data loader and of the metric, whose prefix is the benchmark's key,
    the number of images, a fingerprint of the files, and the name of the class list.
    """

    benchmark: Benchmark
    dataloader: dict[str, Any]
    evaluator: dict[str, Any]
    images: int
    data: str
    vocabulary: str


def make_plans(
    benchmarks: Sequence[Benchmark],
    data_root: str | Path,
    pipeline: Sequence[dict],
    template: Mapping[str, Any] | None = None,
    vocabularies: str | None = None,
) -> tuple[list[Plan], list[str]]:
    """Find the benchmarks below a folder and check that all of their files are there.

    `pipeline` and `template` as in :func:`make_dataloader_cfg`; `vocabularies` is a family of class
    lists, such as 'maftp', in place of the benchmarks' own. Returns plans of those that are there,
    and for each of the others where it was looked for, or that the family has no list for it.

    Raises:
        FileNotFoundError: None of them is there; or one is, but label maps of some images are not.
    """
    init_default_scope('mmseg')
    plans, absent = [], []
    for benchmark in benchmarks:
        layout = find_layout(benchmark, data_root)
        words = '_'.join(filter(None, [vocabularies, benchmark.vocabulary]))
        if layout is None:
            absent.append(describe_absence(benchmark, data_root))
            continue
        if words not in shipped_vocabularies():
            absent.append(f'{benchmark.title}: {vocabularies} has no class list for it')
            continue
        dataloader = make_dataloader_cfg(layout, data_root, pipeline, template)
        dataloader['dataset']['metainfo'] = dict(prompt_names=load_vocabulary(words))
        dataset = DATASETS.build({**dataloader['dataset'], 'pipeline': []})
        infos = [dataset.get_data_info(index) for index in range(len(dataset))]
        missing = [i['seg_map_path'] for i in infos if not os.path.isfile(i['seg_map_path'])]
        if missing or not infos:
            raise FileNotFoundError(
                f'{benchmark.title}: {len(missing)} of {len(infos)} label maps are missing in '
                f'{dataset.data_prefix["seg_map_path"]}: {first_few(missing, 3, rest=" ...")}. '
                'Make them again, or take their images out.'
            )
        files = [info[key] for info in infos for key in ('img_path', 'seg_map_path')]
        files += [layout.segments_file(data_root)] if layout.is_panoptic else []
        data = hash_listing(files)
        plans.append(Plan(benchmark, dataloader, benchmark.metric, len(infos), data, words))
    if not plans:
        raise FileNotFoundError('\n  '.join(['none of the benchmarks is there:', *absent]))
    return plans, absent


def check_finds_masks(benchmarks: Sequence[Benchmark], model_cfg: Mapping[str, Any]) -> None:
    """Raise a ValueError where one of the benchmarks counts segments and the model has none."""
    counting = [benchmark.key for benchmark in benchmarks if benchmark.is_panoptic]
    head = model_cfg.get('module', model_cfg).get('decode_head')
    kind = head['type'] if isinstance(head, Mapping) else None
    if counting and not (kind and getattr(MODELS.get(kind), 'finds_masks', False)):
        raise ValueError(
            f'{", ".join(counting)} counts segments and needs a head that finds masks, such as '
            f'those of configs/maft-plus and configs/fc-clip; model.decode_head.type is {kind}'
        )


def hash_listing(paths: Sequence[str | os.PathLike[str]]) -> str:
    """SHA-256 of the names and sizes of files, in this order, wherever their folder is."""
    return value_digest([[Path(path).name, os.path.getsize(path)] for path in paths])


def evaluation_pipeline(cfg: Config) -> list[dict]:
    """The pipeline with which a config evaluates; without test and validation set a ValueError."""
    for key in ('test_dataloader', 'val_dataloader'):
        dataset = (cfg.get(key) or {}).get('dataset')
        while dataset is not None and 'pipeline' not in dataset:
            dataset = (dataset.get('datasets') or [dataset.get('dataset')])[0]
        if dataset is not None:
            return dataset['pipeline']
    raise ValueError(
        'the config has no test_dataloader and no val_dataloader whose pipeline could be used'
    )


def evaluate_plan(runner: Runner, plan: Plan, fp16: bool = False) -> dict[str, float]:
    """Evaluate the runner's model on one benchmark.

    Hooks run as in any test, so that VocabularyHook hands the names over, which are encoded once.
    The runner's own test loop is put back afterwards. The figures have the benchmark's key as
    prefix: 'ade150/mIoU'.
    """
    usual_loop = runner._test_loop
    try:
        # Hooks look for the data set and the number of batches in the runner.
        runner._test_loop = TestLoop(runner, plan.dataloader, [plan.evaluator], fp16=fp16)
        with _giving_segments(runner.model, plan.benchmark.is_panoptic):
            return runner._test_loop.run()
    finally:
        runner._test_loop = usual_loop


@contextmanager
def _giving_segments(model: Any, wanted: bool) -> Iterator[None]:
    """A segmentor whose predictions are segments, or label maps, until the block ends."""
    while hasattr(model, 'module'):
        model = model.module
    usual = getattr(model, 'test_cfg', None)
    if wanted != bool((usual or {}).get('panoptic', False)):
        model.test_cfg = {**(usual or {}), 'panoptic': wanted}
    try:
        yield
    finally:
        model.test_cfg = usual


def fingerprint_of(cfg: Config, plan: Plan, checkpoint: str | None) -> str:
    """SHA-256 over all that a result depends on: weights, model, pipeline, files, metric."""
    model = cfg.model.to_dict()
    backbone = model.get('module', model)['backbone']
    pretrained = backbone.pop('pretrained', None)
    weights = checkpoint or pretrained
    if weights is not None and os.path.isfile(weights):
        weights = file_digest(weights)
    dataset = {k: v for k, v in plan.dataloader['dataset'].items() if k != 'data_root'}
    fp16 = bool(cfg.test_cfg.get('fp16', False))
    metric = {k: v for k, v in plan.evaluator.items() if k != 'output_dir'}
    return value_digest([__version__, weights, model, dataset, plan.data, metric, fp16])


def load_result(folder: Path, key: str, fingerprint: str) -> dict[str, Any] | None:
    """A finished result, or None where there is none of this fingerprint or it is damaged."""
    try:
        result = json.loads(_result_path(folder, key, fingerprint).read_text(encoding='utf-8'))
    except (FileNotFoundError, json.JSONDecodeError):
        return None
    fits = isinstance(result, dict) and result.get('fingerprint') == fingerprint
    return result if fits and isinstance(result.get('figures'), dict) else None


def save_result(folder: Path, result: dict[str, Any]) -> Path:
    """Write a result, which has a `key` and a `fingerprint`; whole or not at all."""
    path = _result_path(folder, result['key'], result['fingerprint'])
    write_text(path, json.dumps(result, indent=1) + '\n')
    return path


def _result_path(folder: Path, key: str, fingerprint: str) -> Path:
    return folder / f'{key}_{fingerprint[:12]}.json'


def run_benchmarks(
    runner: Runner,
    plans: Sequence[Plan],
    absent: Sequence[str],
    checkpoint: str | None,
    name: str,
    redo: bool = False,
) -> str:
    """Evaluate a checkpoint on all planned benchmarks that are not finished yet.

    Each result goes to `work_dir/benchmarks` as soon as it is there. At the end `table1.md`, which
    is returned, `table1.csv` and `table1.json` are written beside them; `name` is the checkpoint's
    in the table. The runner loads it here; it is None where the model has pretrained weights. Plans
    and what is absent are :func:`make_plans`'s; `redo` evaluates again what is finished.
    """
    folder = Path(runner.work_dir, FOLDER)
    state: list[Any] = [None]
    if is_main_process():
        prints = {p.benchmark.key: fingerprint_of(runner.cfg, p, checkpoint) for p in plans}
        finished = {} if redo else {k: load_result(folder, k, v) for k, v in prints.items()}
        state = [(prints, {k: result for k, result in finished.items() if result is not None})]
    broadcast_object_list(state)  # all processes must agree on what is left
    prints, results = state[0]
    for text in absent:
        runner.logger.warning(f'skipped: {text}')
    runner.call_hook('before_run')
    if len(results) < len(plans):
        runner.load_or_resume()
    for plan in plans:
        key = plan.benchmark.key
        if key in results:
            runner.logger.info(f'{plan.benchmark.title}: finished before; --redo evaluates again')
            continue
        results[key] = _evaluate(runner, plan, prints[key], checkpoint)
        if is_main_process():
            save_result(folder, results[key])
    runner.call_hook('after_run')
    results = {plan.benchmark.key: results[plan.benchmark.key] for plan in plans}
    model = runner.cfg.model
    backbone = model.get('module', model).backbone.model_name
    tables = make_tables(name, backbone, results, absent)
    for file, text in tables.items() if is_main_process() else ():
        write_text(folder / file, text)
    return tables['table1.md']


def _evaluate(
    runner: Runner, plan: Plan, fingerprint: str, checkpoint: str | None
) -> dict[str, Any]:
    """One result: figures without prefix, and where they come from."""
    benchmark, start = plan.benchmark, time.perf_counter()
    runner.logger.info(f'{benchmark.title}: {plan.images} images')
    figures = evaluate_plan(runner, plan, bool(runner.cfg.test_cfg.get('fp16', False)))
    return dict(
        key=benchmark.key,
        title=benchmark.title,
        figures={k.removeprefix(f'{benchmark.key}/'): float(v) for k, v in figures.items()},
        images=plan.images,
        seconds=round(time.perf_counter() - start, 1),
        checkpoint=checkpoint,
        folder=plan.dataloader['dataset']['data_root'],
        labels=plan.dataloader['dataset']['data_prefix']['seg_map_path'],
        vocabulary=plan.vocabulary,
        fingerprint=fingerprint,
    )
