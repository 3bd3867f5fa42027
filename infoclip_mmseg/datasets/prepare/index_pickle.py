"""Read the index of ADE20K's full release without running what a pickle may contain."""

from __future__ import annotations

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from infoclip_mmseg.datasets.prepare.files import PrepareError


def read_index(path: Path, fields: tuple[str, ...]) -> dict[str, list[str]]:
    """Read columns of names from index_ade20k.pkl.

    The file holds a dict of lists, strings and NumPy arrays. Any other class or function that it
    refers to is refused before it is looked up.

    Args:
        path: The file.
        fields: Names of columns.

    Returns:
        Those columns, as lists of strings.

    Raises:
        PrepareError: The file is damaged, refers to something else, or lacks a column.
    """
    try:
        with open(path, 'rb') as file:
            index = _IndexUnpickler(file).load()
    except PrepareError as error:
        raise PrepareError(f'{path} {error}') from None
    except FileNotFoundError as error:
        raise PrepareError(f'{path} is missing; it belongs to the full release') from error
    except Exception as error:  # damaged bytes make the unpickler raise almost anything
        raise PrepareError(
            f'{path} ({path.stat().st_size} bytes) is cut short or damaged: '
            f'{type(error).__name__}: {error}. Unpack it again.'
        ) from error
    if not isinstance(index, dict) or any(name not in index for name in fields):
        got = list(index) if isinstance(index, dict) else type(index).__name__
        raise PrepareError(f'{path} holds {got}; expected the columns {list(fields)} among others')
    columns = {name: list(index[name]) for name in fields}
    for name, column in columns.items():
        if not all(isinstance(value, str) for value in column):
            raise PrepareError(f'{path}: the column {name!r} must hold strings only')
    return columns


def _encode_latin1(text: str, encoding: str) -> bytes:
    """Stands for `_codecs.encode`, by which pickles of protocol 2 hold bytes."""
    if encoding not in ('latin1', 'latin-1'):
        raise PrepareError(f'asks for the codec {encoding!r}, which this index never holds')
    return text.encode('latin1')


def _empty_bytes() -> bytes:
    """Stands for `bytes`, by which pickles of protocol 2 hold the empty string of bytes."""
    return b''


def _allowed() -> dict[tuple[str, str], Callable[..., Any]]:
    """What a dict of lists, strings and arrays needs; NumPy moved its functions in version 2."""
    rebuild_array: Any = np.zeros(0).__reduce__()[0]
    rebuild_scalar: Any = np.float64(0).__reduce__()[0]
    rebuild_from_buffer: Any = np.zeros(1).__reduce_ex__(5)[0]
    table: dict[tuple[str, str], Callable[..., Any]] = {
        ('numpy', 'ndarray'): np.ndarray,
        ('numpy', 'dtype'): np.dtype,
        ('collections', 'OrderedDict'): OrderedDict,
        ('_codecs', 'encode'): _encode_latin1,
        ('__builtin__', 'bytes'): _empty_bytes,
    }
    for package in ('numpy.core', 'numpy._core'):
        table[f'{package}.multiarray', '_reconstruct'] = rebuild_array
        table[f'{package}.multiarray', 'scalar'] = rebuild_scalar
        table[f'{package}.numeric', '_frombuffer'] = rebuild_from_buffer
    return table


class _IndexUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        """Only the classes above; nothing is imported."""
        try:
            return _allowed()[module, name]
        except KeyError:
            raise PrepareError(
                f'refers to {module}.{name}, which the index of ADE20K does not contain: refused, '
                'nothing was run. Take the file from the official archive.'
            ) from None
