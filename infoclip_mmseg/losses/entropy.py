"""Matrix-based Renyi entropy of features, in bits.

The entropy of n samples is read from the eigenvalues of their Gram matrix, without estimating a
density (InfoCLIP, arXiv 2511.15967, preliminaries; the estimator is that of Sanchez Giraldo, Rao
and Principe, 2015). All functions take leading batch dimensions, run outside autocast and compute
in float32 (float64 input stays float64).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from infoclip_mmseg.utils.tensors import at_least_float32

Grams = Tensor | Sequence[Tensor]


def check_alpha(alpha: float) -> None:
    """Raises a ValueError unless ``alpha`` is a usable entropy order."""
    if not 0 < alpha < math.inf:
        raise ValueError(
            f'alpha is {alpha}, but the order of a Renyi entropy must be positive and finite; '
            'use alpha=2.0 (fast, no eigenvalues) or alpha=1.0 (von Neumann entropy)'
        )


def normalise_rows(features: Tensor) -> Tensor:
    """Rows (..., n, d) divided by their L2 norm, at least float32; rows of zeros stay zero."""
    rows = at_least_float32(features)
    norm = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / torch.where(norm > 0, norm, torch.ones_like(norm))


def gram_matrix(features: Tensor) -> Tensor:
    """Gram matrix (..., n, n) of L2-normalised features (..., n, d), divided by its trace.

    The diagonal is set to the constant 1 before the division by the trace n: a single sample then
    has exactly zero gradient instead of rounding noise, and a row of zeros counts as orthogonal to
    every other row instead of giving NaN.
    """
    with torch.autocast(device_type=features.device.type, enabled=False):
        rows = normalise_rows(features)
        n = rows.shape[-2]
        # Dividing the rows by sqrt(n) divides the n x n matrix without another pass over it.
        rows = rows / math.sqrt(n)
        gram = rows @ rows.transpose(-1, -2)
        gram.diagonal(dim1=-2, dim2=-1).fill_(1.0 / n)
        return gram


def joint_gram(*grams: Tensor) -> Tensor:
    """Gram matrix (..., n, n) of several variables seen together.

    It is the Hadamard product of their Gram matrices (..., n, n), divided by its trace. No matrix,
    and matrices of different numbers of samples, are a ValueError.
    """
    product = _hadamard(*grams)
    return product / _trace(product)[..., None, None]


def _trace(gram: Tensor) -> Tensor:
    return gram.diagonal(dim1=-2, dim2=-1).sum(-1)


def _hadamard(*grams: Tensor) -> Tensor:
    if not grams:
        raise ValueError('joint_gram got no Gram matrix, but needs at least one')
    if len({gram.shape[-2:] for gram in grams}) > 1:
        raise ValueError(
            f'Gram matrices of shapes {[tuple(gram.shape) for gram in grams]} cannot be joined: '
            'they must be over the same samples'
        )
    product = at_least_float32(grams[0])
    for gram in grams[1:]:
        product = product * gram
    return product


def renyi_entropy(gram: Tensor, alpha: float = 2.0) -> Tensor:
    """Matrix-based Renyi entropy (...), bits, of Gram matrices (..., n, n) of trace 1.

    It is from 0 (all samples equal) to log2(n) (all orthogonal). At alpha = 2 it is minus log2 of
    the squared Frobenius norm. Any other order is computed from the eigenvalues in float64, since
    1 / (1 - alpha) magnifies rounding; alpha = 1 gives its limit, the von Neumann (Shannon) entropy
    of the eigenvalues. Eigenvalues that are rounding noise of the matrix count as zero and get no
    gradient. An order that is not positive and finite is a ValueError.
    """
    check_alpha(alpha)
    with torch.autocast(device_type=gram.device.type, enabled=False):
        gram = at_least_float32(gram)
        if alpha == 2:
            return -2 * torch.linalg.vector_norm(gram, dim=(-2, -1)).log2()
        entropy = _spectral_entropy(torch.linalg.eigvalsh(gram.double()), alpha, gram)
        return entropy.to(gram.dtype)


def _spectral_entropy(eigenvalues: Tensor, alpha: float, gram: Tensor) -> Tensor:
    """Entropy in bits of eigenvalues (..., n), float64, of Gram matrices."""
    positive = eigenvalues > gram.shape[-1] * torch.finfo(gram.dtype).eps
    eigenvalues = eigenvalues.masked_fill(~positive, 0.0)
    eigenvalues = eigenvalues / eigenvalues.sum(-1, keepdim=True)
    logs = eigenvalues.masked_fill(~positive, 1.0).log()
    if alpha == 1:
        return -(eigenvalues * logs).sum(-1) / math.log(2)
    if abs(alpha - 1) < 0.5:
        # The sum of powers is 1 + excess: written so, it keeps its digits as alpha goes to 1.
        excess = (eigenvalues * torch.expm1((alpha - 1) * logs)).sum(-1)
        return excess.log1p() / (1 - alpha) / math.log(2)
    powers = (alpha * logs).masked_fill(~positive, -math.inf)
    return powers.logsumexp(-1) / (1 - alpha) / math.log(2)


def joint_entropy(*grams: Tensor, alpha: float = 2.0) -> Tensor:
    """Joint entropy (...), bits, of variables with Gram matrices (..., n, n)."""
    if alpha == 2:
        # The entropy of G / tr(G) without dividing all of G.
        with torch.autocast(device_type=grams[0].device.type if grams else 'cpu', enabled=False):
            product = _hadamard(*grams)
            return renyi_entropy(product) + 2 * _trace(product).log2()
    return renyi_entropy(joint_gram(*grams), alpha)


def mutual_information(x: Grams, y: Grams, alpha: float = 2.0) -> Tensor:
    """Mutual information I(x; y) = H(x) + H(y) - H(x, y), (...), bits.

    ``x`` and ``y`` are Gram matrices (..., n, n) over the same n samples, or tuples of them taken
    as one joint variable. Errors are those of :func:`joint_gram` and :func:`renyi_entropy`.
    """
    xs = (x,) if isinstance(x, Tensor) else tuple(x)
    ys = (y,) if isinstance(y, Tensor) else tuple(y)
    separate = joint_entropy(*xs, alpha=alpha) + joint_entropy(*ys, alpha=alpha)
    return separate - joint_entropy(*xs, *ys, alpha=alpha)
