"""Reading embeddings out of a segmentor that was not made to give them away.

This is the one place that uses forward hooks: a foreign model is told by module paths where its
embeddings come from and is not changed for it. The hooks live for one forward pass only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

SIDES = ('output', 'input')


class Tap(NamedTuple):
    """Where a tensor comes from.

    Attributes:
        module: Path of a submodule, such as ``'decode_head.conv_seg'``.
        side: ``'output'``, or ``'input'`` for the module's first positional argument.
        steps: Steps from there to the tensor through tuples, lists and dicts, such as ``(0, -1)``.
    """

    module: str
    side: str = 'output'
    steps: tuple[int | str, ...] = ()


def make_tap(module: str, side: str = 'output', index: int | str | Sequence[int | str] = ()) -> Tap:
    """A tap from the keys of a config.

    Raises:
        ValueError: ``side`` is unknown.
    """
    if side not in SIDES:
        raise ValueError(f'side of {module!r} must be one of {SIDES}, got {side!r}')
    return Tap(module, side, (index,) if isinstance(index, (int, str)) else tuple(index))


def find_module(root: nn.Module, path: str) -> nn.Module:
    """The submodule at a path.

    Raises:
        ValueError: There is none; the message says what there is.
    """
    module = root
    for depth, name in enumerate(path.split('.')):
        children = dict(module.named_children())
        if name not in children:
            where = '.'.join(path.split('.')[:depth]) or type(root).__name__
            raise ValueError(
                f'there is no module {path!r} in {type(root).__name__}: {where} has '
                f'{sorted(children)}'
            )
        module = children[name]
    return module


@contextmanager
def read_modules(root: nn.Module, taps: Mapping[str, Tap]) -> Iterator[dict[str, Any]]:
    """Collect what passes at the taps while the context lasts.

    Args:
        root: The model.
        taps: Taps by any name.

    Yields:
        A dict that is filled, by the same names, in the model's forward pass. Of a module that runs
        several times the last run counts.
    """
    read: dict[str, Any] = {}
    with ExitStack() as stack:
        for name, tap in taps.items():
            module = find_module(root, tap.module)
            if tap.side == 'input':
                handle = module.register_forward_pre_hook(partial(_keep_input, read, name))
            else:
                handle = module.register_forward_hook(partial(_keep_output, read, name))
            stack.callback(handle.remove)
        yield read


def _keep_input(read: dict[str, Any], name: str, module: nn.Module, args: tuple) -> None:
    read[name] = args


def _keep_output(
    read: dict[str, Any], name: str, module: nn.Module, args: tuple, output: Any
) -> None:
    read[name] = output


def pick(read: Mapping[str, Any], name: str, tap: Tap, dims: tuple[int, ...]) -> Tensor:
    """The tensor of a tap.

    Args:
        read: From :func:`read_modules`.
        name: The tap's name there.
        tap: The tap.
        dims: How many dimensions the tensor may have.

    Raises:
        ValueError: The module did not run, or there is no such tensor.
    """
    if name not in read:
        raise ValueError(
            f'module {tap.module!r} did not run in the loss of the student; name one that does'
        )
    value = read[name]
    for step in ((0,) if tap.side == 'input' else ()) + tap.steps:
        try:
            value = value[step]
        except (IndexError, KeyError, TypeError) as error:
            raise ValueError(
                f'the {tap.side} of {tap.module!r} has no entry {tap.steps}: it is '
                f'{_describe(read[name])}'
            ) from error
    if not isinstance(value, Tensor) or value.dim() not in dims:
        raise ValueError(
            f'the {tap.side} of {tap.module!r} at index {tap.steps} is {_describe(value)}, '
            f'expected a tensor of {" or ".join(map(str, dims))} dimensions; set module, side and '
            'index'
        )
    return value


def _describe(value: Any) -> str:
    if isinstance(value, Tensor):
        return f'a tensor {tuple(value.shape)}'
    if isinstance(value, Mapping):
        return f'a dict of {sorted(value)}'
    if isinstance(value, (tuple, list)):
        return f'a {type(value).__name__} of [{", ".join(map(_describe, value))}]'
    return f'a {type(value).__name__}'
