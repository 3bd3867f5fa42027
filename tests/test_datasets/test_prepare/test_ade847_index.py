import builtins
import pickle
from collections import Counter

import numpy as np
import pytest
from original_archives import ade_index

from infoclip_mmseg.datasets.prepare import PrepareError
from infoclip_mmseg.datasets.prepare.ade847 import read_index

FIELDS = ('filename', 'folder', 'objectnames')


class Call:
    def __init__(self, function, *args):
        self.function, self.args = function, args

    def __reduce__(self):
        return self.function, self.args


def write(path, data):
    path.write_bytes(data)
    return path


@pytest.mark.parametrize('protocol', range(6))
def test_every_protocol(protocol, tmp_path):
    index = ade_index([('a/b', 'ADE_val_1.jpg')], ['wall', 'sky'])
    index['filename'] = np.array(index['filename'], object)  # some writers keep arrays
    path = write(tmp_path / 'index.pkl', pickle.dumps(index, protocol=protocol))
    assert read_index(path, FIELDS) == {
        'filename': ['ADE_val_1.jpg'],
        'folder': ['a/b'],
        'objectnames': ['wall', 'sky'],
    }


def test_names_of_numpy_1_and_2(tmp_path):
    data = pickle.dumps(ade_index([], ['wall']), protocol=2)
    for old, new in ((b'numpy._core', b'numpy.core'), (b'numpy.core', b'numpy._core')):
        path = write(tmp_path / 'index.pkl', data.replace(old, new))
        assert read_index(path, FIELDS)['objectnames'] == ['wall']


@pytest.mark.parametrize(
    'attack',
    [
        Call(builtins.eval, '1'),
        Call(builtins.getattr, 'x', 'upper'),
        Call(np.load, 'x'),
        Call(Counter),
        np.array([Call(builtins.exec, '1')], object),
    ],
)
def test_other_classes_are_refused(attack, tmp_path):
    data = pickle.dumps({**ade_index([]), 'scene': [attack]})
    with pytest.raises(PrepareError, match='refused, nothing was run'):
        read_index(write(tmp_path / 'index.pkl', data), FIELDS)


def test_other_codecs_are_refused(tmp_path):
    data = b"c_codecs\nencode\n(S'x'\nS'rot13'\ntR."
    with pytest.raises(PrepareError, match="codec 'rot13'"):
        read_index(write(tmp_path / 'index.pkl', data), FIELDS)


def test_damaged_and_other_content(tmp_path):
    path = write(tmp_path / 'index.pkl', pickle.dumps(ade_index([]))[:2000])
    with pytest.raises(PrepareError, match='cut short or damaged'):
        read_index(path, FIELDS)
    with pytest.raises(PrepareError, match='is missing'):
        read_index(tmp_path / 'none.pkl', FIELDS)
    with pytest.raises(PrepareError, match='holds list; expected the columns'):
        read_index(write(path, pickle.dumps([1])), FIELDS)
    with pytest.raises(PrepareError, match="holds \\['filename'\\]; expected"):
        read_index(write(path, pickle.dumps({'filename': []})), FIELDS)
    wrong = {'filename': [1], 'folder': ['a'], 'objectnames': []}
    with pytest.raises(PrepareError, match="'filename' must hold strings"):
        read_index(write(path, pickle.dumps(wrong)), FIELDS)
