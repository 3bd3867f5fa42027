"""How images were normalised, and bringing them into another network's normalisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import open_clip
import torch
from torch import Tensor

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# Configs round; a hundredth of a grey level is none.
_ROUNDED = 0.01
CLIP_MEAN = tuple(255 * value for value in open_clip.OPENAI_DATASET_MEAN)
CLIP_STD = tuple(255 * value for value in open_clip.OPENAI_DATASET_STD)


class Normalisation(NamedTuple):
    """What was subtracted and divided by: three values, 0..255, in the order of the channels."""

    mean: Sequence[float]
    std: Sequence[float]
    rgb: bool = True  # the channels are red, green, blue; else blue, green, red


def normalisation_of_weights(model_name: str | dict, pretrained: str | None) -> Normalisation:
    """How images were normalised when CLIP weights were trained, as open_clip has it for their tag.

    A file does not tell; for it, and for no weights at all, these are OpenAI's values.
    """
    known = _known(model_name, pretrained)
    mean = known.get('mean') or open_clip.OPENAI_DATASET_MEAN
    std = known.get('std') or open_clip.OPENAI_DATASET_STD
    return Normalisation(tuple(255 * v for v in mean), tuple(255 * v for v in std))


def _known(model_name: str | dict, pretrained: str | None) -> Mapping[str, Any]:
    """What open_clip says of weights; nothing of a file and of a model of its own."""
    if isinstance(model_name, str) and pretrained:
        return open_clip.get_pretrained_cfg(model_name, pretrained) or {}
    return {}


def as_trained(stated: Mapping[str, Any], encoder: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A config with its own ``mean`` and ``std``, RGB in 0..255, or else those of the weights.

    Of weights with a tag other values than theirs are a ValueError, which calls the config
    ``where``; ``encoder`` is that of the ``CLIPDualEncoder``.
    """
    model_name, pretrained = encoder['model_name'], encoder.get('pretrained')
    right = normalisation_of_weights(model_name, pretrained)
    mean, std = (stated.get(key) or getattr(right, key) for key in ('mean', 'std'))
    is_tag = bool(_known(model_name, pretrained))
    given = torch.tensor([*mean, *std], dtype=torch.float64)
    wanted = torch.tensor([*right.mean, *right.std], dtype=torch.float64)
    if is_tag and (given.shape != wanted.shape or (given - wanted).abs().max() > _ROUNDED):
        raise ValueError(
            f'{where} states mean={_short(mean)} and std={_short(std)}, but the weights '
            f'{pretrained!r} of {model_name!r} were trained with mean={_short(right.mean)} and '
            f'std={_short(right.std)} (RGB, 0..255); take both out of the config: they follow from '
            'the weights'
        )
    return {**stated, 'mean': tuple(mean), 'std': tuple(std)}


def _short(values: Sequence[float]) -> list[float]:
    return [round(float(value), 4) for value in values]


def normalisation_of(preprocessor: Any) -> Normalisation:
    """What a segmentor's data preprocessor does to the BGR images that mmseg loads.

    One without mean and standard deviation leaves them as they are.
    """
    # mmsegmentation 1.2.2 has its own attribute, the maintained fork that of its base class.
    names = ('channel_conversion', '_channel_conversion')
    rgb = any(getattr(preprocessor, name, False) for name in names)
    if not getattr(preprocessor, '_enable_normalize', False):
        return Normalisation((0.0, 0.0, 0.0), (1.0, 1.0, 1.0), rgb)
    mean, std = (_read(x, x._version) for x in (preprocessor.mean, preprocessor.std))
    return Normalisation(mean, std, rgb)


@lru_cache(maxsize=32)
def _read(values: Tensor, version: int) -> tuple[float, ...]:
    """Values of a tensor that has been written to ``version`` times; a GPU is waited for once."""
    return tuple(values.flatten().tolist())


def renormalise(images: Tensor, source: Normalisation, target: Normalisation) -> Tensor:
    """Bring images (B, 3, h, w) into another normalisation; themselves where both agree."""
    if source.rgb != target.rgb:
        images = images.flip(1)
        source = Normalisation(source.mean[::-1], source.std[::-1], target.rgb)
    # In plain numbers, which lie on the host.
    scale = [old / new for old, new in zip(source.std, target.std)]
    shift = [(old - new) / std for old, new, std in zip(source.mean, target.mean, target.std)]
    if max(abs(x - 1) for x in scale) < 1e-5 and max(map(abs, shift)) < 1e-6:
        return images
    factor, summand = (
        torch.tensor(values, dtype=torch.float64).to(images, non_blocking=True)[:, None, None]
        for values in (scale, shift)
    )
    return images * factor + summand
