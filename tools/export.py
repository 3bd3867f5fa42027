#!/usr/bin/env python
"""Export a segmentor to ONNX or to torch.export, and check the file against PyTorch.

Usage: python tools/export.py CONFIG CHECKPOINT model.onnx --vocabulary ade150
       python tools/export.py CONFIG CHECKPOINT model.onnx --text input --classes 'cat; dog'
       python tools/export.py CONFIG CHECKPOINT words.npz --classes 'red car, automobile; tree'

The suffix says what is written: .onnx, .pt2 (torch.export), or .npz with nothing but the text
embeddings of the words, for a file that was exported with --text input. Such a file and the words
run with tools/onnx_example.py, without PyTorch.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
import torch
from mmengine.config import Config

from infoclip_mmseg.apis.loading import build_segmentor, load_clip, load_state
from infoclip_mmseg.datasets.vocabularies import load_vocabulary
from infoclip_mmseg.deploy.export import (
    check_export,
    describe,
    export_program,
    save_onnx,
    save_pt2,
    save_text,
)
from infoclip_mmseg.engine.cfg_options import CfgOptions
from infoclip_mmseg.engine.launch import check_file
from infoclip_mmseg.utils.checkpoint_files import CheckpointError, load_checkpoint_file
from infoclip_mmseg.utils.images import read_image
from infoclip_mmseg.utils.resources import find_config

PRETRAINED = 'pretrained'
FORMATS = ('.onnx', '.pt2', '.npz')
IMAGES = Path(__file__).resolve().parents[1] / 'tests/data/ade/images/validation'


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description='Export a segmentor to ONNX or torch.export.')
    parser.add_argument('config', help='config of the model: a file, or its name')
    parser.add_argument(
        'checkpoint',
        help=f"checkpoint file, or '{PRETRAINED}' for the weights before training (for heads "
        'without weights, or to measure sizes and times)',
    )
    parser.add_argument('out', type=Path, help='file to write: .onnx, .pt2 or .npz (words only)')
    words = parser.add_mutually_exclusive_group()
    words.add_argument('--classes', help='"cat; red car, automobile": synonyms after commas')
    words.add_argument('--classes-file', metavar='FILE', help='one name a line, or a JSON list')
    words.add_argument('--vocabulary', metavar='NAME', help='a class list of the package')
    parser.add_argument(
        '--text',
        choices=('baked', 'input'),
        default='baked',
        help='text embeddings as constants, or as a second input so that words can change',
    )
    parser.add_argument(
        '--images',
        nargs='+',
        type=Path,
        help='images for the check; default: the three under tests/data',
    )
    parser.add_argument(
        '--batch-size', type=int, default=1, help='images that go together in the check'
    )
    parser.add_argument(
        '--half',
        action='store_true',
        help='an .onnx file in float16, for GPUs; in- and outputs stay',
    )
    parser.add_argument('--no-check', action='store_true', help='do not compare with PyTorch')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE')
    return parser


def load_model(args: argparse.Namespace) -> Any:
    """The segmentor on the CPU with its weights and words.

    Raises:
        FileNotFoundError: Config, checkpoint or vocabulary are not there.
        ValueError: There are no words, or the config is of another kind of model.
        CheckpointError: The checkpoint can't be read or belongs to another architecture.
    """
    cfg = Config.fromfile(find_config(args.config))
    cfg.merge_from_dict(args.cfg_options or {})
    checkpoint = {} if args.checkpoint == PRETRAINED else load_checkpoint_file(args.checkpoint)
    meta = (checkpoint.get('meta') or {}).get('dataset_meta') or {}
    names = read_words(args) or list(meta.get('classes') or ())
    if not names:
        raise ValueError('the checkpoint names no classes: use --classes or --vocabulary')
    model = build_segmentor(cfg)
    if args.checkpoint == PRETRAINED:
        load_clip(model)
    else:
        load_state(model, checkpoint.get('state_dict', checkpoint))
    same = names == list(meta.get('classes') or ())
    model.set_vocabulary(names, meta.get('palette') if same else None)
    return model.eval().requires_grad_(False)


def read_words(args: argparse.Namespace) -> list[str]:
    """Class names of the options; none where there are no such options."""
    if args.classes is not None:
        return [name.strip() for name in args.classes.split(';') if name.strip()]
    source = args.classes_file or args.vocabulary
    return [] if source is None else load_vocabulary(source)


def read_images(paths: Sequence[Path] | None) -> list[np.ndarray]:
    """RGB images (h, w, 3), uint8.

    Raises:
        FileNotFoundError: There is none.
    """
    paths = sorted(IMAGES.glob('*.jpg')) if paths is None else paths
    if not paths:
        raise FileNotFoundError('no images for the check: name some by --images, or --no-check')
    for path in paths:
        check_file(str(path), 'image')
    return [read_image(path) for path in paths]


def check_arguments(args: argparse.Namespace) -> None:
    """Check what can be checked before the work.

    Raises:
        ValueError: The suffix of the file to write is unknown.
        ImportError: A package of the extra 'export' is missing.
    """
    if args.batch_size < 1:
        raise ValueError(f'--batch-size must be at least 1, got {args.batch_size}')
    if args.out.suffix not in FORMATS:
        raise ValueError(f'{args.out} must end with one of {", ".join(FORMATS)}')
    if args.half and args.out.suffix != '.onnx':
        raise ValueError(f'--half is for .onnx files, got {args.out}')
    unchecked = args.no_check and not args.half  # the converter to float16 is onnxruntime's
    needed = ['onnx', 'onnxscript'] + ([] if unchecked else ['onnxruntime'])
    missing = [name for name in needed if find_spec(name) is None]
    if args.out.suffix == '.onnx' and missing:
        raise ImportError(
            f'exporting to ONNX needs {", ".join(missing)}: pip install -e ".[export]", or write '
            'a .pt2 file, which needs nothing more than PyTorch'
        )


def export(args: argparse.Namespace) -> bool:
    """Export and check.

    Returns:
        Whether the file agrees with PyTorch, or was not checked.
    """
    check_arguments(args)
    images = [] if args.no_check or args.out.suffix == '.npz' else read_images(args.images)
    model = load_model(args)
    bake = args.text == 'baked'
    with torch.no_grad():
        text = model.backbone.embed_prompts(model.prompts)
    metadata = describe(model, Path(args.config).stem, bake)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    start = time.perf_counter()
    if args.out.suffix == '.npz':
        save_text(args.out, text, metadata)
    else:
        program = export_program(model, text, bake)
        if args.out.suffix == '.onnx':
            save_onnx(program, args.out, metadata, args.half)
        else:
            save_pt2(program, args.out, metadata)
    print(
        f'{args.out}: {len(text)} classes, text {args.text}, '
        f'{args.out.stat().st_size / 1e6:.1f} MB, {time.perf_counter() - start:.1f} s'
    )
    if not images:
        return True
    found = check_export(args.out, model, images, None if bake else text, args.batch_size)
    good = found.good(args.half)
    print(
        f'{"agrees" if good else "DISAGREES"} with PyTorch on {len(images)} images: logits '
        f'differ by at most {found.difference:.1e}, {100 * found.equal:.3f} % of the pixels have '
        f'the same label; {found.seconds:.3f} s an image, PyTorch {found.seconds_torch:.3f} s '
        f'({torch.get_num_threads()} threads)'
    )
    return good


def main(argv: Sequence[str] | None = None) -> int:
    """Run the program; bad input ends it with one error line and exit code 2."""
    parser = build_parser()
    args = parser.parse_args(argv)
    try:
        return 0 if export(args) else 1
    except (FileNotFoundError, ImportError, ValueError, CheckpointError) as error:
        parser.exit(2, f'{parser.prog}: error: {error}\n')


if __name__ == '__main__':
    sys.exit(main())
