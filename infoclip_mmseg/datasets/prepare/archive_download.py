"""Fetch a file: resumable, verified, complete or not there."""

from __future__ import annotations

import os
import urllib.error
import urllib.request
from collections.abc import Callable
from email.message import Message
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from infoclip_mmseg.datasets.prepare.archive_list import DOWNLOADS, Source
from infoclip_mmseg.datasets.prepare.label_files import Advance, PrepareError, raise_if_disk_full
from infoclip_mmseg.utils.files import CHUNK, file_digest

TIMEOUT = 60.0
"""Seconds without an answer after which an address counts as dead."""

Total = Callable[[int | None], None]
"""Told the size of the file in bytes, None where the server does not say it."""


def fetch(source: Source, root: Path, total: Total, advance: Advance) -> Path:
    """Download a source to the folder of downloads below a data root.

    What arrived is kept in `NAME.part`; the next call asks only for the rest.

    Args:
        source: Its addresses are tried in order.
        root: The data root.
        total: Told the size.
        advance: Told of bytes that arrived, those of an earlier call first.

    Returns:
        The file, complete and verified.

    Raises:
        PrepareError: No address delivered it, it is another file than expected, or the disk is
            full.
    """
    target = root / DOWNLOADS / source.filename
    part = target.with_name(f'{target.name}.part')
    part.parent.mkdir(parents=True, exist_ok=True)
    failures = []
    for url in source.urls:
        try:
            _fetch_rest(url, part, source.num_bytes, total, advance)
            verify(source, part)
            os.replace(part, target)
            return target
        except (urllib.error.URLError, HTTPException, TimeoutError, ConnectionError) as error:
            failures.append(f'  {url}: {error}')
        except OSError as error:
            raise_if_disk_full(error, part)
            raise
    there = part.stat().st_size if part.is_file() else 0
    raise PrepareError(
        f'{source.filename} was not fetched; {there:,} bytes are in {part}.\n'
        + '\n'.join(failures)
        + f'\nStart the same command again to go on, or put the file at {target} yourself.'
    )


def verify(source: Source, path: Path) -> None:
    """Compare a downloaded file with the known size and checksum; a wrong one is deleted.

    Raises:
        PrepareError: They differ.
    """
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


def _fetch_rest(url: str, part: Path, known: int | None, total: Total, advance: Advance) -> None:
    """Append to the partial file what it lacks.

    Raises:
        ConnectionError: The connection ended early.
    """
    start = part.stat().st_size if part.is_file() else 0
    if start and start == known:
        total(start)
        advance(start)
        return
    response = _open(url, start)
    if response is None:
        total(start)
        advance(start)
        return
    with response:
        if response.status != 206:
            start = 0
        size = _whole_size(response.headers, start)
        total(size)
        advance(start)
        with open(part, 'ab' if start else 'wb') as file:
            while block := response.read(CHUNK):
                file.write(block)
                advance(len(block))
    got = part.stat().st_size
    if size is not None and got < size:
        raise ConnectionError(f'the connection ended after {got:,} of {size:,} bytes')


def _open(url: str, start: int) -> HTTPResponse | None:
    """Ask for a file from a position on; None where the server says that it ends there."""
    headers = {'User-Agent': 'infoclip_mmseg'}
    if start:
        headers['Range'] = f'bytes={start}-'
    try:
        return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if not start or error.code != 416:
            raise
        if error.headers.get('Content-Range') == f'bytes */{start}':
            return None
        return _open(url, 0)


def _whole_size(headers: Message, start: int) -> int | None:
    """Size of the whole file by the headers of an answer that begins at `start`."""
    length = headers.get('Content-Length')
    return start + int(length) if length else None
