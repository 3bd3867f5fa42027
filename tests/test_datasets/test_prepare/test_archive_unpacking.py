import gzip
import io
import tarfile
from dataclasses import replace

import pytest
from original_archives import write_tar, write_zip

from infoclip_mmseg.datasets.prepare import PrepareError, archive_unpacking
from infoclip_mmseg.datasets.prepare.archive_list import Source

SOURCE = Source('a.zip', (), 'top', ('top/d/1.png',), 'small', r'd/[^/]+\.png$')
MEMBERS = {f'd/{n}.png': bytes([n]) * (700 + n) for n in range(6)} | {'d/1.txt': b'x'}
WRITERS = {'a.zip': write_zip, 'a.tar': write_tar}


def unpack(root, name, source=SOURCE):
    done = []
    archive_unpacking.unpack(replace(source, filename=name), root / name, root, done.append)
    return done


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
    assert sum(unpack(tmp_path, name)) > 0
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
