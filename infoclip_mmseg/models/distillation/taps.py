"""Reading embeddings out of a student that was not made to give them away.

This is the one place that uses forward hooks: a foreign model is told by module paths where its
embeddings come from and is not changed for it. The hooks live for one forward pass only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infoclip_mmseg.utils.tensors import resize

DENSE, MASKS, TEXT = 'dense', 'masks', 'text'
SIDES = ('output', 'input')


class Tap(NamedTuple):
    """Where a tensor comes from: a submodule, and from its output or input on."""

    module: str  # path, such as 'decode_head.conv_seg'
    side: str = 'output'  # or 'input', for the module's first positional argument
    steps: tuple[int | str, ...] = ()  # through tuples, lists and dicts, such as (0, -1)


def make_tap(module: str, side: str = 'output', index: int | str | Sequence[int | str] = ()) -> Tap:
    """A tap from the keys of a config; an unknown ``side`` is a ValueError."""
    if side not in SIDES:
        raise ValueError(f'side of {module!r} must be one of {SIDES}, got {side!r}')
    return Tap(module, side, (index,) if isinstance(index, (int, str)) else tuple(index))


def make_taps(dense: dict, text: dict | None) -> dict[str, Tap]:
    """Taps of a config; see :class:`Distillation`."""
    dense = dict(dense)
    masks = dense.pop(MASKS, None)
    configs = {DENSE: dense, MASKS: masks, TEXT: text}
    return {name: make_tap(**config) for name, config in configs.items() if config is not None}


def find_module(root: nn.Module, path: str) -> nn.Module:
    """The submodule at a path; a ValueError that says what there is where there is none."""
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

    Yields a dict that is filled, by the taps' names, in the model's forward pass. Of a module that
    runs several times the last run counts.
    """
    read: dict[str, Any] = {}
    with ExitStack() as stack:
        for name, tap in taps.items():
            module = find_module(root, tap.module)
            is_input = tap.side == 'input'
            hook = module.register_forward_pre_hook if is_input else module.register_forward_hook
            stack.callback(hook(partial(_keep, read, name)).remove)
        yield read


def _keep(read: dict[str, Any], name: str, module: nn.Module, *passed: Any) -> None:
    read[name] = passed[-1]  # arguments of a pre-hook, output of a hook


def pick(read: Mapping[str, Any], name: str, tap: Tap, dims: tuple[int, ...]) -> Tensor:
    """The tensor of a tap from :func:`read_modules`, of any of these numbers of dimensions.

    A module that did not run, and a tensor that is not there, is a ValueError.
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


def spread_queries(queries: Tensor, masks: Tensor) -> Tensor:
    """Dense embeddings (B, C, H, W) of a student that classifies masks.

    Each position gets the query embeddings (B, Q, C) in the proportion of its mask probabilities
    (as logits, B, Q, H, W), as such a student's logits are made; others are a ValueError.
    """
    if queries.shape[:2] != masks.shape[:2]:
        raise ValueError(
            f'query embeddings are {tuple(queries.shape)} and mask logits {tuple(masks.shape)}, '
            'expected (B, Q, C) and (B, Q, H, W) of the same B and Q'
        )
    return torch.einsum('bqc,bqhw->bchw', queries, masks.to(queries.dtype).sigmoid())


def match_grid(dense: Tensor, size: tuple[int, int]) -> Tensor:
    """Bring (B, C, h, w) to another grid: means of its positions, or bilinear where it grows."""
    if dense.shape[-2] >= size[0] and dense.shape[-1] >= size[1]:
        return F.adaptive_avg_pool2d(dense, size)
    return resize(dense, size)


def read_dense(read: Mapping[str, Any], taps: Mapping[str, Tap]) -> Tensor:
    """The student's dense embeddings (B, C, H, W); a ValueError where no gradient flows."""
    tap = taps[DENSE]
    if MASKS in taps:
        dense = spread_queries(pick(read, DENSE, tap, (3,)), pick(read, MASKS, taps[MASKS], (4,)))
    else:
        dense = pick(read, DENSE, tap, (4,))
    if torch.is_grad_enabled() and not dense.requires_grad:
        raise ValueError(
            f'no gradient flows through the {tap.side} of {tap.module!r}: the module is frozen, or '
            'runs under reentrant activation checkpointing (with_cp); name a later one'
        )
    return dense


def read_text(read: Mapping[str, Any], taps: Mapping[str, Tap], classes: int) -> Tensor | None:
    """The student's text embeddings (T, C) or (B, T, C), or None if it has none.

    Rows after the first T are no class of the vocabulary, such as SAN's embedding of the
    background, and are left out; fewer are a ValueError.
    """
    if TEXT not in taps:
        return None
    text = pick(read, TEXT, taps[TEXT], (2, 3))
    if text.shape[-2] < classes:
        raise ValueError(
            f'module {taps[TEXT].module!r} gave {text.shape[-2]} text embeddings, but the data set '
            f'has {classes} classes; both must be of one vocabulary, in the same order'
        )
    return text[..., :classes, :]
