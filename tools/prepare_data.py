#!/usr/bin/env python
"""Bring a public data set into the layout that the configs read, or check that it is.

Usage: python tools/prepare_data.py DATASET [--root data] [--download] [--workers N]
       python tools/prepare_data.py DATASET [--root data] --check

DATASET: coco-stuff, ade150, ade847, pc459, pc59, voc20, voc20b, coco-panoptic, ade150-panoptic or
all. Without --download it says what has to be fetched, from where, and where to put it. Started
again it goes on where it was stopped. data/README.md describes sources and layouts.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from rich.console import Console

from infoclip_mmseg.datasets.prepare import RECIPES, PrepareError
from infoclip_mmseg.datasets.prepare.pipeline import check, prepare

MAX_WORKERS = 8


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description='Prepare or check a public data set.')
    add = parser.add_argument
    add('dataset', choices=[*RECIPES, 'all'], metavar='DATASET', help=', '.join([*RECIPES, 'all']))
    add('--root', type=Path, default=Path('data'), help='data root (default: data)')
    add('--download', action='store_true', help='fetch what is missing and needs no registration')
    add('--check', action='store_true', help='change nothing, verify counts, pairs, sizes, labels')
    workers = min(MAX_WORKERS, os.cpu_count() or 1)
    add('--workers', type=int, default=workers, help=f'processes (default here: {workers})')
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program.

    Returns:
        0, or 1 after a failed check, or 2 where something is missing, damaged or full.
    """
    parser = build_parser()
    args = parser.parse_args(argv)
    if args.check and args.download:
        parser.error('--check changes nothing: run --download first, then --check')
    if args.workers < 1:
        parser.error(f'--workers {args.workers}: expected at least 1')
    console, status = Console(), 0
    for recipe in RECIPES.values() if args.dataset == 'all' else [RECIPES[args.dataset]]:
        try:
            if args.check:
                verdicts = check(recipe, args.root, args.workers, console)
                for verdict in verdicts:
                    console.out(verdict, highlight=False)
                status = max(status, 0 if all(v.ok for v in verdicts) else 1)
            else:
                prepare(recipe, args.root, args.download, args.workers, console)
        except PrepareError as error:
            print(f'{parser.prog}: error: {error}', file=sys.stderr)
            status = 2
        except KeyboardInterrupt:
            parser.exit(130, f'{parser.prog}: stopped; start it again to go on\n')
    if not args.check and status == 0:
        command = f'python tools/prepare_data.py {args.dataset} --check'
        console.out(f'verify with: {command}', highlight=False)
    return status


if __name__ == '__main__':
    sys.exit(main())
