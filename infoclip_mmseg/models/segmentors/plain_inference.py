"""Inference by plain averages: mode 'windows' for any head, and both modes of a zero-shot head."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from torch import Tensor

from infoclip_mmseg.models.decode_heads.zero_shot import ZeroShotHead
from infoclip_mmseg.models.segmentors.inference import FLIP_AXES, InferenceMixin
from infoclip_mmseg.models.views.class_maps import ViewLogits
from infoclip_mmseg.models.views.plain_windows import average_windows
from infoclip_mmseg.models.views.windows import check_mode
from infoclip_mmseg.utils.tensors import pair, resize

ADVICE = "test_cfg=dict(mode='windows', window=448, stride=224)"


class AverageScores(NamedTuple):
    """Average over the views of one image.

    Attributes:
        logits: (W, h, w), float32: probabilities of an ordinary head's classes, W = T, or a
            zero-shot head's cosines of all words.
        num_classes: T.
    """

    logits: Tensor
    num_classes: int


class PlainInferenceMixin(InferenceMixin):
    """Adds windows without a global view, and heads that classify only what has been averaged.

    An ordinary head's probabilities are averaged over windows. A :class:`ZeroShotHead` has its
    cosines averaged and resized to the image, and makes probabilities of what comes out: its
    softmax needs all words at once.
    """

    @property
    def is_zero_shot(self) -> bool:
        """Whether the head makes probabilities only after its scores have been averaged."""
        return isinstance(self.decode_head, ZeroShotHead)

    def probabilities(self, inputs: Tensor, mode: str = 'slide') -> Tensor:
        """Class probabilities of normalised images (B, 3, h, w).

        Returns:
            (B, T, *test_cfg.size) in mode 'slide', (B, T, h, w) in mode 'windows', (B, T, h', w')
            at the head's resolution in mode 'whole'; float32.

        Raises:
            ValueError: Unknown mode, or one that does not fit the head or lacks its options.
        """
        if not self._is_plain(mode):
            return super().probabilities(inputs, mode)
        return self._classify(self._average_views(inputs, mode))

    def _is_plain(self, mode: str) -> bool:
        self._check_mode(mode)
        return mode == 'windows' or self.is_zero_shot

    def _view_logits(self, inputs: Tensor, mode: str) -> Iterator[Any]:
        if not self._is_plain(mode):
            yield from super()._view_logits(inputs, mode)
            return
        for average in self._average_views(inputs, mode):
            yield AverageScores(average, self.vocabulary.prompts.num_classes)

    def _average_views(self, inputs: Tensor, mode: str) -> Tensor:
        """Averaged scores (B, W, h, w), float32; see :class:`AverageScores`."""
        if mode == 'whole':
            return self._scores(inputs)
        return average_windows(
            inputs,
            self._scores,
            window=pair(self.test_cfg['window']),
            stride=pair(self.test_cfg['stride']),
            patch=self.backbone.patch_size,
            view_batch_size=self._view_batch_size(inputs),
        )

    def _scores(self, inputs: Tensor) -> Tensor:
        """What is averaged over views: probabilities, or a zero-shot head's cosines."""
        logits = self.encode_decode(inputs).float()
        return logits if self.is_zero_shot else logits.sigmoid()

    def _classify(self, average: Tensor) -> Tensor:
        """Averaged scores to probabilities (B, T, h, w)."""
        if not self.is_zero_shot:
            return average
        return self.decode_head.classify(average, self.vocabulary.prompts.word_counts)

    def _reduce(
        self,
        views: ViewLogits | AverageScores,
        size: tuple[int, int],
        meta: dict,
        dense: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        if isinstance(views, ViewLogits):
            return super()._reduce(views, size, meta, dense)
        average = views.logits
        if meta.get('flip'):
            average = average.flip(FLIP_AXES[meta['flip_direction']])
        probabilities = self._classify(resize(average[None], size))[0]
        if dense is not None:
            dense.copy_(probabilities)
        best, labels = probabilities.max(dim=0)
        if self.is_zero_shot:
            labels = self.decode_head.label_map(probabilities)[0]
        elif len(probabilities) == 1:
            labels = (best > self.decode_head.threshold).long()
        return labels, best

    def _check_mode(self, mode: str) -> None:
        """Raise a ValueError for an unknown mode and for one that does not fit head or options."""
        check_mode(mode)
        if mode == 'slide' and self.is_zero_shot:
            raise ValueError(
                "mode 'slide' averages sigmoids, which a ZeroShotHead does not have; take mode "
                f"'windows' or 'whole', in a config for example {ADVICE}"
            )
        if mode == 'windows' and 'stride' not in self.test_cfg:
            raise ValueError(f"mode 'windows' needs a stride in pixels, for example {ADVICE}")
