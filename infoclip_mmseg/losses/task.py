"""Task loss of CAT-Seg: binary cross-entropy over all pixels and classes.

Legend: B images, T classes, h w label size.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

from infoclip_mmseg.utils.tensors import at_least_float32

# Logits at label size at a time: what a CPU caches, or a GPU is busy with.
_CPU_CHUNK, _CHUNK = 2**20, 2**26

Size = Sequence[int]


def _check_ignored(ignored: str) -> None:
    if ignored not in ('negative', 'exclude'):
        raise ValueError(f"ignored is {ignored!r}, but must be 'negative' or 'exclude'")


def _mask(logits: Tensor, labels: Tensor, ignore_index: int, ignored: str, size: Size) -> Tensor:
    """Ignored pixels of labels (B, h, w), which are checked against logits of a size."""
    _check_ignored(ignored)
    if logits.dim() != 4 or labels.dim() != 3 or labels.shape != (len(logits), *size):
        raise ValueError(
            'logits must be (B, T, h, w) and labels (B, h, w) of the same size, but they are '
            f'{tuple(logits.shape)} and {tuple(labels.shape)}; resize the logits to the label '
            'size first (bilinear, align_corners=False)'
        )
    if labels.is_floating_point():
        raise ValueError(f'labels must hold class indices, but their type is {labels.dtype}')
    mask, num_classes = labels == ignore_index, logits.shape[1]
    _refuse(labels, ((labels < 0) | (labels >= num_classes)) & ~mask, num_classes)
    return mask


def _refuse(labels: Tensor, wrong: Tensor, num_classes: int) -> None:
    """Raise a ValueError where labels are wrong; on a GPU, without waiting for it, stop there."""
    allowed = f'labels must be 0..{num_classes - 1} or the ignored value'
    if wrong.is_cuda:
        torch._assert_async(~wrong.any(), allowed)
    elif wrong.any():
        values = labels[wrong].unique().tolist()
        raise ValueError(
            f'labels hold the values {values[:5]}{" ..." if len(values) > 5 else ""}, but the '
            f'logits are of {num_classes} classes, so {allowed}; check that the vocabulary fits '
            'the annotation and its reduce_zero_label'
        )


def _extra_weights(
    class_weight: Sequence[float] | None, index: Tensor, mask: Tensor, logits: Tensor
) -> Tensor | None:
    """What each pixel's class weighs more than 1, (B, h, w); None where nothing does."""
    if class_weight is None:
        return None
    if len(class_weight) != logits.shape[1]:
        got = f'{len(class_weight)} values, but the logits are of {logits.shape[1]} classes'
        raise ValueError(f'class_weight has {got}; give one for each name of the vocabulary')
    extra = torch.as_tensor(class_weight, dtype=torch.float32, device=logits.device) - 1
    return extra[index.clamp(min=0)].masked_fill(mask, 0.0)


def pixel_bce(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int = 255,
    ignored: str = 'negative',
    class_weight: Sequence[float] | None = None,
) -> Tensor:
    """Binary cross-entropy of each pixel, summed over classes: (B, h, w), nats, at least float32.

    No one-hot target is made: with targets y, the sum over classes of ``softplus(x) - x * y`` is
    the sum of softplus minus the logit of the labelled class. With weights w the part of that
    class, ``softplus(-x)``, counts w times. What does not fit together, and a label that is out of
    range, is a ValueError.

    Args:
        logits: (B, T, h, w), any floating type.
        labels: (B, h, w), class indices 0..T-1 or ``ignore_index``.
        ignore_index: Label value of ignored pixels.
        ignored: 'negative': ignored pixels have all-zero targets. 'exclude': they count nothing.
        class_weight: Weights (T,) of the positive part, torch's ``pos_weight``; None: 1 each.
    """
    mask = _mask(logits, labels, ignore_index, ignored, logits.shape[2:])
    with torch.autocast(device_type=logits.device.type, enabled=False):
        logits = at_least_float32(logits)
        index = labels.long().masked_fill(mask, 0).unsqueeze(1)
        target_logits = logits.gather(1, index).squeeze(1).masked_fill(mask, 0.0)
        loss = F.softplus(logits).sum(dim=1) - target_logits
        extra = _extra_weights(class_weight, index.squeeze(1), mask, logits)
        if extra is not None:
            loss = loss + extra * F.softplus(-target_logits)
        return loss.masked_fill(mask, 0.0) if ignored == 'exclude' else loss


