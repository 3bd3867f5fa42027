"""How images were normalised, and bringing them into another network's normalisation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import open_clip
import torch
from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
CLIP_MEAN = tuple(255 * value for value in open_clip.OPENAI_DATASET_MEAN)
CLIP_STD = tuple(255 * value for value in open_clip.OPENAI_DATASET_STD)


class Normalisation(NamedTuple):
    """Mean and standard deviation that were subtracted and divided by.

    Attributes:
        mean: Three values in pixels of 0..255, in the order of the image's channels.
        std: Likewise.
        rgb: Whether the channels are red, green, blue; else blue, green, red.
    """

    mean: Sequence[float]
    std: Sequence[float]
    rgb: bool = True


def normalisation_of(preprocessor: Any) -> Normalisation:
    """What a segmentor's data preprocessor does to the BGR images that mmseg loads.

    Args:
        preprocessor: mmseg's ``SegDataPreProcessor`` or a subclass. One without mean and standard
            deviation leaves images as they are.
    """
    # mmsegmentation 1.2.2 has its own attribute, the maintained fork that of its base class.
    names = ('channel_conversion', '_channel_conversion')
    rgb = any(getattr(preprocessor, name, False) for name in names)
    if not getattr(preprocessor, '_enable_normalize', False):
        return Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), rgb)
    return Normalisation(
        preprocessor.mean.flatten().tolist(), preprocessor.std.flatten().tolist(), rgb
    )


def renormalise(images: Tensor, source: Normalisation, target: Normalisation) -> Tensor:
    """Bring images from one normalisation into another.

    Args:
        images: (B, 3, h, w), normalised as ``source`` says.
        source: Their normalisation.
        target: The wanted one.

    Returns:
        (B, 3, h, w); the tensor itself where both are the same.
    """
    if source.rgb != target.rgb:
        images = images.flip(1)
        source = Normalisation(source.mean[::-1], source.std[::-1], target.rgb)
    mean, std, new_mean, new_std = (
        torch.tensor(values, dtype=torch.float64)
        for values in (source.mean, source.std, target.mean, target.std)
    )
    scale, shift = std / new_std, (mean - new_mean) / new_std
    if torch.allclose(scale, torch.ones(3).double(), atol=1e-6) and shift.abs().max() < 1e-6:
        return images
    scale, shift = (value.to(images)[:, None, None] for value in (scale, shift))
    return images * scale + shift
