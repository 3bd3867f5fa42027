#!/usr/bin/env python
"""Fine-tune the small CLIP where it forgets, plainly and guarded, and compare on other words.

Usage: python tools/quickstart.py [--iters 250] [--seed 0] [--work-dir work_dirs/world] [--verbose]

Nothing is downloaded: the weights lie in data/clip and the scenes are drawn on the fly. It takes a
few minutes on two cores and ends with a table, a sheet of predictions and the loss curves. What the
framework logs goes to a file in the work folder.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from infoclip_mmseg.engine.display import ProgressHook, logs_to_file, make_progress
from infoclip_mmseg.engine.launch import keep_freed_memory
from infoclip_mmseg.experiments.ablation.report import draw_curves
from infoclip_mmseg.experiments.ablation.state import read_scalars
from infoclip_mmseg.visualization.sheet import draw_sheet

ROOT = Path(__file__).resolve().parents[1]
METHODS = {
    'zero-shot CLIP': 'zero_shot',
    'CAT-Seg, no guard': 'catseg',
    'InfoCLIP, published': 'infoclip',
    'InfoCLIP-CS, guarded': 'infoclip_cs',
}
FIGURES = {
    'seen_mIoU': 'trained words, mIoU',
    'unseen_mIoU': 'other words, mIoU',
    'harmonic': 'harmonic mean',
}
# CLIP learns at three times the rate of the head, on 12 of 30 classes: there it forgets the others.
NUM_SEEN, CLIP_RATE = 6, 3.0
SHOWN = 6
WEIGHTS = ROOT / 'data/clip/composed_world.safetensors'


def parse_args(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description='Fine-tune a small CLIP and compare methods.')
    parser.add_argument('--iters', type=int, default=250, help='of each training')
    parser.add_argument('--scenes', type=int, default=500, help='that are evaluated')
    parser.add_argument('--seed', type=int, default=0, help='of head, scenes and order')
    parser.add_argument('--weights', type=Path, default=WEIGHTS, help='of the small CLIP')
    parser.add_argument('--work-dir', type=Path, default=Path('work_dirs/world'))
    parser.add_argument('--verbose', action='store_true', help="show the framework's logs")
    args = parser.parse_args(argv)
    if args.iters < 1:
        parser.error(f'--iters must be 1 or more, got {args.iters}')
    if args.scenes < SHOWN:
        parser.error(f'--scenes must be {SHOWN} or more, got {args.scenes}')
    if not args.weights.is_file():
        parser.error(
            f'{args.weights} does not exist; make it with '
            f'python tools/pretrain_clip.py --out {args.weights}'
        )
    return args


def load_config(name: str, args: argparse.Namespace) -> Config:
    """Read a config of configs/world and put the run's folder, length and seed into it."""
    cfg = Config.fromfile(ROOT / 'configs' / 'world' / f'{name}.py')
    cfg.work_dir = str(args.work_dir / name)
    cfg.randomness.seed = args.seed
    cfg.visualizer.name = name  # MMEngine shares visualizers of one name, and where they write
    cfg.model.backbone.pretrained = str(args.weights)
    cfg.test_dataloader.dataset.update(length=args.scenes, spec=dict(num_seen=NUM_SEEN))
    if cfg.train_cfg is not None:
        cfg.train_dataloader.dataset.spec = dict(num_seen=NUM_SEEN)
        cfg.optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult = CLIP_RATE
        cfg.train_cfg.max_iters = args.iters
        cfg.param_scheduler[0].update(T_max=args.iters, end=args.iters)
        cfg.default_hooks.checkpoint.interval = args.iters
        cfg.default_hooks.logger.interval = max(1, args.iters // 40)
    return cfg


def run(cfg: Config, title: str, progress: Progress) -> tuple[Runner, dict[str, float]]:
    """Train, where the config trains, and evaluate; returns the runner and the figures."""
    runner = Runner.from_cfg(cfg)
    runner.register_hook(ProgressHook(progress, title))
    if cfg.train_cfg is None:
        runner.model.backbone.init_weights()
    else:
        runner.train()
    return runner, runner.test()


def predict(runner: Runner) -> list[np.ndarray]:
    """Label maps (h, w) of the first scenes of the test set."""
    dataset = runner.test_dataloader.dataset
    runner.model.eval()
    items = [dataset[index] for index in range(SHOWN)]
    batch = {key: [item[key] for item in items] for key in ('inputs', 'data_samples')}
    results = runner.model.test_step(batch)
    return [result.pred_sem_seg.data[0].cpu().numpy() for result in results]


def compare(args: argparse.Namespace, console: Console) -> None:
    """Run the methods, print the table, draw."""
    names = Column(no_wrap=True)
    table = Table(names, *FIGURES.values(), title='Composed world, test scenes')
    maps, curves = {}, {}
    with make_progress(console) as progress:
        for title, name in METHODS.items():
            runner, figures = run(load_config(name, args), title, progress)
            table.add_row(title, *(f'{figures[key]:.1f}' for key in FIGURES))
            maps[title] = predict(runner)
            if name != 'zero_shot':
                curves[title] = [read_scalars(Path(runner.work_dir))]
    dataset = runner.test_dataloader.dataset
    scenes = [dataset.scene(index) for index in range(SHOWN)]
    meta = dataset.metainfo
    sheet = draw_sheet(
        args.work_dir / 'sheet.png',
        [scene.image for scene in scenes],
        {'ground truth': [dataset.labels_of(scene) for scene in scenes], **maps},
        meta['classes'],
        meta['palette'],
        marked=[name for name in meta['classes'] if name not in meta['seen_classes']],
    )
    draw_curves(curves, list(curves), args.work_dir / 'curves.png')
    console.print(table)
    console.print(f'sheet of predictions  {sheet} (* never labelled in training)', soft_wrap=True)
    console.print(f'loss curves           {args.work_dir / "curves.png"}', soft_wrap=True)


def main(argv: Sequence[str] | None = None) -> None:
    """Say what is done, do it, say what came out."""
    args = parse_args(argv)
    began = time.monotonic()
    keep_freed_memory()
    log = args.work_dir / 'quickstart.log'
    with logs_to_file(log, args.verbose) as console:
        console.print(
            'A small CLIP learns 12 of the 30 classes of drawn scenes, fast enough to forget the\n'
            'other 18: plainly, with the published losses, and guarded. Nothing is downloaded.\n'
            f'{args.iters} iterations of each training, {args.scenes} test scenes.'
        )
        compare(args, console)
        console.print(f'logs and checkpoints  {args.work_dir} ({log.name})', soft_wrap=True)
        console.print(f'time                  {time.monotonic() - began:.0f} s')


if __name__ == '__main__':
    main()
