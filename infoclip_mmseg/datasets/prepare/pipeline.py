"""From nothing to a prepared data set: fetch, unpack, convert; and its check."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from infoclip_mmseg.datasets.prepare.archive_download import fetch
from infoclip_mmseg.datasets.prepare.archive_list import DOWNLOADS, Source
from infoclip_mmseg.datasets.prepare.archive_unpacking import unpack
from infoclip_mmseg.datasets.prepare.label_files import Advance, PrepareError
from infoclip_mmseg.datasets.prepare.parallel import run_tasks
from infoclip_mmseg.datasets.prepare.recipes import Recipe
from infoclip_mmseg.datasets.prepare.verification import Verdict, check_data_set


class Bar(Protocol):
    """A progress bar."""

    def total(self, number: int | None) -> None:
        """Set the end, in what `advance` counts; None where it is not known."""

    def advance(self, number: int) -> None:
        """Move by so many."""


class Display(Protocol):
    """Shows what is being done."""

    def bar(self, what: str, in_bytes: bool = False) -> AbstractContextManager[Bar]:
        """Open a progress bar."""

    def say(self, line: str) -> None:
        """Show a line that stays."""


class MissingSourceError(PrepareError):
    """Something has to be fetched first."""


def prepare(
    recipe: Recipe,
    root: Path,
    download: bool,
    workers: int,
    display: Display,
    counts: Mapping[str, int],
) -> None:
    """Bring a data set below a data root into the layout that the configs read.

    Args:
        recipe: The data set.
        root: The data root.
        download: Fetch what is missing.
        workers: Processes.
        display: Shows what is being done.
        counts: Numbers of images by key of a part, in place of the published ones.

    Raises:
        MissingSourceError: Something has to be fetched; the message says what and from where.
        PrepareError: A file is damaged or of another release, or the disk is full.
    """
    if recipe.is_complete(root, counts):
        display.say(f'{recipe.name}: already prepared')
        return
    provide_sources(recipe, root, download, display)
    if recipe.find_tasks is None:
        display.say(f'{recipe.name}: ready, nothing to convert')
        return
    display.say(f'{recipe.name}: looking at what there is to convert')
    tasks = recipe.find_tasks(root)
    if not tasks:
        raise PrepareError(f'{recipe.name}: there is no image below {root}; unpack it again')
    with display.bar(f'{recipe.name}: convert') as bar:
        bar.total(len(tasks))
        run_tasks(tasks, workers, bar.advance)
    display.say(f'{recipe.name}: {len(tasks):,} converted, to {tasks[0].outputs[-1].parent}')


def provide_sources(recipe: Recipe, root: Path, download: bool, display: Display) -> None:
    """Fetch (if asked to) and unpack what a data set is made from.

    Raises:
        MissingSourceError: Something is neither there nor can be fetched.
        PrepareError: An archive is damaged, or the disk is full.
    """
    missing = []
    for source in recipe.sources:
        archive = _find_archive(source, root)
        if archive is None and not source.is_there(root):
            if not (download and source.urls):
                missing.append(source)
                continue
            with display.bar(f'fetch {source.filename}', in_bytes=True) as bar:
                archive = fetch(source, root, bar.total, bar.advance)
        if archive is not None:
            _unpack_once(source, archive, root, display)
    if missing:
        parts = '\n'.join(f'  {source.describe(root)}' for source in missing)
        can_fetch = not download and any(source.urls for source in missing)
        hint = '\nWith --download what has an address is fetched.' if can_fetch else ''
        raise MissingSourceError(f'{recipe.name} needs:\n{parts}{hint}')


def check(
    recipe: Recipe, root: Path, workers: int, display: Display, counts: Mapping[str, int]
) -> list[Verdict]:
    """Verdicts on every part of a prepared data set; see :func:`check_data_set`."""
    verdicts = []
    for part in recipe.parts:
        count = counts.get(part.key, part.num_images)
        with display.bar(f'check {part.key}') as bar:
            bar.total(count)
            verdicts += check_data_set(part, root, count, workers, bar.advance)
    return verdicts


def _find_archive(source: Source, root: Path) -> Path | None:
    """The downloaded file, in the folder of downloads or in the data root itself."""
    places = (root / DOWNLOADS / source.filename, root / source.filename)
    return next((path for path in places if path.is_file()), None)


def _unpack_once(source: Source, archive: Path, root: Path, display: Display) -> None:
    """Unpack an archive unless a mark beside it says that this was done to the end."""
    mark = archive.with_name(f'{archive.name}.unpacked')
    size = archive.stat().st_size
    if source.is_there(root) and mark.is_file() and mark.read_text() == str(size):
        return
    with display.bar(f'unpack {source.filename}', in_bytes=True) as bar:
        bar.total(size)
        advance: Advance = bar.advance
        unpack(source, archive, root, advance)
    if archive.is_file():
        mark.write_text(str(size))
