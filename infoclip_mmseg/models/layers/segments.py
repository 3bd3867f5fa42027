"""From classified masks to segments: panoptic and instance output (pure functions).

Legend: Q masks, T classes, h w size of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

Segment = dict[str, Any]


def panoptic_segments(
    log_probabilities: Tensor,
    masks: Tensor,
    things: Sequence[int],
    score: float = 0.2,
    overlap: float = 0.7,
) -> tuple[Tensor, list[Segment]]:
    """Id map (h, w), int64, 0 where there is no segment, and its segments.

    A mask takes part where its best class is not void and more probable than ``score``; each pixel
    goes to the mask with the highest product of score and mask probability. A mask that keeps less
    than the share ``overlap`` of its area is dropped; masks of one stuff class are one segment.

    Args:
        log_probabilities: (Q, T + 1), void last.
        masks: Logits (Q, h, w).
        things: Classes whose masks stay apart; all others are stuff.
        score, overlap: Thresholds.

    Returns:
        The map, and of each segment ``id`` (from 1), ``label``, ``is_thing``, ``score`` (of a stuff
        segment the best of its masks) and ``area`` in pixels.
    """
    ids = torch.zeros(masks.shape[-2:], dtype=torch.long, device=masks.device)
    segments: list[Segment] = []
    scores, labels = log_probabilities.softmax(-1).max(-1)
    kept = (labels != log_probabilities.shape[-1] - 1) & (scores > score)
    if not kept.any():
        return ids, segments
    scores, labels, probabilities = scores[kept], labels[kept], masks[kept].sigmoid()
    winner = (scores[:, None, None] * probabilities).argmax(0)
    thing_set = set(things)
    stuff: dict[int, Segment] = {}
    for index, (value, label) in enumerate(zip(scores.tolist(), labels.tolist())):
        inside = probabilities[index] >= 0.5
        region = (winner == index) & inside
        whole, won, area = (int(x.sum()) for x in (inside, winner == index, region))
        if not (whole and won and area) or won / whole < overlap:
            continue
        is_thing = label in thing_set
        segment = None if is_thing else stuff.get(label)
        if segment is None:
            segment = dict(
                id=len(segments) + 1, label=label, is_thing=is_thing, score=value, area=0
            )
            segments.append(segment)
            if not is_thing:
                stuff[label] = segment
        ids[region] = segment['id']
        segment['score'] = max(segment['score'], value)
    counts = torch.bincount(ids.flatten(), minlength=len(segments) + 1).tolist()
    for segment in segments:
        segment['area'] = counts[segment['id']]
    return ids, segments


def instances(
    log_probabilities: Tensor, masks: Tensor, things: Sequence[int] | None = None, top: int = 100
) -> list[Segment]:
    """The best pairs of mask and class, by falling score.

    Of the ``top`` most probable of the Q * T pairs those of ``things`` are kept (None: all). The
    score is the class's times the mean probability inside of the mask; arguments are those of
    :func:`panoptic_segments`.

    Returns:
        Of each instance ``label``, ``score``, ``area`` and ``mask`` (h, w), bool.
    """
    classes = log_probabilities.softmax(-1)[:, :-1]
    scores, order = classes.flatten().topk(min(top, classes.numel()))
    found: list[Segment] = []
    for value, index in zip(scores, order.tolist()):
        query, label = divmod(index, classes.shape[1])
        if things is not None and label not in things:
            continue
        inside = masks[query] > 0
        mean = (masks[query].sigmoid() * inside).sum() / (inside.sum() + 1e-6)
        area = int(inside.sum())
        found.append(dict(label=label, score=float(value * mean), area=area, mask=inside))
    return sorted(found, key=lambda segment: -segment['score'])
