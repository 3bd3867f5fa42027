#!/usr/bin/env python
"""Write scenes of the composed world as image and label files in mmseg's layout.

Usage: python tools/export_world.py OUT [--split test] [--length 100] [--size 64 64] [...]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from infoclip_mmseg.world import DOMAINS, ComposedWorldDataset, export_world


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program; bad input ends it with one error line and exit code 2."""
    parser = argparse.ArgumentParser(description='Write the composed world as files.')
    parser.add_argument('out', type=Path, help='folder to write to')
    parser.add_argument('--split', default='test', help='train, val or test')
    parser.add_argument('--length', type=int, default=100, help='number of scenes')
    parser.add_argument('--size', type=int, nargs=2, default=(64, 64), metavar=('H', 'W'))
    parser.add_argument('--objects', default='all', help='all compositions, or only the seen')
    parser.add_argument('--domain', default='base', help=' or '.join(DOMAINS))
    parser.add_argument('--seed', type=int, default=0)
    args = parser.parse_args(argv)
    options = {key: value for key, value in vars(args).items() if key != 'out'}
    try:
        dataset = ComposedWorldDataset(**options)
    except ValueError as error:
        parser.exit(2, f'{parser.prog}: error: {error}\n')
    folder = export_world(dataset, args.out)
    print(f'{len(dataset)} scenes written to {folder} ({len(dataset.metainfo["classes"])} classes)')


if __name__ == '__main__':
    main()
