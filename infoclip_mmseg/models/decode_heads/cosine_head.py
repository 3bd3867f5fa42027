"""CosineHead: CLIP's own reading of a dense image, without anything to train."""

from __future__ import annotations

from typing import Any

from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor

from infoclip_mmseg.models.backbones.dual_encoder import ImageFeatures
from infoclip_mmseg.models.layers.cost_volume import cost_volume


@MODELS.register_module()
class CosineHead(BaseModule):
    """Zero-shot segmentation: the cosine between each position and each class name.

    It has no weights, so a model with this head can be evaluated without a checkpoint, and with the
    checkpoint of a model with another head: then it tells how much of CLIP's image-text alignment
    is left after fine-tuning.

    Args:
        ignore_index: Label value of pixels without a label.
        threshold: Probability (sigmoid of the cosine) above which a pixel belongs to the class when
            the vocabulary has only one.
        init_cfg: See ``mmengine.model.BaseModule``.
        sizes: What the segmentor tells every head (``embed_dim`` and so on); not needed here.
    """

    def __init__(
        self,
        ignore_index: int = 255,
        threshold: float = 0.56,
        init_cfg: dict | None = None,
        **sizes: Any,
    ) -> None:
        super().__init__(init_cfg)
        self.ignore_index = ignore_index
        self.threshold = threshold
        self.align_corners = False
        self.num_classes = 0  # follows the vocabulary

    @property
    def out_channels(self) -> int:
        """T of the current vocabulary."""
        return self.num_classes

    def forward(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """Cosines (B, T, H, W) of dense embeddings (B, C, H, W) and text (T, P, C).

        Of several prompts of a class the embeddings are averaged.
        """
        return cost_volume(features.dense, text.mean(dim=1, keepdim=True))[:, :, 0]

    def loss(self, features: ImageFeatures, text: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """Refused.

        Raises:
            RuntimeError: Always; there is nothing to train.
        """
        raise RuntimeError(
            'CosineHead has nothing to train; use it with tools/test.py, or train a CATSegHead'
        )
