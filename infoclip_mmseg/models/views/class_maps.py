"""Class maps of an image, made a few at a time from the logits of its views (pure functions).

Logits stay at the head's resolution, and of each view only for the classes that were decoded in
it. Maps of full size are made for a chunk of classes, reduced to labels, and forgotten, so memory
does not grow with the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from infoclip_mmseg.models.decode_heads.base import OpenVocabHead
from infoclip_mmseg.models.views.windows import Layout, ViewLogits, region_of
from infoclip_mmseg.utils.tensors import Size, resize

# Elements of the maps that are held at a time.
_CHUNK = 1 << 22
FLIP_AXES = {'horizontal': -1, 'vertical': -2}


def average_scores(views: ViewLogits, classes: Tensor, head: OpenVocabHead) -> Tensor:
    """Scores (c, *size), float32, of some classes (c,), ascending: the views' weighted average.

    A class that was not decoded in a view has score 0 there.
    """
    total = views.logits.new_zeros(len(classes), *views.size, dtype=torch.float32)
    for index, view in enumerate(views.layout.views):
        logits, slots = _of_view(views, index, classes)
        if not len(logits):
            continue
        share = _enlarge(logits[None].float(), views.layout, head)
        if view.corner is None and views.layout.size is not None:
            share = resize(share, views.size)
        region = total[(slice(None), *region_of(view, views.layout))]
        share = share[0] * view.weight
        if slots is None:
            region.add_(share)
        else:
            region.index_add_(0, slots, share)
    return total


def class_maps(
    views: ViewLogits,
    head: OpenVocabHead,
    size: Size | None = None,
    word_counts: Sequence[int] = (),
    flip: str | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """Classes (c,), ascending, and their probabilities (c, *size), float32, a chunk at a time.

    Where the head needs the whole vocabulary, and so decodes all of it, there is one chunk.

    Args:
        views: Logits of the views.
        head: Makes probabilities of them.
        size: Height and width of the result; None keeps that of the averaged scores.
        word_counts: Words of each of the T classes; see :meth:`OpenVocabHead.probabilities`.
        flip: How the image was mirrored, 'horizontal' or 'vertical'; undone here.
    """
    size = size or views.size
    pixels = max(views.size[0] * views.size[1], size[0] * size[1])
    device = views.logits.device
    if views.classes is None:
        decoded = torch.arange(views.logits.shape[1], device=device)
    else:  # how many maps there are follows from these: the one wait for the device of an image
        by_view = views.classes.cpu()
        views, decoded = views._replace(classes=by_view), by_view.unique()
    step = len(decoded) if head.whole_vocabulary else max(1, _CHUNK // pixels)
    for classes in decoded.split(step):
        scores = average_scores(views, classes, head)
        if flip is not None:
            scores = scores.flip(FLIP_AXES[flip])
        maps = head.probabilities(resize(scores[None], size), word_counts)[0]
        if head.whole_vocabulary:
            classes = torch.arange(len(maps), device=maps.device)
        yield classes.to(device, non_blocking=True), maps


class Labeller:
    """Running maximum over the classes: the best class of each pixel and its probability.

    Equal to ``argmax`` over all T classes, which takes the first of equal ones, given classes in
    ascending order: classes that never come have probability 0.
    """

    def __init__(self, size: Size, device: torch.device) -> None:
        self.winner = torch.zeros(size, dtype=torch.long, device=device)
        self.probability = torch.zeros(size, dtype=torch.float32, device=device)

    def update(self, classes: Tensor, maps: Tensor) -> None:
        """Take the maps (c, h, w) of classes (c,) into account."""
        value, index = maps.max(dim=0)
        better = value > self.probability
        self.winner = torch.where(better, classes[index], self.winner)
        self.probability = torch.where(better, value, self.probability)


def _enlarge(logits: Tensor, layout: Layout, head: OpenVocabHead) -> Tensor:
    """Scores of a view's logits (1, m, h', w') at the size of the window."""
    if layout.window is None:
        return head.scores(logits)
    if layout.resizes_logits:
        return head.scores(resize(logits, layout.window))
    top, _, left, _ = layout.padding
    scores = resize(head.scores(logits), layout.padded)
    return scores[..., top : top + layout.window[0], left : left + layout.window[1]]


def _of_view(views: ViewLogits, index: int, classes: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits (m, h', w') of those of the classes (c,) that a view has, and their places (m,).

    The places are None where it has all of them. The classes lie beside ``views.classes``, which
    need not be beside the logits.
    """
    logits = views.logits[index]
    if views.classes is None:
        return logits[classes], None
    decoded = views.classes[index]
    place = torch.searchsorted(decoded, classes).clamp(max=len(decoded) - 1)
    (slots,) = (decoded[place] == classes).nonzero(as_tuple=True)
    place, slots = (x.to(logits.device, non_blocking=True) for x in (place[slots], slots))
    return logits[place], slots
