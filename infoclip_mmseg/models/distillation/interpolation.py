"""Weights between the pretrained and the tuned CLIP (WiSE-FT, arXiv 2109.01903)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from infoclip_mmseg.utils.files import first_few

if TYPE_CHECKING:
    from infoclip_mmseg.models.backbones.dual_encoder import CLIPDualEncoder


def pretrained_weights(encoder: CLIPDualEncoder) -> dict[str, Tensor]:
    """State dict of an encoder with its pretrained weights; the encoder itself is left alone.

    An encoder without ``pretrained`` is a ValueError.
    """
    if encoder.pretrained is None:
        raise ValueError(
            'the model has no pretrained weights to go back to: set model.backbone.pretrained to '
            'those that training started from'
        )
    start = copy.deepcopy(encoder)
    start.init_weights()
    return start.state_dict()


def interpolate_weights(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], factor: float, prefix: str = ''
) -> dict[str, Tensor]:
    """``(1 - factor) * start + factor * end`` of each tensor of ``start``, in the type of ``end``.

    Names of the result, and of ``end``, have the prefix in front. Computed in float32 or float64;
    what holds no floating numbers is taken from ``end``. Tensors that ``end`` lacks or has in
    another shape are a ValueError, and so is a factor outside of 0..1.
    """
    if not 0 <= factor <= 1:
        raise ValueError(f'factor must be from 0 (pretrained) to 1 (tuned), got {factor}')
    missing = [name for name in start if prefix + name not in end]
    shapes = {
        name: (tuple(x.shape), tuple(end[prefix + name].shape))
        for name, x in start.items()
        if name not in missing
    }
    wrong = [f'{name}: {a} and {b}' for name, (a, b) in shapes.items() if a != b]
    if missing or wrong:
        raise ValueError(
            'weights of different architectures cannot be interpolated: the tuned ones lack '
            f'{len(missing)} tensors ({first_few(missing, 3)}) and have {len(wrong)} of another '
            f'shape ({first_few(wrong, 3)}); take the config and the pretrained weights of the '
            'checkpoint'
        )
    return {prefix + name: _mixed(x, end[prefix + name], factor) for name, x in start.items()}


def _mixed(start: Tensor, end: Tensor, factor: float) -> Tensor:
    if not end.is_floating_point() or factor == 1:
        return end
    wide = torch.promote_types(end.dtype, torch.float32)
    return torch.lerp(start.to(end.device, wide), end.to(wide), factor).to(end.dtype)
