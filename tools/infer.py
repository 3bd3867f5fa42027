#!/usr/bin/env python
"""Segment images with words of one's own.

Usage: python tools/infer.py IMAGES... --classes "cat; red car, automobile" [--out DIR]
       python tools/infer.py photos/ --vocabulary ade847 --config infoclip_vitb16_coco-stuff \
           --weights CHECKPOINT
       python tools/infer.py photos/ --task panoptic --classes "sky; dog" --things dog --config \
           maft-plus/maftp_convnext-l_ade20k --weights CHECKPOINT

Without --config the small CLIP of the composed world is used: nothing is downloaded, and it knows
nothing but drawn scenes.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from mmengine.config import Config
from PIL import Image
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from infoclip_mmseg.annotations import FORMATS
from infoclip_mmseg.apis import (
    ImageError,
    OpenVocabInferencer,
    Prediction,
    count_pictures,
    list_sources,
    parse_words,
)
from infoclip_mmseg.apis.image_sources import OnError, Source
from infoclip_mmseg.apis.inferencer import DEFAULT_CONFIG
from infoclip_mmseg.apis.runs import Run, annotate, find_shard, join_panoptic
from infoclip_mmseg.apis.segments import TASKS, Segments
from infoclip_mmseg.apis.words import Background
from infoclip_mmseg.datasets.vocabularies import load_vocabulary, shipped_vocabularies
from infoclip_mmseg.engine.cfg_options import CfgOptions
from infoclip_mmseg.engine.display import logs_to_file
from infoclip_mmseg.engine.launch import keep_freed_memory
from infoclip_mmseg.utils.checkpoint_files import CheckpointError
from infoclip_mmseg.utils.files import first_few
from infoclip_mmseg.utils.images import MAX_PIXELS
from infoclip_mmseg.utils.resources import find_config

SHOWN = 5


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        description='Segment images with words of your own.',
        epilog='Exit status: 0, 1 where images were skipped, 2 where nothing was done.',
    )
    parser.add_argument(
        'images', nargs='+', help='files, folders, quoted patterns, videos, http(s) addresses'
    )
    words = parser.add_mutually_exclusive_group(required=True)
    words.add_argument('--classes', help='"cat; red car, automobile": synonyms after commas')
    words.add_argument('--classes-file', metavar='FILE', help='one name a line, or a JSON list')
    words.add_argument('--vocabulary', choices=shipped_vocabularies(), help='a known class list')
    parser.add_argument(
        '--background',
        metavar='WORDS|P',
        help='"wall; floor": words that compete and become background; or a probability 0..1 below '
        'which a pixel is background',
    )
    parser.add_argument(
        '--task',
        choices=('semantic', *TASKS),
        default='semantic',
        help='a label for each pixel, or segments, of a model that finds masks',
    )
    parser.add_argument(
        '--things',
        default='all',
        metavar='WORDS',
        help='classes whose objects are told apart in segments; all by default',
    )
    parser.add_argument('--config', default=DEFAULT_CONFIG, help='name or path of a config')
    parser.add_argument('--weights', help='checkpoint (.pth or .safetensors)')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE')
    parser.add_argument('--device', help='cpu, cuda, cuda:1; default: CUDA where there is one')
    parser.add_argument('--amp', action='store_true', help='mixed precision')
    parser.add_argument('--batch-size', type=int, default=1, help='images or tiles at a time')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/infer'), help='output folder')
    parser.add_argument(
        '--format',
        choices=('png', *FORMATS),
        default='png',
        help='annotations for a labelling tool beside the label maps',
    )
    parser.add_argument('--opacity', type=float, default=0.5, help='of the colours, 0..1')
    parser.add_argument('--frame-step', type=int, default=1, help='every n-th frame of videos')
    parser.add_argument('--max-pixels', type=int, default=MAX_PIXELS, help='of an image')
    parser.add_argument(
        '--shard',
        metavar='I/N',
        help='every N-th image, from the I-th on; under torchrun its rank decides',
    )
    parser.add_argument(
        '--resume', action='store_true', help='pass over images that --out has results of'
    )
    parser.add_argument('--text-cache', metavar='DIR', help='keep text embeddings there')
    parser.add_argument('--strict', action='store_true', help='stop at the first unreadable image')
    parser.add_argument('--verbose', action='store_true', help="show the framework's logs")
    return parser


def read_classes(args: argparse.Namespace) -> list[str]:
    """The words of the command line."""
    if args.classes is not None:
        return parse_words(args.classes)
    path = args.vocabulary or Path(args.classes_file).expanduser().absolute()
    return load_vocabulary(path)


def read_background(text: str | None) -> Background:
    """None, a probability, or words."""
    if text is None:
        return None
    try:
        return float(text)
    except ValueError:
        return parse_words(text)


def build_inferencer(args: argparse.Namespace) -> OpenVocabInferencer:
    """The model of the command line."""
    cfg = Config.fromfile(find_config(args.config))
    if args.cfg_options is not None:
        cfg.merge_from_dict(args.cfg_options)
    if Image.MAX_IMAGE_PIXELS is not None and args.max_pixels > Image.MAX_IMAGE_PIXELS:
        Image.MAX_IMAGE_PIXELS = args.max_pixels  # asked for: Pillow's own limit must not stop it
    return OpenVocabInferencer(
        cfg,
        args.weights,
        device=args.device,
        amp=args.amp,
        text_cache_dir=args.text_cache,
        max_pixels=args.max_pixels,
    )


def run(args: argparse.Namespace, console: Console) -> tuple[Run, bool]:
    """Check the words and images, then segment; files are written as soon as one is finished."""
    shard = find_shard(args.shard)
    if args.device is None and shard.total > 1 and torch.cuda.is_available():
        args.device = f'cuda:{os.environ.get("LOCAL_RANK", "0")}'
    classes, background = read_classes(args), read_background(args.background)
    if background is not None and args.task != 'semantic':
        raise ValueError(
            f'--background is for --task semantic; for {args.task} segments name these words among '
            'the classes, and leave them out of --things'
        )
    sources = list_sources(args.images)
    log = 'infer.log' if shard.total == 1 else f'infer.{shard}.log'
    with logs_to_file(args.out / log, args.verbose):
        return segment(args, sources, classes, background, console)


def segment(
    args: argparse.Namespace,
    sources: list[Source],
    classes: list[str],
    background: Background,
    console: Console,
) -> tuple[Run, bool]:
    """Load the model and segment the images of this shard; whether all shards are finished."""
    inferencer = build_inferencer(args)
    if args.config == DEFAULT_CONFIG:
        console.print('no --config: the small CLIP of the composed world; it knows drawn scenes')
    words = inferencer.plan(classes, background)
    things = args.things if args.things == 'all' else parse_words(args.things)
    settings = dict(
        config=str(args.config),
        weights=args.weights,
        classes=words.classes,
        background=words.threshold if words.threshold is not None else words.background,
        task=args.task,
        things=None if args.task == 'semantic' else things,
    )
    run = Run(args.out, settings, words, find_shard(args.shard), args.resume)
    sources = run.pending(sources)
    columns = (TextColumn('{task.description}'), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        task = progress.add_task('segmenting', total=count_pictures(sources, args.frame_step))

        def skip(name: str, error: Exception) -> None:
            run.skip(name, error)
            progress.advance(task)
            console.print(f'skipped: {error}', style='yellow', markup=False)

        on_error: OnError = 'raise' if args.strict else skip
        shared: dict[str, Any] = dict(opacity=args.opacity, out_dir=args.out, on_error=on_error)
        results: Iterator[Prediction | Segments]
        try:
            if not sources:
                results = iter(())
            elif args.task != 'semantic':
                shared['frame_step'] = args.frame_step
                results = inferencer.segments(sources, classes, things, args.task, **shared)
            else:
                shared.update(batch_size=args.batch_size, frame_step=args.frame_step)
                results = inferencer.stream(sources, classes, background, **shared)
            for found in results:
                run.add_file(found.to_dict())
                progress.advance(task)
        finally:
            complete = run.close()
    if complete:
        finish(args, run, things, console)
    return run, complete


def finish(args: argparse.Namespace, run: Run, things: str | list[str], console: Console) -> None:
    """Write the files that describe all images."""
    classes = list(run.words.classes)
    if args.task == 'panoptic':
        named = classes if things == 'all' else things
        join_panoptic(args.out, classes, [i for i, name in enumerate(classes) if name in named])
    if args.format != 'png':
        path = annotate(args.out, args.format, run.words)
        console.print(f'annotations {path}', soft_wrap=True, highlight=False)


def main(argv: Sequence[str] | None = None) -> int:
    """Run and say what was found; returns the exit status."""
    parser = build_parser()
    args = parser.parse_args(argv)
    for stream in (sys.stdout, sys.stderr):  # words that the terminal cannot show are escaped
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors='backslashreplace')
    console = Console(file=sys.stderr, highlight=False)
    keep_freed_memory()
    try:
        summary, complete = run(args, console)
    except (CheckpointError, ImageError, OSError, TypeError, ValueError) as error:
        parser.exit(2, f'{parser.prog}: error: {error}\n')
    shares = [f'{item["name"]} {100 * item["share"]:.1f} %' for item in summary.found()]
    print(f'{summary.images} images: {first_few(shares, SHOWN, rest=", {} more")}')
    last = args.out / 'summary.json' if complete else 'other shards are not finished'
    print(f'overlays {args.out / "vis"}, labels {args.out / "pred"}, {last}')
    if summary.skipped:
        print(f'{len(summary.skipped)} skipped:')
        for item in summary.skipped:
            print(f'  {item["error"]}')
    return 1 if summary.skipped else 0


if __name__ == '__main__':
    sys.exit(main())
