"""MaskHead: what all heads that classify masks share, from classified masks to the output.

Legend: B images, Q masks, T classes, W words of all classes, H W the padded image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.structures import SegDataSample
from torch import Tensor

from infoclip_mmseg.losses.masks import Targets, label_targets, segment_targets
from infoclip_mmseg.models.backbones.dual_encoder import CLIPDualEncoder, ImageFeatures
from infoclip_mmseg.models.decode_heads.base import OpenVocabHead
from infoclip_mmseg.models.layers.cost_volume import ClassLogits
from infoclip_mmseg.models.layers.mask_pooling import semantic_map
from infoclip_mmseg.models.layers.segments import Segment, instances, panoptic_segments
from infoclip_mmseg.models.text.prompts import split_synonyms
from infoclip_mmseg.utils.tensors import Size, resize

TASKS = ('panoptic', 'instance')


class MaskHead(OpenVocabHead):
    """Class-agnostic masks and their classes to semantic, panoptic and instance output.

    A head of this kind has :meth:`propose` and :meth:`classify_masks`. Masks that the
    features bring take the place of its own, and labels that they bring that of its classes.

    Args:
        ensemble: ``alpha`` and ``beta``, the exponents of the probabilities of CLIP's features
            inside of the masks for seen and for other classes, and ``seen``, the names of the
            training vocabulary, which :class:`~infoclip_mmseg.engine.VocabularyHook` reads where a
            vocabulary is named; None: see the heads.
        score, overlap: Thresholds of :meth:`segments`.
        ignore_index, init_cfg: See :class:`OpenVocabHead`.
    """

    scores_words = finds_masks = True

    def __init__(
        self,
        ensemble: Mapping[str, Any] | None = None,
        score: float = 0.2,
        overlap: float = 0.7,
        ignore_index: int = 255,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(ignore_index, 0.0, init_cfg)
        self.ensemble = None if ensemble is None else dict(ensemble)
        self.score, self.overlap = score, overlap
        self.names: tuple[str, ...] = ()
        self.word_counts: tuple[int, ...] = ()

    def check_vocabulary(self, num_classes: int) -> None:
        """A single class would take every pixel."""
        if num_classes == 1:
            raise ValueError(
                f'a {type(self).__name__} compares words, and one word is all it would find. Add '
                "words for the background, such as 'wall' and 'floor'"
            )

    def follow(self, names: Sequence[str], word_counts: Sequence[int]) -> None:
        """See :meth:`OpenVocabHead.follow`."""
        super().follow(names, word_counts)
        self.names, self.word_counts = tuple(names), tuple(word_counts)

    def classify_masks(self, features: ImageFeatures, text: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`classify`, of classes that are not known."""
        raise NotImplementedError(f'{type(self).__name__} must implement classify_masks')

    def classify(self, features: ImageFeatures, text: Tensor) -> tuple[Tensor, Tensor]:
        """Log probabilities (B, Q, T + 1), void last, and the masks (B, Q, h, w), logits."""
        if features.labels is None or features.masks is None:
            return self.classify_masks(features, text)
        known = F.one_hot(features.labels, self.num_classes + 1).to(features.masks)
        return known.add(1e-8).log(), features.masks

    def _exponents(self, like: Tensor) -> Tensor:
        assert self.ensemble is not None
        if isinstance(self.ensemble['seen'], str):
            raise RuntimeError(
                f'the seen classes {self.ensemble["seen"]!r} were not read: add '
                'dict(type="VocabularyHook") to custom_hooks, or give a list of names'
            )
        known = {word for name in self.ensemble['seen'] for word in split_synonyms(name)}
        alpha, beta = self.ensemble['alpha'], self.ensemble['beta']
        values = [beta if known.isdisjoint(split_synonyms(n)) else alpha for n in self.names]
        return torch.tensor(values, dtype=like.dtype).to(like.device, non_blocking=True)

    # Inference ----------------------------------------------------------------------------------

    def decode(self, features: ImageFeatures, text: Tensor) -> ClassLogits:
        """Semantic maps (B, T, H, W) of the padded images, not normalised."""
        classes, masks = self.classify(features, text)
        return ClassLogits(semantic_map(classes, resize(masks, image_size(features))), None)

    def scores(self, logits: Tensor) -> Tensor:
        """The maps as they are, float32."""
        return logits.float()

    def classified_masks(
        self,
        features: ImageFeatures,
        text: Tensor,
        size: Size,
        out_sizes: Sequence[Size] | None = None,
    ) -> list[tuple[Tensor, Tensor]]:
        """Of each image the log probabilities (Q, T + 1) of its masks and these (Q, h, w), logits.

        Args:
            features, text: As for :meth:`decode`.
            size: Height and width of the images without their padding.
            out_sizes: Height and width of each result in place of ``size``.
        """
        classes, masks = self.classify(features, text)
        masks = resize(masks, image_size(features))[..., : size[0], : size[1]]
        sizes = out_sizes or [size] * len(masks)
        return [(c, resize(m[None], s)[0]) for c, m, s in zip(classes, masks, sizes)]

    def segments_of(
        self,
        classes: Tensor,
        masks: Tensor,
        task: str = 'panoptic',
        things: Sequence[int] = (),
        **options: Any,
    ) -> tuple[Tensor, list[Segment]]:
        """Id map (h, w) and segments of an image; see :func:`panoptic_segments`.

        Args:
            classes, masks: As :meth:`classified_masks` gives them.
            task: 'panoptic', or 'instance' with an empty id map and segments that have a ``mask``.
            things: Indices of the classes whose masks stay apart.
            **options: ``score`` and ``overlap`` in place of the head's; ``top``, see
                :func:`instances`.
        """
        if task not in TASKS:
            raise ValueError(f'task must be one of {TASKS}, got {task!r}')
        wrong = [index for index in things if not 0 <= index < self.num_classes]
        if wrong:
            raise ValueError(f'things {wrong} are no class: the vocabulary has {self.num_classes}')
        if task == 'panoptic':
            thresholds = {'score': self.score, 'overlap': self.overlap, **options}
            return panoptic_segments(classes, masks, things, **thresholds)
        empty = masks.new_zeros(masks.shape[-2:], dtype=torch.long)
        return empty, instances(classes, masks, things or None, **options)

    def segments(
        self,
        features: ImageFeatures,
        text: Tensor,
        size: Size,
        out_sizes: Sequence[Size] | None = None,
        **options: Any,
    ) -> list[tuple[Tensor, list[Segment]]]:
        """:meth:`segments_of` each image of :meth:`classified_masks`."""
        each = self.classified_masks(features, text, size, out_sizes)
        return [self.segments_of(classes, masks, **options) for classes, masks in each]

    # Training -----------------------------------------------------------------------------------

    def targets(self, samples: Sequence[SegDataSample]) -> Targets:
        """Masks of panoptic segments, or of label maps: one a class that an image shows."""
        return [
            segment_targets(sample.gt_panoptic.data[0], sample.gt_segments)
            if 'gt_panoptic' in sample
            else label_targets(sample.gt_sem_seg.data[0], self.ignore_index)
            for sample in samples
        ]


def encoder_of(features: ImageFeatures) -> CLIPDualEncoder:
    """The encoder that made features; a ValueError where they do not say."""
    if features.encoder is None:
        raise ValueError('the features do not say which encoder made them')
    return features.encoder


def image_size(features: ImageFeatures) -> Size:
    """Height and width of the images in pixels, padding included."""
    if features.size is not None:
        return features.size
    stride = encoder_of(features).patch_size
    height, width = features.blocks[-1].shape[-2:]
    return height * stride[0], width * stride[1]


def padded(masks: Tensor, size: Size) -> Tensor:
    """Masks (n, h, w) with zeros at the bottom and right; larger ones are a ValueError."""
    if masks.shape[-2] > size[0] or masks.shape[-1] > size[1]:
        raise ValueError(
            f'true masks are {tuple(masks.shape[-2:])} and the padded image {size}: in training '
            'image and labels must be resized together, by a Resize behind LoadLabelMap'
        )
    return F.pad(masks, (0, size[1] - masks.shape[-1], 0, size[0] - masks.shape[-2]))
