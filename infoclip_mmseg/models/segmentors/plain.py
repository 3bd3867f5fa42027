"""Segmenting plain tensors, without mmseg's pipelines and samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from infoclip_mmseg.models.segmentors.inference import evaluating
from infoclip_mmseg.utils.files import first_few


class PlainTensors:
    """What users ask of a segmentor with RGB images (B, 3, h, w), 0..255; a base of it."""

    _inference: Any
    vocabulary: Any
    decode_head: Any
    encode_decode: Any
    extract_feat: Any
    probabilities: Any
    embed_vocabulary: Any

    @torch.no_grad()
    def segment(
        self, images: Tensor, classes: Sequence[str] | None = None, mode: str = 'slide'
    ) -> Tensor:
        """Segment plain tensors as in evaluation, without mmseg's pipelines and samples.

        The result holds a map a class; for vocabularies of thousands of words see :meth:`label`.

        Args:
            images: RGB images (B, 3, h, w), 0..255, of any size.
            classes: Words to choose from, for this call only; None takes the current vocabulary.
            mode: ``'slide'``, ``'windows'`` or ``'whole'``; others are a ValueError.

        Returns:
            Modes 'slide' and 'windows': :meth:`probabilities`. Mode 'whole': the head's logits (B,
            T, h', w') after resizing the images to ``input_size``.
        """
        with evaluating(self, images, classes) as images:
            if mode == 'whole':
                return self.encode_decode(images)
            return self.probabilities(images, mode)

    @torch.no_grad()
    def label(
        self, images: Tensor, classes: Sequence[str] | None = None, mode: str = 'slide'
    ) -> tuple[Tensor, Tensor]:
        """Label maps of plain tensors; memory does not grow with the vocabulary.

        Arguments and errors are those of :meth:`segment`.

        Returns:
            Labels (B, h, w) and their probabilities (B, h, w), at the size of the images. Of a
            single class: 0 where its probability is above the head's threshold, elsewhere the
            head's ``ignore_index``.
        """
        with evaluating(self, images, classes) as images:
            size = (images.shape[-2], images.shape[-1])
            inference = self._inference
            labelled = [inference.label(views, size) for views in inference.views(images, mode)]
        labels, probability = zip(*labelled)
        return torch.stack(labels), torch.stack(probability)

    @torch.no_grad()
    def segments(
        self, images: Tensor, classes: Sequence[str] | None = None, **options: Any
    ) -> list[tuple[Tensor, list[dict[str, Any]]]]:
        """Id maps and segments of plain tensors, of a head with :meth:`OpenVocabHead.segments`."""
        with evaluating(self, images, classes) as images:
            size = (images.shape[-2], images.shape[-1])
            features = self.extract_feat(images)
            return self.decode_head.segments(features, self.embed_vocabulary(), size, **options)

    def panoptic(
        self,
        images: Tensor,
        classes: Sequence[str] | None = None,
        things: Sequence[str] = (),
        **options: Any,
    ) -> list[tuple[Tensor, list[dict[str, Any]]]]:
        """Panoptic segmentation of plain tensors, of a head that finds masks.

        Args:
            images: RGB images (B, 3, h, w), 0..255, of any size.
            classes: Words to choose from, for this call only; None takes the current vocabulary.
            things: Those of them whose objects are told apart; all others are stuff. A name that is
                no class is a ValueError.
            **options: ``score`` and ``overlap``, see :meth:`MaskClassificationHead.segments`.

        Returns:
            Of each image an id map (h, w), 0 where there is no segment, and its segments: ``id``,
            ``class`` (the name), ``label`` (its index), ``is_thing``, ``score`` and
            ``area`` in pixels.
        """
        names = list(self.vocabulary.names if classes is None else classes)
        unknown = [name for name in things if name not in names]
        if unknown:
            raise ValueError(
                f'things {first_few([repr(name) for name in unknown])} are none of the '
                f'{len(names)} classes; write them as they stand there'
            )
        indices = [names.index(name) for name in things]
        results = self.segments(images, classes, task='panoptic', things=indices, **options)
        for _, segments in results:
            for segment in segments:
                segment['class'] = names[segment['label']]
        return results
