"""Cauchy-Schwarz divergence of order 2 between relation maps: a transfer that compares.

Eq. 11 of InfoCLIP (arXiv 2511.15967) rewards what teacher and student share, and is not least where
they agree. Here the joint entropy gives way to the inner product of the Gram matrices themselves,

    D(G_T, G_S) = log2 |G_T|^2 + log2 |G_S|^2 - 2 log2 <G_T, G_S> = -2 log2 cos(G_T, G_S),

the divergence of that name among Principe's quadratic information measures (Information Theoretic
Learning, 2010, chapter 2), and -2 log2 of the kernel alignment of Cristianini et al. (2001). By the
inequality it is named after it is never negative, and 0 only where the matrices are proportional.

Legend: B images, N = H*W positions, T classes, n samples, d features.
"""

from __future__ import annotations

import functools
import logging
import math

import torch
from mmengine.logging import print_log
from mmseg.registry import MODELS
from torch import Tensor

from infoclip_mmseg.losses.alignment import gather_samples
from infoclip_mmseg.losses.base import Branch, DistillationLoss
from infoclip_mmseg.losses.entropy import normalise_rows
from infoclip_mmseg.utils.tensors import at_least_float32

SAMPLES = ('token', 'batch', 'map')
MAPS = {'cosine': 'cosines', 'detached': 'fixed_relation', 'shared': 'relation'}
"""Attribute of a branch by the name of its map."""
LEAST_COSINE = 0.01
"""Cosine from which on down the divergence goes on as a straight line."""


def cosine_bits(cosine: Tensor) -> Tensor:
    """-2 log2 of cosines (...), bits; below LEAST_COSINE its tangent there.

    So it is finite at 0 and below, which the cosine of two maps can be, and its gradient bounded.
    """
    steep = -2 * cosine.clamp(min=LEAST_COSINE).log2()
    slope = 2 / (LEAST_COSINE * math.log(2))
    return steep + slope * (LEAST_COSINE - cosine).clamp(min=0)


