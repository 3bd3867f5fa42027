#!/usr/bin/env python
"""Pretrain the small CLIP of the composed world: two stages, then a file for model.backbone.

Usage: python tools/pretrain_clip.py [--work-dir work_dirs/pretrain_clip] [--resume] [--out FILE]
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from mmengine.config import Config
from mmengine.runner import Runner
from safetensors import safe_open

from infoclip_mmseg.engine.cfg_options import CfgOptions
from infoclip_mmseg.engine.launch import check_file, keep_freed_memory
from infoclip_mmseg.utils.checkpoint_files import install_safe_loader
from infoclip_mmseg.world import WorldSpec, caption_words
from infoclip_mmseg.world.pretraining import export_clip

ROOT = Path(__file__).resolve().parents[1]
STAGES = ('configs/world/pretrain_1_contrast.py', 'configs/world/pretrain_2_dense.py')


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description='Pretrain a small CLIP in stages.')
    parser.add_argument(
        'configs', nargs='*', help='one config a stage; default: ' + ' '.join(STAGES)
    )
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/pretrain_clip'))
    parser.add_argument('--out', type=Path, help='file to write; default: clip.safetensors there')
    parser.add_argument('--seed', type=int, default=0, help='of the weights and the scenes')
    parser.add_argument(
        '--resume', action='store_true', help='skip finished stages, go on with the unfinished one'
    )
    parser.add_argument(
        '--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE', help='for every stage'
    )
    return parser


def run_stage(config: str, folder: Path, start: Path | None, args: argparse.Namespace) -> Path:
    """Run one stage, unless it is finished and ``--resume`` is given.

    Args:
        config: Config file of the stage.
        folder: Its working folder.
        start: Weights of the stage before.
        args: The command line.

    Returns:
        The stage's weights.
    """
    weights = folder / 'clip.safetensors'
    if args.resume and weights.is_file():
        return weights
    cfg = Config.fromfile(config)
    cfg.work_dir, cfg.resume = str(folder), args.resume
    cfg.randomness.seed = args.seed
    cfg.train_dataloader.dataset.seed = cfg.train_dataloader.dataset.get('seed', 0) + 10 * args.seed
    if start is not None:
        cfg.model.backbone.pretrained = str(start)
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    began = time.monotonic()
    runner = Runner.from_cfg(cfg)
    model = runner.train()
    spec = WorldSpec(**(cfg.train_dataloader.dataset.get('spec') or {}))
    note = dict(
        config=Path(config).stem,
        seed=args.seed,
        iterations=runner.max_iters,
        seconds=round(time.monotonic() - began),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
    )
    stages = [*read_stages(start), note]
    metadata = {'pretraining': json.dumps(stages)}
    return export_clip(model.backbone, weights, caption_words(spec), metadata)


def read_stages(weights: Path | None) -> list[dict[str, Any]]:
    """What the header of a weights file tells of the stages that made it."""
    if weights is None:
        return []
    with safe_open(str(weights), framework='pt') as file:
        return json.loads((file.metadata() or {}).get('pretraining', '[]'))


def main(argv: Sequence[str] | None = None) -> None:
    """Run all stages and write the result."""
    parser = build_parser()
    args = parser.parse_args(argv)
    configs = args.configs or [str(ROOT / stage) for stage in STAGES]
    try:
        for config in configs:
            check_file(config, 'config')
    except FileNotFoundError as error:
        parser.exit(2, f'{parser.prog}: error: {error}\n')
    install_safe_loader()
    keep_freed_memory()
    weights: Path | None = None
    for number, config in enumerate(configs, start=1):
        weights = run_stage(config, args.work_dir / str(number), weights, args)
    assert weights is not None
    if args.out is not None:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_bytes(weights.read_bytes())
        weights = args.out
    print(f'CLIP weights written to {weights} ({weights.stat().st_size / 1e6:.1f} MB)')


if __name__ == '__main__':
    main()
