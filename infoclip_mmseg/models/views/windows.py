"""Where the views of an image lie and what each counts (pure functions).

Three modes give one kind of layout: 'slide', CAT-Seg's windows and a global view; 'windows', the
windows of mmseg and ClearCLIP; 'whole', the image as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from infoclip_mmseg.models.layers.cost_volume import ClassLogits
from infoclip_mmseg.utils.tensors import Size, resize

MODES = ('slide', 'windows', 'whole')


class View(NamedTuple):
    """One view of an image; the weights of all views sum to 1 at each pixel."""

    corner: tuple[int, int] | None  # (top, left) of a window; None for the whole image
    weight: Tensor | float  # in the average over views: of each pixel of the window (h, w), or all


class Layout(NamedTuple):
    """The views of an image.

    Windows are padded with zeros to multiples of the patch. A view's logits are brought to the size
    of the window (``resizes_logits``), as CAT-Seg does, or its scores. Without ``size`` and
    ``window`` images stay as they are, and class maps at the head's resolution.
    """

    size: Size | None  # height and width of the image, and of the class maps
    window: Size | None  # height and width of a view
    views: list[View]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)  # rows and columns: top, bottom, left, right
    resizes_logits: bool = False

    @property
    def padded(self) -> Size:
        """Height and width of a window with its padding."""
        assert self.window is not None
        top, bottom, left, right = self.padding
        return self.window[0] + top + bottom, self.window[1] + left + right


class ViewLogits(NamedTuple):
    """Logits (V, k, h', w') of the views of one image.

    Their classes are (V, k), ascending, or None where all were decoded: the T classes, or all words
    where each has logits of its own.
    """

    logits: Tensor
    classes: Tensor | None
    layout: Layout

    @property
    def size(self) -> Size:
        """Height and width of a class map."""
        height, width = self.logits.shape[-2:]
        return self.layout.size or (height, width)


def window_corners(size: Size, window: Size, stride: Size) -> list[tuple[int, int]]:
    """(top, left) of every window, no larger than the image, in steps down and to the right.

    The last one of a row or column ends flush with the image.
    """
    rows, columns = (
        [*range(0, length - side, step), length - side]
        for length, side, step in zip(size, window, stride)
    )
    return [(top, left) for top in rows for left in columns]


def whole_layout(images: Tensor, patch: Size | None = None) -> Layout:
    """The image as it is: a single view.

    With a patch images (B, 3, h, w) whose sides are no multiples of it are padded at the bottom and
    right; what is said of the padding is cut off.
    """
    size = (images.shape[-2], images.shape[-1])
    bottom, right = (-side % step for side, step in zip(size, patch or (1, 1)))
    if not (bottom or right):
        return Layout(None, None, [View(None, 1.0)])
    return Layout(size, size, [View((0, 0), 1.0)], (0, bottom, 0, right))


def slide_layout(images: Tensor, size: Size, window: Size, overlap: float) -> Layout:
    """Windows over the resized image, and the whole image as one of them (CAT-Seg, section 4.2).

    Half of a pixel's weight is that of the whole image, the other half the windows share. A window
    is cut where it is larger than the working ``size``; ``overlap`` is the least share of it that
    is covered by the next one, 0 <= overlap < 1.
    """
    window = min(window[0], size[0]), min(window[1], size[1])
    stride = (max(1, int(window[0] * (1 - overlap))), max(1, int(window[1] * (1 - overlap))))
    corners = window_corners(size, window, stride)
    views = [*_windows(images, size, window, corners, share=0.5), View(None, 0.5)]
    return Layout(size, window, views, resizes_logits=True)


def size_of_ratio(images: Tensor, shorter: int) -> Size:
    """Height and width in the ratio of images (B, 3, h, w); the shorter has so many pixels."""
    height, width = images.shape[-2:]
    scale = shorter / min(height, width)
    return round(height * scale), round(width * scale)


def windows_layout(images: Tensor, window: Size, stride: Size, patch: Size) -> Layout:
    """Windows over images (B, 3, h, w) at their own size, all of the same weight.

    Windows are cut to the images. Those that are no multiples of the patch are padded, evenly on
    both sides; what is said of the padding is cut off.
    """
    size = (images.shape[-2], images.shape[-1])
    window = min(window[0], size[0]), min(window[1], size[1])
    views = _windows(images, size, window, window_corners(size, window, stride), share=1.0)
    height, width = (-side % step for side, step in zip(window, patch))
    padding = (height // 2, height - height // 2, width // 2, width - width // 2)
    return Layout(size, window, views, padding)


def _windows(
    images: Tensor, size: Size, window: Size, corners: Sequence[tuple[int, int]], share: float
) -> list[View]:
    """Windows that share this weight at each pixel."""
    cover = images.new_zeros(size, dtype=torch.float32)
    for corner in corners:
        cover[_region(corner, window)] += 1
    weight = share / cover
    return [View(corner, weight[_region(corner, window)]) for corner in corners]


def _region(corner: tuple[int, int], window: Size) -> tuple[slice, slice]:
    (top, left), (height, width) = corner, window
    return slice(top, top + height), slice(left, left + width)


def region_of(view: View, layout: Layout) -> tuple[slice, slice]:
    """Rows and columns of a class map that a view shows."""
    if view.corner is None or layout.window is None:
        return slice(None), slice(None)
    return _region(view.corner, layout.window)


def view_logits(
    images: Tensor, decode: Callable[[Tensor], ClassLogits], layout: Layout, view_batch_size: int
) -> Iterator[ViewLogits]:
    """Logits of the views of each of the images (B, 3, h, w), as soon as it is finished.

    ``decode`` makes of views (b, 3, ...) logits (b, k, h', w') and their classes (b, k) or None;
    ``view_batch_size`` views, of one or of several images, go through the model together.
    """
    whole, working = images, images
    if layout.size is not None and layout.window is not None:
        working, whole = resize(images, layout.size), resize(images, layout.window)
    top, bottom, left, right = layout.padding
    views = [(index, view) for index in range(len(images)) for view in layout.views]
    done: list[tuple[Tensor, Tensor | None]] = []
    for start in range(0, len(views), view_batch_size):
        batch = views[start : start + view_batch_size]
        crops = [
            whole[i] if v.corner is None else working[(i, slice(None), *region_of(v, layout))]
            for i, v in batch
        ]
        stack = torch.stack(crops)
        if any(layout.padding):
            stack = F.pad(stack, (left, right, top, bottom))
        logits, classes = decode(stack)
        done += zip(logits, [None] * len(batch) if classes is None else classes)
        while len(done) >= len(layout.views):
            finished = [*zip(*done[: len(layout.views)])]
            del done[: len(layout.views)]
            stacked = None if finished[1][0] is None else torch.stack(finished[1])
            yield ViewLogits(torch.stack(finished[0]), stacked, layout)
