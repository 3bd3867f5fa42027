"""Pickles are data: an unpickler that knows a fixed list of names and runs nothing else."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np


class RefusedNameError(pickle.UnpicklingError):
    """A pickle refers to a ``name`` that is not on the list; nothing of it was run."""

    def __init__(self, name: str) -> None:
        super().__init__(f'GLOBAL {name} is not allowed')
        self.name = name


def allow_list_unpickler(allowed: Mapping[str, Any]) -> type[pickle.Unpickler]:
    """An unpickler's class that looks full names ('numpy.ndarray') up instead of importing them.

    Its `load` raises a RefusedNameError where the pickle refers to another name.
    """

    class AllowListUnpickler(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            full_name = f'{module}.{name}'
            if full_name not in allowed:
                raise RefusedNameError(full_name)
            return allowed[full_name]

    return AllowListUnpickler


def numpy_names() -> dict[str, Any]:
    """What pickles of NumPy's arrays and scalars refer to, by the names of NumPy 1 and 2 alike."""
    rebuild_array: Any = np.zeros(0).__reduce__()[0]
    rebuild_scalar: Any = np.float64(0).__reduce__()[0]
    names = {'numpy.ndarray': np.ndarray, 'numpy.dtype': np.dtype}
    for package in ('numpy.core', 'numpy._core'):
        names[f'{package}.multiarray._reconstruct'] = rebuild_array
        names[f'{package}.multiarray.scalar'] = rebuild_scalar
    return names
