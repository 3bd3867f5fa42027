"""CosineHead and ZeroShotHead: CLIP's own reading of a dense image, without anything to train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor

from infoclip_mmseg.models.backbones.dual_encoder import ImageFeatures
from infoclip_mmseg.models.decode_heads.base import OpenVocabHead
from infoclip_mmseg.models.layers.cost_volume import ClassLogits, cost_volume


def class_probabilities(scores: Tensor, scale: float, word_counts: Sequence[int] = ()) -> Tensor:
    """Scores of words to probabilities of classes.

    The softmax runs over all words; a class gets the highest probability among its words. So the
    probabilities (B, T, h, w) of a pixel sum to at most 1. For the cosines (B, W, h, w) and
    ``word_counts`` see :meth:`OpenVocabHead.probabilities`; ``scale`` is the cosines' factor.
    """
    probabilities = (scores * scale).softmax(dim=1)
    if all(count == 1 for count in word_counts):
        return probabilities
    parts = probabilities.split(list(word_counts), dim=1)
    return torch.stack([part.amax(dim=1) for part in parts], dim=1)


@MODELS.register_module()
class CosineHead(OpenVocabHead):
    """Zero-shot segmentation: the cosine between each position and each class name.

    It has no weights, so a model with this head can be evaluated without a checkpoint, and with the
    checkpoint of a model with another head: then it tells how much of CLIP's image-text alignment
    is left after fine-tuning.

    Args:
        ignore_index, threshold, init_cfg: See :class:`OpenVocabHead`; the probability is the
            sigmoid of the cosine.
        sizes: What the segmentor tells every head (``embed_dim`` and so on); not needed here.
    """

    trained = False

    def __init__(
        self,
        ignore_index: int = 255,
        threshold: float = 0.56,
        init_cfg: dict | None = None,
        **sizes: Any,
    ) -> None:
        super().__init__(ignore_index, threshold, init_cfg)

    def decode(self, features: ImageFeatures, text: Tensor) -> ClassLogits:
        """Cosines (B, T, H, W) of dense embeddings (B, C, H, W) and text (T, P, C).

        Of several prompts of a class the embeddings are averaged.
        """
        cosines = cost_volume(features.dense, text.mean(dim=1, keepdim=True))
        return ClassLogits(cosines[:, :, 0], None)


@MODELS.register_module()
class ZeroShotHead(CosineHead):
    """The evaluation of SCLIP and ClearCLIP: cosines, softmax over words, threshold.

    Cosines between positions and words (averaged over the templates) are averaged over windows and
    resized to the image; then comes the softmax over all words, the maximum over the words of a
    class (with ``synonyms='max'`` of the segmentor) and the threshold. It has no weights. The
    segmentor's inference modes for it are 'windows' and 'whole'.

    Args:
        scale: Factor of the cosines before the softmax.
        threshold: Least probability of a pixel's class; below it the pixel is background. 0 is for
            vocabularies without background.
        background: Index of the background in the vocabulary.
        ignore_index, init_cfg, sizes: See :class:`CosineHead`.
    """

    whole_vocabulary = True
    scores_words = True

    def __init__(
        self,
        scale: float = 50.0,
        threshold: float = 0.0,
        background: int = 0,
        ignore_index: int = 255,
        init_cfg: dict | None = None,
        **sizes: Any,
    ) -> None:
        super().__init__(ignore_index, threshold, init_cfg)
        if not 0 <= threshold <= 1 or scale <= 0 or background < 0:
            raise ValueError(
                'ZeroShotHead needs scale > 0, threshold in 0..1 and background >= 0, got '
                f'scale={scale}, threshold={threshold}, background={background}'
            )
        self.scale, self.background = scale, background

    def check_mode(self, mode: str) -> None:
        """Refuse mode 'slide' with a ValueError."""
        if mode == 'slide':
            raise ValueError(
                "mode 'slide' averages sigmoids, which a ZeroShotHead does not have; take mode "
                "'windows' or 'whole', in a config for example "
                "test_cfg=dict(mode='windows', window=448, stride=224)"
            )

    def check_vocabulary(self, num_classes: int) -> None:
        """Refuse a single class with a ValueError: the softmax would give it every pixel."""
        if num_classes == 1:
            raise ValueError(
                'a ZeroShotHead shares each pixel out among the words: a single one gets all of '
                'them, whatever the threshold. Add words for what else there may be: more classes, '
                "or background words (background=['background', 'wall', 'sky'], or "
                '--background "background; wall; sky")'
            )

    def scores(self, logits: Tensor) -> Tensor:
        """Cosines (B, W, h, w) as they are."""
        return logits.float()

    def probabilities(self, scores: Tensor, word_counts: Sequence[int] = ()) -> Tensor:
        """Cosines (B, W, h, w) to probabilities (B, T, h, w); see :func:`class_probabilities`."""
        return class_probabilities(scores, self.scale, word_counts)

    def labels(self, winner: Tensor, probability: Tensor) -> Tensor:
        """The most probable class, or the background where none is probable enough."""
        return winner.masked_fill(probability < self.threshold, self.background)
