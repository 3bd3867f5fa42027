"""Sliding-window inference with a global view (pure functions)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from infoclip_mmseg.models.layers.cost_volume import ClassLogits
from infoclip_mmseg.utils.tensors import Size, resize

MODES = ('slide', 'windows', 'whole')


class View(NamedTuple):
    """One view of an image: the image's index and (top, left) of the window; None for the whole."""

    image: int
    corner: tuple[int, int] | None


class Layout(NamedTuple):
    """Windows over an image, followed by the whole image.

    Attributes:
        size: Working height and width in pixels.
        window: Height and width of a window.
        corners: (top, left) of each window; the whole image is the view after the last.
        cover: How many windows cover each pixel (*size).
    """

    size: Size
    window: Size
    corners: list[tuple[int, int]]
    cover: Tensor


def unpad(image: Tensor, meta: dict) -> Tensor:
    """Cut the padding (left, right, top, bottom) off an image (3, h, w)."""
    padding = meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0)))
    left, right, top, bottom = padding
    return image[:, top : image.shape[1] - bottom, left : image.shape[2] - right]


def check_mode(mode: str) -> None:
    """Raise a ValueError for an unknown inference mode."""
    if mode not in MODES:
        raise ValueError(f'mode must be one of {MODES}, got {mode!r}')


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


def sliding_layout(images: Tensor, size: Size, window: Size, overlap: float) -> Layout:
    """Windows of a size over images of another.

    Args:
        images: Images, which tell the device.
        size: Working height and width in pixels.
        window: Window height and width in pixels; cut to ``size`` where larger.
        overlap: See :func:`window_corners`.
    """
    window = (min(window[0], size[0]), min(window[1], size[1]))
    corners = window_corners(size, window, overlap)
    cover = images.new_zeros(size, dtype=torch.float32)
    for top, left in corners:
        cover[top : top + window[0], left : left + window[1]] += 1
    return Layout(size, window, corners, cover)


def sliding_logits(
    images: Tensor,
    predict: Callable[[Tensor], ClassLogits],
    layout: Layout,
    view_batch_size: int,
) -> Iterator[ClassLogits]:
    """Logits of the windows of each image and of the whole image, resized to a window.

    Args:
        images: Images (B, 3, h, w).
        predict: Views (b, 3, *window) -> logits (b, k, h', w') and their classes (b, k) or None.
        layout: Where the views lie.
        view_batch_size: Views, of one or of several images, that go through the model together.

    Yields:
        For each image, as soon as it is finished, logits (V, k, h', w') and classes (V, k) or None.
    """
    working, whole = resize(images, layout.size), resize(images, layout.window)
    corners = (*layout.corners, None)
    views = [View(b, corner) for b in range(len(images)) for corner in corners]
    done: list[ClassLogits] = []
    for start in range(0, len(views), view_batch_size):
        batch = views[start : start + view_batch_size]
        crops = torch.stack([_crop(working, whole, view, layout.window) for view in batch])
        logits, classes = predict(crops)
        done += [
            ClassLogits(logits[i], None if classes is None else classes[i])
            for i in range(len(batch))
        ]
        while len(done) >= len(corners):
            yield _stack(done[: len(corners)])
            del done[: len(corners)]


def _stack(views: list[ClassLogits]) -> ClassLogits:
    classes = [view.classes for view in views if view.classes is not None]
    logits = torch.stack([view.logits for view in views])
    return ClassLogits(logits, torch.stack(classes) if classes else None)


def _crop(working: Tensor, whole: Tensor, view: View, window: Size) -> Tensor:
    if view.corner is None:
        return whole[view.image]
    top, left = view.corner
    return working[view.image, :, top : top + window[0], left : left + window[1]]
