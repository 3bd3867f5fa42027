"""Distillation losses that InfoCLIP is compared with (its Table 2), on the same teacher.

The teacher's side is a fixed target in all of them: it gets no gradient. Means are over the images
of this process, so DDP's averaging makes them means over the global batch.

Legend: B images, H W dense grid, N = H*W positions, T classes, C channels.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor

from infoclip_mmseg.losses.base import DistillationLoss
from infoclip_mmseg.utils.tensors import at_least_float32

SCALES = (1, 2, 4)


def _target_and_student(
    teacher: Tensor, student: Tensor, dims: int, what: str
) -> tuple[Tensor, Tensor]:
    """Both, of one shape with ``dims`` dimensions, in float32 or float64; the teacher detached."""
    if teacher.dim() != dims or teacher.shape != student.shape:
        raise ValueError(
            f'teacher and student must both be {what}, but they are {tuple(teacher.shape)} and '
            f'{tuple(student.shape)}; resize or project the student to the grid and width of the '
            'teacher first'
        )
    return at_least_float32(teacher.detach()), at_least_float32(student)


def _check_temperature(temperature: float) -> None:
    if not 0 < temperature < math.inf:
        raise ValueError(
            f'temperature is {temperature}, but must be positive and finite; 0.01 turns cosines '
            "into CLIP's logits"
        )


def class_kl(teacher: Tensor, student: Tensor, temperature: float = 1.0) -> Tensor:
    """Kullback-Leibler divergence of the student's class distributions from the teacher's, nats.

    At every position of the relation maps (B, N, T), such as cosines, softmax(R_T / temperature) is
    compared with softmax(R_S / temperature) over the classes; the mean is over positions and
    images. There is no factor temperature^2. Shapes that do not fit, and a temperature that is not
    positive, are a ValueError.
    """
    _check_temperature(temperature)
    teacher, student = _target_and_student(teacher, student, 3, 'relation maps (B, N, T)')
    with torch.autocast(device_type=student.device.type, enabled=False):
        target = F.log_softmax(teacher / temperature, dim=-1)
        output = F.log_softmax(student / temperature, dim=-1)
        return (target.exp() * (target - output)).sum(-1).mean()


def embedding_smooth_l1(teacher: Tensor, student: Tensor) -> Tensor:
    """SmoothL1 (threshold 1) between dense embeddings (B, C, H, W), mean over all numbers."""
    teacher, student = _target_and_student(teacher, student, 4, 'embeddings (B, C, H, W)')
    with torch.autocast(device_type=student.device.type, enabled=False):
        return F.smooth_l1_loss(student, teacher)


def strip_pooling(dense: Tensor, scales: Sequence[int] = SCALES) -> Tensor:
    """Column and row sums (B, C * L) of maps (B, C, H, W) pooled at several scales, from 1 to S.

    A map that is not square is first resized bilinearly to a square of its longer side S. At scale
    s it is averaged over S // s x S // s cells (what is left over at the far edges is dropped),
    and the cells are summed down each column and along each row: L is twice the sum of the cells a
    side over the scales.
    """
    side = max(dense.shape[-2:])
    if not scales or min(scales) < 1 or max(scales) > side:
        raise ValueError(
            f'scales are {tuple(scales)}, but each must be from 1 to {side}, the longer side of '
            f'the {dense.shape[-2]} x {dense.shape[-1]} grid'
        )
    if dense.shape[-2] != dense.shape[-1]:
        dense = F.interpolate(dense, size=(side, side), mode='bilinear', align_corners=False)
    strips = []
    for scale in scales:
        cells = F.avg_pool2d(dense, side // scale)
        strips += [cells.sum(dim=2).flatten(1), cells.sum(dim=3).flatten(1)]
    return torch.cat(strips, dim=1)


def representation_compensation(
    teacher: Tensor, student: Tensor, scales: Sequence[int] = SCALES
) -> Tensor:
    """SmoothL1 between the strip-pooled positive parts of two maps (MAFT+, arXiv 2408.00744).

    They are dense image embeddings (B, C, H, W); scales as in :func:`strip_pooling`. Shapes and
    scales that do not fit are a ValueError.
    """
    teacher, student = _target_and_student(teacher, student, 4, 'embeddings (B, C, H, W)')
    with torch.autocast(device_type=student.device.type, enabled=False):
        target, output = (strip_pooling(x.relu(), scales) for x in (teacher, student))
        return F.smooth_l1_loss(output, target)


@MODELS.register_module()
class KLDistillationLoss(DistillationLoss):
    """KL divergence between the class distributions of teacher and student at every position.

    With a neck the distributions are of its relation maps, without one of plain cosines, for which
    CLIP's own temperature is 0.01. The teacher's relation map is a target without gradient, also
    where a trained neck computes it.

    Args:
        loss_weight: Factor of the loss.
        temperature: Divides the relation maps before the softmax over the classes, positive.
        loss_name: Key of the loss, by default 'loss_kl'.
    """

    default_name, compares = 'loss_kl', 'relation'
    shown = (*DistillationLoss.shown, 'temperature')

    def __init__(
        self, loss_weight: float = 1.0, temperature: float = 1.0, loss_name: str | None = None
    ) -> None:
        super().__init__(loss_weight, loss_name)
        _check_temperature(temperature)
        self.temperature = temperature

    def forward(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Weighted :func:`class_kl` of relation maps (B, N, T)."""
        return self.loss_weight * class_kl(teacher, student, self.temperature)


@MODELS.register_module()
class SelfDistillationLoss(DistillationLoss):
    """Holds the student's dense image embeddings to the teacher's, as MAFT (arXiv 2310.00240) does.

    MAFT applies SmoothL1 to the class scores that its frozen and its tuned image encoder give the
    whole image; here it is between the embeddings themselves, at every position. They are not
    scaled to unit length: numbers that small would make the loss hundreds of times weaker than the
    task's, and never reach the linear part of SmoothL1. By default it is named 'loss_sd'.
    """

    default_name, compares = 'loss_sd', 'dense'

    def forward(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Weighted :func:`embedding_smooth_l1` of dense embeddings (B, C, H, W)."""
        return self.loss_weight * embedding_smooth_l1(teacher, student)


@MODELS.register_module()
class RepresentationCompensationLoss(DistillationLoss):
    """Representation Compensation of MAFT+ (arXiv 2408.00744).

    Args:
        loss_weight: Factor of the loss.
        scales: Cells a side at which the positive parts are pooled.
        compares: 'dense', the image embeddings, or of a ConvNeXt CLIP 'trunk', its last stage
            before it is projected, as MAFT+ does.
        loss_name: Key of the loss, by default 'loss_rc'.
    """

    default_name, compares = 'loss_rc', 'dense'
    shown = (*DistillationLoss.shown, 'scales')

    def __init__(
        self,
        loss_weight: float = 0.1,
        scales: Sequence[int] = SCALES,
        loss_name: str | None = None,
        compares: str = 'dense',
    ) -> None:
        super().__init__(loss_weight, loss_name)
        if compares not in ('dense', 'trunk'):
            raise ValueError(f"compares must be 'dense' or 'trunk', got {compares!r}")
        self.compares = compares
        self.scales = tuple(scales)

    def forward(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Weighted :func:`representation_compensation` of dense embeddings (B, C, H, W)."""
        return self.loss_weight * representation_compensation(teacher, student, self.scales)
