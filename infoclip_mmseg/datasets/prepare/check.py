"""Verify a prepared data set: counts, pairs, sizes, label values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from infoclip_mmseg.datasets.prepare.files import (
    Advance,
    PrepareError,
    check_same_size,
    read_indices,
)
from infoclip_mmseg.datasets.prepare.parallel import map_parallel
from infoclip_mmseg.datasets.transforms import has_end_marker

SHOWN = 3
"""Files that a verdict names."""


@dataclass(frozen=True)
class Layout:
    """Where images and label maps of a data set are, and what they may hold.

    Attributes:
        title: Name in the verdicts.
        count: Images in the published set.
        images: Folder of `NAME.jpg`, relative to the data root.
        labels: Folder of the label maps, likewise.
        label_suffix: What follows NAME in the name of a label map.
        num_labels: Labels 0..num_labels - 1 are allowed.
        ignored: Allowed besides.
        names: Gives the names below a data root; none where they are those of the images.
        bits: Of a pixel of the label map.
    """

    title: str
    count: int
    images: Path
    labels: Path
    label_suffix: str
    num_labels: int
    ignored: tuple[int, ...] = ()
    names: Callable[[Path], list[str]] | None = None
    bits: int = 8

    def label_names(self, root: Path) -> list[str]:
        """Names of the label maps that are there."""
        return _stems(root / self.labels, self.label_suffix)

    def expected_names(self, root: Path) -> list[str]:
        """Names of the images that need a label map.

        Raises:
            PrepareError: Their list is missing.
        """
        listed = self.names(root) if self.names else _stems(root / self.images, '.jpg')
        return listed or self.label_names(root)

    def is_complete(self, root: Path, count: int) -> bool:
        """Whether as many label maps as needed and some image are there."""
        has_image = any((root / self.images).glob('*.jpg'))
        return has_image and len(self.label_names(root)) >= count


@dataclass(frozen=True)
class Verdict:
    """One line of a check."""

    ok: bool
    text: str

    def __str__(self) -> str:
        return f'{"ok  " if self.ok else "FAIL"}  {self.text}'


def choose_layout(layouts: Sequence[Layout], root: Path) -> Layout:
    """The first of the alternative layouts whose label maps are there, else the first."""
    return next((one for one in layouts if one.label_names(root)), layouts[0])


def check_layout(
    layout: Layout, root: Path, counts: Mapping[str, int], workers: int, advance: Advance
) -> list[Verdict]:
    """Check one set of images and label maps; each label map is decoded.

    Args:
        layout: Where it is and what it may hold.
        root: The data root.
        counts: Numbers of images by title, in place of the published ones.
        workers: Processes.
        advance: Told of each pair.

    Returns:
        Verdicts on count, pairs, sizes and label values.
    """
    count = counts.get(layout.title, layout.count)
    try:
        names = layout.expected_names(root)
    except PrepareError as error:
        return [Verdict(False, f'{layout.title}: {error}')]
    verdicts = [_judge_count(layout, root, names, count)]
    if not names:
        return verdicts
    pairs, missing = _pair_up(layout, root, names)
    verdicts.append(_judge(layout, 'each image has its label map', 'files are missing', missing))
    sizes, values = [], []
    for size_problem, value_problem in map_parallel(
        partial(inspect_pair, layout, root), pairs, workers
    ):
        advance(1)
        sizes += [size_problem] if size_problem else []
        values += [value_problem] if value_problem else []
    if pairs:
        verdicts.append(_judge(layout, 'sizes agree', 'sizes differ or files are damaged', sizes))
        verdicts.append(_judge(layout, _range_text(layout), 'wrong label values', values))
    return verdicts


def inspect_pair(layout: Layout, root: Path, name: str) -> tuple[str, str]:
    """Problems of one image and its label map.

    Returns:
        What is wrong with files or sizes, and with the label values; empty where nothing is.
    """
    image = root / layout.images / f'{name}.jpg'
    label = root / layout.labels / f'{name}{layout.label_suffix}'
    try:
        values = read_indices(label)
        check_same_size(values.shape, label, image)
        _check_end(image)
    except ValueError as error:
        return str(error), ''
    if layout.bits == 16 and values.dtype == np.uint8:
        return '', f'{label} has 8 bits a pixel: it can hold neither all classes nor 65535'
    seen = np.unique(values)
    allowed = (seen < layout.num_labels) | np.isin(seen, layout.ignored)
    return '', '' if allowed.all() else f'{label} holds {seen[~allowed][:5].tolist()}'


def _pair_up(layout: Layout, root: Path, names: list[str]) -> tuple[list[str], list[str]]:
    """Names of which image and label map are there, and the files that are missing."""
    labelled = set(layout.label_names(root))
    pictured = set(_stems(root / layout.images, '.jpg'))
    missing = [
        f'{layout.labels / name}{layout.label_suffix}' for name in names if name not in labelled
    ]
    wanted = set(names) if layout.names else labelled.union(names)
    missing += [f'{layout.images / name}.jpg' for name in wanted - pictured]
    return [name for name in names if name in labelled and name in pictured], missing


def _check_end(image: Path) -> None:
    """Decode an image without end marker, to tell a cut one from harmless trailing bytes."""
    if has_end_marker(image) is False:
        try:
            with Image.open(image) as opened:
                opened.load()
        except (OSError, SyntaxError) as error:
            raise ValueError(f'image {image} is cut short ({error})') from error


def _judge_count(layout: Layout, root: Path, names: list[str], count: int) -> Verdict:
    text = f'{layout.title}: {len(names):,} images, expected {count:,} (labels in {layout.labels})'
    ok = len(names) == count
    if not names:
        text += f'; nothing is below {root}: prepare it first'
    return Verdict(ok, text)


def _judge(layout: Layout, good: str, bad: str, problems: list[str]) -> Verdict:
    if not problems:
        return Verdict(True, f'{layout.title}: {good}')
    shown = '; '.join(sorted(problems)[:SHOWN])
    more = f'; and {len(problems) - SHOWN} more' if len(problems) > SHOWN else ''
    return Verdict(False, f'{layout.title}: {len(problems)} {bad}: {shown}{more}')


def _range_text(layout: Layout) -> str:
    ignored = ' or '.join(map(str, layout.ignored))
    return f'labels are 0..{layout.num_labels - 1}' + (f' or {ignored}' if ignored else '')


def _stems(folder: Path, suffix: str) -> list[str]:
    """Names in a folder that end so, without that end; hidden files do not count."""
    if not folder.is_dir():
        return []
    names = (path.name for path in folder.iterdir())
    return sorted(n.removesuffix(suffix) for n in names if n.endswith(suffix) and n[0] != '.')
