"""Finding the segmentor inside distributed and test-time-augmentation wrappers."""

from __future__ import annotations

from typing import Any

from torch import nn


def unwrap_segmentor(model: nn.Module, attribute: str) -> Any:
    """The innermost wrapped module that has ``attribute``.

    Raises:
        TypeError: Neither the model nor anything it wraps has it.
    """
    inner: Any = model
    while not hasattr(inner, attribute):
        if not hasattr(inner, 'module'):
            raise TypeError(
                f'{type(inner).__name__} has no {attribute!r}: this hook works on an '
                'OpenVocabSegmentor or a DistilledSegmentor; set model.type or remove the hook'
            )
        inner = inner.module
    return inner