def resized_pixel_bce(
    logits: Tensor,
    labels: Tensor,
    ignore_index: int = 255,
    ignored: str = 'negative',
    class_weight: Sequence[float] | None = None,
) -> Tensor:
    """:func:`pixel_bce` of logits (B, T, h', w') that are first resized to the labels.

    Resized logits (bilinear, align_corners=False) exist for a few classes at a time, in the forward
    and in the backward pass.
    """
    mask = _mask(logits, labels, ignore_index, ignored, labels.shape[1:])
    budget = _CPU_CHUNK if logits.device.type == 'cpu' else _CHUNK
    chunk = max(1, budget // max(1, labels.numel()))
    index = labels.long().masked_fill(mask, -1)
    with torch.autocast(device_type=logits.device.type, enabled=False):
        extra = _extra_weights(class_weight, index, mask, logits)
        loss: Tensor = _ResizedBCE.apply(at_least_float32(logits), index, extra, chunk)
    return loss.masked_fill(mask, 0.0) if ignored == 'exclude' else loss


class _ResizedBCE(Function):
    """See :func:`resized_pixel_bce`; the derivative of softplus is the sigmoid."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, index: Tensor, extra: Tensor | None, chunk: int
    ) -> Tensor:
        """Loss (B, h, w) of logits (B, T, h', w'); pixels with index -1 (B, h, w) have no class."""
        ctx.save_for_backward(logits, index, extra)
        ctx.chunk = chunk
        loss = logits.new_zeros(index.shape)
        for start, part in _resized(logits, index, chunk):
            slots, inside = _class_slots(index - start, part.shape[1])
            target = part.gather(1, slots).squeeze(1)
            loss += F.softplus(part).sum(dim=1) - target * inside
            if extra is not None:
                loss += extra * inside * F.softplus(-target)
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor, None, None, None]:
        """Gradient of the logits."""
        logits, index, extra = ctx.saved_tensors
        grad = torch.empty_like(logits)
        for start, part in _resized(logits, index, ctx.chunk):
            classes = part.shape[1]
            slots, inside = _class_slots(index - start, classes)
            part = part.sigmoid_()
            pull = upstream * inside
            if extra is not None:
                pull = pull * (1 + extra * (1 - part.gather(1, slots).squeeze(1)))
            part = part.mul_(upstream.unsqueeze(1)).scatter_add_(1, slots, -pull.unsqueeze(1))
            target = grad[:, start : start + classes]
            backward = torch.ops.aten.upsample_bilinear2d_backward
            target.copy_(backward(part, part.shape[2:], target.shape, False, None, None))
        return grad, None, None, None


def _resized(logits: Tensor, index: Tensor, chunk: int) -> Iterator[tuple[int, Tensor]]:
    """First class of each part, and its logits resized."""
    for start in range(0, logits.shape[1], chunk):
        part = logits[:, start : start + chunk]
        yield start, F.interpolate(part, index.shape[1:], mode='bilinear', align_corners=False)


def _class_slots(index: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Place (B, 1, h, w) of each pixel's class among these, and whether it is one of them."""
    inside = (index >= 0) & (index < classes)
    return index.where(inside, 0).unsqueeze(1), inside


def catseg_bce(
    logits: Tensor, labels: Tensor, ignore_index: int = 255, ignored: str = 'negative'
) -> Tensor:
    """Mean binary cross-entropy over pixels and classes, a scalar in nats, at least float32.

    Arguments and errors are those of :func:`pixel_bce`. With 'negative' ignored pixels are
    negatives of all classes (published CAT-Seg, arXiv 2303.11797), with 'exclude' they are left out
    of sum and count, as in mmseg; 0 if every pixel is.
    """
    loss = pixel_bce(logits, labels, ignore_index, ignored)
    return _mean(loss, labels, logits.shape[1], ignore_index, ignored)


def _mean(
    loss: Tensor, labels: Tensor, num_classes: int, ignore_index: int, ignored: str
) -> Tensor:
    if ignored == 'negative':
        return loss.mean() / num_classes
    return loss.sum() / ((labels != ignore_index).sum().clamp(min=1) * num_classes)


@MODELS.register_module()
class CATSegBCELoss(nn.Module):
    """Binary cross-entropy of CAT-Seg in the interface of MMSegmentation's losses.

    Args:
        ignored: 'negative' (as published) or 'exclude' (the same numbers as mmseg's
            ``CrossEntropyLoss(use_sigmoid=True, avg_non_ignore=True)``); see :func:`catseg_bce`.
        class_weight: Weights (T,) of the positive parts; the divisor stays.
        loss_weight: Factor of the loss.
        loss_name: Key of the loss; it is optimised only if it starts with 'loss_'.
    """

    resizes = True
    """The head may hand over logits as they are, see ``resize``."""

    def __init__(
        self,
        ignored: str = 'negative',
        loss_weight: float = 1.0,
        loss_name: str = 'loss_seg',
        class_weight: Sequence[float] | None = None,
    ) -> None:
        super().__init__()
        _check_ignored(ignored)
        self.ignored, self.loss_weight, self.loss_name = ignored, loss_weight, loss_name
        self.class_weight = None if class_weight is None else tuple(class_weight)

    def extra_repr(self) -> str:
        """Options, shown when the model is printed."""
        weights = '' if self.class_weight is None else f', class_weight={self.class_weight}'
        return f'ignored={self.ignored!r}, loss_weight={self.loss_weight}{weights}'

    def forward(
        self,
        cls_score: Tensor,
        label: Tensor,
        weight: Tensor | None = None,
        avg_factor: float | None = None,
        reduction_override: str | None = None,
        ignore_index: int = 255,
        resize: bool = False,
        **kwargs: Any,
    ) -> Tensor:
        """Scalar, or (B, h, w) for 'none'; nats times ``loss_weight``.

        Args:
            cls_score, label, ignore_index: As in :func:`pixel_bce`; of any size with ``resize``.
            weight: (B, h, w), factor of each pixel, for example from a pixel sampler.
            avg_factor: Divides the sum over pixels and classes in place of their number.
            reduction_override: 'mean' (default), 'sum' over pixels and classes, or 'none': the mean
                over classes of each pixel.
            resize: Resize the logits to the labels first; see :func:`resized_pixel_bce`.
            **kwargs: Other arguments of MMSegmentation's losses, without effect.
        """
        reduction = reduction_override or 'mean'
        summable = ('sum',) if avg_factor is None else ()
        if reduction not in ('none', 'mean', *summable):
            raise ValueError(
                f"the reduction is {reduction!r} with avg_factor={avg_factor}, but must be 'mean', "
                "'none', or 'sum' without avg_factor"
            )
        compute = resized_pixel_bce if resize else pixel_bce
        loss = compute(cls_score, label, ignore_index, self.ignored, self.class_weight)
        if weight is not None:
            loss = loss * weight
        num_classes = cls_score.shape[1]
        if reduction == 'none':
            loss = loss / num_classes
        elif reduction == 'sum':
            loss = loss.sum()
        elif avg_factor is not None:
            loss = loss.sum() / avg_factor
        else:
            loss = _mean(loss, label, num_classes, ignore_index, self.ignored)
        return self.loss_weight * loss
