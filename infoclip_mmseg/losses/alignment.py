"""Information-theoretic alignment losses of InfoCLIP (arXiv 2511.15967, Eqs. 9 and 11).

Legend: B images, N = H*W positions of the dense grid, T classes, C channels.
"""

from __future__ import annotations

import functools
import logging

import torch
import torch.nn.functional as F
from mmengine.dist import all_gather, get_rank, get_world_size
from mmengine.logging import print_log
from mmseg.registry import MODELS
from torch import Tensor

from infoclip_mmseg.losses import entropy, pair_energy
from infoclip_mmseg.losses.base import Branch, DistillationLoss
from infoclip_mmseg.utils.tensors import at_least_float32


def gather_samples(*features: Tensor) -> tuple[Tensor, ...]:
    """Gathers the rows of all ranks with the gradient that DDP's averaging needs.

    Every rank computes the same loss l(x_1, ..., x_W) of the gathered rows, but back-propagates
    only into its own rows x_r. DDP then averages over ranks, which gives
    (1/W) sum_r s dl/dx_r dx_r/dtheta, where s is the scale put on the gradient of the own rows.
    With s = W that is exactly dl/dtheta of one process with the whole batch, whatever the share of
    each rank, and backward needs no communication.

    Matrices (b, d_i) of the same b local samples, a number that may differ between ranks, become
    those (B, d_i) of all samples in rank order. Without a process group, or with one rank, they are
    the input as it is. Widths d_i that differ between ranks are a ValueError on all of them.
    """
    world_size = get_world_size()
    if world_size == 1:
        return features
    widths = [feature.shape[1] for feature in features]
    local = torch.cat(features, dim=1)
    shape = torch.tensor([len(local), *widths], device=local.device)
    shapes = torch.stack(all_gather(shape)).tolist()
    for rank, (_, *others) in enumerate(shapes):
        if others != shapes[0][1:]:
            raise ValueError(
                f'features per image have {others} elements on rank {rank}, but '
                f'{shapes[0][1:]} on rank 0; batch-wise losses need the same feature grid and '
                'the same number of classes on every rank'
            )
    sizes = [size for size, *_ in shapes]
    padded = F.pad(local.detach(), (0, 0, 0, max(sizes) - len(local)))
    rows = [rows[:size] for rows, size in zip(all_gather(padded), sizes)]
    rows[get_rank()] = local + (world_size - 1) * (local - local.detach())
    return torch.split(torch.cat(rows), widths, dim=1)


@functools.cache
def _warn_single_sample() -> None:
    print_log(
        'The batch-wise alignment losses got one image in total: its 1 x 1 Gram matrix carries no '
        'information, so these losses are 0 and train nothing. Use a larger batch size or more '
        "GPUs, or set samples='token' in InfoBottleneckLoss and MITransferLoss.",
        logger='current',
        level=logging.WARNING,
    )


def _check_options(alpha: float, samples: str) -> None:
    entropy.check_alpha(alpha)
    if samples not in ('batch', 'token'):
        raise ValueError(f"samples is {samples!r}, but must be 'batch' or 'token'")


def _sample_grams(*features: Tensor, samples: str) -> list[Tensor]:
    """Gram matrices of features (B, N, ...).

    (B, B) over the images of all ranks for 'batch', (B, N, N) over the positions for 'token'.
    """
    if samples == 'token':
        return [entropy.gram_matrix(feature) for feature in features]
    rows = gather_samples(*(at_least_float32(feature).flatten(1) for feature in features))
    if len(rows[0]) == 1:
        _warn_single_sample()
    return [entropy.gram_matrix(row) for row in rows]


