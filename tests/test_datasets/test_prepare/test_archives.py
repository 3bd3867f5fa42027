"""Downloads from a server on this machine that can cut connections and refuse ranges; unpacking."""

from __future__ import annotations

import errno
import gzip
import hashlib
import io
import tarfile
import threading
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from original_archives import write_tar, write_zip

from infoclip_mmseg.datasets.prepare import PrepareError, archives
from infoclip_mmseg.datasets.prepare.archives import Source

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
    monkeypatch.setattr(archives, 'CHUNK', 10_000)


def source(server, *paths, **options):
    options = {'num_bytes': len(DATA), 'digest': MD5, **options}
    urls = tuple(server.url + path for path in paths or ('/file',))
    return Source('file.zip', urls, '.', ('x',), 'small', **options)


class Bar:
    """What a progress bar would show."""

    def __init__(self):
        self.total, self.done = None, 0

    def update(self, total=None, advance=0):
        self.total = self.total if total is None else total
        self.done += advance


def fetch(one, root):
    bar = Bar()
    path = archives.fetch(one, root, bar.update)
    assert bar.total == bar.done == len(DATA)
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
    assert [ask for _, ask in server.requests] == [f'bytes={len(DATA) + 1}-', None]


def test_second_address(server, tmp_path):
    fetch(source(server, '/missing', '/file'), tmp_path)
    assert server.requests == [('/missing', None), ('/file', None)]


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


# Unpacking

SOURCE = Source('a.zip', (), 'top', ('d/1.png',), 'small', r'd/[^/]+\.png$')
MEMBERS = {f'd/{n}.png': bytes([n]) * (700 + n) for n in range(6)} | {'d/1.txt': b'x'}
WRITERS = {'a.zip': write_zip, 'a.tar': write_tar}


def unpack(root, name, source=SOURCE):
    bar = Bar()
    archives.unpack(replace(source, filename=name), root / name, root, bar.update)
    return bar.done


def content(root):
    return {p.relative_to(root / 'top').as_posix(): p.read_bytes() for p in files(root)}


def files(root):
    return [path for path in (root / 'top').rglob('*') if path.is_file()]


def write(root, name, members=None):
    members = MEMBERS if members is None else members
    if name.endswith('.gz'):
        write_tar(root / name, members, 'w:gz')
    else:
        WRITERS[name](root / name, members)
    return root / name


@pytest.mark.parametrize('name', ['a.zip', 'a.tar', 'a.tar.gz'])
def test_needed_members_only(name, tmp_path):
    write(tmp_path, name)
    assert unpack(tmp_path, name) > 0
    assert content(tmp_path) == {k: v for k, v in MEMBERS.items() if k.endswith('.png')}


@pytest.mark.parametrize('name', ['a.zip', 'a.tar', 'a.tar.gz'])
def test_unpacked_members_are_left_alone_and_short_ones_are_not(name, tmp_path):
    write(tmp_path, name)
    unpack(tmp_path, name)
    (tmp_path / 'top/d/3.png').write_bytes(b'half')
    (tmp_path / 'top/d/4.png').unlink()
    times = {path.name: path.stat().st_mtime_ns for path in files(tmp_path)}
    unpack(tmp_path, name)
    after = {path.name: path.stat().st_mtime_ns for path in files(tmp_path)}
    assert {n for n in after if after[n] != times.get(n)} == {'3.png', '4.png'}
    assert content(tmp_path) == {k: v for k, v in MEMBERS.items() if k.endswith('.png')}


@pytest.mark.parametrize('name', ['a.zip', 'a.tar', 'a.tar.gz'])
@pytest.mark.parametrize('bad', ['../x.png', 'd/../../x.png', '/tmp/x.png', 'd\\..\\..\\x.png'])
def test_members_stay_inside(name, bad, tmp_path):
    write(tmp_path, name, {bad: b'x'})
    with pytest.raises(PrepareError, match='outside of'):
        unpack(tmp_path, name, replace(SOURCE, members=''))
    assert not list(tmp_path.rglob('x.png'))


def test_links_are_not_followed(tmp_path):
    with tarfile.open(tmp_path / 'a.tar', 'w') as archive:
        link = tarfile.TarInfo('d/1.png')
        link.type, link.linkname = tarfile.SYMTYPE, '/etc/passwd'
        archive.addfile(link)
    with pytest.raises(PrepareError, match='did not contain'):
        unpack(tmp_path, 'a.tar')
    assert not files(tmp_path)


@pytest.mark.parametrize('name', ['a.zip', 'a.tar', 'a.tar.gz'])
@pytest.mark.parametrize('fraction', [0, 0.1, 0.5, 0.9])
def test_cut_anywhere(name, fraction, tmp_path):
    path = write(tmp_path, name)
    whole = path.read_bytes()
    end = len(whole)
    if name == 'a.tar':  # without the zeros that fill up the last record
        end = (len(MEMBERS) - 1) * (512 + 1024) + 1024
    path.write_bytes(whole[: int(end * fraction)])
    with pytest.raises(PrepareError, match='cut short or damaged') as error:
        unpack(tmp_path, name)
    assert str(path) in str(error.value) and 'fetch it again' in str(error.value)
    assert all(MEMBERS[k] == v for k, v in content(tmp_path).items())


@pytest.mark.parametrize('members', [1, 3, 7])
def test_tar_cut_between_members(members, tmp_path):
    path = write(tmp_path, 'a.tar')
    with tarfile.open(path) as archive:
        offsets = [member.offset for member in archive][1:]
        offsets.append(archive.offset)
    path.write_bytes(path.read_bytes()[: offsets[members - 1]])
    with pytest.raises(PrepareError, match='end mark'):
        unpack(tmp_path, 'a.tar')


def test_damaged_inside(tmp_path):
    data = bytearray(write(tmp_path, 'a.zip', {'d/1.png': bytes(range(256)) * 9}).read_bytes())
    data[60] ^= 255
    (tmp_path / 'a.zip').write_bytes(data)
    with pytest.raises(PrepareError, match='damaged'):
        unpack(tmp_path, 'a.zip')
    buffer = io.BytesIO()
    with gzip.open(buffer, 'wb') as file:
        file.write(b'not a tar file' * 99)
    (tmp_path / 'a.tar.gz').write_bytes(buffer.getvalue())
    with pytest.raises(PrepareError, match='damaged'):
        unpack(tmp_path, 'a.tar.gz')


def test_known_size_is_compared_first(tmp_path):
    write(tmp_path, 'a.zip')
    with pytest.raises(PrepareError, match='expected 1,234,567'):
        unpack(tmp_path, 'a.zip', replace(SOURCE, num_bytes=1234567))
    assert not files(tmp_path)


def test_another_archive_of_that_name(tmp_path):
    write(tmp_path, 'a.zip', {'other/1.png': b'x'})
    with pytest.raises(PrepareError, match='did not contain'):
        unpack(tmp_path, 'a.zip')
