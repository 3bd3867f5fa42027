"""Renyi entropies of order 2 of many samples, without holding their Gram matrices.

At alpha = 2 the entropy of a Gram matrix K / n with unit diagonal is -log2(E / n^2), where
E = sum_ij K_ij^2 is its energy, and that of two variables together has the entries of both
multiplied (:mod:`~infoclip_mmseg.losses.entropy`). The energy of one variable follows from its
d x d matrix of second moments. That of two runs over blocks of rows, which stay in a CPU's cache;
the gradient is made on the way, because the energy is a scalar.

Legend: n samples, d features.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

# Fewer samples have small Gram matrices.
MIN_SAMPLES = 256
_BLOCK = 256


def pays(*rows: Tensor) -> bool:
    """Whether features (..., n, d) of these shapes are faster this way."""
    return all(x.shape[-2] >= max(MIN_SAMPLES, x.shape[-1] + 1) for x in rows)


def entropy(rows: Tensor) -> Tensor:
    """Entropy of order 2 of the rows (n, d) of length 1 (or 0), in bits."""
    moments = rows.T @ rows
    # The diagonal of the Gram matrix is 1, also where a row is 0. (What it adds to the gradient
    # points along the rows, where their normalisation takes it out.)
    zero_rows = len(rows) - moments.detach().trace()
    energy = moments.square().sum() + zero_rows
    return 2 * math.log2(len(rows)) - energy.log2()


def joint_entropy(x: Tensor, y: Tensor) -> Tensor:
    """Joint entropy of order 2 of two variables, rows (n, d) and (n, d') as above, in bits."""
    energy: Tensor = _JointEnergy.apply(x, y)
    return 2 * math.log2(len(x)) - energy.log2()


class _JointEnergy(Function):
    """Sum of the squared entries of two Gram matrices with unit diagonals, multiplied entrywise."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, y: Tensor) -> Tensor:
        """The energy of rows (n, d) and (n, d'), and its gradient for the backward pass."""
        energy = x.new_zeros((), dtype=torch.float64)
        wanted = ctx.needs_input_grad[:2]
        gradients = [torch.zeros_like(z) if want else None for z, want in zip((x, y), wanted)]
        for start in range(0, len(x), _BLOCK):
            # The matrices are symmetric: a block of rows is read from its diagonal on.
            rows, rest = slice(start, start + _BLOCK), slice(start, None)
            kx, ky = x[rows] @ x[rest].T, y[rows] @ y[rest].T
            size = len(kx)
            product = kx * ky
            product.diagonal().fill_(1.0)
            norms = (torch.linalg.vector_norm(p) for p in (product, product[:, :size]))
            whole, square = (norm.double().square() for norm in norms)
            energy += 2 * whole - square
            product.diagonal().zero_()  # constant
            for z, slope, gradient in zip((x, y), (ky.mul_(product), kx.mul_(product)), gradients):
                if gradient is not None:
                    gradient[rows].addmm_(slope, z[rest])
                    gradient[start + size :].addmm_(slope[:, size:].T, z[rows])
        ctx.save_for_backward(*(g for g in gradients if g is not None))
        return energy.to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient kept by the forward pass; there is no second derivative."""
        saved = iter(ctx.saved_tensors)
        return tuple(4 * upstream * next(saved) if w else None for w in ctx.needs_input_grad[:2])
