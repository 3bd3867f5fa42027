#!/usr/bin/env python
"""Write the CLIP of a trained model in a layout that other libraries read.

Usage: python tools/export_clip.py CHECKPOINT OUT.pth [--layout mmpretrain]
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from infoclip_mmseg.models.backbones.layouts import LAYOUTS
from infoclip_mmseg.models.backbones.names import pack_qkv
from infoclip_mmseg.utils.checkpoint_files import CheckpointError, load_checkpoint_file

WRITERS = {'open_clip': pack_qkv, **{name: layout.write for name, layout in LAYOUTS.items()}}
PREFIX = 'backbone.clip.'


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program; bad input ends it with one error line and exit code 2."""
    parser = argparse.ArgumentParser(description='Write the CLIP of a trained model.')
    parser.add_argument('checkpoint', help=f'checkpoint of a model whose CLIP is at {PREFIX}*')
    parser.add_argument('out', type=Path, help='file to write, .pth')
    parser.add_argument('--layout', choices=WRITERS, default='open_clip')
    args = parser.parse_args(argv)
    try:
        checkpoint = load_checkpoint_file(args.checkpoint)
    except (FileNotFoundError, CheckpointError) as error:
        parser.exit(2, f'{parser.prog}: error: {error}\n')
    weights = checkpoint.get('state_dict', checkpoint)
    clip = {key.removeprefix(PREFIX): w for key, w in weights.items() if key.startswith(PREFIX)}
    if not clip:
        keys = sorted(weights)[:3]
        parser.exit(2, f'{parser.prog}: error: no weights at {PREFIX}*; the keys begin {keys}\n')
    args.out.parent.mkdir(parents=True, exist_ok=True)
    torch.save({'state_dict': WRITERS[args.layout](clip)}, args.out)
    print(f'{len(clip)} tensors of CLIP written to {args.out} in the layout of {args.layout}')


if __name__ == '__main__':
    main()
