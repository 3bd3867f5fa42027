"""Data preprocessor that also batches test images of different sizes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.models.data_preprocessor import SegDataPreProcessor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from infoclip_mmseg.models.normalisation import CLIP_MEAN, CLIP_STD


def file_of(sample: SegDataSample, key: str) -> Any:
    """Path of a sample's image or label map, ``key`` of its metainfo, for messages."""
    return sample.metainfo.get(key) or 'an array without a file name'


def check_labels(samples: Sequence[SegDataSample], num_classes: int, ignore_index: int) -> None:
    """Raise a ValueError where a ground truth has labels that are no class and not ignored.

    Labels on an accelerator, which would have to be waited for, are not looked at: the preprocessor
    has done so before they went there.
    """
    for sample in samples:
        if 'gt_sem_seg' not in sample or sample.gt_sem_seg.data.device.type != 'cpu':
            continue
        labels = sample.gt_sem_seg.data
        wrong = labels[(labels != ignore_index) & ((labels >= num_classes) | (labels < 0))]
        if wrong.numel():
            raise ValueError(
                f'label map {file_of(sample, "seg_map_path")} has values from {int(wrong.min())} '
                f'to {int(wrong.max())} in {wrong.numel()} pixels, but the vocabulary has '
                f'{num_classes} names (labels 0..{num_classes - 1}, {ignore_index} for none). Use '
                "the vocabulary that belongs to the labels, or the data set's reduce_zero_label"
            )


@MODELS.register_module()
class OpenVocabDataPreProcessor(SegDataPreProcessor):
    """mmseg's preprocessor, except that test images of a batch may differ in size.

    They are padded at the bottom and right to the largest height and width, and the padding is told
    in ``img_padding_size``; the segmentor cuts it off before it resizes. Labels on their way to an
    accelerator are checked, see :func:`check_labels`.

    Args:
        mean, std: Normalisation of RGB images, 0..255. None: in an :class:`OpenVocabSegmentor` that
            of its weights, elsewhere that of OpenAI's CLIP.
        **kwargs: See ``mmseg.models.SegDataPreProcessor``.
    """

    label_range: tuple[int, int] | None = None
    """Number of classes and the ignored value, which an :class:`OpenVocabSegmentor` tells."""

    def __init__(
        self, mean: Sequence[float] | None = None, std: Sequence[float] | None = None, **kwargs: Any
    ) -> None:
        super().__init__(mean=mean or CLIP_MEAN, std=std or CLIP_STD, **kwargs)

    def forward(self, data: dict, training: bool = False) -> dict[str, Any]:
        """See ``mmseg.models.SegDataPreProcessor``, to which batches for training are left."""
        inputs, samples = data['inputs'], data.get('data_samples')
        if samples and self.label_range is not None and self.device.type != 'cpu':
            check_labels(samples, *self.label_range)
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
