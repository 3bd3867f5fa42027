"""Checkpoints are data: read them without running what they contain, and check that they fit."""

from __future__ import annotations

import functools
import pickle
import re
import tarfile
import types
import zipfile
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from mmengine.logging import HistoryBuffer
from mmengine.model import BaseTTAModel, is_model_wrapper
from mmengine.runner import CheckpointLoader
from mmengine.utils import digit_version
from torch import Tensor, nn

from infoclip_mmseg.utils.unpickling import allow_list_unpickler, numpy_names

Device = str | torch.device | None

# Before 2.6 the keyword `weights_only` neither takes more classes by name nor is safe for every
# file format, so that those versions get an unpickler of ours.
_HAS_SAFE_LOAD = digit_version(torch.__version__) >= digit_version('2.6.0')
_DTYPES = ('bool', 'i1', 'i2', 'i4', 'i8', 'u1', 'u2', 'u4', 'u8', 'f2', 'f4', 'f8')
_STATISTICS = ('min', 'max', 'current', 'mean')


class CheckpointError(RuntimeError):
    """A checkpoint that can't be read, may not be read, or does not fit the model."""


def load_checkpoint_file(path: str | PathLike[str], map_location: Device = 'cpu') -> dict[str, Any]:
    """Read a checkpoint without executing any code that it may contain.

    Reads what `torch.save` writes for tensors, plain Python values, NumPy arrays and MMEngine's
    training logs, and safetensors files (as `state_dict`, with their metadata as `meta`). An entry
    `meta['config']` is left out: `Runner.resume` would execute it as Python.

    Raises:
        FileNotFoundError: There is no such file.
        CheckpointError: The file is damaged, refers to code, or holds something else than a dict.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise FileNotFoundError(
            f'checkpoint {str(path)!r} does not exist (working directory {Path.cwd()})'
        )
    if path.suffix == '.safetensors':
        return _load_safetensors(path, map_location)
    _refuse_other_archives(path)
    try:
        checkpoint = _load_pickle(path, map_location)
    except Exception as error:  # damaged bytes make the unpickler raise almost anything
        _raise_unreadable(path, error)
    if not isinstance(checkpoint, dict):
        raise CheckpointError(
            f'checkpoint {str(path)!r} holds a {type(checkpoint).__name__}; expected a dict of '
            "tensors, or a dict with the key 'state_dict'"
        )
    if isinstance(checkpoint.get('meta'), dict):
        checkpoint['meta'].pop('config', None)
    return checkpoint


def install_safe_loader() -> None:
    """Make MMEngine read local checkpoints by :func:`load_checkpoint_file` in this process.

    `Runner.load_checkpoint`, `Runner.resume` and `mmengine.runner.load_checkpoint` all ask the same
    table for a loader. The programs in tools/ call this; importing the package does not.
    """
    CheckpointLoader.register_scheme('', loader=load_from_safe_local, force=True)


def load_from_safe_local(filename: str, map_location: Device = None) -> dict[str, Any]:
    """MMEngine's signature of a checkpoint loader; see :func:`load_checkpoint_file`."""
    return load_checkpoint_file(filename, map_location)


def check_state_dict(
    model: nn.Module,
    state_dict: Mapping[str, Tensor],
    complete: bool = True,
    optional: tuple[str, ...] = (),
) -> None:
    """Raise a CheckpointError unless weights belong to the architecture of a model.

    The model may be wrapped for distributed running or test-time augmentation; a leading 'module.'
    in the keys is overlooked. Each tensor must be there but for those with ``optional`` prefixes;
    where weights need not be ``complete``, one is enough.
    """
    inner: Any = model
    while is_model_wrapper(inner) or isinstance(inner, BaseTTAModel):
        inner = inner.module
    expected = {key: tuple(value.shape) for key, value in inner.state_dict().items()}
    got = {re.sub(r'^module\.', '', k): tuple(v.shape) for k, v in state_dict.items()}
    common = expected.keys() & got.keys()
    wrong = [key for key in expected if key in common and expected[key] != got[key]]
    missing = [key for key in expected if key not in common and not key.startswith(optional)]
    if not wrong and not (missing if complete else not common):
        return
    shapes = [f'{k} is {got[k]} and should be {expected[k]}' for k in wrong[:3]]
    raise CheckpointError(
        f'the checkpoint belongs to another architecture: of {len(expected)} tensors of the model '
        f'{len(missing)} are missing {missing[:3]} and {len(wrong)} have another shape {shapes}. '
        'Use the config that the checkpoint was trained with.'
    )


