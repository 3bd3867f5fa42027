"""Files in one step, fingerprints, shortened lists."""

from __future__ import annotations

import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from infoclip_mmseg.utils.files import (
    file_digest,
    first_few,
    value_digest,
    write_text,
    write_whole,
)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_at_the_end(tmp_path):
    path = tmp_path / 'new/a.txt'
    with write_whole(path) as draft:
        draft.write_text('half')
        assert names(path.parent) == ['.a.txt.part']
    assert path.read_text() == 'half' and names(path.parent) == ['a.txt']


@pytest.mark.parametrize('shared', [False, True])
def test_an_error_keeps_what_was_there(tmp_path, monkeypatch, shared):
    path = tmp_path / 'a'
    write_text(path, 'old')
    with pytest.raises(KeyboardInterrupt), write_whole(path, shared) as draft:
        draft.write_text('new')
        raise KeyboardInterrupt
    monkeypatch.setattr(os, 'replace', lambda *_: (_ for _ in ()).throw(OSError('disk full')))
    with pytest.raises(OSError, match='disk full'):
        write_text(path, 'new')
    assert path.read_text() == 'old' and names(tmp_path) == ['a']


def test_what_a_killed_program_left_is_overwritten(tmp_path):
    (tmp_path / '.a.part').write_text('left by another')
    write_text(tmp_path / 'a', 'new')
    assert names(tmp_path) == ['a']


def test_many_writers_of_one_file(tmp_path):
    path = tmp_path / 'a'

    def write(number: int) -> None:
        with write_whole(path, shared=True) as draft:
            draft.write_text(f'{number}' * 1000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, [n % 10 for n in range(100)]))
    text = path.read_text()
    assert len(text) == 1000 and len(set(text)) == 1 and names(tmp_path) == ['a']


def test_permissions_are_those_of_any_new_file(tmp_path):
    (tmp_path / 'usual').touch()
    write_text(tmp_path / 'a', '')
    with write_whole(tmp_path / 'b', shared=True) as draft:
        draft.touch()
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ('usual', 'a', 'b')]
    assert len(set(modes)) == 1


def test_digests(tmp_path):
    (tmp_path / 'a').write_bytes(b'abc')
    assert file_digest(tmp_path / 'a').startswith('ba7816bf8f01cfea')
    assert file_digest(tmp_path / 'a', 'md5') == '900150983cd24fb0d6963f7d28e17f72'
    assert value_digest(dict(a=1, b=(2, None))) == value_digest(dict(b=[2, None], a=1))
    assert value_digest([1]) != value_digest(['1'])
    assert value_digest([set()], lambda _: 'x') == value_digest(['x'])


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({}, '1, 2, 3, 4, 5 and 2 more'),
        (dict(shown=7), '1, 2, 3, 4, 5, 6, 7'),
        (dict(shown=2, separator='; ', rest='; and {} more'), '1; 2; and 5 more'),
        (dict(shown=3, rest=' ...'), '1, 2, 3 ...'),
    ],
)
def test_first_few(options, expected):
    assert first_few(range(1, 8), **options) == expected
    assert first_few([]) == '' and first_few(['a']) == 'a'
