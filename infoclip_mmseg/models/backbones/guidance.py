"""Appearance guidance by a backbone beside CLIP, as in the first version of CAT-Seg."""

from __future__ import annotations

from collections.abc import Sequence

from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor

from infoclip_mmseg.models.normalisation import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Normalisation,
    renormalise,
)


@MODELS.register_module()
class AppearanceGuidance(BaseModule):
    """Guidance maps of any mmseg backbone with a pyramid of features, such as a ResNet or Swin.

    The published first version of CAT-Seg guides with the maps at strides 16, 8 and 4 of a ResNet
    or Swin, whose images are normalised in their own way.

    Args:
        backbone: Config of the backbone; it must return three maps, fine to coarse, as mmseg's do
            with ``out_indices=(0, 1, 2)``.
        mean, std: The backbone's normalisation of RGB images, 0..255; by default ImageNet's.
        init_cfg: See ``mmengine.model.BaseModule``.
    """

    def __init__(
        self,
        backbone: dict,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.backbone = MODELS.build(backbone)
        self.normalisation = Normalisation(tuple(mean), tuple(std))

    def forward(self, images: Tensor, normalisation: Normalisation) -> tuple[Tensor, ...]:
        """Guidance maps, coarse to fine, of images (B, 3, h, w) as CLIP gets them."""
        maps = self.backbone(renormalise(images, normalisation, self.normalisation))
        if not isinstance(maps, (tuple, list)) or len(maps) != 3:
            got = f'{len(maps)} maps' if isinstance(maps, (tuple, list)) else type(maps).__name__
            raise ValueError(
                f'{type(self.backbone).__name__} returned {got}, but guidance needs three, at '
                'strides such as 4, 8 and 16: set out_indices=(0, 1, 2) in model.guidance.backbone'
            )
        return tuple(reversed(maps))
