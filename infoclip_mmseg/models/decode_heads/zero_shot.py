"""ZeroShotHead: training-free segmentation as ClearCLIP evaluates it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmseg.registry import MODELS
from torch import Tensor

from infoclip_mmseg.models.decode_heads.cosine_head import CosineHead


def class_probabilities(scores: Tensor, scale: float, word_counts: Sequence[int] = ()) -> Tensor:
    """Scores of words to probabilities of classes.

    The softmax runs over all words; a class gets the highest probability among its words. So the
    probabilities of a pixel sum to at most 1.

    Args:
        scores: Cosines (B, W, h, w), the words of a class one after another.
        scale: Factor of the cosines before the softmax.
        word_counts: Words of each of the T classes; empty where each word is a class.

    Returns:
        (B, T, h, w).
    """
    probabilities = (scores * scale).softmax(dim=1)
    if all(count == 1 for count in word_counts):
        return probabilities
    parts = probabilities.split(list(word_counts), dim=1)
    return torch.stack([part.amax(dim=1) for part in parts], dim=1)


def threshold_labels(probabilities: Tensor, threshold: float, background: int) -> Tensor:
    """The most probable class of each pixel, or the background where none is probable enough.

    Args:
        probabilities: (T, h, w).
        threshold: Least probability of a class.
        background: Index of the class that takes the other pixels.

    Returns:
        Labels (1, h, w), int64.
    """
    best, labels = probabilities.max(dim=0, keepdim=True)
    return labels.masked_fill(best < threshold, background)


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
        ignore_index: Label value of pixels without a label.
        init_cfg: See ``mmengine.model.BaseModule``.
        sizes: What the segmentor tells every head; not needed here.

    Raises:
        ValueError: The threshold is no probability or the scale not positive.
    """

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

    def classify(self, scores: Tensor, word_counts: Sequence[int] = ()) -> Tensor:
        """Cosines (B, W, h, w) to probabilities (B, T, h, w); see :func:`class_probabilities`."""
        return class_probabilities(scores, self.scale, word_counts)

    def label_map(self, probabilities: Tensor) -> Tensor:
        """Probabilities (T, h, w) to labels (1, h, w); see :func:`threshold_labels`."""
        return threshold_labels(probabilities, self.threshold, self.background)
