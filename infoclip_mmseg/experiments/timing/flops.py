"""Floating-point operations of a call: matrix products, convolutions and attention."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

Formula = Callable[[Sequence[Any], Any], int]
"""Arguments and result of an operator to its operations; a multiplication with sum is two."""
ATTENTION = '_scaled_dot_product_'


def count_flops(call: Callable[[], object]) -> int:
    """Operations of a call, once."""
    with _Counter() as counter:
        call()
    return counter.total


class _Counter(TorchDispatchMode):
    """Adds up what the operators that run inside do; elementwise ones do not count."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        name = func._overloadpacket.__name__
        formula = FORMULAS.get(name)
        if formula is None and name.startswith(ATTENTION):
            formula = _attention_backward if name.endswith('backward') else _attention
        if formula is not None:
            self.total += formula(args, result)
        return result


def _product(a: Tensor, b: Tensor) -> int:
    return 2 * a.numel() * b.shape[-1]


def _attention(args: Sequence[Any], result: Any) -> int:
    query, key, value = args[:3]
    scores = query.shape[:-1].numel() * key.shape[-2]
    return 2 * scores * (query.shape[-1] + value.shape[-1])


def _attention_backward(args: Sequence[Any], result: Any) -> int:
    query, key, value = args[1:4]
    scores = query.shape[:-1].numel() * key.shape[-2]
    return 2 * scores * (3 * query.shape[-1] + 2 * value.shape[-1])


def _convolution(args: Sequence[Any], result: Any) -> int:
    image, weight, transposed = args[0], args[1], args[6]
    return 2 * weight.shape[1:].numel() * (image.numel() if transposed else result.numel())


def _convolution_backward(args: Sequence[Any], result: Any) -> int:
    gradient, image, weight, transposed, wanted = *args[:3], args[7], args[10]
    places = image.numel() if transposed else gradient.numel()
    return 2 * weight.shape[1:].numel() * places * sum(wanted[:2])


FORMULAS: dict[str, Formula] = {
    'mm': lambda args, result: _product(*args[:2]),
    'bmm': lambda args, result: _product(*args[:2]),
    'addmm': lambda args, result: _product(*args[1:3]),
    'addmm_': lambda args, result: _product(*args[1:3]),
    'baddbmm': lambda args, result: _product(*args[1:3]),
    'convolution': _convolution,
    'convolution_backward': _convolution_backward,
}
