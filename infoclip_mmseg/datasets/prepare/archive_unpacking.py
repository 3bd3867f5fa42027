"""Unpack archives: members appear complete, stay inside the folder, and are unpacked once."""

from __future__ import annotations

import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from infoclip_mmseg.datasets.prepare.archive_list import Source
from infoclip_mmseg.datasets.prepare.label_files import Advance, PrepareError, complete_file

TAR_BLOCK = 512


def unpack(source: Source, archive: Path, root: Path, advance: Advance) -> None:
    """Unpack what is needed of an archive below a data root; what is not an archive is moved.

    Members that are there with their full size are left alone, so that an interrupted call is
    finished by the next one.

    Args:
        source: What the archive is.
        archive: Its file.
        root: The data root.
        advance: Told of each byte of the members.

    Raises:
        PrepareError: It is cut short, damaged, unsafe, lacks what it should provide, or the disk is
            full.
    """
    target = root / source.folder
    target.mkdir(parents=True, exist_ok=True)
    size = archive.stat().st_size
    if source.num_bytes not in (None, size):
        raise PrepareError(
            f'{archive} has {size:,} bytes, expected {source.num_bytes:,}: it is cut short or '
            'another file. Delete it and fetch it again.'
        )
    if not source.is_archive:
        shutil.move(str(archive), str(target / source.filename))
        return
    is_zip = source.filename.endswith('.zip')
    with _readable(archive):
        extract = _extract_zip if is_zip else _extract_tar
        extract(archive, target, re.compile(source.members), advance)
    if not source.is_there(root):
        missing = [str(root / path) for path in source.provides if not (root / path).exists()]
        raise PrepareError(
            f'{archive} did not contain {missing}; expected the original {source.filename}. '
            'Delete it and fetch that one.'
        )


@contextmanager
def _readable(archive: Path) -> Iterator[None]:
    """Turn what the readers raise on damaged archives into one message."""
    try:
        yield
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error) as error:
        raise PrepareError(_damaged(archive, str(error))) from error
    except OSError as error:
        if error.errno is None:  # gzip's own errors have no number
            raise PrepareError(_damaged(archive, str(error))) from error
        raise


def _damaged(archive: Path, reason: str) -> str:
    return (
        f'{archive} ({archive.stat().st_size:,} bytes) is cut short or damaged: {reason}. What was '
        'unpacked so far is complete. Delete the archive and fetch it again.'
    )


def _extract_zip(archive: Path, target: Path, needed: re.Pattern[str], advance: Advance) -> None:
    with zipfile.ZipFile(archive) as file:
        for member in file.infolist():
            path = _safe_path(archive, target, member.filename)
            advance(member.compress_size)
            if member.is_dir() or not needed.match(member.filename):
                continue
            if not _is_there(path, member.file_size):
                with file.open(member) as content:
                    _write(content, path)


def _extract_tar(archive: Path, target: Path, needed: re.Pattern[str], advance: Advance) -> None:
    with tarfile.open(archive) as file:
        for member in file:
            name = member.name.removeprefix('./')
            path = _safe_path(archive, target, name)
            advance(member.size)
            if not member.isfile() or not needed.match(name):
                continue
            content = file.extractfile(member)
            if content is not None and not _is_there(path, member.size):
                _write(content, path, member.size)
        _check_tar_end(file)


def _check_tar_end(file: tarfile.TarFile) -> None:
    """A tar file ends with a block of zeros; the reader takes a missing one for the end, too."""
    assert file.fileobj is not None
    file.fileobj.seek(file.offset)
    block = file.fileobj.read(TAR_BLOCK)
    if len(block) < TAR_BLOCK or any(block):
        raise tarfile.ReadError('the end mark of the tar file is missing')


def _safe_path(archive: Path, target: Path, name: str) -> Path:
    """Where a member goes.

    Raises:
        PrepareError: Outside of the target.
    """
    parts = PurePosixPath(name.replace('\\', '/'))
    if parts.is_absolute() or '..' in parts.parts or re.match('[A-Za-z]:', name):
        raise PrepareError(
            f'{archive} holds {name!r}, which would be written outside of {target}: refused. Take '
            'the original archive.'
        )
    return target / parts


def _is_there(path: Path, size: int) -> bool:
    return path.is_file() and path.stat().st_size == size


def _write(content: IO[bytes], path: Path, size: int | None = None) -> None:
    """Write a member in one step; a member that ends early is an error."""
    with complete_file(path) as draft:
        with open(draft, 'wb') as output:
            shutil.copyfileobj(content, output, 1 << 20)
        if size is not None and draft.stat().st_size != size:
            raise tarfile.ReadError('unexpected end of data')
