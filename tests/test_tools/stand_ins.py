"""Stand-ins for tools/train.py and tools/test.py, and configs for them."""

from __future__ import annotations

import csv
from pathlib import Path

COMMON = """
import argparse, json, os, pathlib, runpy, sys, time
parser = argparse.ArgumentParser()
parser.add_argument('config')
parser.add_argument('checkpoint', nargs='?')
parser.add_argument('--work-dir', type=pathlib.Path)
parser.add_argument('--resume', action='store_true')
args = parser.parse_args()
pathlib.Path('pid.txt').write_text(str(os.getpid()))
cfg = runpy.run_path(args.config)
seed = cfg['randomness']['seed']
with open('calls.txt', 'a') as file:
    file.write(f'{pathlib.Path(sys.argv[0]).stem} {cfg["row"]} {seed} {args.resume}\\n')
stamp = args.work_dir / str(time.time_ns())
(stamp / 'vis_data').mkdir(parents=True)
"""
TRAIN = """
first = 3 if args.resume else 1
for step in range(first, cfg['train_cfg']['max_iters'] + 1):
    loss = cfg['slope'] / step + seed
    row = dict(loss=loss, grad_norm_clip=0.5, lr=0.1, step=step)
    with open(stamp / 'vis_data' / 'scalars.json', 'a') as file:
        file.write(json.dumps(row) + '\\n')
    (args.work_dir / f'iter_{step}.pth').write_text(json.dumps(cfg['slope'] + seed))
    (args.work_dir / 'last_checkpoint').write_text(str(args.work_dir / f'iter_{step}.pth'))
    if step == cfg.get('die_at') and not args.resume:
        sys.exit('out of memory')
    time.sleep(cfg.get('pause', 0))
"""
TEST = """
weight = json.loads(pathlib.Path(args.checkpoint).read_text())
if cfg.get('broken_test') == args.work_dir.name:
    sys.exit('no such metric')
metrics = dict(mIoU=weight * cfg['test_dataloader']['scale'], time=0.1)
(stamp / f'{stamp.name}.json').write_text(json.dumps(metrics))
"""
CONFIG = """
row, slope = {row!r}, {slope}
model = dict(type='M')
train_dataloader = dict(batch_size=1)
train_cfg = dict(max_iters=4)
optim_wrapper = dict(type='OptimWrapper')
test_dataloader = dict(scale=1)
test_evaluator = dict(type='IoUMetric')
"""
ABLATION = """
runs = [
    dict(name='base', config='base.py'),
    dict(name='ours, better', config='ours.py', cfg_options=dict(slope=13)),
    dict(name='zero', config='base.py', train=False, checkpoint='given.pth'),
]
seeds = [0, 1, 2]
tests = [dict(name='joint'), dict(name='double', cfg_options={'test_dataloader.scale': 2})]
figures = ['mIoU']
baseline = 'base'
"""


def calls() -> list[str]:
    """What was started, in any order; forgets it."""
    path = Path('calls.txt')
    lines = sorted(path.read_text().splitlines()) if path.exists() else []
    path.unlink(missing_ok=True)
    return lines


def edit(name: str, old: str, new: str) -> None:
    text = Path(name).read_text()
    assert old in text
    Path(name).write_text(text.replace(old, new))


def table(folder: str = 'work_dirs/abl') -> dict[tuple[str, str], dict[str, str]]:
    with Path(folder, 'table.csv').open() as file:
        return {(row['run'], row['test']): row for row in csv.DictReader(file)}
