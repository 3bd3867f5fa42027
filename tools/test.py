#!/usr/bin/env python
r"""Evaluate a checkpoint on the test set of a config, or on the benchmarks of the papers.

Usage: python tools/test.py configs/infoclip_vitb16_ade20k.py CHECKPOINT [--show-dir DIR] [...]
       python tools/test.py configs/infoclip_vitb16_coco-stuff.py CHECKPOINT --benchmarks all
       python tools/test.py configs/maft-plus/maftp_convnext-l_coco-stuff.py CHECKPOINT \
           --benchmarks all --vocabularies maftp
       python tools/test.py configs/infoclip_vitb16_ade20k.py CHECKPOINT --forgetting 'sofa; sheep'
       python tools/test.py configs/fc-clip/fcclip_convnext-l_ade20k.py CHECKPOINT --bottleneck
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmengine.config import Config
from mmengine.dist import is_main_process
from mmengine.runner import Runner
from mmseg.registry import DATASETS, MODELS

from infoclip_mmseg.apis.words import load_classes
from infoclip_mmseg.datasets import check_dataloader_cfg
from infoclip_mmseg.datasets.benchmarks import (
    BENCHMARKS,
    PANOPTIC_BENCHMARKS,
    select_benchmarks,
)
from infoclip_mmseg.engine.hooks.guards import CheckpointMatchHook
from infoclip_mmseg.engine.launch import (
    add_common_arguments,
    check_file,
    keep_freed_memory,
    leave_together,
    load_config,
    start_on_cpu,
    unwrap_segmentor,
)
from infoclip_mmseg.evaluation.benchmarks import (
    Plan,
    check_finds_masks,
    evaluation_pipeline,
    make_plans,
    run_benchmarks,
)
from infoclip_mmseg.evaluation.benchmarks.run import FOLDER
from infoclip_mmseg.evaluation.bottleneck import (
    measure_bottleneck,
    prepare_bottleneck,
    write_bottleneck,
)
from infoclip_mmseg.utils.checkpoint_files import CheckpointError, install_safe_loader
from infoclip_mmseg.visualization.bottleneck import draw_bottleneck
from infoclip_mmseg.visualization.lettering import save_figure


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description='Evaluate a checkpoint.')
    add_common_arguments(parser)
    parser.add_argument(
        'checkpoint',
        nargs='?',
        help='checkpoint file (.pth or .safetensors); not needed where the decode head has no '
        'weights: then the pretrained CLIP is evaluated as it is',
    )
    parser.add_argument('--out', metavar='DIR', help='save the predicted label maps there as PNG')
    parser.add_argument('--show', action='store_true', help='show the coloured predictions')
    parser.add_argument('--show-dir', metavar='DIR', help='save the coloured predictions there')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds between shown images')
    parser.add_argument('--tta', action='store_true', help='test-time augmentation')
    parser.add_argument(
        '--benchmarks',
        nargs='+',
        metavar='KEY',
        help="evaluate on these instead of the config's test set: all six, "
        f'{", ".join(BENCHMARKS)}; of models that find masks also {", ".join(PANOPTIC_BENCHMARKS)}',
    )
    parser.add_argument(
        '--vocabularies',
        choices=['maftp'],
        help="ask --benchmarks for the class lists of MAFT+, with synonyms, instead of CAT-Seg's",
    )
    parser.add_argument(
        '--forgetting',
        metavar='WORDS',
        help='also compare the tuned CLIP with the untouched one on these words: a list with '
        'semicolons, the name of a vocabulary, or its file',
    )
    parser.add_argument(
        '--bottleneck',
        action='store_true',
        help='of a model that finds masks: mIoU, and PQ where the test set is panoptic, also with '
        'the true masks and with the true classes; a table and a picture',
    )
    parser.add_argument('--data-root', default='data', help='folder of the benchmarks')
    parser.add_argument('--redo', action='store_true', help='evaluate finished benchmarks again')
    return parser


def prepare_config(args: argparse.Namespace) -> Config:
    """Read the config, apply the options and check what can be checked before any work.

    Raises:
        FileNotFoundError: Config, checkpoint or data are not there.
        ValueError: The config lacks what an option needs.
    """
    cfg = load_config(args)
    if args.checkpoint is not None:
        check_file(args.checkpoint, 'checkpoint')
    elif getattr(MODELS.get(cfg.model.decode_head.type), 'trained', True):
        raise ValueError(f'a {cfg.model.decode_head.type} needs a checkpoint: test.py CONFIG FILE')
    if args.benchmarks is None:
        check_dataloader_cfg(cfg, ('test_dataloader',))
    elif args.show or args.show_dir or args.forgetting or args.bottleneck:
        raise ValueError(
            '--show, --show-dir, --forgetting and --bottleneck are for one data set: use its '
            'config, without --benchmarks'
        )
    cfg.load_from, cfg.resume = args.checkpoint, False
    if args.amp:
        cfg.test_cfg.fp16 = True
    if args.show or args.show_dir:
        _enable_drawing(cfg, args)
    if args.forgetting is not None:
        _check_forgetting(cfg, args)
    if args.bottleneck:
        if args.tta:
            raise ValueError('--bottleneck knows the truth of images as they are: leave out --tta')
        prepare_bottleneck(cfg)
    if args.tta:
        _enable_tta(cfg)
    if args.out is not None and args.benchmarks is None:
        evaluators = cfg.test_evaluator
        for evaluator in evaluators if isinstance(evaluators, list) else [evaluators]:
            evaluator.output_dir = args.out
            if evaluator.type == 'IoUMetric':  # mmseg's knows neither 16 bits nor class subsets
                evaluator.type = 'OpenVocabIoUMetric'
    return cfg


def plan_benchmarks(args: argparse.Namespace, cfg: Config) -> tuple[list[Plan], list[str]]:
    """What --benchmarks asks for: the benchmarks that are there, and what is said of the others.

    Raises:
        FileNotFoundError: None is there, or files of one are missing.
        ValueError: A benchmark is unknown, or is none for this model.
    """
    if args.benchmarks is None:
        if args.vocabularies is not None:
            raise ValueError(
                '--vocabularies is for --benchmarks; the words of a config are those of its '
                "VocabularyHook: vocabularies=dict(test='maftp_ade150')"
            )
        return [], []
    benchmarks = select_benchmarks(args.benchmarks)
    check_finds_masks(benchmarks, cfg.model)
    if (args.tta or args.out) and any(benchmark.is_panoptic for benchmark in benchmarks):
        raise ValueError(
            '--tta averages and --out saves label maps, and segments are none: leave '
            f'{", ".join(PANOPTIC_BENCHMARKS)} out (tools/infer.py --task panoptic saves segments)'
        )
    pipeline, template = evaluation_pipeline(cfg), cfg.get('test_dataloader')
    plans, absent = make_plans(benchmarks, args.data_root, pipeline, template, args.vocabularies)
    if args.out is not None:
        for plan in plans:
            plan.evaluator['output_dir'] = str(Path(args.out, plan.benchmark.key))
    cfg.test_dataloader, cfg.test_evaluator = plans[0].dataloader, plans[0].evaluator
    cfg.test_cfg = cfg.get('test_cfg') or dict(type='TestLoop')
    return plans, absent


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program; bad input ends it with one error line and exit code 2."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        cfg = prepare_config(args)
        plans, absent = plan_benchmarks(args, cfg)
    except (FileNotFoundError, ValueError) as error:
        parser.exit(2, f'{parser.prog}: error: {error}\n')
    install_safe_loader()
    keep_freed_memory()
    start_on_cpu(cfg)
    runner = Runner.from_cfg(cfg)
    runner.register_hook(CheckpointMatchHook(optional=('neck.',)))
    try:
        if args.checkpoint is None:
            unwrap_segmentor(runner.model, 'backbone').init_weights()
        if args.bottleneck:
            run_bottleneck(runner, Path(args.config).stem)
        elif args.benchmarks is None:
            runner.test()
        else:
            name = f'{Path(args.config).stem} {Path(args.checkpoint or "pretrained").name}'
            name += f', class lists {args.vocabularies}' if args.vocabularies else ''
            table = run_benchmarks(runner, plans, absent, args.checkpoint, name, args.redo)
            if is_main_process():
                print(f'\n{table}\nwritten to {Path(cfg.work_dir, FOLDER)}/table1.md, .csv, .json')
    except CheckpointError as error:
        parser.exit(2, f'{parser.prog}: error: {error}\n')
    leave_together()


def run_bottleneck(runner: Runner, title: str) -> None:
    """Measure what the true masks and the true classes gain, and write a table and a picture."""
    figures = measure_bottleneck(runner, unwrap_segmentor(runner.model, 'test_cfg'))
    if is_main_process():
        folder = Path(runner.work_dir)
        table = write_bottleneck(folder, figures)
        save_figure(draw_bottleneck(figures, title), folder / 'bottleneck')
        print(f'\n{table}written to {folder}/bottleneck.md, .json, .png, .pdf')


def _enable_drawing(cfg: Config, args: argparse.Namespace) -> None:
    hook = cfg.get('default_hooks', {}).get('visualization')
    if hook is None:
        raise ValueError(
            '--show and --show-dir need the hook that draws: set in the config '
            "default_hooks.visualization=dict(type='SegVisualizationHook')"
        )
    hook.update(draw=True, interval=1)
    if args.show:
        hook.update(show=True, wait_time=args.wait_time)
    if args.show_dir:
        cfg.visualizer.save_dir = args.show_dir


def _check_forgetting(cfg: Config, args: argparse.Namespace) -> None:
    words = load_classes(args.forgetting)
    trained = cfg.get('train_dataloader')
    try:
        dataset = DATASETS.build({**trained.dataset, 'lazy_init': True}) if trained else None
    except FileNotFoundError:  # the training data need not be here
        dataset = None
    seen = dataset and dataset.metainfo.get('classes')
    hook = dict(type='ForgettingHook', words=words, seen=seen)
    cfg.custom_hooks = [*(cfg.get('custom_hooks') or []), hook]


def _enable_tta(cfg: Config) -> None:
    if 'tta_model' not in cfg or 'tta_pipeline' not in cfg:
        raise ValueError('--tta needs tta_model and tta_pipeline in the config')
    cfg.test_dataloader.dataset.pipeline = cfg.tta_pipeline
    cfg.model = dict(cfg.tta_model, module=cfg.model)


if __name__ == '__main__':
    main()
