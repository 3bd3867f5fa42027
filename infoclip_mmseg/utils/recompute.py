"""Activation checkpointing: which activations are computed again in the backward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

Recompute = bool | str
"""False: nothing; True: all of a part; ``'selective'``: what lies between its large products."""


def check_recompute(with_cp: Recompute) -> Recompute:
    """The option of a config as it is.

    Raises:
        ValueError: It is none of False, True and ``'selective'``.
        RuntimeError: It is ``'selective'`` and torch is older than 2.4.
    """
    if with_cp not in (False, True, 'selective'):
        raise ValueError(f"with_cp must be False, True or 'selective', got {with_cp!r}")
    if with_cp == 'selective' and not hasattr(
        torch.utils.checkpoint, 'create_selective_checkpoint_contexts'
    ):
        raise RuntimeError(
            f"with_cp='selective' needs torch 2.4 or later, this is {torch.__version__}: "
            'set with_cp=True'
        )
    return with_cp


def checkpointed(function: Callable, with_cp: Recompute, **options: Any) -> Callable:
    """The function, which in the backward pass computes its activations again.

    With ``'selective'`` the outputs of matrix products, convolutions and attention are kept, which
    take nearly all of the time; normalisation, activation functions and reshaping run again.
    ``options`` are those of ``torch.utils.checkpoint.checkpoint``.
    """
    if with_cp == 'selective':
        contexts = torch.utils.checkpoint.create_selective_checkpoint_contexts
        options['context_fn'] = partial(contexts, _kept())
        function = partial(_without_cast_cache, function)
    return partial(checkpoint, function, use_reentrant=False, **options)


def _kept() -> list:
    """Operators whose outputs are kept, those that this torch has."""
    products = ['mm', 'addmm', 'bmm', 'baddbmm', 'convolution']
    attention = [
        '_scaled_dot_product_flash_attention',
        '_scaled_dot_product_flash_attention_for_cpu',
        '_scaled_dot_product_efficient_attention',
        '_scaled_dot_product_cudnn_attention',
    ]
    operators = (getattr(torch.ops.aten, name, None) for name in products + attention)
    return [operator.default for operator in operators if operator is not None]


def _without_cast_cache(function: Callable, *args: Any, **kwargs: Any) -> Any:
    """Call it with autocast's cache of weights off.

    Selective checkpointing counts operators: a weight that had been cast before the region in the
    forward pass and is cast inside of it in the backward pass would be one too many.
    """
    if torch.compiler.is_compiling():
        return function(*args, **kwargs)
    enabled = torch.is_autocast_cache_enabled()
    torch.set_autocast_cache_enabled(False)
    try:
        return function(*args, **kwargs)
    finally:
        torch.set_autocast_cache_enabled(enabled)
