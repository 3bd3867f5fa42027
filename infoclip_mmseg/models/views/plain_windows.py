"""Sliding windows as mmseg and ClearCLIP average them: no global view, a stride in pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from infoclip_mmseg.models.views.windows import window_starts
from infoclip_mmseg.utils.tensors import Size, resize


def pad_to_patches(images: Tensor, patch: Size) -> tuple[Tensor, tuple[int, int]]:
    """Pad images with zeros, evenly on both sides, to multiples of the patch.

    Args:
        images: (B, 3, h, w).
        patch: Height and width of a patch in pixels.

    Returns:
        The padded images, and the padding above and to the left in pixels.
    """
    height, width = (-side % step for side, step in zip(images.shape[-2:], patch))
    top, left = height // 2, width // 2
    if height or width:
        images = F.pad(images, (left, width - left, top, height - top))
    return images, (top, left)


def average_windows(
    images: Tensor,
    predict: Callable[[Tensor], Tensor],
    window: Size,
    stride: Size,
    patch: Size,
    view_batch_size: int,
) -> Tensor:
    """Mean of what windows say, at the images' own size.

    The last window of a row or column ends flush with the image. Windows that are no multiples of
    the patch are padded; what is said of the padding is cut off.

    Args:
        images: Images (B, 3, h, w).
        predict: Views (b, 3, *window) -> maps (b, M, h', w'), resized bilinearly to the window.
        window: Height and width of a window in pixels; cut to the images where larger.
        stride: Steps between windows in pixels, down and to the right.
        patch: Height and width of a patch in pixels.
        view_batch_size: Views that go through the model together.

    Returns:
        (B, M, h, w), float32.
    """
    size = (images.shape[-2], images.shape[-1])
    window = (min(window[0], size[0]), min(window[1], size[1]))
    views = [
        (index, slice(top, top + window[0]), slice(left, left + window[1]))
        for index in range(len(images))
        for top in window_starts(size[0], window[0], stride[0])
        for left in window_starts(size[1], window[1], stride[1])
    ]
    count = images.new_zeros(len(images), 1, *size, dtype=torch.float32)
    total: Tensor | None = None
    for start in range(0, len(views), view_batch_size):
        batch = views[start : start + view_batch_size]
        crops = torch.stack([images[index, :, rows, columns] for index, rows, columns in batch])
        crops, (top, left) = pad_to_patches(crops, patch)
        maps = resize(predict(crops).float(), (crops.shape[-2], crops.shape[-1]))
        maps = maps[..., top : top + window[0], left : left + window[1]]
        if total is None:
            total = maps.new_zeros(len(images), maps.shape[1], *size)
        for (index, rows, columns), one in zip(batch, maps):
            total[index, :, rows, columns] += one
            count[index, :, rows, columns] += 1
    assert total is not None
    return total.div_(count)
