"""Sliding-window inference with a global view (pure functions)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]
MODES = ('slide', 'whole')


class View(NamedTuple):
    """One view of an image: the image's index and (top, left) of the window; None for the whole."""

    image: int
    corner: tuple[int, int] | None


def pair(size: int | Sequence[int]) -> Size:
    """Height and width of a size that may be given as one number."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def unpad(image: Tensor, meta: dict) -> Tensor:
    """Cut the padding (left, right, top, bottom) off an image (3, h, w)."""
    padding = meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0)))
    left, right, top, bottom = padding
    return image[:, top : image.shape[1] - bottom, left : image.shape[2] - right]


def check_mode(mode: str) -> None:
    """Raise a ValueError for an unknown inference mode."""
    if mode not in MODES:
        raise ValueError(f'mode must be one of {MODES}, got {mode!r}')


def resize(x: Tensor, size: Size) -> Tensor:
    """Bilinear resize (align_corners=False) of (B, C, h, w); the tensor itself if it fits."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode='bilinear', align_corners=False)


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """First positions of windows that cover ``length``; the last one ends flush with it."""
    starts = list(range(0, length - window + 1, stride))
    if starts[-1] + window < length:
        starts.append(length - window)
    return starts


def window_corners(size: Size, window: Size, overlap: float) -> list[tuple[int, int]]:
    """(top, left) of every window over an image of ``size``.

    Args:
        size: Height and width in pixels.
        window: Height and width of a window, no larger than ``size``.
        overlap: Least share of a window that is covered by the next one, 0 <= overlap < 1.
    """
    stride = [max(1, int(side * (1 - overlap))) for side in window]
    rows = window_starts(size[0], window[0], stride[0])
    columns = window_starts(size[1], window[1], stride[1])
    return [(top, left) for top in rows for left in columns]


def slide_inference(
    images: Tensor,
    predict: Callable[[Tensor], Tensor],
    size: Size,
    window: Size,
    overlap: float,
    view_batch_size: int,
) -> Tensor:
    """Mean of windows and whole image (CAT-Seg, section 4.2).

    Images are resized to ``size``. Windows of it and the whole image, resized to a window, go
    through ``predict`` at most ``view_batch_size`` at a time. Probabilities are averaged where
    windows overlap, and then with those of the whole image.

    Args:
        images: Images (B, 3, h, w).
        predict: Views (b, 3, *window) -> logits (b, T, h', w').
        size: Working height and width in pixels.
        window: Window height and width in pixels; cut to ``size`` where larger.
        overlap: See :func:`window_corners`.
        view_batch_size: Views that go through the model together.

    Returns:
        Probabilities (B, T, *size), float32.
    """
    window = (min(window[0], size[0]), min(window[1], size[1]))
    corners = window_corners(size, window, overlap)
    working, whole = resize(images, size), resize(images, window)
    views = [View(b, corner) for b in range(len(images)) for corner in (*corners, None)]
    total: Tensor | None = None
    count = images.new_zeros(size, dtype=torch.float32)
    for top, left in corners:
        count[top : top + window[0], left : left + window[1]] += 1

    for start in range(0, len(views), view_batch_size):
        batch = views[start : start + view_batch_size]
        crops = torch.stack([_crop(working, whole, view, window) for view in batch])
        probabilities = resize(predict(crops).float(), window).sigmoid()
        if total is None:
            total = probabilities.new_zeros(len(images), probabilities.shape[1], *size)
        for view, probability in zip(batch, probabilities):
            _accumulate(total[view.image], view, probability, window, count)
    assert total is not None
    return total


def _crop(working: Tensor, whole: Tensor, view: View, window: Size) -> Tensor:
    if view.corner is None:
        return whole[view.image]
    top, left = view.corner
    return working[view.image, :, top : top + window[0], left : left + window[1]]


def _accumulate(
    total: Tensor, view: View, probability: Tensor, window: Size, count: Tensor
) -> None:
    """Add half of a view's share to ``total`` (T, *size)."""
    if view.corner is None:
        total += resize(probability[None], (total.shape[-2], total.shape[-1]))[0] / 2
        return
    top, left = view.corner
    region = (slice(top, top + window[0]), slice(left, left + window[1]))
    total[(slice(None), *region)] += probability / (2 * count[region])
