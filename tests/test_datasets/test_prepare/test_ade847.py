import builtins
import pickle
import re
from collections import Counter
from itertools import pairwise

import cv2
import numpy as np
import pytest
from original_archives import ade_index, ade_names, ade_numbers

from infoclip_mmseg.datasets.prepare import PrepareError, ade847
from infoclip_mmseg.datasets.prepare.ade847 import read_ade847_objects, read_index
from infoclip_mmseg.datasets.vocabularies import load_vocabulary

FIELDS = ('filename', 'folder', 'objectnames')


def test_published_numbers_are_in_the_order_of_names():
    """ADE20K numbers its objects by the alphabet, but for some that were added at the end."""
    names, numbers = load_vocabulary('ade847'), read_ade847_objects()
    assert len(names) == len(numbers) == len(set(numbers)) == 847
    assert min(numbers) == 6 and max(numbers) == 3156
    plain = [re.sub('[^a-z0-9 -]', '', name.split(',')[0]) for name in names]
    ordered = [name for number, name in sorted(zip(numbers, plain)) if number < 3101]
    assert len(ordered) == 827
    assert sum(a > b for a, b in pairwise(ordered)) < 27  # commas sort before spaces


@pytest.mark.parametrize(
    'name, number',
    [  # from annotation files that ADE20K publishes as examples (name, name_ndx)
        ('traffic light, traffic signal, stoplight', 2836),
        ('car, auto, automobile, machine, motorcar', 401),
        ('signboard, sign', 2380),
        ('person, individual, someone, somebody, mortal, soul', 1831),
        ('building, edifice', 312),
        ('sidewalk, pavement', 2377),
        ('central reservation', 461),
        ('tree', 2855),
    ],
)
def test_published_numbers_known_from_elsewhere(name, number):
    assert read_ade847_objects()[load_vocabulary('ade847').index(name)] == number


def test_classes_are_found_by_name():
    names = ade_names()
    shuffled = np.random.default_rng(0).permutation(len(names))
    numbers = ade847.number_classes(
        [names[i] for i in shuffled], load_vocabulary('ade847'), ade_numbers()
    )
    places = {original + 1: place + 1 for place, original in enumerate(shuffled.tolist())}
    assert numbers == [places[number] for number in ade_numbers()]


def test_published_numbers_stand_in_for_names():
    names, numbers = ade_names(), ade_numbers()
    names[numbers[5] - 1] = 'spelt otherwise'
    names[7] = names[numbers[9] - 1]  # not unique
    assert ade847.number_classes(names, load_vocabulary('ade847'), numbers) == numbers


def test_another_release_is_refused():
    with pytest.raises(PrepareError, match='ADE20K_2021_17_01'):
        ade847.number_classes(['wall'] * 4000, load_vocabulary('ade847'), ade_numbers())
    with pytest.raises(PrepareError, match='ADE20K_2021_17_01'):
        ade847.number_classes(ade_names()[:3000], load_vocabulary('ade847'), ade_numbers())


def test_table_keeps_255_and_300():
    numbers = ade_numbers()
    table = ade847.label_table(numbers, 3688)
    assert len(table) == 3689
    assert table[0] == table[7] == 65535
    assert [table[numbers[k]] for k in (0, 255, 256, 300, 846)] == [0, 255, 256, 300, 846]
    assert sum(label != 65535 for label in table.values()) == 847


def test_objects_from_colours():
    colours = np.array([[[0, 0, 9], [10, 1, 9], [129, 112, 9], [140, 104, 0]]], np.uint8)
    assert ade847.decode_objects(colours).tolist() == [[0, 257, 3184, 3688]]


@pytest.mark.parametrize(
    'size, new',
    [
        ((512, 683), (512, 683)),
        ((300, 2000), (300, 2000)),
        ((513, 513), (512, 512)),
        ((1536, 2048), (512, 683)),
        ((2048, 1536), (683, 512)),
        ((601, 799), (512, 681)),
    ],
)
def test_short_side_is_reduced_to_512(size, new):
    assert ade847.resized_shape(*size) == new


def test_nearest_interpolation_of_16_bits_keeps_labels():
    label = np.random.default_rng(0).integers(0, 65536, (60, 90)).astype(np.uint16)
    small = cv2.resize(label, (45, 30), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(small, label[::2, ::2])


def test_paths_outside_are_refused(tmp_path, monkeypatch):
    index = ade_index([('../..', 'ADE_val_1.jpg')])
    monkeypatch.setattr(ade847, 'read_index', lambda path, fields: index)
    with pytest.raises(PrepareError, match='points outside'):
        ade847.find_tasks(tmp_path)


# The index


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