def _load_safetensors(path: Path, map_location: Device) -> dict[str, Any]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework='pt', device=str(map_location or 'cpu')) as file:
            state_dict = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
            return {'meta': file.metadata() or {}, 'state_dict': state_dict}
    except SafetensorError as error:
        _raise_unreadable(path, error)


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript program."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith('/constants.pkl') for name in archive.namelist())


def _refuse_other_archives(path: Path) -> None:
    is_script = is_torchscript(path)
    if is_script or tarfile.is_tarfile(path):
        kind = 'TorchScript program' if is_script else 'tar archive'
        raise CheckpointError(
            f'{str(path)!r} is a {kind}, not a checkpoint; expected a file that torch.save wrote '
            'from a dict, or a .safetensors file'
        )


def _load_pickle(path: Path, map_location: Device) -> Any:
    if _HAS_SAFE_LOAD:
        names: list[Any] = [(value, name) for name, value in _mmengine_globals().items()]
        with torch.serialization.safe_globals(names):
            return torch.load(path, map_location=map_location, weights_only=True)
    options: Any = dict(pickle_module=_restricted_pickle(), weights_only=False)
    return torch.load(path, map_location=map_location, **options)


def _raise_unreadable(path: Path, error: Exception) -> NoReturn:
    text = str(error).split('WeightsUnpickler error: ')[-1].strip()
    name = re.search(r'(?:GLOBAL|global|class|function|type|module) `?([\w.]*\w\.\w+)', text)
    if isinstance(error, pickle.UnpicklingError) and name is not None:
        raise CheckpointError(
            f'checkpoint {str(path)!r} refers to {name[1]}, which is not on the list of what a '
            'checkpoint may contain. Nothing of it was run. If you trust its author, load it '
            "yourself and save torch.save({'state_dict': weights}, NEW_PATH)."
        ) from error
    reason = text.split('. ')[0].split('\n')[0].rstrip('.')
    raise CheckpointError(
        f'checkpoint {str(path)!r} ({path.stat().st_size} bytes) is damaged or not a checkpoint '
        f'({type(error).__name__}: {reason}); expected what torch.save writes, or a .safetensors '
        'file. Nothing of it was run. Copy or download it again.'
    ) from error


def _history_buffer_method(owner: Any, name: str) -> Callable[..., Any]:
    """Stand-in for `getattr`, by which a pickled HistoryBuffer names its four statistics."""
    if owner is not HistoryBuffer or name not in _STATISTICS:
        raise pickle.UnpicklingError(f'GLOBAL builtins.getattr called for {name!r}')
    return getattr(HistoryBuffer, name)


@functools.cache
def _mmengine_globals() -> dict[str, Any]:
    """What MMEngine's checkpoints name beyond tensors, by full name, for NumPy 1 and 2 alike."""
    allowed = {
        'builtins.getattr': _history_buffer_method,
        '__builtin__.getattr': _history_buffer_method,
        'mmengine.logging.history_buffer.HistoryBuffer': HistoryBuffer,
        **numpy_names(),
    }
    for kind in {type(np.dtype(code)) for code in _DTYPES}:
        allowed[f'{kind.__module__}.{kind.__name__}'] = kind
    return allowed


@functools.cache
def _restricted_pickle() -> Any:
    """A stand-in for the module `pickle` whose unpickler knows a fixed list of names."""
    import _codecs

    from torch._weights_only_unpickler import _get_allowed_globals

    allowed = {**_get_allowed_globals(), **_mmengine_globals()}
    allowed.update({'_codecs.encode': _codecs.encode, 'torch.device': torch.device})
    for kind in (set, bytearray, complex):
        allowed.update({f'{name}.{kind.__name__}': kind for name in ('builtins', '__builtin__')})
    unpickler = allow_list_unpickler(allowed)

    def load(file: Any, **kwargs: Any) -> Any:
        return unpickler(file, **kwargs).load()

    stand_in = types.SimpleNamespace(**vars(pickle))
    stand_in.Unpickler, stand_in.load, stand_in.loads = unpickler, load, None
    return stand_in
