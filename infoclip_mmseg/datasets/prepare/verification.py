"""Verify a prepared data set: counts, pairs, sizes, label values."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np

from infoclip_mmseg.datasets.benchmarks import Benchmark, Layout
from infoclip_mmseg.datasets.prepare.label_files import (
    PrepareError,
    Update,
    check_same_size,
    read_indices,
    read_list,
)
from infoclip_mmseg.datasets.prepare.parallel import map_parallel
from infoclip_mmseg.datasets.transforms import check_image_file
from infoclip_mmseg.utils.files import first_few

SHOWN = 3
"""Files that a verdict names."""


class Verdict(NamedTuple):
    """One line of a check."""

    ok: bool
    text: str

    def __str__(self) -> str:
        return f'{"ok  " if self.ok else "FAIL"}  {self.text}'


def check_data_set(data_set: Benchmark, root: Path, workers: int, update: Update) -> list[Verdict]:
    """Check a data set's images and label maps; each label map is decoded.

    Of the accepted layouts the first whose label maps are there is checked.

    Returns:
        Verdicts on count, pairs, sizes and label values.
    """
    key, count, layouts = data_set.key, data_set.num_images, data_set.accepted
    layout = next((one for one in layouts if one.label_names(root)), layouts[0])
    update(total=count)
    try:
        names = expected_names(layout, root)
    except PrepareError as error:
        return [Verdict(False, f'{key}: {error}')]
    text = f'{key}: {len(names):,} images, expected {count:,} (labels in {layout.label_folder()})'
    if not names:
        return [Verdict(False, f'{text}; nothing is below {root}: prepare it first')]
    verdicts = [Verdict(len(names) == count, text)]
    pairs, missing = _pair_up(layout, root, names)
    verdicts.append(_judge(key, 'each image has its label map', 'files are missing', missing))
    sizes, values = [], []
    for size, value in map_parallel(partial(inspect_pair, layout, root), pairs, workers):
        update(advance=1)
        sizes += [size] if size else []
        values += [value] if value else []
    if pairs:
        ranges = ' or '.join(map(str, (f'0..{layout.num_values - 1}', *layout.ignored)))
        verdicts.append(_judge(key, 'sizes agree', 'sizes differ or files are damaged', sizes))
        verdicts.append(_judge(key, f'labels are {ranges}', 'wrong label values', values))
    return verdicts


def expected_names(layout: Layout, root: Path) -> list[str]:
    """Names of the images that need a label map.

    Raises:
        PrepareError: The list of them, of which there is one only, is missing.
    """
    lists = layout.listing_files(root)
    if len(lists) == 1 or any(path.is_file() for path in lists):
        return read_list(lists)
    names = [] if lists else layout.image_names(root)
    return names or layout.label_names(root)


def inspect_pair(layout: Layout, root: Path, name: str) -> tuple[str, str]:
    """What is wrong with files or sizes of a pair, and with its label values; '' for nothing."""
    image, label = layout.image_file(name, root), layout.label_file(name, root)
    try:
        values = read_indices(label)
        check_same_size(values.shape, label, image)
        check_image_file(image)
    except (ValueError, OSError) as error:
        return str(error), ''
    if layout.bits == 16 and values.dtype == np.uint8:
        return '', f'{label} has 8 bits a pixel: it can hold neither all classes nor 65535'
    seen = np.unique(values)
    allowed = (seen < layout.num_values) | np.isin(seen, layout.ignored)
    return '', '' if allowed.all() else f'{label} holds {seen[~allowed][:5].tolist()}'


def _pair_up(layout: Layout, root: Path, names: list[str]) -> tuple[list[str], list[str]]:
    """Names of which image and label map are there, and the files that are missing."""
    labelled, pictured = set(layout.label_names(root)), set(layout.image_names(root))
    missing = [str(layout.label_file(name)) for name in names if name not in labelled]
    wanted = set(names) if layout.listings else labelled.union(names)
    missing += [str(layout.image_file(name)) for name in wanted - pictured]
    return [name for name in names if name in labelled and name in pictured], missing


def _judge(key: str, good: str, bad: str, problems: list[str]) -> Verdict:
    if not problems:
        return Verdict(True, f'{key}: {good}')
    shown = first_few(sorted(problems), SHOWN, '; ', '; and {} more')
    return Verdict(False, f'{key}: {len(problems)} {bad}: {shown}')