def _token_entropies(x: Tensor, y: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """H(x), H(y) and H(x, y) at alpha = 2 over the positions of each image (B, N, ...)."""
    with torch.autocast(device_type=x.device.type, enabled=False):
        pairs = zip(entropy.normalise_rows(x), entropy.normalise_rows(y))
        return [
            (pair_energy.entropy(a), pair_energy.entropy(b), pair_energy.joint_entropy(a, b))
            for a, b in pairs
        ]


def info_bottleneck(
    relation: Tensor, image: Tensor, text: Tensor, alpha: float = 2.0, samples: str = 'batch'
) -> Tensor:
    """Compression loss of the relation map: H(R) - H(V, L, R) (Eq. 9); a scalar, bits, at most 0.

    This is I(V, L; R) without the constant H(V, L). A text that all samples share has a Gram
    matrix of equal entries, which is neutral in the joint entropy. Shapes and options that do not
    fit are a ValueError.

    Args:
        relation: Relation map R of the teacher (B, N, T).
        image: Dense image embeddings V of the teacher (B, N, C).
        text: Text embeddings L of the teacher, (T, C) shared or (B, T, C) by image.
        alpha: Order of the entropy, positive.
        samples: 'batch': features are flattened by image and compared over the images of all
            ranks. 'token': positions are compared within each image, mean over the local images.
    """
    _check_options(alpha, samples)
    fits = relation.dim() == image.dim() == 3 and relation.shape[:2] == image.shape[:2]
    shared = (*relation.shape[-1:], *image.shape[-1:])
    if not fits or text.shape not in (shared, (*relation.shape[:1], *shared)):
        raise ValueError(
            'relation must be (B, N, T), image (B, N, C) and text (T, C) or (B, T, C) with the '
            f'same B, N, T and C, but they are {tuple(relation.shape)}, {tuple(image.shape)} and '
            f'{tuple(text.shape)}'
        )
    if samples == 'token':
        # All positions have the same text, which is neutral.
        if alpha == 2 and pair_energy.pays(relation, image):
            entropies = [(h_r - h_both) for h_r, _, h_both in _token_entropies(relation, image)]
            return torch.stack(entropies).mean()
        grams = _sample_grams(relation, image, samples=samples)
    else:
        text = text.expand(relation.shape[0], -1, -1)
        grams = _sample_grams(relation, image, text, samples=samples)
    relation_entropy = entropy.renyi_entropy(grams[0], alpha)
    return (relation_entropy - entropy.joint_entropy(*grams, alpha=alpha)).mean()


def mutual_information_transfer(
    teacher: Tensor, student: Tensor, alpha: float = 2.0, samples: str = 'batch'
) -> Tensor:
    """Transfer loss between relation maps (B, N, T) of teacher and student: -I(R_T; R_S) (Eq. 11).

    Options, unit and errors as in :func:`info_bottleneck`.
    """
    _check_options(alpha, samples)
    if teacher.dim() != 3 or teacher.shape != student.shape:
        raise ValueError(
            'the relation maps of teacher and student must both be (B, N, T), but they are '
            f'{tuple(teacher.shape)} and {tuple(student.shape)}'
        )
    if samples == 'token' and alpha == 2 and pair_energy.pays(teacher, student):
        entropies = [h_t + h_s - h_both for h_t, h_s, h_both in _token_entropies(teacher, student)]
        return -torch.stack(entropies).mean()
    teacher_gram, student_gram = _sample_grams(teacher, student, samples=samples)
    return -entropy.mutual_information(teacher_gram, student_gram, alpha).mean()


class _AlignmentLoss(DistillationLoss):
    """Options that the alignment losses share; see :class:`InfoBottleneckLoss`."""

    shown = ('loss_weight', 'alpha', 'samples')

    def __init__(
        self,
        loss_weight: float = 1.0,
        alpha: float = 2.0,
        samples: str = 'batch',
        loss_name: str | None = None,
    ) -> None:
        super().__init__(loss_weight, loss_name)
        _check_options(alpha, samples)
        self.alpha, self.samples = alpha, samples


@MODELS.register_module()
class InfoBottleneckLoss(_AlignmentLoss):
    """Information bottleneck on the teacher's relation map (Eq. 9).

    Under distributed training with ``samples='batch'`` the samples of all ranks are gathered, so
    that W ranks of b images give the loss and gradient of one process with W*b images.

    Args:
        loss_weight: Factor of the loss.
        alpha, samples: See :func:`info_bottleneck`; order 2 needs no eigenvalues, and 'batch' is as
            published.
        loss_name: Key of the loss, by default 'loss_ib'.
    """

    default_name = 'loss_ib'

    def forward(self, relation: Tensor, image: Tensor, text: Tensor) -> Tensor:
        """Weighted :func:`info_bottleneck` of the teacher's maps and embeddings."""
        return self.loss_weight * info_bottleneck(relation, image, text, self.alpha, self.samples)

    def distill(self, teacher: Branch, student: Branch) -> Tensor:
        """The loss of the teacher's branch; the student's is not read."""
        return self(teacher.relation, teacher.positions, teacher.text)


@MODELS.register_module()
class MITransferLoss(_AlignmentLoss):
    """Negative mutual information of the relation maps of teacher and student (Eq. 11).

    Nothing is detached: the gradient reaches the relation module through both branches and the
    student through its own. Samples of all ranks are gathered, and options mean the same, as in
    :class:`InfoBottleneckLoss`; the default ``loss_name`` is 'loss_mi'.
    """

    default_name, compares = 'loss_mi', 'relation'

    def forward(self, teacher: Tensor, student: Tensor) -> Tensor:
        """Weighted :func:`mutual_information_transfer` of relation maps (B, N, T)."""
        loss = mutual_information_transfer(teacher, student, self.alpha, self.samples)
        return self.loss_weight * loss
