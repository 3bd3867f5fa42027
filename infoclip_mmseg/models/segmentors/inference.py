"""From a batch of images to label maps: checks, views, class maps, samples."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from infoclip_mmseg.models.backbones.dual_encoder import ImageFeatures
from infoclip_mmseg.models.data_preprocessor import file_of
from infoclip_mmseg.models.decode_heads.base import OpenVocabHead
from infoclip_mmseg.models.layers.cost_volume import ClassLogits
from infoclip_mmseg.models.layers.mask_pooling import semantic_map
from infoclip_mmseg.models.segmentors.oracle import check_oracle
from infoclip_mmseg.models.segmentors.vocabulary import Vocabulary
from infoclip_mmseg.models.views.class_maps import FLIP_AXES, Labeller, class_maps
from infoclip_mmseg.models.views.windows import (
    MODES,
    ViewLogits,
    size_of_ratio,
    slide_layout,
    view_logits,
    whole_layout,
    windows_layout,
)
from infoclip_mmseg.utils.tensors import Size, pair

DEFAULT_TEST_CFG = dict(
    mode='slide',
    size=640,
    keep_ratio=False,
    window=384,
    overlap=0.333,
    view_batch_size=None,
    max_dense_classes=1024,
    panoptic=False,
    oracle=None,
    share_classes=False,
)

ROWS = 128
"""Of a semantic map that is made at a time of many masks and classes."""


@dataclass(frozen=True)
class Inference:
    """How the images of a segmentor become label maps; ``decode`` takes normalised views.

    ``decode_together``, which also takes how many go through the model at a time, is for views of
    one image that share their classes (:func:`decode_together`).
    Where the model does not resize its views (``resizes``), they are padded to whole patches.
    """

    head: OpenVocabHead
    vocabulary: Vocabulary
    patch: Size
    resizes: bool
    test_cfg: Mapping[str, Any]
    decode: Callable[[Tensor], ClassLogits]
    decode_together: Callable[..., ClassLogits]

    def check_mode(self, mode: str) -> None:
        """Raise a ValueError for an unknown mode and for one that does not fit head or options."""
        if mode not in MODES:
            raise ValueError(f'mode must be one of {MODES}, got {mode!r}')
        self.head.check_mode(mode)
        check_oracle(self.test_cfg['oracle'], self.head, mode)
        if self.test_cfg['keep_ratio'] and not isinstance(self.test_cfg['size'], int):
            raise ValueError(
                "test_cfg.keep_ratio=True takes the images' own ratio: size is then an int, the "
                f'shorter side in pixels, got {self.test_cfg["size"]!r}'
            )
        if mode == 'windows' and 'stride' not in self.test_cfg:
            raise ValueError(
                "mode 'windows' needs a stride in pixels, for example "
                "test_cfg=dict(mode='windows', window=448, stride=224)"
            )

    def views(self, images: Tensor, mode: str) -> Iterator[ViewLogits]:
        """Logits of the views of each of the normalised images (B, 3, h, w), image by image."""
        self.check_mode(mode)
        cfg = self.test_cfg
        # Batches of views fill an accelerator; on a CPU they only take memory.
        batch_size = cfg['view_batch_size'] or (1 if images.device.type == 'cpu' else 4)
        if mode == 'slide':
            kept = cfg['keep_ratio']
            size = size_of_ratio(images, cfg['size']) if kept else pair(cfg['size'])
            layout = slide_layout(images, size, pair(cfg['window']), cfg['overlap'])
        elif mode == 'windows':
            layout = windows_layout(images, pair(cfg['window']), pair(cfg['stride']), self.patch)
        else:
            layout = whole_layout(images, None if self.resizes else self.patch)
            batch_size = len(images)
        decode = self.decode
        if cfg['share_classes'] and len(layout.views) > 1:
            decode = partial(self.decode_together, batch_size=batch_size)
            batch_size = len(layout.views)
        yield from view_logits(images, decode, layout, batch_size)

    def class_maps(
        self, views: ViewLogits, size: Size | None = None, flip: str | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Classes and their probabilities, a few at a time; see the function of this name."""
        return class_maps(views, self.head, size, self.vocabulary.prompts.word_counts, flip)

    def probabilities(self, images: Tensor, mode: str) -> Tensor:
        """Probabilities (B, T, h, w), float32, of all classes of normalised images."""
        out = []
        for views in self.views(images, mode):
            out.append(self._new_maps(views, views.size))
            for classes, maps in self.class_maps(views):
                out[-1][classes] = maps
        return torch.stack(out) if len(out) > 1 else out[0][None]

    def label(
        self, views: ViewLogits, size: Size, flip: str | None = None, dense: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Labels and probabilities (h, w) of an image; ``dense`` gets the maps of all classes."""
        labeller = Labeller(size, views.logits.device)
        for classes, maps in self.class_maps(views, size, flip):
            labeller.update(classes, maps)
            if dense is not None:
                dense[classes] = maps
        labels = self.head.labels(labeller.winner, labeller.probability)
        return labels, labeller.probability

    def fill_sample(
        self, sample: SegDataSample, views: ViewLogits, size: Size, max_dense_classes: int
    ) -> None:
        """Put the prediction of an image of ``size`` into its sample, at its original size."""
        meta = sample.metainfo
        height, width = meta.get('ori_shape', size)[:2]
        dense = None
        if self.vocabulary.num_classes <= max_dense_classes:
            dense = self._new_maps(views, (height, width))
            sample.seg_logits = PixelData(data=dense)
        flip = meta['flip_direction'] if meta.get('flip') else None
        labels, probability = self.label(views, (height, width), flip, dense)
        sample.pred_sem_seg = PixelData(data=labels[None])
        sample.pred_probability = PixelData(data=probability[None])

    def _new_maps(self, views: ViewLogits, size: Size) -> Tensor:
        shape = (self.vocabulary.num_classes, *size)
        return views.logits.new_zeros(shape, dtype=torch.float32)


def decode_together(model: Any, views: Tensor, batch_size: int) -> ClassLogits:
    """Logits of the normalised views (V, 3, h, w) of an image, all of the same classes.

    They are those that a head which selects some takes for the positions of all views, side by
    side. ``batch_size`` views go through the model at a time; the features of all are held.
    """
    parts = views.split(batch_size)
    features = [model.extract_feat(part) for part in parts]
    dense = torch.cat([part.dense for part in features]).transpose(0, 1).flatten(1, 2)
    classes = model.decode_head.select(dense[None], model.embed_vocabulary())
    decoded = [model.decode_features(*part, classes) for part in zip(parts, features)]
    logits, kept = zip(*decoded)
    return ClassLogits(torch.cat(logits), None if kept[0] is None else torch.cat(kept))


def fill_panoptic(
    model: Any,
    features: ImageFeatures,
    text: Tensor,
    images: Tensor,
    samples: Sequence[SegDataSample],
) -> None:
    """Put id maps, segments and labels of images (B, 3, h, w) into samples, at original sizes."""
    things = (model.vocabulary.meta or {}).get('things') or ()
    size = (images.shape[-2], images.shape[-1])
    sizes = [sample.metainfo.get('ori_shape', size)[:2] for sample in samples]
    head = model.decode_head
    each = head.classified_masks(features, text, size, sizes)
    for sample, (classes, masks) in zip(samples, each):
        flip = sample.metainfo['flip_direction'] if sample.metainfo.get('flip') else None
        masks = masks if flip is None else masks.flip(FLIP_AXES[flip])
        ids, segments = head.segments_of(classes, masks, things=things)
        sample.pred_panoptic = PixelData(data=ids[None])
        sample.set_metainfo(dict(pred_segments=segments))
        rows = masks[None].split(ROWS, dim=-2)
        labels = [semantic_map(classes[None], part).argmax(dim=1) for part in rows]
        sample.pred_sem_seg = PixelData(data=torch.cat(labels, dim=-2))


def check_image_sizes(
    images: Tensor, samples: Sequence[SegDataSample], patch: tuple[int, int]
) -> None:
    """Raise a ValueError where an image or its file (``ori_shape``) is smaller than a patch."""
    sizes = [(sample.metainfo.get('ori_shape'), file_of(sample, 'img_path')) for sample in samples]
    for size, name in [(tuple(images.shape[-2:]), 'the batch'), *sizes]:
        if size is not None and (size[0] < patch[0] or size[1] < patch[1]):
            raise ValueError(
                f'image of {size[0]} x {size[1]} pixels ({name}) is smaller than one patch of '
                f'{patch[0]} x {patch[1]}; remove it from the data or enlarge it first'
            )


def batches(inputs: Tensor, samples: Sequence[SegDataSample]) -> list[Tensor]:
    """Images (3, h, w) without their padding, as one batch or, where sizes differ, one by one."""
    images = []
    for image, meta in zip(inputs, (sample.metainfo for sample in samples)):
        padding = meta.get('img_padding_size', meta.get('padding_size', (0, 0, 0, 0)))
        left, right, top, bottom = padding
        images.append(image[:, top : image.shape[1] - bottom, left : image.shape[2] - right])
    if len({image.shape for image in images}) == 1:
        return [torch.stack(images)]
    return [image[None] for image in images]


@contextmanager
def evaluating(model: Any, images: Tensor, classes: Sequence[str] | None) -> Iterator[Tensor]:
    """A segmentor in evaluation mode and, where given, with other words, both undone on exit.

    Yields the RGB images (B, 3, h, w), 0..255, as the backbone takes them; images of another form
    or smaller than a patch are a ValueError.
    """
    if images.ndim != 4 or images.shape[1] != 3:
        raise ValueError(f'images must be (B, 3, h, w) RGB, got {tuple(images.shape)}')
    check_image_sizes(images, [], model.backbone.patch_size)
    mean, std = model.data_preprocessor.mean, model.data_preprocessor.std
    images = (images.to(mean.device, torch.float32) - mean) / std
    training = model.training
    try:
        if training:
            model.eval()
        with model.vocabulary.swapped(classes):
            model.follow_vocabulary()
            yield images
    finally:
        model.follow_vocabulary()
        if training:
            model.train()