def gram_cosine(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine (...) of the Gram matrices X X^T and Y Y^T of rows (..., n, d) and (..., n, d').

    Also whether neither matrix is 0; the cosine is 0 where one is. <X X^T, Y Y^T> = |X^T Y|^2, so
    that the matrices themselves are made only where they are the smaller ones.
    """
    if max(x.shape[-1], y.shape[-1]) <= x.shape[-2]:
        inner = (x.mT @ y).square().sum((-2, -1))
        norms = [torch.linalg.matrix_norm(z.mT @ z) for z in (x, y)]
    else:
        grams = [z @ z.mT for z in (x, y)]
        inner = (grams[0] * grams[1]).sum((-2, -1))
        norms = [torch.linalg.matrix_norm(gram) for gram in grams]
    return _ratio(inner, norms[0] * norms[1])


def map_cosine(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine (B,) of relation maps (B, N, T), each centred over its classes.

    Also whether neither map is constant over the classes, to rounding; the cosine is 0 where one
    is.
    """
    x, y = (_centred(z) for z in (x, y))
    norms = [torch.linalg.vector_norm(z, dim=-1) for z in (x, y)]
    return _ratio((x * y).sum(-1), norms[0] * norms[1])


def _centred(maps: Tensor) -> Tensor:
    """Maps (B, N, T) less their means over T, as (B, N * T); 0 where only rounding is left."""
    centred = (maps - maps.mean(-1, keepdim=True)).flatten(1)
    size = torch.linalg.vector_norm(maps.flatten(1), dim=-1)
    noise = 8 * torch.finfo(maps.dtype).eps * size
    told = torch.linalg.vector_norm(centred, dim=-1) > noise
    return centred.where(told[:, None], torch.zeros_like(centred))


def _ratio(inner: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
    valid = scale > 0
    return inner / scale.where(valid, torch.ones_like(scale)), valid


def cauchy_schwarz_divergence(teacher: Tensor, student: Tensor, samples: str = 'token') -> Tensor:
    """Cauchy-Schwarz divergence between relation maps (B, N, T) of one batch, a scalar in bits.

    Rows that are 0 say nothing, and where that leaves a Gram matrix of zeros, or a map is constant
    over the classes, that image counts as 0 and trains nothing. Computed in float32 or float64
    outside autocast. Maps of another form, or of another size than each other, and unknown samples
    are a ValueError.

    Args:
        teacher, student: Relation maps; T may differ with samples 'token'.
        samples: 'token': Gram matrices over the N positions of each image, whose rows are the T
            relations of a position divided by their length; the mean over the local images. They
            do not change where the classes are rotated or a position's row is scaled.
            'batch': over the images of all ranks, each flattened and divided by its length.
            'map': the maps in place of Gram matrices, each centred over its classes and flattened;
            the mean over the local images. They do not change where a map is scaled, or a position
            shifted.
    """
    _check_samples(samples)
    fits = teacher.dim() == student.dim() == 3 and teacher.shape[:2] == student.shape[:2]
    if not fits or (samples != 'token' and teacher.shape != student.shape):
        raise ValueError(
            'the relation maps of teacher and student must both be (B, N, T), but they are '
            f'{tuple(teacher.shape)} and {tuple(student.shape)}'
        )
    with torch.autocast(device_type=student.device.type, enabled=False):
        maps = [at_least_float32(x) for x in (teacher, student)]
        if samples == 'map':
            count, cosine = maps[0].shape[-1], map_cosine(*maps)
        else:
            if samples == 'batch':
                maps = list(gather_samples(*(x.flatten(1) for x in maps)))
            count, cosine = maps[0].shape[-2], gram_cosine(*(normalise_rows(x) for x in maps))
        if count == 1:
            _warn_single(samples)
        value, valid = cosine
        return cosine_bits(value).where(valid, torch.zeros_like(value)).mean()


def _check_samples(samples: str) -> None:
    if samples not in SAMPLES:
        raise ValueError(f'samples is {samples!r}, but must be one of {SAMPLES}')


@functools.cache
def _warn_single(samples: str) -> None:
    what = dict(token='position in each image', batch='image in total', map='class')[samples]
    others = [repr(name) for name in SAMPLES if name != samples]
    print_log(
        f'CauchySchwarzLoss with samples={samples!r} got one {what}, which there is nothing to '
        f'compare with: the loss is 0 and trains nothing. Set samples to {" or ".join(others)}',
        logger='current',
        level=logging.WARNING,
    )


@MODELS.register_module()
class CauchySchwarzLoss(DistillationLoss):
    """Holds the student's relation map to the teacher's by :func:`cauchy_schwarz_divergence`.

    Args:
        loss_weight: Factor of the loss.
        samples: 'token' (positions of an image), 'batch' (images) or 'map'.
        maps: Which relation maps. 'cosine': plain cosines, whether or not there is a neck.
            'shared': those of the neck, which learns from this loss, as InfoCLIP has it; the neck
            can then make the maps alike in the student's place. 'detached': those of the neck as
            it is, no gradient reaches it from here.
        detach_teacher: The teacher's map is a target without gradient; False lets a shared neck
            learn through it, too.
        loss_name: Key of the loss, by default 'loss_cs'.
    """

    default_name = 'loss_cs'
    shown = ('loss_weight', 'samples', 'maps', 'detach_teacher')

    def __init__(
        self,
        loss_weight: float = 1.0,
        samples: str = 'token',
        maps: str = 'cosine',
        detach_teacher: bool = True,
        loss_name: str | None = None,
    ) -> None:
        super().__init__(loss_weight, loss_name)
        _check_samples(samples)
        if maps not in MAPS:
            raise ValueError(f'maps is {maps!r}, but must be one of {(*MAPS,)}')
        self.samples, self.maps, self.detach_teacher = samples, maps, detach_teacher

    def forward(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Weighted :func:`cauchy_schwarz_divergence` of relation maps (B, N, T)."""
        teacher = teacher.detach() if self.detach_teacher else teacher
        return self.loss_weight * cauchy_schwarz_divergence(teacher, student, self.samples)

    def distill(self, teacher: Branch, student: Branch) -> Tensor:
        """The loss between the branches' maps of the configured kind."""
        return self(getattr(teacher, MAPS[self.maps]), getattr(student, MAPS[self.maps]))
