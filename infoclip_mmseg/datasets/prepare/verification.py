"""Verify a prepared data set: counts, pairs, sizes, label values."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from infoclip_mmseg.datasets.benchmarks import Benchmark
from infoclip_mmseg.datasets.layout import Layout
from infoclip_mmseg.datasets.prepare.label_files import (
    Advance,
    PrepareError,
    check_same_size,
    read_indices,
    read_list,
)
from infoclip_mmseg.datasets.prepare.parallel import map_parallel
from infoclip_mmseg.datasets.transforms import has_end_marker
from infoclip_mmseg.utils.files import first_few

SHOWN = 3
"""Files that a verdict names."""


@dataclass(frozen=True)
class Verdict:
    """One line of a check."""

    ok: bool
    text: str

    def __str__(self) -> str:
        return f'{"ok  " if self.ok else "FAIL"}  {self.text}'


def is_complete(layout: Layout, root: Path, count: int) -> bool:
    """Whether as many label maps as needed and some image are there."""
    has_image = bool(_image_names(layout, root))
    return has_image and len(_label_names(layout, root)) >= count


def check_data_set(
    data_set: Benchmark, root: Path, count: int, workers: int, advance: Advance
) -> list[Verdict]:
    """Check a data set's images and label maps; each label map is decoded.

    Args:
        data_set: Its record. Of the accepted layouts the first whose label maps are there is
            checked.
        root: The data root.
        count: Number of images that it must have.
        workers: Processes.
        advance: Told of each pair.

    Returns:
        Verdicts on count, pairs, sizes and label values.
    """
    layouts = data_set.accepted
    layout = next((one for one in layouts if _label_names(one, root)), layouts[0])
    title = data_set.key
    try:
        names = expected_names(layout, root)
    except PrepareError as error:
        return [Verdict(False, f'{title}: {error}')]
    verdicts = [_judge_count(title, layout, root, len(names), count)]
    if not names:
        return verdicts
    pairs, missing = _pair_up(layout, root, names)
    verdicts.append(_judge(title, 'each image has its label map', 'files are missing', missing))
    sizes, values = [], []
    for size_problem, value_problem in map_parallel(
        partial(inspect_pair, layout, root), pairs, workers
    ):
        advance(1)
        sizes += [size_problem] if size_problem else []
        values += [value_problem] if value_problem else []
    if pairs:
        verdicts.append(_judge(title, 'sizes agree', 'sizes differ or files are damaged', sizes))
        verdicts.append(_judge(title, _range_text(layout), 'wrong label values', values))
    return verdicts


def expected_names(layout: Layout, root: Path) -> list[str]:
    """Names of the images that need a label map.

    Raises:
        PrepareError: The list of them, of which there is one only, is missing.
    """
    lists = layout.listing_files(root)
    there = [path for path in lists if path.is_file()]
    if there or len(lists) == 1:
        return read_list((there or lists)[0])
    names = [] if lists else _image_names(layout, root)
    return names or _label_names(layout, root)


def inspect_pair(layout: Layout, root: Path, name: str) -> tuple[str, str]:
    """Problems of one image and its label map.

    Returns:
        What is wrong with files or sizes, and with the label values; empty where nothing is.
    """
    image, label = layout.image_file(name, root), layout.label_file(name, root)
    try:
        values = read_indices(label)
        check_same_size(values.shape, label, image)
        _check_end(image)
    except ValueError as error:
        return str(error), ''
    if layout.bits == 16 and values.dtype == np.uint8:
        return '', f'{label} has 8 bits a pixel: it can hold neither all classes nor 65535'
    seen = np.unique(values)
    allowed = (seen < layout.num_values) | np.isin(seen, layout.ignored)
    return '', '' if allowed.all() else f'{label} holds {seen[~allowed][:5].tolist()}'


def _pair_up(layout: Layout, root: Path, names: list[str]) -> tuple[list[str], list[str]]:
    """Names of which image and label map are there, and the files that are missing."""
    labelled = set(_label_names(layout, root))
    pictured = set(_image_names(layout, root))
    missing = [str(layout.label_file(name)) for name in names if name not in labelled]
    wanted = set(names) if layout.listings else labelled.union(names)
    missing += [str(layout.image_file(name)) for name in wanted - pictured]
    return [name for name in names if name in labelled and name in pictured], missing


def _check_end(image: Path) -> None:
    """Decode an image without end marker, to tell a cut one from harmless trailing bytes."""
    if has_end_marker(image) is False:
        try:
            with Image.open(image) as opened:
                opened.load()
        except (OSError, SyntaxError) as error:
            raise ValueError(f'image {image} is cut short ({error})') from error


def _judge_count(title: str, layout: Layout, root: Path, actual: int, count: int) -> Verdict:
    text = f'{title}: {actual:,} images, expected {count:,} (labels in {layout.label_folder()})'
    if not actual:
        text += f'; nothing is below {root}: prepare it first'
    return Verdict(actual == count, text)


def _judge(title: str, good: str, bad: str, problems: list[str]) -> Verdict:
    if not problems:
        return Verdict(True, f'{title}: {good}')
    shown = first_few(sorted(problems), SHOWN, '; ', '; and {} more')
    return Verdict(False, f'{title}: {len(problems)} {bad}: {shown}')


def _range_text(layout: Layout) -> str:
    ignored = ' or '.join(map(str, layout.ignored))
    return f'labels are 0..{layout.num_values - 1}' + (f' or {ignored}' if ignored else '')


def _image_names(layout: Layout, root: Path) -> list[str]:
    """Names of the images that are there."""
    return _stems(layout.image_folder(root), layout.image_suffix)


def _label_names(layout: Layout, root: Path) -> list[str]:
    """Names of the label maps that are there."""
    return _stems(layout.label_folder(root), layout.label_suffix)


def _stems(folder: Path, suffix: str) -> list[str]:
    """Names in a folder that end so, without that end; hidden files do not count."""
    if not folder.is_dir():
        return []
    names = (path.name for path in folder.iterdir())
    return sorted(n.removesuffix(suffix) for n in names if n.endswith(suffix) and n[0] != '.')
