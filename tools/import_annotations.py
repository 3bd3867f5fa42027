#!/usr/bin/env python
"""Turn annotations of labelme, COCO or CVAT into a data set of one's own.

Usage: python tools/import_annotations.py ANNOTATIONS [--images DIR] [--out data/mine]
       python tools/import_annotations.py labelme_folder/ --rest background --val 0.2

ANNOTATIONS is a folder of labelme's .json files, a .json in COCO's form or an .xml of CVAT ("CVAT
for images 1.1"). Written are classes.txt, images/{train,val} and labels/{train,val}, as
configs/custom/infoclip_vitb16_folder.py reads them. Pixels without a shape have no label, or with
--rest the class of that name.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image
from rich.progress import track

from infoclip_mmseg.annotations.reading import (
    Annotated,
    AnnotationError,
    label_map,
    label_names,
    read_annotations,
    split,
)
from infoclip_mmseg.utils.files import first_few, write_text, write_whole


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(description='Annotations to a data set of your own.')
    parser.add_argument('annotations', type=Path, help='labelme folder, COCO .json, CVAT .xml')
    parser.add_argument(
        '--images', type=Path, help='folder that image names count from; default: that of the file'
    )
    parser.add_argument('--out', type=Path, default=Path('data/mine'), help='folder to write')
    parser.add_argument('--rest', metavar='NAME', help='class of pixels without a shape')
    parser.add_argument('--val', type=float, default=0.2, help='share held out, 0..1')
    parser.add_argument('--seed', type=int, default=0, help='of the choice of these')
    return parser


def find_images(args: argparse.Namespace, annotated: Sequence[Annotated]) -> list[Path]:
    """The image files, all checked.

    Raises:
        FileNotFoundError: Some are not there.
        AnnotationError: Sizes differ, two images have one name, or nothing is annotated.
    """
    source = args.annotations
    folder = args.images or (source if source.is_dir() else source.parent)
    paths = [folder / one.image for one in annotated]
    missing = [str(path) for path in paths if not path.is_file()]
    if missing:
        raise FileNotFoundError(
            f'{len(missing)} of {len(paths)} images are not there: {first_few(missing)}; tell '
            'their folder by --images'
        )
    twice = [stem for stem, count in Counter(path.stem for path in paths).items() if count > 1]
    if twice:
        raise AnnotationError(f'several images have the name {first_few(twice)}: rename them')
    for path, one in zip(paths, annotated):
        with Image.open(path) as image:
            if image.size != one.size[::-1]:
                raise AnnotationError(
                    f'{path} has {image.width} x {image.height} pixels, its annotations say '
                    f'{one.size[1]} x {one.size[0]}'
                )
    return paths


def convert(args: argparse.Namespace) -> str:
    """Write the data set; returns what is said of it."""
    if not 0 <= args.val < 1:
        raise ValueError(f'--val must be 0 or more and below 1, got {args.val}')
    annotated = read_annotations(args.annotations)
    names = label_names(annotated)
    if not names:
        raise AnnotationError(f'{args.annotations}: no shape with an area in it')
    paths = find_images(args, annotated)
    if args.rest is not None:
        names = [args.rest, *(name for name in names if name != args.rest)]
    if len(names) == 1:
        raise AnnotationError(
            f'{names[0]!r} is the only class; name the other pixels too, by --rest background'
        )
    empty = 0 if args.rest is not None else (255 if len(names) <= 255 else 65535)
    write_text(args.out / 'classes.txt', '\n'.join(names) + '\n')
    parts = split(len(paths), args.val, args.seed)
    jobs = list(zip(paths, annotated, parts))
    for path, one, part in track(jobs, 'images', transient=True):
        with write_whole(args.out / 'labels' / part / f'{path.stem}.png') as draft:
            Image.fromarray(label_map(one, names, empty)).save(draft, 'PNG')
        with write_whole(args.out / 'images' / part / path.name) as draft:
            shutil.copyfile(path, draft)
    left_out = Counter(kind for one in annotated for kind in one.left_out)
    told = ''.join(f'; left out: {count} of kind {kind}' for kind, count in left_out.items())
    counts = Counter(part for *_, part in jobs)
    return (
        f'{args.out}: {counts["train"]} images to train, {counts["val"]} to validate, '
        f'{len(names)} classes ({first_few(names)}){told}'
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Convert, and say what came out."""
    parser = build_parser()
    try:
        print(convert(parser.parse_args(argv)))
    except (OSError, ValueError) as error:
        parser.exit(2, f'{parser.prog}: error: {error}\n')


if __name__ == '__main__':
    main()
