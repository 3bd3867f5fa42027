"""The unpickler looks names up in its list and imports nothing."""

from __future__ import annotations

import io
import os
import pickle
import sys

import numpy as np
import pytest

from infoclip_mmseg.utils.unpickling import (
    RefusedNameError,
    allow_list_unpickler,
    numpy_names,
)


class Attack:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def load(data, allowed):
    return allow_list_unpickler(allowed)(io.BytesIO(data)).load()


@pytest.mark.parametrize('protocol', range(pickle.HIGHEST_PROTOCOL + 1))
def test_a_name_off_the_list_is_refused_and_not_run(tmp_path, protocol):
    data = pickle.dumps([Attack(tmp_path / 'made')], protocol=protocol)
    with pytest.raises(RefusedNameError, match=r'GLOBAL \w+\.mkdir is not allowed') as error:
        load(data, numpy_names())
    assert error.value.name == f'{os.mkdir.__module__}.mkdir'
    assert isinstance(error.value, pickle.UnpicklingError)
    assert not (tmp_path / 'made').exists()


def test_nothing_is_imported():
    with pytest.raises(RefusedNameError, match='antigravity.fly'):
        load(b'cantigravity\nfly\n.', {})
    assert 'antigravity' not in sys.modules


def test_a_stand_in_takes_the_place_of_a_name():
    assert load(b"cos\nsystem\n(S'ls'\ntR.", {'os.system': len}) == 2


def test_arrays_and_scalars_of_numpy_1_and_2():
    value = {'a': np.arange(3), 'b': np.float64(0.5)}
    data = pickle.dumps(value, protocol=2)
    allowed = {**numpy_names(), '_codecs.encode': lambda text, _: text.encode('latin1')}
    for old, new in ((b'numpy._core', b'numpy.core'), (b'numpy.core', b'numpy._core')):
        loaded = load(data.replace(old, new), allowed)
        assert loaded['a'].tolist() == [0, 1, 2] and loaded['b'] == 0.5
