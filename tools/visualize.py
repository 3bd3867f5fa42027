#!/usr/bin/env python
"""Draw the paper's figures, as PNG and PDF.

Usage: python tools/visualize.py alignment IMAGES --classes "cat; dog" [--config C --weights W]
       python tools/visualize.py tsne IMAGES --vocabulary ade150 --config C1 --weights W1 \
           --config C2 --weights W2
       python tools/visualize.py lambda results.csv
       python tools/visualize.py decoded results.csv
       python tools/visualize.py sheet IMAGES --vocabulary ade150 --truth LABELS

--config and --weights may be repeated, a pair for each checkpoint. Without --config the small CLIP
of the composed world is used: nothing is downloaded, and it knows nothing but drawn scenes.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from mmengine.config import Config
from numpy.typing import NDArray
from PIL import Image

from infoclip_mmseg.apis import OpenVocabInferencer, list_sources
from infoclip_mmseg.apis.image_sources import Limits, Picture, read_pictures
from infoclip_mmseg.apis.inferencer import DEFAULT_CONFIG
from infoclip_mmseg.apis.relation_maps import align, dense_embeddings, load_lpam
from infoclip_mmseg.apis.words import load_classes, parse_words
from infoclip_mmseg.datasets.vocabularies import load_vocabulary, shipped_vocabularies
from infoclip_mmseg.engine.cfg_options import CfgOptions
from infoclip_mmseg.engine.launch import keep_freed_memory
from infoclip_mmseg.utils.checkpoint_files import CheckpointError
from infoclip_mmseg.utils.images import ImageError
from infoclip_mmseg.utils.resources import find_config
from infoclip_mmseg.visualization.decoded import draw_decoded
from infoclip_mmseg.visualization.lettering import figure_paths, save_figure
from infoclip_mmseg.visualization.paper_figures import (
    draw_alignment,
    draw_embeddings,
    draw_weights,
    embed_2d,
    import_sklearn,
    sample_points,
)
from infoclip_mmseg.visualization.sheet import draw_sheet, find_truths, read_truth

MAX_WORDS = 12
"""Columns of heat maps that a page can show."""
NO_WEIGHTS = 'none'


class Checkpoint(NamedTuple):
    """What one column of a figure is made with."""

    title: str
    config: Path
    weights: str | None


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description="Draw the paper's figures, as PNG and PDF.")
    commands = parser.add_subparsers(dest='command', required=True)
    alignment = commands.add_parser(
        'alignment', help='heat maps of words: cosine cost volume against LPAM (Figure 4)'
    )
    _add_model_arguments(alignment, limit=4)
    alignment.add_argument(
        '--scale', choices=('row', 'map'), default='row', help='what shares a colour scale'
    )
    tsne = commands.add_parser(
        'tsne', help='t-SNE of dense embeddings, coloured by predicted class (Figure 3)'
    )
    _add_model_arguments(tsne, limit=50)
    tsne.add_argument('--points', type=int, default=2000, help='patches that are drawn at most')
    tsne.add_argument('--perplexity', type=float, default=30.0)
    tsne.add_argument('--seed', type=int, default=0, help='of the choice of patches and of t-SNE')
    weights = commands.add_parser(
        'lambda', help='heat map over two loss weights from ablation results (Figure 5)'
    )
    weights.add_argument('results', nargs='+', type=Path, help='results.csv of tools/ablation.py')
    weights.add_argument('--tests', nargs='+', default=[], help='those to show; default: all')
    weights.add_argument('--figures', nargs='+', default=[], help='those to show; default: all')
    decoded = commands.add_parser('decoded', help='quality against the number of decoded classes')
    decoded.add_argument('results', nargs='+', type=Path, help='results.csv of tools/ablation.py')
    decoded.add_argument('--figure', default='harmonic', help='of merit (default: %(default)s)')
    sheet = commands.add_parser('sheet', help='images, ground truth and predictions with a legend')
    _add_model_arguments(sheet, limit=8)
    sheet.add_argument('--truth', type=Path, metavar='DIR', help='folder with STEM.png label files')
    sheet.add_argument(
        '--reduce-zero-label', action='store_true', help='labels begin at 1, as in ADE20K'
    )
    sheet.add_argument('--opacity', type=float, default=0.7, help='of the colours, 0..1')
    for command, one in commands.choices.items():
        one.add_argument(
            '--out',
            type=Path,
            default=Path('work_dirs/figures') / command,
            help='FILE.png or FILE.pdf; without suffix both (default: %(default)s)',
        )
    return parser


def _add_model_arguments(parser: argparse.ArgumentParser, limit: int) -> None:
    parser.add_argument('images', nargs='+', help='files, folders, quoted patterns, addresses')
    words = parser.add_mutually_exclusive_group(required=True)
    words.add_argument('--classes', help='"cat; red car, automobile": synonyms after commas')
    words.add_argument('--classes-file', metavar='FILE', help='one name a line, or a JSON list')
    words.add_argument('--vocabulary', choices=shipped_vocabularies(), help='a known class list')
    parser.add_argument('--config', action='append', help='name or path; repeated for more')
    parser.add_argument(
        '--weights', action='append', help=f'checkpoint of each config, or {NO_WEIGHTS!r}'
    )
    parser.add_argument('--title', action='append', help='of each checkpoint in the figure')
    parser.add_argument('--cfg-options', nargs='+', action=CfgOptions, metavar='KEY=VALUE')
    parser.add_argument('--device', help='cpu, cuda, cuda:1; default: CUDA where there is one')
    parser.add_argument('--limit', type=int, default=limit, help='images (default: %(default)s)')


def read_classes(args: argparse.Namespace) -> list[str]:
    """The words of the command line."""
    if args.classes is not None:
        return load_classes(parse_words(args.classes))
    path = args.vocabulary or Path(args.classes_file).expanduser().absolute()
    return load_classes(load_vocabulary(path))


def pair_checkpoints(args: argparse.Namespace) -> list[Checkpoint]:
    """Configs with their weights; a single config serves all weights.

    Raises:
        FileNotFoundError: A config is not there.
        ValueError: The numbers of configs, weights and titles do not fit together.
    """
    configs = args.config or [DEFAULT_CONFIG]
    weights = args.weights or [NO_WEIGHTS] * len(configs)
    if len(configs) == 1:
        configs = configs * len(weights)
    if len(configs) != len(weights):
        raise ValueError(
            f'{len(configs)} --config and {len(weights)} --weights: repeat both as often as there '
            f'are checkpoints (--weights {NO_WEIGHTS} for a config that needs none)'
        )
    titles = args.title or _make_titles(configs, weights)
    if len(titles) != len(configs) or len(set(titles)) != len(titles):
        raise ValueError(
            f'expected a different --title for each of {len(configs)} checkpoints, got {titles}'
        )
    return [
        Checkpoint(title, find_config(config), None if path == NO_WEIGHTS else path)
        for title, config, path in zip(titles, configs, weights)
    ]


def _make_titles(configs: Sequence[str], weights: Sequence[str]) -> list[str]:
    """Names of the configs; of the weights too, where the configs do not tell them apart."""
    titles = [Path(config).stem for config in configs]
    if len(set(titles)) < len(titles):
        titles = [f'{title} {Path(path).stem}' for title, path in zip(titles, weights)]
    if len(set(titles)) < len(titles):
        titles = [f'{title} ({index + 1})' for index, title in enumerate(titles)]
    return titles


def open_models(
    checkpoints: Sequence[Checkpoint], args: argparse.Namespace
) -> Iterator[tuple[Checkpoint, OpenVocabInferencer]]:
    """Models one after the other, so that only one is in memory."""
    for checkpoint in checkpoints:
        cfg = Config.fromfile(checkpoint.config)
        if args.cfg_options is not None:
            cfg.merge_from_dict(args.cfg_options)
        print(f'{checkpoint.title}: {checkpoint.config}, weights {checkpoint.weights}')
        yield checkpoint, OpenVocabInferencer(cfg, checkpoint.weights, device=args.device)


def read_images(args: argparse.Namespace) -> list[Picture]:
    """The first images; says where there are more."""
    if args.limit < 1:
        raise ValueError(f'--limit must be 1 or more, got {args.limit}')
    pictures = read_pictures(list_sources(args.images), Limits())
    first = list(itertools.islice(pictures, args.limit + 1))
    if len(first) > args.limit:
        print(f'the first {args.limit} images are drawn; --limit changes that')
    return first[: args.limit]


def predict(
    inferencer: OpenVocabInferencer, pictures: Sequence[Picture], classes: Sequence[str]
) -> list[NDArray]:
    """Label maps (h, w) of pictures."""
    images = [Image.fromarray(picture.image) for picture in pictures]
    return [prediction.labels for prediction in inferencer.stream(images, classes)]


def run_alignment(args: argparse.Namespace) -> list[Path]:
    """Heat maps of each image and word."""
    classes, checkpoints = read_classes(args), pair_checkpoints(args)
    if len(classes) > MAX_WORDS:
        raise ValueError(
            f'{len(classes)} words are too many for a figure: choose up to {MAX_WORDS} with '
            '--classes "sky; tree"'
        )
    pictures = read_images(args)
    rows: dict[str, list[NDArray[np.float32]]] = {}
    for checkpoint, inferencer in open_models(checkpoints, args):
        lpam = load_lpam(inferencer.cfg, checkpoint.weights, inferencer.model)
        if lpam is None:
            print(f'{checkpoint.title}: no LPAM in this checkpoint, cosines only')
        words = inferencer.plan(classes)
        before = f'{checkpoint.title}\n' if len(checkpoints) > 1 else ''
        for picture in pictures:
            maps = align(inferencer.model, picture.image, words.model_names, lpam)
            rows.setdefault(f'{before}cosine', []).append(maps.cosine[words.owners])
            if maps.relation is not None:
                rows.setdefault(f'{before}LPAM', []).append(maps.relation[words.owners])
    images = [picture.image for picture in pictures]
    return save_figure(draw_alignment(images, rows, classes, args.scale), args.out)


def run_tsne(args: argparse.Namespace) -> list[Path]:
    """A panel of points for each checkpoint."""
    import_sklearn()
    if args.points < 1:
        raise ValueError(f'--points must be 1 or more, got {args.points}')
    classes, checkpoints = read_classes(args), pair_checkpoints(args)
    pictures = read_images(args)
    panels = {}
    for checkpoint, inferencer in open_models(checkpoints, args):
        words = inferencer.plan(classes)
        points, labels = [], []
        for picture, label_map in zip(pictures, predict(inferencer, pictures, classes)):
            dense = dense_embeddings(inferencer.model, picture.image)[0].float().cpu().numpy()
            points.append(dense.reshape(len(dense), -1).T)
            labels.append(labels_of_patches(label_map, dense.shape[1:]).ravel())
        joined = np.concatenate(points)
        chosen = sample_points(len(joined), args.points, args.seed)
        places = embed_2d(joined[chosen], args.perplexity, args.seed)
        panels[checkpoint.title] = (places, np.concatenate(labels)[chosen])
    return save_figure(draw_embeddings(panels, words.names, words.palette), args.out)


def labels_of_patches(labels: NDArray, grid: Sequence[int]) -> NDArray:
    """Labels (H, W) at the middle of each patch of a label map (h, w)."""
    rows, columns = (((np.arange(n) + 0.5) * s / n).astype(int) for n, s in zip(grid, labels.shape))
    return labels[np.ix_(rows, columns)]


def run_lambda(args: argparse.Namespace) -> list[Path]:
    """Figures of merit over two loss weights; pandas is wanted for this figure alone."""
    from infoclip_mmseg.experiments.ablation.tables import read_results

    figure = draw_weights(read_results(args.results), args.tests, args.figures)
    return save_figure(figure, args.out)


def run_decoded(args: argparse.Namespace) -> list[Path]:
    """Differences to all classes, over K."""
    from infoclip_mmseg.experiments.ablation.tables import read_results

    return save_figure(draw_decoded(read_results(args.results), args.figure), args.out)


def run_sheet(args: argparse.Namespace) -> list[Path]:
    """Images, ground truth where it is given, a column for each checkpoint."""
    if not 0 <= args.opacity <= 1:
        raise ValueError(f'--opacity must be 0..1, got {args.opacity}')
    classes, checkpoints = read_classes(args), pair_checkpoints(args)
    pictures = read_images(args)
    truth = None if args.truth is None else 'ground truth'
    columns: dict[str, list[NDArray]] = {}
    if truth is not None:
        columns[truth] = [
            read_truth(path, picture.image.shape[:2], len(classes), args.reduce_zero_label)
            for path, picture in zip(find_truths([p.stem for p in pictures], args.truth), pictures)
        ]
    for checkpoint, inferencer in open_models(checkpoints, args):
        words = inferencer.plan(classes)
        columns[checkpoint.title] = predict(inferencer, pictures, classes)
    images = [picture.image for picture in pictures]
    names, palette = words.names, words.palette
    draw_sheet(args.out, images, columns, names, palette, truth, opacity=args.opacity)
    return figure_paths(args.out)


RUN = dict(alignment=run_alignment, tsne=run_tsne, decoded=run_decoded, sheet=run_sheet)
RUN['lambda'] = run_lambda


def main(argv: Sequence[str] | None = None) -> None:
    """Draw; bad input ends the program with one error line and exit status 2."""
    parser = build_parser()
    args = parser.parse_args(argv)
    keep_freed_memory()
    try:
        figure_paths(args.out)
        paths = RUN[args.command](args)
    except (CheckpointError, ImageError, ImportError, OSError, TypeError, ValueError) as error:
        parser.exit(2, f'{parser.prog}: error: {error}\n')
    print(', '.join(map(str, paths)))


if __name__ == '__main__':
    main()
