"""Data preprocessor that also batches test images of different sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.registry import MODELS

from infoclip_mmseg.models.normalisation import CLIP_MEAN, CLIP_STD


@MODELS.register_module()
class OpenVocabDataPreProcessor(SegDataPreProcessor):
    """mmseg's preprocessor, except that test images of a batch may differ in size.

    They are padded at the bottom and right to the largest height and width, and the padding is told
    in ``img_padding_size``; the segmentor cuts it off before it resizes.

    Args:
        mean, std: Normalisation of RGB images, 0..255. None: in an :class:`OpenVocabSegmentor` that
            of its weights, elsewhere that of OpenAI's CLIP.
        **kwargs: See ``mmseg.models.SegDataPreProcessor``.
    """

    def __init__(
        self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(mean=mean or CLIP_MEAN, std=std or CLIP_STD, **kwargs)

    def forward(self, data: dict, training: bool = False) -> dict[str, Any]:
        """See ``mmseg.models.SegDataPreProcessor``, to which batches for training are left."""
        inputs, samples = data['inputs'], data.get('data_samples')
        if training or len({tuple(image.shape[-2:]) for image in inputs}) <= 1:
            return super().forward(data, training)
        if samples is None:
            raise ValueError(
                'images of different sizes need data_samples to remember their padding'
            )
        parent = super().forward
        single = [parent(dict(inputs=[i], data_samples=[s])) for i, s in zip(inputs, samples)]
        images = [one['inputs'][0] for one in single]
        samples = [one['data_samples'][0] for one in single]
        height, width = map(max, zip(*(image.shape[-2:] for image in images)))
        padded = []
        for image, sample in zip(images, samples):
            right, bottom = width - image.shape[-1], height - image.shape[-2]
            padded.append(F.pad(image, (0, right, 0, bottom), value=self.pad_val))
            padding: tuple[int, ...] = (0, right, 0, bottom)
            if self.test_cfg:  # which may have padded the image already
                padding = tuple(map(sum, zip(padding, sample.metainfo['img_padding_size'])))
            sample.set_metainfo(dict(img_padding_size=padding, pad_shape=(height, width)))
        return dict(inputs=torch.stack(padded), data_samples=samples)
