"""Class maps of an image, made a few at a time from the logits of its views (pure functions).

Logits stay at the head's resolution, and of each view only for the classes that were decoded in
it. Maps of full size are made for a chunk of classes, reduced to labels, and forgotten, so memory
does not grow with the vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from infoclip_mmseg.models.views.windows import Layout
from infoclip_mmseg.utils.tensors import resize

# Elements of the maps that are held at a time.
_CHUNK = 1 << 22


class ViewLogits(NamedTuple):
    """Logits of the views of one image.

    Attributes:
        logits: (V, k, h', w').
        classes: Their classes (V, k), ascending, or None where all T classes were decoded, k = T.
        num_classes: T.
        layout: Where the views lie; None for a single view that is not resized.
    """

    logits: Tensor
    classes: Tensor | None
    num_classes: int
    layout: Layout | None

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of a class map."""
        height, width = self.logits.shape[-2:]
        return (height, width) if self.layout is None else self.layout.size


def candidates(views: ViewLogits) -> Tensor:
    """Classes (U,), ascending, that were decoded in at least one view."""
    if views.classes is None:
        return torch.arange(views.num_classes, device=views.logits.device)
    return views.classes.unique()


def class_maps(views: ViewLogits, classes: Tensor) -> Tensor:
    """Probabilities (c, *size), float32, of some classes (c,), ascending.

    A class that was not decoded in a view has probability 0 there. The mean over the windows is
    averaged with the whole image (CAT-Seg, section 4.2).
    """
    if views.layout is None:
        total = views.logits.new_zeros(len(classes), *views.size, dtype=torch.float32)
        logits, slots = _of_view(views, 0, classes)
        return _add(total, slots, logits.float().sigmoid())
    size, window, corners, cover = views.layout
    total = views.logits.new_zeros(len(classes), *size, dtype=torch.float32)
    for index, corner in enumerate((*corners, None)):
        logits, slots = _of_view(views, index, classes)
        if not len(logits):
            continue
        share = resize(logits[None].float(), window).sigmoid()
        if corner is None:
            _add(total, slots, resize(share, size)[0] / 2)
            continue
        (top, left), (height, width) = corner, window
        region = (slice(top, top + height), slice(left, left + width))
        _add(total[(slice(None), *region)], slots, share[0] / (2 * cover[region]))
    return total


def iter_class_maps(views: ViewLogits, pixels: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """Maps of all candidate classes, a chunk at a time.

    Args:
        views: Logits of the views.
        pixels: Pixels of a map after what the caller does with it, where it is enlarged.

    Yields:
        Classes (c,), ascending, and their maps (c, *size); see :func:`class_maps`.
    """
    step = max(1, _CHUNK // max(views.size[0] * views.size[1], pixels))
    for classes in candidates(views).split(step):
        yield classes, class_maps(views, classes)


class Labeller:
    """Running maximum over the classes: the label of each pixel and its probability.

    Equal to ``argmax`` over all T classes, which takes the first of equal ones, given classes in
    ascending order: classes that never come have probability 0.

    Attributes:
        labels: (h, w).
        probability: (h, w), float32.
    """

    def __init__(self, size: tuple[int, int], device: torch.device) -> None:
        self.labels = torch.zeros(size, dtype=torch.long, device=device)
        self.probability = torch.zeros(size, dtype=torch.float32, device=device)

    def update(self, classes: Tensor, maps: Tensor) -> None:
        """Take the maps (c, h, w) of classes (c,) into account."""
        value, index = maps.max(dim=0)
        better = value > self.probability
        self.labels = torch.where(better, classes[index], self.labels)
        self.probability = torch.where(better, value, self.probability)


def _of_view(views: ViewLogits, index: int, classes: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits (m, h', w') of those of the classes (c,) that a view has, and their places (m,).

    The places are None where it has all of them.
    """
    logits = views.logits[index]
    if views.classes is None:
        return logits[classes], None
    own = views.classes[index]
    place = torch.searchsorted(own, classes).clamp(max=len(own) - 1)
    (slots,) = (own[place] == classes).nonzero(as_tuple=True)
    return logits[place[slots]], slots


def _add(total: Tensor, slots: Tensor | None, share: Tensor) -> Tensor:
    return total.add_(share) if slots is None else total.index_add_(0, slots, share)
