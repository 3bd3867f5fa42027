"""Small functions on tensors and sizes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

Size = tuple[int, int]


def pair(size: int | Sequence[int]) -> Size:
    """Height and width of a size that may be given as one number."""
    return (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))


def resize(x: Tensor, size: Size) -> Tensor:
    """Bilinear resize (align_corners=False) of (B, C, h, w); the tensor itself if it fits."""
    if tuple(x.shape[-2:]) == tuple(size):
        return x
    return F.interpolate(x, size=tuple(size), mode='bilinear', align_corners=False)


def whole_patches(size: Size, patch: Size) -> Size:
    """Height and width enlarged to multiples of a patch."""
    height, width = (-(-side // step) * step for side, step in zip(size, patch))
    return height, width


def pad_to_patches(images: Tensor, patch: Size, value: float = 0.0) -> Tensor:
    """(..., h, w) with a constant at the bottom and right, so that h and w are whole patches."""
    height, width = whole_patches((images.shape[-2], images.shape[-1]), patch)
    padding = (0, width - images.shape[-1], 0, height - images.shape[-2])
    return F.pad(images, padding, value=value) if any(padding) else images


def at_least_float32(x: Tensor) -> Tensor:
    """Returns ``x`` in float32, or as it is where it is float64."""
    return x if x.dtype == torch.float64 else x.float()


def cosine(image: Tensor, text: Tensor) -> Tensor:
    """Cosines (B, N, T), -1..1, in float32 or float64 outside autocast.

    They are of image embeddings (B, N, C) and text embeddings, (T, C) shared or (B, T, C) by image.
    :func:`~infoclip_mmseg.models.layers.cost_volume.cost_volume` is for what a head computes in the
    model's precision.
    """
    with torch.autocast(device_type=image.device.type, enabled=False):
        image = F.normalize(at_least_float32(image), dim=-1)
        text = F.normalize(at_least_float32(text), dim=-1)
        return image @ text.transpose(-1, -2)
