#!/usr/bin/env python
"""Train a segmentor from a config.

Usage: python tools/train.py configs/infoclip_vitb16_coco-stuff.py [--amp] [--resume] [...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import RUNNERS

from infoclip_mmseg.datasets import check_dataloader_cfg
from infoclip_mmseg.engine.hooks.benchmark import BenchmarkHook
from infoclip_mmseg.engine.hooks.guards import CheckpointMatchHook
from infoclip_mmseg.engine.launch import (
    DTYPES,
    add_common_arguments,
    check_file,
    enable_amp,
    keep_freed_memory,
    leave_together,
    load_config,
    start_on_cpu,
)
from infoclip_mmseg.utils.checkpoint_files import CheckpointError, install_safe_loader


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description='Train a segmentor.')
    add_common_arguments(parser)
    parser.add_argument(
        '--amp-dtype', choices=DTYPES, default='auto', help='auto: fp16 on CUDA, bf16 on a CPU'
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint; without a path, from the latest in the working folder',
    )
    return parser


def prepare_config(args: argparse.Namespace) -> Config:
    """Read the config, apply the options and check what can be checked before any work.

    Raises:
        FileNotFoundError: Config, checkpoint or data are not there.
        ValueError: Mixed precision of this kind is not to be had.
    """
    cfg = load_config(args)
    if args.amp:
        enable_amp(cfg, args.amp_dtype)
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else args.resume
    if cfg.get('load_from') is not None:
        check_file(cfg.load_from, 'checkpoint')
    check_dataloader_cfg(cfg, ('train_dataloader', 'val_dataloader'))
    return cfg


def make_benchmark_hook(cfg: Config) -> BenchmarkHook | None:
    """The hook that the config's `val_benchmarks` asks for: keys, or arguments of BenchmarkHook.

    Raises:
        FileNotFoundError: A benchmark is not there.
        ValueError: A benchmark is unknown, or the config has no validation.
    """
    wanted = cfg.get('val_benchmarks')
    if not wanted:
        return None
    hook = BenchmarkHook(**wanted) if isinstance(wanted, dict) else BenchmarkHook(wanted)
    hook.prepare(cfg)
    return hook


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program; bad input ends it with one error line and exit code 2."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        cfg = prepare_config(args)
        benchmarks = make_benchmark_hook(cfg)
    except (FileNotFoundError, ValueError) as error:
        parser.exit(2, f'{parser.prog}: error: {error}\n')
    install_safe_loader()
    keep_freed_memory()
    start_on_cpu(cfg)
    runner = RUNNERS.build(cfg) if 'runner_type' in cfg else Runner.from_cfg(cfg)
    runner.register_hook(CheckpointMatchHook(complete=bool(cfg.get('resume'))))
    if benchmarks is not None:
        runner.register_hook(benchmarks)
    try:
        runner.train()
    except CheckpointError as error:
        parser.exit(2, f'{parser.prog}: error: {error}\n')
    leave_together()


if __name__ == '__main__':
    main()
