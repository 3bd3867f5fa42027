"""From nothing to a prepared data set: fetch, unpack, convert."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)

from infoclip_mmseg.datasets.prepare.archives import Source, fetch, unpack
from infoclip_mmseg.datasets.prepare.label_files import PrepareError, Update
from infoclip_mmseg.datasets.prepare.parallel import run_tasks
from infoclip_mmseg.datasets.prepare.recipes import Recipe


@contextmanager
def progress_bar(console: Console, what: str, in_bytes: bool = False) -> Iterator[Update]:
    """A progress bar; it is drawn once, at its end, where the output is no terminal."""
    columns: list[ProgressColumn] = [TextColumn('{task.description}'), BarColumn()]
    columns += [DownloadColumn(), TransferSpeedColumn()] if in_bytes else [MofNCompleteColumn()]
    with Progress(*columns, TimeRemainingColumn(), console=console) as progress:
        yield partial(progress.update, progress.add_task(what, total=None))


def prepare(recipe: Recipe, root: Path, download: bool, workers: int, console: Console) -> None:
    """Bring a data set below a data root into the layout that the configs read.

    With `download` what is missing is fetched; conversion runs in `workers` processes.

    Raises:
        PrepareError: Something has to be fetched (the message says what and from where), a file is
            damaged or of another release, or the disk is full.
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
    say(f'{recipe.name}: {len(tasks):,} converted, to {tasks[0].outputs[-1].parent}')


def provide_sources(recipe: Recipe, root: Path, download: bool, console: Console) -> None:
    """Fetch (if asked to) and unpack what a data set is made from.

    Raises:
        PrepareError: Something is neither there nor can be fetched, an archive is damaged, or the
            disk is full.
    """
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
    if source.is_there(root) and mark.is_file() and mark.read_text() == str(size):
        return
    with progress_bar(console, f'unpack {source.filename}', in_bytes=True) as update:
        update(total=size)
        unpack(source, archive, root, update)
    if archive.is_file():
        mark.write_text(str(size))
