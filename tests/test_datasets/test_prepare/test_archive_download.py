"""Downloads from a server on this machine that can cut connections and refuse ranges."""

from __future__ import annotations

import errno
import hashlib
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from infoclip_mmseg.datasets.prepare import PrepareError, archive_download
from infoclip_mmseg.datasets.prepare.archive_list import Source

DATA = bytes(range(256)) * 3000
MD5 = ('md5', hashlib.md5(DATA).hexdigest())


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get('Range')))
        if self.path == '/missing':
            self.send_error(404)
            return
        start = 0
        asked = self.headers.get('Range')
        if asked and server.ranges:
            start = int(asked.removeprefix('bytes=').removesuffix('-'))
            if start >= len(DATA):
                self.send_response(416)
                self.send_header('Content-Range', f'bytes */{len(DATA)}')
                self.end_headers()
                return
            self.send_response(206)
            self.send_header('Content-Range', f'bytes {start}-{len(DATA) - 1}/{len(DATA)}')
        else:
            self.send_response(200)
        self.send_header('Content-Length', str(len(DATA) - start))
        self.end_headers()
        end = len(DATA) if server.cut is None else min(len(DATA), start + server.cut)
        self.wfile.write(DATA[start:end])
        if end < len(DATA):
            self.close_connection = True

    def log_message(self, *args):
        pass


@pytest.fixture
def server():
    with ThreadingHTTPServer(('127.0.0.1', 0), Handler) as running:
        running.requests, running.ranges, running.cut = [], True, None
        running.url = f'http://127.0.0.1:{running.server_port}'
        threading.Thread(target=running.serve_forever, args=(0.02,), daemon=True).start()
        yield running
        running.shutdown()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch):
    monkeypatch.setenv('no_proxy', '127.0.0.1')
    monkeypatch.setattr(archive_download, 'CHUNK', 10_000)


def source(server, *paths, **options):
    options = {'num_bytes': len(DATA), 'digest': MD5, **options}
    urls = tuple(server.url + path for path in paths or ('/file',))
    return Source('file.zip', urls, '.', ('x',), 'small', **options)


class Bar:
    def __init__(self):
        self.end, self.done = None, 0

    def total(self, number):
        self.end = number

    def advance(self, number):
        self.done += number


def fetch(one, root):
    bar = Bar()
    path = archive_download.fetch(one, root, bar.total, bar.advance)
    assert bar.end == bar.done == len(DATA)
    assert path == root / 'downloads/file.zip' and path.read_bytes() == DATA
    assert not (root / 'downloads/file.zip.part').exists()


def test_whole_file(server, tmp_path):
    fetch(source(server), tmp_path)
    assert server.requests == [('/file', None)]


def test_size_and_checksum_may_be_unknown(server, tmp_path):
    fetch(source(server, num_bytes=None, digest=None), tmp_path)


def test_cut_connection_is_resumed(server, tmp_path):
    server.cut = 100_000
    for number in range(7):
        with pytest.raises(PrepareError, match='Start the same command again'):
            fetch(source(server), tmp_path)
        assert not (tmp_path / 'downloads/file.zip').exists()
        part = (tmp_path / 'downloads/file.zip.part').read_bytes()
        assert part == DATA[: 100_000 * (number + 1)]
    fetch(source(server), tmp_path)
    assert [ask for _, ask in server.requests][:3] == [None, 'bytes=100000-', 'bytes=200000-']


def test_message_of_a_cut_connection(server, tmp_path):
    server.cut = 100_000
    with pytest.raises(PrepareError) as error:
        fetch(source(server, digest=None), tmp_path)
    assert '100,000 bytes are in' in str(error.value)
    assert 'ended after 100,000 of 768,000 bytes' in str(error.value)


def test_server_without_ranges_starts_anew(server, tmp_path):
    server.cut = 100_000
    with pytest.raises(PrepareError):
        fetch(source(server), tmp_path)
    server.cut, server.ranges = None, False
    fetch(source(server), tmp_path)


@pytest.mark.parametrize('known', [True, False])
def test_partial_file_that_is_whole(known, server, tmp_path):
    (tmp_path / 'downloads').mkdir()
    (tmp_path / 'downloads/file.zip.part').write_bytes(DATA)
    fetch(source(server, num_bytes=len(DATA) if known else None), tmp_path)
    assert len(server.requests) == (0 if known else 1)


def test_partial_file_that_is_too_long(server, tmp_path):
    (tmp_path / 'downloads').mkdir()
    (tmp_path / 'downloads/file.zip.part').write_bytes(DATA + b'x')
    fetch(source(server), tmp_path)


def test_second_address(server, tmp_path):
    fetch(source(server, '/missing', '/file'), tmp_path)


def test_no_address_answers(server, tmp_path):
    with pytest.raises(PrepareError) as error:
        fetch(source(server, '/missing'), tmp_path)
    assert '404' in str(error.value) and str(tmp_path / 'downloads/file.zip') in str(error.value)
    server.shutdown(), server.server_close()
    with pytest.raises(PrepareError, match='refused'):
        fetch(source(server), tmp_path)


@pytest.mark.parametrize('wrong', [dict(digest=('sha1', '00')), dict(num_bytes=5)])
def test_wrong_file_is_deleted(wrong, server, tmp_path):
    with pytest.raises(PrepareError, match='is not the expected file') as error:
        fetch(source(server, **wrong), tmp_path)
    assert 'deleted' in str(error.value)
    assert list((tmp_path / 'downloads').iterdir()) == []


def test_disk_full_keeps_what_arrived(server, tmp_path, monkeypatch):
    real = open

    class Full:
        def __init__(self, path, mode):
            self.file = real(path, mode)

        def __enter__(self):
            return self

        def __exit__(self, *args):
            self.file.close()

        def write(self, data):
            if self.file.tell() > 50_000:
                raise OSError(errno.ENOSPC, 'No space left on device')
            return self.file.write(data)

    with monkeypatch.context() as patch:
        patch.setattr(
            'builtins.open', lambda p, m='r', **k: Full(p, m) if m == 'wb' else real(p, m)
        )
        with pytest.raises(PrepareError, match='the disk is full'):
            fetch(source(server), tmp_path)
    assert (tmp_path / 'downloads/file.zip.part').stat().st_size == 60_000
    fetch(source(server), tmp_path)
    assert server.requests[-1] == ('/file', 'bytes=60000-')
