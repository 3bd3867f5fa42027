"""What a segmentor does at inference: views, label maps, probabilities."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.structures import PixelData
from mmseg.structures import SegDataSample
from torch import Tensor

from infoclip_mmseg.models.layers.cost_volume import ClassLogits
from infoclip_mmseg.models.segmentors.checks import check_image_sizes, check_labels
from infoclip_mmseg.models.segmentors.vocabulary import Vocabulary
from infoclip_mmseg.models.views.class_maps import Labeller, ViewLogits, iter_class_maps
from infoclip_mmseg.models.views.windows import check_mode, sliding_layout, sliding_logits, unpad
from infoclip_mmseg.utils.tensors import pair, resize

SampleList = list[SegDataSample]
FLIP_AXES = {'horizontal': -1, 'vertical': -2}
DEFAULT_TEST_CFG = dict(
    mode='slide', size=640, window=384, overlap=0.333, view_batch_size=None, max_dense_classes=1024
)


class InferenceMixin:
    """Predicts label maps and probabilities.

    It expects ``backbone``, ``test_cfg`` and the methods of the segmentor.
    """

    backbone: Any
    decode_head: Any
    data_preprocessor: Any
    vocabulary: Vocabulary
    _follow_vocabulary: Any
    test_cfg: dict
    training: bool
    extract_feat: Any
    encode_decode: Any
    eval: Any
    train: Any

    def predict(self, inputs: Tensor, data_samples: SampleList | None = None) -> SampleList:
        """Label maps at the original size of each image.

        Args:
            inputs: Normalised images (B, 3, h, w).
            data_samples: B samples whose metainfo tells padding, flip and ``ori_shape``.

        Returns:
            The samples with ``pred_sem_seg`` (1, h, w), ``pred_probability`` (1, h, w) of the
            class that won, and ``seg_logits`` (T, h, w), which here are probabilities. The last is
            left out where the vocabulary has more than ``test_cfg.max_dense_classes`` words.

        Raises:
            ValueError: An image is smaller than a patch, or a ground-truth label lies outside the
                vocabulary.
        """
        if data_samples is None:
            data_samples = [SegDataSample() for _ in inputs]
        check_image_sizes(inputs, data_samples, self.backbone.patch_size)
        check_labels(
            data_samples, self.vocabulary.prompts.num_classes, self.decode_head.ignore_index
        )
        images = [unpad(image, s.metainfo) for image, s in zip(inputs, data_samples)]
        if len({image.shape for image in images}) == 1:
            batches = [torch.stack(images)]
        else:
            batches = [image[None] for image in images]
        views = (v for batch in batches for v in self._view_logits(batch, self.test_cfg['mode']))
        for image, own, sample in zip(images, views, data_samples):
            self._fill_sample(sample, own, tuple(image.shape[-2:]))
        return data_samples

    def probabilities(self, inputs: Tensor, mode: str = 'slide') -> Tensor:
        """Class probabilities of normalised images (B, 3, h, w).

        Returns:
            (B, T, *test_cfg.size) in mode 'slide', (B, T, h', w') at the head's resolution in mode
            'whole'; float32.
        """
        out = []
        for views in self._view_logits(inputs, mode):
            total = views.logits.new_zeros(views.num_classes, *views.size, dtype=torch.float32)
            for classes, maps in iter_class_maps(views):
                total[classes] = maps
            out.append(total)
        return torch.stack(out) if len(out) > 1 else out[0][None]

    @torch.no_grad()
    def segment(
        self, images: Tensor, classes: Sequence[str] | None = None, mode: str = 'slide'
    ) -> Tensor:
        """Segment plain tensors, without mmseg's pipelines and samples.

        Runs as in evaluation, whatever mode the model is in. The result holds a map a class; for
        vocabularies of thousands of words see :meth:`label`.

        Args:
            images: RGB images (B, 3, h, w), 0..255, of any size.
            classes: Words to choose from, for this call only; None takes the current vocabulary.
            mode: ``'slide'``, ``'windows'`` or ``'whole'``.

        Returns:
            Modes 'slide' and 'windows': :meth:`probabilities`. Mode 'whole': the head's logits (B,
            T, h', w') after resizing the images to ``input_size``.

        Raises:
            ValueError: Unknown mode, images of the wrong form or smaller than a patch.
        """
        check_mode(mode)
        images = self._normalise(images)
        with self._evaluating(classes):
            return (
                self.encode_decode(images) if mode == 'whole' else self.probabilities(images, mode)
            )

    @torch.no_grad()
    def label(
        self, images: Tensor, classes: Sequence[str] | None = None, mode: str = 'slide'
    ) -> tuple[Tensor, Tensor]:
        """Label maps of plain tensors; memory does not grow with the vocabulary.

        Args:
            images, classes, mode: As for :meth:`segment`.

        Returns:
            Labels (B, h, w) and their probabilities (B, h, w), at the size of the images. A single
            class has label 1 where its probability is above the head's threshold.

        Raises:
            ValueError: See :meth:`segment`.
        """
        check_mode(mode)
        images = self._normalise(images)
        with self._evaluating(classes):
            size = (images.shape[-2], images.shape[-1])
            found = [
                self._reduce(views, size, {}, None) for views in self._view_logits(images, mode)
            ]
        return torch.stack([f[0] for f in found]), torch.stack([f[1] for f in found])

    def _decode(self, inputs: Tensor) -> ClassLogits:
        """As :meth:`encode_decode`, of the classes that the head decodes only."""
        text = self.backbone.embed_prompts(self.vocabulary.prompts)
        features = self.extract_feat(inputs)
        if hasattr(self.decode_head, 'decode'):
            return self.decode_head.decode(features, text)
        return ClassLogits(self.decode_head(features, text), None)

    def _view_logits(self, inputs: Tensor, mode: str) -> Iterator[ViewLogits]:
        """Logits of the views of each of the normalised images (B, 3, h, w), image by image."""
        num_classes, cfg = self.vocabulary.prompts.num_classes, self.test_cfg
        if mode == 'whole':
            logits, classes = self._decode(inputs)
            for b in range(len(inputs)):
                own = None if classes is None else classes[b : b + 1]
                yield ViewLogits(logits[b : b + 1], own, num_classes, None)
            return
        layout = sliding_layout(inputs, pair(cfg['size']), pair(cfg['window']), cfg['overlap'])
        views = sliding_logits(inputs, self._decode, layout, self._view_batch_size(inputs))
        for logits, classes in views:
            yield ViewLogits(logits, classes, num_classes, layout)

    def _view_batch_size(self, inputs: Tensor) -> int:
        # Batches of views fill an accelerator; on a CPU they only take memory.
        return self.test_cfg['view_batch_size'] or (1 if inputs.device.type == 'cpu' else 4)

    def _fill_sample(self, sample: SegDataSample, views: ViewLogits, size: tuple[int, ...]) -> None:
        """Put the prediction of an image of ``size`` into its sample."""
        height, width = sample.metainfo.get('ori_shape', size)[:2]
        dense = None
        if views.num_classes <= self.test_cfg['max_dense_classes']:
            shape = (views.num_classes, height, width)
            dense = views.logits.new_zeros(shape, dtype=torch.float32)
            sample.seg_logits = PixelData(data=dense)
        labels, probability = self._reduce(views, (height, width), sample.metainfo, dense)
        sample.pred_sem_seg = PixelData(data=labels[None])
        sample.pred_probability = PixelData(data=probability[None])

    def _reduce(
        self, views: ViewLogits, size: tuple[int, int], meta: dict, dense: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Labels and their probabilities (h, w) at ``size``; all maps go to ``dense`` if given."""
        labeller = Labeller(size, views.logits.device)
        for classes, maps in iter_class_maps(views, size[0] * size[1]):
            if meta.get('flip'):
                maps = maps.flip(FLIP_AXES[meta['flip_direction']])
            maps = resize(maps[None], size)[0]
            labeller.update(classes, maps)
            if dense is not None:
                dense[classes] = maps
        if views.num_classes == 1:
            over = labeller.probability > self.decode_head.threshold
            return over.long(), labeller.probability
        return labeller.labels, labeller.probability

    def _normalise(self, images: Tensor) -> Tensor:
        """RGB images (B, 3, h, w), 0..255, as the backbone takes them."""
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f'images must be (B, 3, h, w) RGB, got {tuple(images.shape)}')
        check_image_sizes(images, [], self.backbone.patch_size)
        mean, std = self.data_preprocessor.mean, self.data_preprocessor.std
        return (images.to(mean.device, torch.float32) - mean) / std

    @contextmanager
    def _evaluating(self, classes: Sequence[str] | None) -> Iterator[None]:
        """Evaluation mode and, where given, another vocabulary, both undone on exit."""
        training = self.training
        try:
            if training:
                self.eval()
            with self.vocabulary.swapped(classes):
                self._follow_vocabulary()
                yield
        finally:
            self._follow_vocabulary()
            if training:
                self.train()
