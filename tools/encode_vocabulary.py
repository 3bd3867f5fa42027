#!/usr/bin/env python
"""Encode a vocabulary once, for the cache that a model with `text_cache_dir` reads.

Usage: python tools/encode_vocabulary.py CONFIG CHECKPOINT NAMES.txt CACHE_DIR [--amp] [...]

Later runs with the same weights, names, templates and precision read the file in place of encoding:
python tools/test.py CONFIG CHECKPOINT --cfg-options model.backbone.text_cache_dir=CACHE_DIR
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.runner.amp import autocast

from infoclip_mmseg.apis.loading import build_segmentor, load_clip, load_state
from infoclip_mmseg.datasets.vocabularies import load_vocabulary
from infoclip_mmseg.engine.cfg_options import CfgOptions
from infoclip_mmseg.engine.launch import check_file
from infoclip_mmseg.utils.checkpoint_files import CheckpointError, load_checkpoint_file
from infoclip_mmseg.utils.resources import find_config

PRETRAINED = 'pretrained'


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description='Encode a vocabulary into the cache.')
    parser.add_argument('config', help='config of the model: a file, or its name')
    parser.add_argument(
        'checkpoint', help=f"checkpoint file, or '{PRETRAINED}' for CLIP as it was before training"
    )
    parser.add_argument(
        'vocabulary', help='file with one name a line, or a class list of the package'
    )
    parser.add_argument('cache_dir', help='folder of the cache; made where it is not there')
    parser.add_argument('--amp', action='store_true', help='for runs in mixed precision')
    parser.add_argument('--device', default=get_device(), help='device that encodes')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE')
    return parser


def encode(args: argparse.Namespace) -> tuple[int, int]:
    """Build the model and encode.

    Returns:
        Classes and channels of the embeddings.

    Raises:
        FileNotFoundError: Config, checkpoint or vocabulary are not there.
        ValueError: The vocabulary holds no names.
        CheckpointError: The checkpoint does not fit the config.
    """
    config = find_config(args.config)
    if args.checkpoint != PRETRAINED:
        check_file(args.checkpoint, 'checkpoint')
    names = load_vocabulary(args.vocabulary)
    cfg = Config.fromfile(config)
    cfg.merge_from_dict(args.cfg_options or {})
    cfg.model.backbone.text_cache_dir = args.cache_dir
    model = build_segmentor(cfg)
    if args.checkpoint == PRETRAINED:
        load_clip(model)
    else:
        checkpoint = load_checkpoint_file(args.checkpoint)
        load_state(model, checkpoint.get('state_dict', checkpoint))
    model.eval().to(args.device).set_vocabulary(names)
    with torch.no_grad(), autocast(enabled=args.amp):
        text = model.backbone.embed_prompts(model.prompts)
    return len(text), text.shape[-1]


def main(argv: Sequence[str] | None = None) -> None:
    """Run the program; bad input ends it with one error line and exit code 2."""
    parser = build_parser()
    args = parser.parse_args(argv)
    start = time.perf_counter()
    try:
        classes, channels = encode(args)
    except (FileNotFoundError, ValueError, CheckpointError) as error:
        parser.exit(2, f'{parser.prog}: error: {error}\n')
    seconds = time.perf_counter() - start
    print(f'{classes} classes, {channels} channels, {seconds:.1f} s: {args.cache_dir}')


if __name__ == '__main__':
    main()
