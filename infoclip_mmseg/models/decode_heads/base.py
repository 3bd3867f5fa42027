"""OpenVocabHead: what a segmentor asks of a head, whatever it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmseg.structures import SegDataSample
from torch import Tensor

from infoclip_mmseg.models.backbones.dual_encoder import ImageFeatures
from infoclip_mmseg.models.layers.cost_volume import ClassLogits, scatter_logits
from infoclip_mmseg.utils.tensors import Size


class OpenVocabHead(BaseModule):
    """From the features of views and the text of a vocabulary to labels.

    In inference these methods are called in this order:

    1. :meth:`decode`: logits of a batch of views, of all classes or of those that it picks;
    2. :meth:`scores`: what is averaged over the views of an image;
    3. :meth:`probabilities`: of the averaged scores, at the size of the result;
    4. :meth:`labels`: of the most probable class of each pixel.

    In training :meth:`targets` and :meth:`loss`. A head needs :meth:`decode` and, to be trained,
    :meth:`loss`; one that finds masks also has :meth:`segments`. The defaults of the others are
    those of a head that says of each class apart whether a position shows it (a sigmoid).

    Args:
        ignore_index: Label value of pixels without a label.
        threshold: Probability above which a pixel belongs to the class when the vocabulary has
            only one; the others then get no label.
        init_cfg: See ``mmengine.model.BaseModule``.
    """

    whole_vocabulary = False  # `probabilities` needs the scores of all words at once (softmax)
    trained = True  # whether the head has weights; without, no checkpoint is needed
    scores_words = False  # each synonym of a class may have a score of its own
    finds_masks = False  # whether it has `segments`
    pad_len = 0  # most classes that are decoded of a view; 0: all
    class_chunk: int | None = None  # class maps worked on at a time, where chosen; 0: all

    def __init__(
        self, ignore_index: int = 255, threshold: float = 0.5, init_cfg: dict | None = None
    ) -> None:
        super().__init__(init_cfg)
        self.ignore_index, self.threshold = ignore_index, threshold
        self.align_corners = False
        self.num_classes = 0  # T of the current vocabulary, which the segmentor sets

    @property
    def out_channels(self) -> int:
        """T of the current vocabulary."""
        return self.num_classes

    def check_mode(self, mode: str) -> None:
        """Raise a ValueError where the scores cannot be averaged as an inference mode does."""

    def check_vocabulary(self, num_classes: int) -> None:
        """Raise a ValueError where the head cannot work with so few classes."""

    def follow(self, names: Sequence[str], word_counts: Sequence[int]) -> None:
        """Take a vocabulary: its T names, and the words of each where each word has its own row.

        ``word_counts`` is empty where each class has one row of the text embeddings. What
        :meth:`check_vocabulary` refuses is a ValueError.
        """
        self.check_vocabulary(len(names))
        self.num_classes = len(names)

    def forward(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """Logits (B, T, h, w) of every class; arguments as for :meth:`decode`."""
        logits, classes = self.decode(features, text)
        return logits if classes is None else scatter_logits(logits, classes, text.shape[0])

    def decode(self, features: ImageFeatures, text: Tensor) -> ClassLogits:
        """Logits of the classes that the head decodes, of B views and text (T, P, C)."""
        raise NotImplementedError(f'{type(self).__name__} must implement decode')

    def select(self, dense: Tensor, text: Tensor) -> Tensor | None:
        """Classes (B, k) to hand to :meth:`decode`, for dense embeddings (B, C, H, W).

        None where there is nothing to choose; only a head that gives some takes them.
        """
        return None

    def scores(self, logits: Tensor) -> Tensor:
        """What is averaged over views, (B, k, h, w), float32."""
        return logits.float().sigmoid()

    def probabilities(self, scores: Tensor, word_counts: Sequence[int] = ()) -> Tensor:
        """Probabilities (B, T, h, w) of averaged scores (B, k, h, w), of some classes.

        With ``whole_vocabulary`` they are of all words, those of a class one after another, and
        ``word_counts`` has the words of each of the T classes; empty where each word is a class.
        """
        return scores

    def labels(self, winner: Tensor, probability: Tensor) -> Tensor:
        """Labels (h, w), 0..T-1, from each pixel's most probable class and its probability.

        With a single class: 0 where its probability is above the threshold, elsewhere
        ``ignore_index``, as in label maps.
        """
        if self.num_classes == 1:
            return winner.masked_fill(probability <= self.threshold, self.ignore_index)
        return winner

    def segments(
        self, features: ImageFeatures, text: Tensor, size: Size, **options: Any
    ) -> list[tuple[Tensor, list[dict[str, Any]]]]:
        """Masks one by one: panoptic or instance segmentation. Offered by heads that find masks.

        For each image an id map (h, w) of ``size``, 0 where there is no segment, and a dict a
        segment with its ``id`` and whatever else the head knows of it.
        """
        raise TypeError(
            f'a {type(self).__name__} labels positions and finds no masks: segments() needs a head '
            'that classifies masks'
        )

    def propose(self, features: ImageFeatures) -> Tensor:
        """Class-agnostic masks (B, Q, h, w), logits over the images, of heads that find masks."""
        raise TypeError(f'a {type(self).__name__} labels positions and finds no masks')

    def pooled(self, features: ImageFeatures) -> Tensor:
        """Embeddings (B, C) of whole images, for auxiliary losses: the mean of the dense ones."""
        return features.dense.mean(dim=(-2, -1))

    def targets(self, samples: Sequence[SegDataSample]) -> Any:
        """What :meth:`loss` compares with: the label maps (B, h, w), int64, of B samples."""
        return torch.cat([sample.gt_sem_seg.data for sample in samples]).long()

    def loss(self, features: ImageFeatures, text: Tensor, targets: Any) -> dict[str, Tensor]:
        """Task losses by name, as mmseg's heads return them, of what :meth:`targets` gave."""
        raise RuntimeError(
            f'{type(self).__name__} has nothing to train; use it with tools/test.py, or train a '
            'CATSegHead'
        )
