"""From nothing to a prepared data set: fetch, unpack, convert; check counts, sizes, labels."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import rich.progress as bars
from rich.console import Console

from infoclip_mmseg.datasets.benchmarks import (
    BENCHMARKS,
    COCO_PANOPTIC,
    COCO_PANOPTIC_SPLITS,
    COCO_SPLITS,
    PANOPTIC_BENCHMARKS,
    Benchmark,
    Layout,
)
from infoclip_mmseg.datasets.checks import check_image_file
from infoclip_mmseg.datasets.prepare import ade847, conversions, panoptic
from infoclip_mmseg.datasets.prepare.archives import Source, fetch, unpack
from infoclip_mmseg.datasets.prepare.label_files import (
    PrepareError,
    Task,
    Update,
    check_same_size,
    map_parallel,
    read_indices,
    read_list,
    run_tasks,
)
from infoclip_mmseg.utils.files import first_few

FindTasks = Callable[[Path], list[Task]]
Finish = Callable[[Path, int, Update], None]


@dataclass(frozen=True)
class Recipe:
    """How a data set, by its name on the command line, is prepared, and what has to be fetched.

    ``find_tasks`` gives the conversions below a data root; None where nothing is converted.
    ``finish`` makes what comes of all of them, with a number of processes; None for nothing.
    """

    name: str
    parts: tuple[Benchmark, ...]
    sources: tuple[Source, ...]
    find_tasks: FindTasks | None = None
    finish: Finish | None = None

    def is_complete(self, root: Path) -> bool:
        """Whether one layout of each part has some image and as many label maps as needed."""
        return all(
            any(
                layout.image_names(root)
                and len(layout.label_names(root)) >= part.num_images
                and (not layout.is_panoptic or layout.segments_file(root).is_file())
                for layout in part.accepted
            )
            for part in self.parts
        )


_FILE = files('infoclip_mmseg.datasets.prepare') / 'sources.json'
_RECORDS = json.loads(_FILE.read_text(encoding='utf-8'))
_COCO_STUFF = ('coco_train coco_val coco_labels', conversions.find_coco_stuff_tasks)
_BENCHMARKS: dict[str, tuple[str, FindTasks | None]] = {
    'ade150': ('ade_challenge', None),
    'ade847': ('ade_full', ade847.find_tasks),
    'pc459': ('voc2010 context_mat context_list', conversions.find_pc459_tasks),
    'pc59': ('voc2010 context_json context_list', conversions.find_pc59_tasks),
    'voc20': ('voc2012', partial(conversions.find_voc_tasks, 'voc20')),
    'voc20b': ('voc2012', partial(conversions.find_voc_tasks, 'voc20b')),
}


def _sources(keys: str) -> tuple[Source, ...]:
    return tuple(Source(**_RECORDS[key]) for key in keys.split())


def _recipe(name: str, parts: tuple[Benchmark, ...], sources: str, *steps: Any) -> Recipe:
    return Recipe(name, parts, _sources(sources), *steps)


_COCO_IMAGES = (replace(one, folder=COCO_PANOPTIC) for one in _sources('coco_train coco_val'))
_COCO_MAPS = _sources('coco_panoptic coco_panoptic_train coco_panoptic_val')
_ADE_PANOPTIC = (
    'ade_challenge ade_instances',
    panoptic.find_ade_tasks,
    panoptic.write_ade_segments,
)
_PANOPTIC = (
    Recipe('coco-panoptic', COCO_PANOPTIC_SPLITS, (*_COCO_IMAGES, *_COCO_MAPS)),
    _recipe('ade150-panoptic', (*PANOPTIC_BENCHMARKS.values(),), *_ADE_PANOPTIC),
)
RECIPES: dict[str, Recipe] = {
    'coco-stuff': _recipe('coco-stuff', COCO_SPLITS, *_COCO_STUFF),
    **{key: _recipe(key, (BENCHMARKS[key],), *rest) for key, rest in _BENCHMARKS.items()},
    **{recipe.name: recipe for recipe in _PANOPTIC},
}


@contextmanager
def progress_bar(console: Console, what: str, in_bytes: bool = False) -> Iterator[Update]:
    """A progress bar; it is drawn once, at its end, where the output is no terminal."""
    columns: list[bars.ProgressColumn] = [bars.TextColumn('{task.description}'), bars.BarColumn()]
    if in_bytes:
        columns += [bars.DownloadColumn(), bars.TransferSpeedColumn()]
    else:
        columns.append(bars.MofNCompleteColumn())
    with bars.Progress(*columns, bars.TimeRemainingColumn(), console=console) as progress:
        yield partial(progress.update, progress.add_task(what, total=None))


def prepare(recipe: Recipe, root: Path, download: bool, workers: int, console: Console) -> None:
    """Bring a data set below a data root into the layout that the configs read.

    With `download` what is missing is fetched; conversion runs in `workers` processes. A
    PrepareError tells what has to be fetched and from where, of a file that is damaged or of
    another release, or of a full disk.
    """
    say = partial(console.out, highlight=False)
    if recipe.is_complete(root):
        say(f'{recipe.name}: already prepared')
        return
    provide_sources(recipe, root, download, console)
    if recipe.find_tasks is None:
        say(f'{recipe.name}: ready, nothing to convert')
        return
    say(f'{recipe.name}: looking at what there is to convert')
    tasks = recipe.find_tasks(root)
    if not tasks:
        raise PrepareError(f'{recipe.name}: there is no image below {root}; unpack it again')
    with progress_bar(console, f'{recipe.name}: convert') as update:
        update(total=len(tasks))
        run_tasks(tasks, workers, update)
    if recipe.finish is not None:
        with progress_bar(console, f'{recipe.name}: list segments') as update:
            recipe.finish(root, workers, update)
    say(f'{recipe.name}: {len(tasks):,} converted, to {tasks[0].outputs[-1].parent}')


def provide_sources(recipe: Recipe, root: Path, download: bool, console: Console) -> None:
    """Fetch (if asked to) and unpack what a data set is made from; see :func:`prepare`."""
    missing = []
    for source in recipe.sources:
        archive = source.find(root)
        if archive is None and not source.is_there(root):
            if not (download and source.urls):
                missing.append(source)
                continue
            with progress_bar(console, f'fetch {source.filename}', in_bytes=True) as update:
                archive = fetch(source, root, update)
        if archive is not None:
            _unpack_once(source, archive, root, console)
    if missing:
        parts = '\n'.join(f'  {source.describe(root)}' for source in missing)
        can_fetch = not download and any(source.urls for source in missing)
        hint = '\nWith --download what has an address is fetched.' if can_fetch else ''
        raise PrepareError(f'{recipe.name} needs:\n{parts}{hint}')


def _unpack_once(source: Source, archive: Path, root: Path, console: Console) -> None:
    """Unpack an archive unless a mark beside it says that this was done to the end."""
    mark = archive.with_name(f'{archive.name}.unpacked')
    size = archive.stat().st_size
    done = mark.read_text().splitlines() if mark.is_file() else []
    line = f'{size} {source.folder}'  # two data sets may take the same archive
    if source.is_there(root) and line in done:
        return
    with progress_bar(console, f'unpack {source.filename}', in_bytes=True) as update:
        update(total=size)
        unpack(source, archive, root, update)
    if archive.is_file():
        mark.write_text('\n'.join([*done, line]))


class Verdict(NamedTuple):
    """One line of a check."""

    ok: bool
    text: str

    def __str__(self) -> str:
        return f'{"ok  " if self.ok else "FAIL"}  {self.text}'


def check(recipe: Recipe, root: Path, workers: int, console: Console) -> list[Verdict]:
    """Verdicts on every part of a prepared data set; see :func:`check_data_set`."""
    verdicts = []
    for part in recipe.parts:
        with progress_bar(console, f'check {part.key}') as update:
            verdicts += check_data_set(part, root, workers, update)
    return verdicts


def check_data_set(data_set: Benchmark, root: Path, workers: int, update: Update) -> list[Verdict]:
    """Verdicts on a data set's count, pairs, sizes and label values, or ids; each map is decoded.

    Of the accepted layouts the first whose label maps are there is checked.
    """
    key, count, layouts = data_set.key, data_set.num_images, data_set.accepted
    layout = next((one for one in layouts if one.label_names(root)), layouts[0])
    update(total=count)
    try:
        segments = panoptic.read_segments(layout, root) if layout.is_panoptic else {}
        names = list(segments) or expected_names(layout, root)
    except PrepareError as error:
        return [Verdict(False, f'{key}: {error}')]
    text = f'{key}: {len(names):,} images, expected {count:,} (labels in {layout.label_folder()})'
    if not names:
        return [Verdict(False, f'{text}; nothing is below {root}: prepare it first')]
    verdicts = [Verdict(len(names) == count, text)]
    pairs, missing = _pair_up(layout, root, names)
    verdicts.append(_judge(key, 'each image has its label map', 'files are missing', missing))
    sizes, values = [], []
    inspect: Any = panoptic.inspect_id_map if segments else inspect_pair
    items = [(name, segments[name]) for name in pairs] if segments else pairs
    for size, value in map_parallel(partial(inspect, layout, root), items, workers):
        update(advance=1)
        sizes += [size] if size else []
        values += [value] if value else []
    if pairs:
        ranges = ' or '.join(map(str, (f'0..{layout.num_values - 1}', *layout.ignored)))
        good, bad = f'labels are {ranges}', 'wrong label values'
        if segments:
            good, bad = 'the JSON file has all ids', 'id maps with ids that the JSON file lacks'
        verdicts.append(_judge(key, 'sizes agree', 'sizes differ or files are damaged', sizes))
        verdicts.append(_judge(key, good, bad, values))
    return verdicts


def expected_names(layout: Layout, root: Path) -> list[str]:
    """Names of the images that need a label map; a PrepareError if their only list is missing."""
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
    shown = first_few(sorted(problems), 3, '; ', '; and {} more')
    return Verdict(False, f'{key}: {len(problems)} {bad}: {shown}')
