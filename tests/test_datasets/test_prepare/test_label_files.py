import errno
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from infoclip_mmseg.datasets.prepare import PrepareError
from infoclip_mmseg.datasets.prepare.label_files import (
    complete_file,
    encode_label,
    map_labels,
    raise_if_disk_full,
    read_indices,
    write_bytes,
)


def test_killed_while_writing_leaves_nothing_under_the_final_name(tmp_path, monkeypatch):
    write = Path.write_bytes

    def die(self, data):
        write(self, data[:3])
        os._exit(1)

    child = os.fork()
    if child == 0:
        Path.write_bytes = die
        write_bytes(tmp_path / 'a.png', b'abcdef')
    assert os.waitpid(child, 0)[1] != 0
    assert [path.name for path in tmp_path.iterdir()] == ['.a.png.part']
    write_bytes(tmp_path / 'a.png', b'abcdef')
    assert [path.name for path in tmp_path.iterdir()] == ['a.png']


def test_error_keeps_what_was_there(tmp_path):
    path = tmp_path / 'a'
    path.write_bytes(b'old')
    with pytest.raises(KeyError), complete_file(path) as draft:
        draft.write_bytes(b'new')
        raise KeyError
    assert path.read_bytes() == b'old' and len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize('code', [errno.ENOSPC, errno.EDQUOT])
def test_disk_full_is_explained(code):
    with pytest.raises(PrepareError, match='the disk is full'):
        raise_if_disk_full(OSError(code, 'full'), Path('a'))
    raise_if_disk_full(OSError(errno.EACCES, 'denied'), Path('a'))
    raise_if_disk_full(KeyError(), Path('a'))


@pytest.mark.parametrize('suffix, dtype', [('.png', np.uint8), ('.tif', np.uint16)])
def test_labels_come_back(suffix, dtype, tmp_path):
    label = np.random.default_rng(0).integers(0, np.iinfo(dtype).max + 1, (9, 7)).astype(dtype)
    (tmp_path / f'a{suffix}').write_bytes(encode_label(label, suffix))
    values = read_indices(tmp_path / f'a{suffix}')
    assert values.dtype == dtype
    np.testing.assert_array_equal(values, label)


def test_png_without_its_end(tmp_path):
    data = encode_label(np.zeros((9, 7), np.uint8), '.png')
    (tmp_path / 'a.png').write_bytes(data[:-12])
    assert Image.open(tmp_path / 'a.png').load()  # Pillow reads it
    with pytest.raises(ValueError, match='cut short'):
        read_indices(tmp_path / 'a.png')


@pytest.mark.parametrize('value', [3, 4])
def test_values_without_a_class(value):
    table = np.array([7, 8, 9, 254], np.uint8)
    assert map_labels(np.array([[0, 2]]), table, Path('a'), 254).tolist() == [[7, 9]]
    with pytest.raises(ValueError, match=f'holds \\[{value}\\]'):
        map_labels(np.array([[0, value]]), table, Path('a'), 254)
