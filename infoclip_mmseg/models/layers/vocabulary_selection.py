"""Which classes of a vocabulary an image is decoded for: those its positions vote for.

Pure functions. The idea is that of the channel reduction of ERR-Seg (arXiv 2501.17642) and of the
early rejection of SED (arXiv 2311.15537): most classes of a vocabulary are not in the image, and
the raw cost volume, a matrix product, already says so.

Legend: B images, T classes, k classes that are decoded, P prompts, C channels, N positions, h w.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from infoclip_mmseg.utils.tensors import at_least_float32

# Similarities that are held at a time.
_CHUNK = 1 << 22
NO_SLOT = -1
"""Slot of a pixel whose class is not decoded, or that has no label."""
UNDECODED = ('negative', 'exclude')


class ClassSelection(NamedTuple):
    """How the classes of an image are selected, as keys of CATSegHead.

    0 turns the selection off, and a number of at least T changes nothing.
    """

    num_decoded: int = 0  # classes that are decoded of a view in inference
    num_decoded_train: int = 0  # of an image in training; the classes of its labels come first
    vote_weights: Sequence[float] = (1.0, 0.1, 0.01)  # of a position's most similar classes
    undecoded: str = 'negative'  # in the mean over classes of the loss with 0; 'exclude': not

    def check(self, losses: Sequence[Mapping[str, Any]] = ()) -> None:
        """Raise a ValueError for values that are none, or do not fit configs of task losses."""
        if min(self.num_decoded, self.num_decoded_train) < 0:
            raise ValueError(
                'num_decoded and num_decoded_train are numbers of classes, 0 for no selection; got '
                f'{self.num_decoded} and {self.num_decoded_train}'
            )
        weights = list(self.vote_weights)
        if not weights or min(weights) <= 0:
            raise ValueError(
                'vote_weights has a positive weight for the most similar class of a position, for '
                f'the second and so on, such as (1.0, 0.1, 0.01); got {self.vote_weights!r}'
            )
        if self.undecoded not in UNDECODED:
            raise ValueError(f'undecoded must be one of {UNDECODED}, got {self.undecoded!r}')
        weighted = any(loss.get('class_weight') is not None for loss in losses)
        if weighted and self.num_decoded_train:
            raise ValueError(
                'class_weight of loss_decode names all classes, but with num_decoded_train='
                f'{self.num_decoded_train} the loss is of other ones for each image; leave out one'
            )

    def share(self, decoded: int, num_classes: int) -> float:
        """Factor of the mean loss of the decoded classes."""
        return decoded / num_classes if self.undecoded == 'negative' else 1.0


def select_classes(
    image: Tensor, text: Tensor, k: int, weights: Sequence[float], first: Tensor | None = None
) -> Tensor:
    """Classes (B, k), ascending, that the positions of each image vote for.

    Those that ``first`` (B, T), bool, names come before all others, then those with more votes; of
    equally many, classes without any included, that with the highest similarity at any position,
    which is the rule of ``pad_len``. For the other arguments see :func:`class_votes`.
    """
    votes, similarity = class_votes(image, text, weights)
    order = similarity.argsort(dim=1, descending=True, stable=True)
    for key in (votes, first):
        if key is not None:
            again = key.float().gather(1, order).argsort(dim=1, descending=True, stable=True)
            order = order.gather(1, again)
    return order[:, :k].sort(dim=1).values


@torch.no_grad()
def class_votes(
    image: Tensor, text: Tensor, weights: Sequence[float], chunk: int = _CHUNK
) -> tuple[Tensor, Tensor]:
    """Votes (B, T) for each class, and its highest similarity (B, T) with a position.

    Every position gives ``weights[i]`` to its i-th most similar class; of several prompts of a
    class the most similar one counts. Similarities are cosines of image (B, C, H, W) and text
    (T, P, C) embeddings, in float32 also under autocast, of which ``chunk`` are held at a time.
    """
    with torch.autocast(device_type=image.device.type, enabled=False):
        positions = F.normalize(at_least_float32(image), dim=1).flatten(2).mT.contiguous()
        step = max(1, chunk // (positions.shape[0] * positions.shape[1] * text.shape[1]))
        best: tuple[Tensor, Tensor] | None = None
        highest, start = [], 0
        for part in [text] if step >= text.shape[0] else text.split(step):
            part = F.normalize(at_least_float32(part), dim=-1)
            similarity = F.linear(positions, part.flatten(0, 1))
            similarity = similarity.unflatten(2, part.shape[:2]).amax(dim=3)
            highest.append(similarity.amax(dim=1))
            best = _better(best, similarity, start, len(weights))
            start += part.shape[0]
        assert best is not None
        index = best[1].mT
        counts = index.new_zeros(*index.shape[:2], text.shape[0])
        # Whole numbers: their sums have no order, so that a GPU gives the same ones every time.
        counts.scatter_add_(2, index, torch.ones_like(index))
        weighted = [weight * count for weight, count in zip(weights, counts.unbind(1))]
        return torch.stack(weighted).sum(dim=0), torch.cat(highest, dim=1)


def _better(
    best: tuple[Tensor, Tensor] | None, similarity: Tensor, start: int, count: int
) -> tuple[Tensor, Tensor]:
    """Similarities and classes (B, N, count) so far, with those (B, N, t) from class ``start``."""
    values, classes = similarity.topk(min(count, similarity.shape[2]), dim=2)
    classes = classes + start
    if best is None:
        return values, classes
    values, classes = torch.cat([best[0], values], 2), torch.cat([best[1], classes], 2)
    values, order = values.topk(min(count, values.shape[2]), dim=2)
    return values, classes.gather(2, order)


def present_classes(labels: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Whether each class is among the labels (B, h, w) of an image: (B, T), bool."""
    places = _places(labels, num_classes).masked_fill(labels == ignore_index, num_classes)
    present = labels.new_zeros(len(labels), num_classes + 1, dtype=torch.bool)
    return present.scatter(1, places.flatten(1), True)[:, :num_classes]


def label_slots(labels: Tensor, classes: Tensor, num_classes: int, ignore_index: int) -> Tensor:
    """Labels (B, h, w) as places 0..k-1 in each image's classes (B, k); others ``NO_SLOT``."""
    table = labels.new_full((len(labels), num_classes + 1), NO_SLOT)
    slots = torch.arange(classes.shape[1], device=labels.device, dtype=labels.dtype)
    table = table.scatter(1, classes, slots.expand_as(classes))
    places = _places(labels, num_classes).masked_fill(labels == ignore_index, num_classes)
    return table.gather(1, places.flatten(1)).view_as(labels)


def _places(labels: Tensor, num_classes: int) -> Tensor:
    """Labels, T where they are no class."""
    return labels.where((labels >= 0) & (labels < num_classes), num_classes)
