"""Files to fetch: downloads that are resumed and verified, archives that are unpacked once."""

from __future__ import annotations

import os
import re
import shutil
import tarfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.client import HTTPException
from pathlib import Path, PurePosixPath
from typing import IO, Any

from infoclip_mmseg.datasets.prepare.label_files import PrepareError, Update, explain_full_disk
from infoclip_mmseg.utils.files import CHUNK, file_digest, write_whole

DOWNLOADS = 'downloads'
"""Folder of the archives below the data root."""
TIMEOUT = 60.0
"""Seconds without an answer after which an address counts as dead."""


@dataclass(frozen=True)
class Source:
    """A file to fetch.

    Attributes:
        filename: Name in the folder of downloads.
        urls: Addresses, the first is the official one; empty where a registration is needed.
        folder: Where it is unpacked (or moved, if it is no archive), relative to the data root.
        provides: Files and folders that are there afterwards, relative to that folder.
        about: Size as people read it.
        members: Regular expression of the archive members that are needed, from their start.
        num_bytes, digest: Exact size, and algorithm and hexadecimal digest, where known.
        registration: What to do by hand to get it.
        instead: A file that makes it unnecessary.
        within: The archive that holds it, where it is one inside of another. It is also looked for
            in its folder, where that archive puts it.
    """

    filename: str
    urls: tuple[str, ...]
    folder: str
    provides: tuple[str, ...]
    about: str
    members: str = ''
    num_bytes: int | None = None
    digest: tuple[str, str] | None = None
    registration: str = ''
    instead: str = ''
    within: str = ''

    def is_there(self, root: Path) -> bool:
        """Whether all that it provides exists below a data root; folders must hold something."""
        if self.instead and (root / self.folder / self.instead).is_file():
            return True
        return all(p.is_file() or (p.is_dir() and any(p.iterdir())) for p in self.paths(root))

    def paths(self, root: Path) -> list[Path]:
        """What it provides below a data root."""
        return [root / self.folder / name for name in self.provides]

    def find(self, root: Path) -> Path | None:
        """The downloaded file, in the folder of downloads or in the data root itself."""
        places = [root / DOWNLOADS / self.filename, root / self.filename]
        places += [root / self.folder / self.filename] if self.within else []
        return next((path for path in places if path.is_file()), None)

    def describe(self, root: Path) -> str:
        """Where it comes from and where it has to be put, a few lines."""
        size = f'{self.num_bytes:,} bytes' if self.num_bytes else ''
        facts = ', '.join(filter(None, [self.about, size, ' '.join(self.digest or ())]))
        lines = [
            f'{self.filename} ({facts})',
            *(f'from  {url}' for url in self.urls),
            *([f'from  {self.within}, which holds it'] if self.within else []),
            *self.registration.splitlines(),
            f'to    {root / DOWNLOADS / self.filename}',
            f'or have {" and ".join(map(str, self.paths(root)))} already',
        ]
        return '\n    '.join(lines)


def fetch(source: Source, root: Path, update: Update) -> Path:
    """Download a source to the folder of downloads; returns the file, complete and verified.

    Its addresses are tried in order. What arrived is kept in `NAME.part`; the next call asks only
    for the rest. `update` is told the size and the bytes, those of an earlier call first. A
    PrepareError tells of a file that none delivers, of another file, or of a full disk.
    """
    target = root / DOWNLOADS / source.filename
    part = target.with_name(f'{target.name}.part')
    part.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for url in source.urls:
        try:
            with explain_full_disk(part):
                _fetch_rest(url, part, source.num_bytes, update)
            _verify(source, part)
            os.replace(part, target)
            return target
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            failures.append(f'  {url}: {error}')
    there = part.stat().st_size if part.is_file() else 0
    raise PrepareError(
        f'{source.filename} was not fetched; {there:,} bytes are in {part}.\n'
        + '\n'.join(failures)
        + f'\nStart the same command again to go on, or put the file at {target} yourself.'
    )


def _fetch_rest(url: str, part: Path, known: int | None, update: Update) -> None:
    """Append to the partial file what it lacks; a ConnectionError where that ends early."""
    start = part.stat().st_size if part.is_file() else 0
    if start > 0 and start == known:
        return update(total=start, advance=start)
    headers = {'User-Agent': 'infoclip_mmseg', **({'Range': f'bytes={start}-'} if start else {})}
    try:
        request = urllib.request.Request(url, headers=headers)
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if not start or error.code != 416:
            raise
        if error.headers.get('Content-Range') == f'bytes */{start}':
            return update(total=start, advance=start)
        part.unlink()  # it is too long
        return _fetch_rest(url, part, known, update)
    with response:
        if response.status != 206:
            start = 0
        length = response.headers.get('Content-Length')
        size = start + int(length) if length else None
        update(total=size, advance=start)
        with open(part, 'ab' if start else 'wb') as file:
            while block := response.read(CHUNK):
                file.write(block)
                update(advance=len(block))
    got = part.stat().st_size
    if size is not None and got < size:
        raise ConnectionError(f'the connection ended after {got:,} of {size:,} bytes')


