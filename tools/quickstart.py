"""Train and evaluate a toy-sized InfoCLIP on drawn scenes, in a few minutes and without downloads.

Usage: python tools/quickstart.py [--iters 600] [--work-dir work_dirs/toy] [--seed 0]
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from mmengine.config import Config
from mmengine.runner import Runner
from PIL import Image

from infoclip_mmseg.datasets.checks import check_dataloader_cfg
from infoclip_mmseg.datasets.toy import PALETTE, write_toy_data

ROOT = Path(__file__).resolve().parents[1]
SHEET_ROWS = 8
SHEET_CELL = (192, 144)
SHEET_MARGIN = ((4, 4), (4, 4), (0, 0))


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--iters', type=int, default=None, help="default: the config's")
    parser.add_argument('--work-dir', type=Path, default=ROOT / 'work_dirs' / 'toy')
    parser.add_argument('--seed', type=int, default=0, help='of the scenes and of the training')
    return parser.parse_args()


def load_config(args: argparse.Namespace, data: Path) -> Config:
    """Read the toy config and put the run's paths, length and seed into it."""
    cfg = Config.fromfile(ROOT / 'configs' / 'toy' / 'infoclip_toy.py')
    cfg.work_dir = str(args.work_dir)
    cfg.randomness.seed = args.seed
    cfg.train_dataloader.dataset.data_root = str(data)
    cfg.test_dataloader.dataset.data_root = str(data)
    cfg.test_evaluator.output_dir = str(args.work_dir / 'predictions')
    if args.iters is not None:
        cfg.train_cfg.max_iters = args.iters
        cfg.default_hooks.checkpoint.interval = args.iters
        cfg.param_scheduler[0].update(T_max=args.iters, end=args.iters)
    check_dataloader_cfg(cfg)
    return cfg


def draw_results(data: Path, work_dir: Path) -> tuple[Path, Path]:
    """Write an overlay for every prediction and one sheet (image | ground truth | prediction).

    Args:
        data: Root of the data set.
        work_dir: Holds predictions/*.png with class indices.

    Returns:
        The folder of the overlays and the sheet.
    """
    palette = np.array(PALETTE, dtype=np.uint8)
    overlays, sheet = work_dir / 'overlays', work_dir / 'sheet.png'
    overlays.mkdir(exist_ok=True)
    rows = []
    for path in sorted((work_dir / 'predictions').glob('*.png')):
        image = Image.open(data / 'images' / 'validation' / path.name).convert('RGB')
        truth = palette[np.array(Image.open(data / 'annotations' / 'validation' / path.name))]
        prediction = Image.fromarray(palette[np.array(Image.open(path))])
        Image.blend(image, prediction, 0.5).save(overlays / path.name)
        cells = (image, Image.fromarray(truth), prediction)
        resized = [np.array(c.resize(SHEET_CELL, Image.Resampling.NEAREST)) for c in cells]
        rows.append(np.hstack([np.pad(c, SHEET_MARGIN, constant_values=255) for c in resized]))
    Image.fromarray(np.vstack(rows[:SHEET_ROWS])).save(sheet)
    return overlays, sheet


def main() -> None:
    """Generate, train, evaluate, draw."""
    args = parse_args()
    data = write_toy_data(ROOT / 'data' / 'toy', seed=args.seed)
    runner = Runner.from_cfg(load_config(args, data))
    runner.train()
    runner.test()
    overlays, sheet = draw_results(data, args.work_dir)
    checkpoint = args.work_dir / f'iter_{runner.max_iters}.pth'
    print(f'\ndata set     {data}\ncheckpoint   {checkpoint}')
    print(f'overlays     {overlays}\nsheet        {sheet} (image | ground truth | prediction)')


if __name__ == '__main__':
    main()
