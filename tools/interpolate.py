#!/usr/bin/env python
"""Go part of the way from a tuned CLIP back to the pretrained one (WiSE-FT, arXiv 2109.01903).

Usage: python tools/interpolate.py CONFIG CHECKPOINT --factors 0.5 --out mixed.pth
       python tools/interpolate.py CONFIG CHECKPOINT --test [--factors 0 0.25 0.5 0.75 1]

A factor of 1 is the checkpoint, 0 has the pretrained CLIP below the tuned head. With --out a
checkpoint is written, or for several factors one each in that folder. With --test each is evaluated
on the config's test set: a table, and the curve over the factor as PNG and CSV in the work folder.
"""

from __future__ import annotations

import argparse
import copy
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import pandas as pd
import torch
from matplotlib.figure import Figure
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import MODELS
from torch import Tensor

from infoclip_mmseg.datasets import check_dataloader_cfg
from infoclip_mmseg.engine.launch import (
    add_common_arguments,
    check_file,
    keep_freed_memory,
    load_config,
)
from infoclip_mmseg.experiments.tables import markdown_table, write_csv
from infoclip_mmseg.models.distillation.interpolation import interpolate_weights, pretrained_weights
from infoclip_mmseg.utils.checkpoint_files import (
    CheckpointError,
    check_state_dict,
    load_checkpoint_file,
)

FACTORS = (0.0, 0.25, 0.5, 0.75, 1.0)
PREFIX = 'backbone.'


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description='Mix pretrained and tuned weights of CLIP.')
    add_common_arguments(parser)
    parser.add_argument('checkpoint', help='checkpoint of the tuned model')
    parser.add_argument('--factors', nargs='+', type=float, default=list(FACTORS))
    parser.add_argument('--out', type=Path, help='file, or for several factors folder, to write')
    parser.add_argument('--test', action='store_true', help="evaluate on the config's test set")
    return parser


def load_mixer(cfg: Config, checkpoint: str) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Pretrained weights of the config's CLIP, and the tuned weights of the whole model.

    Raises:
        CheckpointError: The checkpoint is damaged, or of another model than the config's.
        FileNotFoundError: The pretrained weights are not there.
        ValueError: The config names none.
    """
    init_default_scope('mmseg')
    model = MODELS.build(cfg.model)
    loaded = load_checkpoint_file(checkpoint)
    tuned = dict(loaded.get('state_dict', loaded))
    check_state_dict(model, tuned, optional=('neck.',))
    return pretrained_weights(model.backbone), tuned


def write_checkpoints(
    start: Mapping[str, Tensor], tuned: Mapping[str, Tensor], factors: Sequence[float], out: Path
) -> list[Path]:
    """Write a checkpoint for each factor; their paths."""
    several = len(factors) > 1
    paths = [out / f'factor_{factor:g}.pth' if several else out for factor in factors]
    for factor, path in zip(factors, paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        mixed = {**tuned, **interpolate_weights(start, tuned, factor, PREFIX)}
        torch.save(dict(state_dict=mixed, meta=dict(interpolation_factor=factor)), path)
    return paths


def evaluate(
    cfg: Config, start: Mapping[str, Tensor], tuned: Mapping[str, Tensor], factors: Sequence[float]
) -> pd.DataFrame:
    """Figures of the test set (columns) by factor (rows)."""
    cfg = copy.deepcopy(cfg)
    cfg.load_from, cfg.resume = None, False
    runner = Runner.from_cfg(cfg)
    rows: list[dict[str, Any]] = []
    for factor in factors:
        mixed = {**tuned, **interpolate_weights(start, tuned, factor, PREFIX)}
        known = runner.model.state_dict().keys()
        runner.model.load_state_dict({k: v for k, v in mixed.items() if k in known})
        rows.append(dict(factor=factor, **runner.test()))
    return pd.DataFrame(rows)


def draw(table: pd.DataFrame, path: Path) -> None:
    """Draw each figure that is a mean IoU over the factor."""
    names = [n for n in table.columns if n.endswith('mIoU') or n in ('harmonic', 'aAcc')]
    picture = Figure((5.2, 3.6), dpi=130, layout='constrained')
    ax = picture.subplots()
    for name in names:
        ax.plot(table['factor'], table[name], marker='o', markersize=4, label=name)
    ax.set_xlabel('0: pretrained CLIP … 1: tuned CLIP')
    ax.grid(alpha=0.3)
    ax.legend(fontsize=8)
    picture.savefig(path)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program; bad input ends it with one error line and exit code 2."""
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.out is None and not args.test:
        parser.error('nothing to do: give --out FILE, or --test')
    wrong = [factor for factor in args.factors if not 0 <= factor <= 1]
    if wrong:
        parser.error(f'factors must be from 0 (pretrained) to 1 (tuned), got {wrong}')
    try:
        cfg = load_config(args)
        check_file(args.checkpoint, 'checkpoint')
        if args.test:
            check_dataloader_cfg(cfg, ('test_dataloader',))
        keep_freed_memory()
        start, tuned = load_mixer(cfg, args.checkpoint)
        mixed = interpolate_weights(start, tuned, args.factors[0], PREFIX)
    except (FileNotFoundError, ValueError, CheckpointError) as error:
        parser.exit(2, f'{parser.prog}: error: {error}\n')
    print(f'{len(mixed)} tensors of CLIP are mixed, {len(tuned) - len(mixed)} stay as tuned')
    if args.out is not None:
        for path in write_checkpoints(start, tuned, args.factors, args.out):
            print(f'written to {path}')
    if args.test:
        table, folder = evaluate(cfg, start, tuned, args.factors), Path(cfg.work_dir)
        write_csv(table, folder / 'interpolation.csv')
        draw(table, folder / 'interpolation.png')
        print(f'\n{markdown_table(table)}\nwritten to {folder}/interpolation.csv, .png')


if __name__ == '__main__':
    main()