def _verify(source: Source, path: Path) -> None:
    """Compare a downloaded file with the known size and checksum; a wrong one is deleted."""
    got, expected = path.stat().st_size, source.num_bytes
    wrong = f'{got:,} bytes, expected {expected:,}' if expected not in (None, got) else ''
    if source.digest and not wrong:
        algorithm, digest = source.digest
        actual = file_digest(path, algorithm)
        wrong = f'{algorithm} {actual}, expected {digest}' if actual != digest else ''
    if wrong:
        path.unlink()
        raise PrepareError(
            f'{source.filename} from {" or ".join(source.urls)} is not the expected file: {wrong}. '
            'It was deleted. Start again; if that fails again, the file was changed at its source.'
        )


def unpack(source: Source, archive: Path, root: Path, update: Update) -> None:
    """Unpack what is needed of an archive below a data root; what is not an archive is moved.

    Members appear complete and stay inside the folder. Those that are there with their full size
    are left alone, so that an interrupted call is finished by the next one. A PrepareError tells of
    one that is cut short, damaged, unsafe or another one, and of a full disk.
    """
    target, size = root / source.folder, archive.stat().st_size
    target.mkdir(parents=True, exist_ok=True)
    if source.num_bytes not in (None, size):
        raise PrepareError(
            f'{archive} has {size:,} bytes, expected {source.num_bytes:,}: it is cut short or '
            'another file. Delete it and fetch it again.'
        )
    if not source.filename.endswith(('.zip', '.tar', '.tar.gz')):
        shutil.move(str(archive), str(target / source.filename))
        return
    try:
        _extract(archive, target, source.members, update)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # gzip's own errors, which tell of damage, have no number
        raise PrepareError(
            f'{archive} ({size:,} bytes) is cut short or damaged: {error}. What was unpacked so '
            'far is complete. Delete the archive and fetch it again.'
        ) from error
    if not source.is_there(root):
        missing = [str(path) for path in source.paths(root) if not path.exists()]
        raise PrepareError(
            f'{archive} did not contain {missing}; expected the original {source.filename}. '
            'Delete it and fetch that one.'
        )


def _extract(archive: Path, target: Path, needed: str, update: Update) -> None:
    """Write the members whose names match and whose file is not there in full."""
    members = _zip_members if archive.name.endswith('.zip') else _tar_members
    for name, stored, size, opened in members(archive):
        parts = PurePosixPath(name.replace('\\', '/'))
        if parts.is_absolute() or '..' in parts.parts or re.match('[A-Za-z]:', name):
            raise PrepareError(
                f'{archive} holds {name!r}, which would be written outside of {target}: refused. '
                'Take the original archive.'
            )
        update(advance=stored)
        path = target / parts
        done = path.is_file() and path.stat().st_size == size
        if done or opened is None or not re.match(needed, name):
            continue
        with explain_full_disk(path), write_whole(path) as draft:
            with opened() as content, open(draft, 'wb') as output:
                shutil.copyfileobj(content, output, CHUNK)
            if draft.stat().st_size != size:
                raise tarfile.ReadError('unexpected end of data')


Member = tuple[str, int, int, Callable[[], IO[bytes]] | None]
"""Name, bytes in the archive, bytes of the file, and what opens it; None for folders and links."""


def _zip_members(archive: Path) -> Iterator[Member]:
    with zipfile.ZipFile(archive) as file:
        for info in file.infolist():
            opened = None if info.is_dir() else partial(file.open, info)
            yield info.filename, info.compress_size, info.file_size, opened


def _tar_members(archive: Path) -> Iterator[Member]:
    with tarfile.open(archive) as file:
        for info in file:
            opened: Any = partial(file.extractfile, info) if info.isfile() else None
            yield info.name.removeprefix('./'), info.size, info.size, opened
        # The end mark is a block of zeros; the reader takes a missing one for the end, too.
        assert file.fileobj is not None
        file.fileobj.seek(file.offset)
        block = file.fileobj.read(tarfile.BLOCKSIZE)
        if len(block) < tarfile.BLOCKSIZE or any(block):
            raise tarfile.ReadError('the end mark of the tar file is missing')
