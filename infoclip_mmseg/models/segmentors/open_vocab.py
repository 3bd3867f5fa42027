"""OpenVocabSegmentor: every pixel gets a label out of any list of words."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import add_prefix
from torch import Tensor

from infoclip_mmseg.losses.base import build_losses
from infoclip_mmseg.models.backbones.dual_encoder import ImageFeatures
from infoclip_mmseg.models.distillation.distiller import Distiller
from infoclip_mmseg.models.distillation.teacher import FrozenTeacher
from infoclip_mmseg.models.normalisation import normalisation_of
from infoclip_mmseg.models.segmentors.checks import check_image_sizes, check_labels
from infoclip_mmseg.models.segmentors.inference import DEFAULT_TEST_CFG
from infoclip_mmseg.models.segmentors.plain_inference import PlainInferenceMixin
from infoclip_mmseg.models.segmentors.vocabulary import Vocabulary
from infoclip_mmseg.models.text.prompts import DEFAULT_TEMPLATES, PromptSet
from infoclip_mmseg.utils.tensors import pair, resize

SampleList = list[SegDataSample]


@MODELS.register_module()
class OpenVocabSegmentor(PlainInferenceMixin, BaseSegmentor):
    """CAT-Seg, with a neck and its two losses InfoCLIP (arXiv 2511.15967), or another distillation.

    The vocabulary belongs to the data set being run: :class:`~infoclip_mmseg.engine.VocabularyHook`
    hands it over, :meth:`set_vocabulary` sets it by hand, and assigning ``dataset_meta``, as
    mmseg's inference functions do, sets it too. Sizes that the configs of neck and head leave out
    are filled in from the built backbone.

    Args:
        backbone: :class:`CLIPDualEncoder`.
        decode_head: :class:`CATSegHead`.
        neck: :class:`LPAM`, shared by teacher and student; None trains without a teacher.
        loss_ib: :class:`InfoBottleneckLoss` on the teacher's relation map, or None.
        loss_mi: :class:`MITransferLoss` between both relation maps, or None.
        loss_distill: More losses between teacher and student, each a registered
            :class:`~infoclip_mmseg.losses.DistillationLoss`. Those that compare relation maps get
            the neck's, or without a neck the plain cosine cost volume.
        guidance: :class:`~infoclip_mmseg.models.AppearanceGuidance`, another backbone
            whose maps guide the head in place of CLIP's blocks; the head then needs
            ``guidance_channels``. None: CLIP guides itself.
        input_size: Size in pixels to which every view is resized before CLIP; an int or (h, w),
            multiples of the patch. None leaves views as they are.
        templates: Prompt templates with one ``{}`` each, or ``'imagenet'`` for CLIP's 80.
        synonyms: ``'first'``, ``'average'``, or with :class:`ZeroShotHead` ``'max'``; see
            :func:`build_prompts`.
        test_cfg: ``mode``: 'slide' (CAT-Seg's windows and a global view; ``size``, the working size
            in pixels, ``window`` and ``overlap``, see
            :mod:`~infoclip_mmseg.models.views.windows`), 'windows' (windows of the image at the
            size that the pipeline gives it; ``window`` and ``stride`` in pixels, see
            :func:`average_windows`) or 'whole'. ``view_batch_size`` (None: 1 on a CPU, else 4).
            Predictions hold a map of every class only where there are at most
            ``max_dense_classes``.
        train_cfg: Not used; mmseg passes it.
        data_preprocessor: Usually :class:`OpenVocabDataPreProcessor` with CLIP's mean and std.
        pretrained: Overrides ``backbone.pretrained`` where given, as in mmseg's segmentors.
        init_cfg: See ``mmengine.model.BaseModule``.
    """

    TRAINING_KEYS = ('neck', 'loss_ib', 'loss_mi', 'loss_distill')
    """Arguments that only training has a use for; any of them asks for a teacher."""

    def __init__(
        self,
        backbone: dict,
        decode_head: dict,
        neck: dict | None = None,
        loss_ib: dict | None = None,
        loss_mi: dict | None = None,
        loss_distill: Sequence[dict] | None = None,
        guidance: dict | None = None,
        input_size: int | Sequence[int] | None = 384,
        templates: str | Sequence[str] = DEFAULT_TEMPLATES,
        synonyms: str = 'first',
        test_cfg: dict | None = None,
        train_cfg: dict | None = None,
        data_preprocessor: dict | None = None,
        pretrained: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if neck is None and (loss_ib or loss_mi):
            raise ValueError(
                'loss_ib and loss_mi compare relation maps: set neck=dict(type="LPAM")'
            )
        overrides = {} if pretrained is None else dict(pretrained=pretrained)
        self.backbone = MODELS.build({**backbone, **overrides})
        self.vocabulary = Vocabulary(templates, synonyms)
        embed_dim = self.backbone.embed_dim
        sizes = dict(
            embed_dim=embed_dim,
            guidance_in_channels=self.backbone.image_width,
            num_prompts=len(self.vocabulary.templates),
        )
        self.decode_head = MODELS.build({**sizes, **decode_head})
        self.guidance = MODELS.build(guidance) if guidance else None
        if neck is not None:
            self.neck = MODELS.build({'embed_dim': embed_dim, **neck})
        losses = [loss_ib, loss_mi, *(loss_distill or ())]
        self.distillation_losses = build_losses([loss for loss in losses if loss])
        relate = self.neck if self.with_neck else None
        self.distiller = Distiller(self.backbone, self.distillation_losses, relate)
        self.input_size = None if input_size is None else pair(input_size)
        self.test_cfg = {**DEFAULT_TEST_CFG, **(test_cfg or {})}
        self._check_mode(self.test_cfg['mode'])
        if synonyms == 'max' and not self.is_zero_shot:
            raise ValueError("synonyms='max' needs decode_head=dict(type='ZeroShotHead')")
        self.train_cfg = train_cfg
        self.align_corners = False
        # As configured: the label values that apply unless a data set names others.
        pad = getattr(self.data_preprocessor, 'seg_pad_val', None)
        self._configured_ignore = (self.decode_head.ignore_index, pad)

    # Vocabulary -----------------------------------------------------------------------------

    def set_vocabulary(
        self,
        names: Sequence[str],
        palette: Sequence[Sequence[int]] | None = None,
        ignore_index: int | None = None,
    ) -> None:
        """Label pixels with these names from now on; arguments as for :meth:`Vocabulary.set`.

        Without an ``ignore_index`` that of the decode head's config applies.
        """
        self.vocabulary.set(names, palette, ignore_index)
        self._follow_vocabulary()

    def _follow_vocabulary(self) -> None:
        """Set what depends on the words: classes and ignored value of head and preprocessor."""
        value = self.vocabulary.ignore_index
        ignored, padded = self._configured_ignore if value is None else (value, value)
        self.decode_head.num_classes = self.vocabulary.num_classes
        self.decode_head.ignore_index = ignored
        if padded is not None:
            self.data_preprocessor.seg_pad_val = padded

    @property
    def dataset_meta(self) -> dict | None:
        """``classes``, ``palette``, perhaps ``ignore_index``; assigning it sets the vocabulary."""
        return self.vocabulary.meta

    @dataset_meta.setter
    def dataset_meta(self, meta: dict | None) -> None:
        if meta and meta.get('classes'):
            names = meta.get('prompt_names') or meta['classes']
            self.set_vocabulary(names, meta.get('palette'), meta.get('ignore_index'))

    @property
    def prompts(self) -> PromptSet:
        """Prompts of the current vocabulary; a RuntimeError where there is none."""
        return self.vocabulary.prompts

    @property
    def out_channels(self) -> int:
        """T of the current vocabulary."""
        return self.decode_head.num_classes

    # Training -------------------------------------------------------------------------------

    @property
    def teacher(self) -> FrozenTeacher | None:
        """The distiller's teacher; None outside of training."""
        return self.distiller.teacher

    @teacher.setter
    def teacher(self, teacher: FrozenTeacher | None) -> None:
        self.distiller.teacher = teacher

    def extract_feat(self, inputs: Tensor) -> ImageFeatures:
        """Image features of normalised images (B, 3, h, w) of any size."""
        images = self._at_input_size(inputs)
        features = self.backbone.encode_image(images)
        if self.guidance is None:
            return features
        maps = self.guidance(images, normalisation_of(self.data_preprocessor))
        return features._replace(blocks=maps)

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Logits (B, T, h', w') at the head's resolution of normalised images (B, 3, h, w)."""
        text = self.backbone.embed_prompts(self.prompts)
        return self.decode_head(self.extract_feat(inputs), text)

    def loss(self, inputs: Tensor, data_samples: SampleList) -> dict[str, Tensor]:
        """Task loss and the losses between teacher and student, if there are any.

        Args:
            inputs: Normalised images (B, 3, h, w).
            data_samples: B samples with ``gt_sem_seg`` (1, h, w).

        Raises:
            ValueError: A label lies outside the vocabulary, or an image is smaller than a patch.
            RuntimeError: There is a neck or a distillation loss but no teacher.
        """
        check_image_sizes(inputs, data_samples, self.backbone.patch_size)
        check_labels(data_samples, self.prompts.num_classes, self.decode_head.ignore_index)
        labels = torch.cat([sample.gt_sem_seg.data for sample in data_samples]).long()

        # Student: image and text embeddings, logits, task loss.
        features = self.extract_feat(inputs)
        text = self.backbone.embed_prompts(self.prompts)
        losses = add_prefix(self.decode_head.loss(features, text, labels), 'decode')

        # Teacher: the losses that hold the student to it; one embedding a class.
        if self.distiller.needs_teacher:
            images, words = self._at_input_size(inputs), text.mean(dim=1)
            losses.update(
                self.distiller.alignment_loss(images, self.prompts, features.dense, words)
            )
        return losses

    def _forward(self, inputs: Tensor, data_samples: SampleList | None = None) -> Tensor:
        """Logits (B, T, h', w') at the head's resolution."""
        return self.encode_decode(inputs)

    def _at_input_size(self, inputs: Tensor) -> Tensor:
        return inputs if self.input_size is None else resize(inputs, self.input_size)
