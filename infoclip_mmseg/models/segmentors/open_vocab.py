"""OpenVocabSegmentor: every pixel gets a label out of any list of words."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from itertools import islice

from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from mmseg.utils import add_prefix
from torch import Tensor

from infoclip_mmseg.losses.base import build_losses
from infoclip_mmseg.models.backbones.dual_encoder import ImageFeatures
from infoclip_mmseg.models.data_preprocessor import OpenVocabDataPreProcessor, check_labels
from infoclip_mmseg.models.distillation.distiller import Distiller, Student
from infoclip_mmseg.models.distillation.guard_words import GuardWords
from infoclip_mmseg.models.layers.cost_volume import ClassLogits
from infoclip_mmseg.models.normalisation import as_trained, normalisation_of
from infoclip_mmseg.models.segmentors.auxiliary import auxiliary_losses, build_auxiliary
from infoclip_mmseg.models.segmentors.inference import (
    DEFAULT_TEST_CFG,
    Inference,
    batches,
    check_image_sizes,
    decode_together,
    fill_panoptic,
)
from infoclip_mmseg.models.segmentors.oracle import look_with_truth
from infoclip_mmseg.models.segmentors.plain import PlainTensors
from infoclip_mmseg.models.segmentors.vocabulary import Vocabulary, VocabularyOwner
from infoclip_mmseg.models.text.prompts import DEFAULT_TEMPLATES
from infoclip_mmseg.utils.tensors import pad_to_patches, pair, resize, whole_patches

SampleList = list[SegDataSample]


@MODELS.register_module()
class OpenVocabSegmentor(VocabularyOwner, Student, PlainTensors, BaseSegmentor):
    """CAT-Seg, with a neck and its two losses InfoCLIP (arXiv 2511.15967), or another distillation.

    The vocabulary belongs to the data set being run: :class:`~infoclip_mmseg.engine.VocabularyHook`
    hands it over, :meth:`set_vocabulary` sets it by hand, and assigning ``dataset_meta``, as
    mmseg's inference functions do, sets it too. Sizes that the configs of neck and head leave out
    are filled in from the built backbone.

    Args:
        backbone: :class:`CLIPDualEncoder`.
        decode_head: An :class:`OpenVocabHead`, such as :class:`CATSegHead`.
        neck: :class:`LPAM`, shared by teacher and student; None trains without a teacher.
        loss_ib: :class:`InfoBottleneckLoss` on the teacher's relation map, or None.
        loss_mi: :class:`MITransferLoss` between both relation maps, or None.
        loss_distill: More losses between teacher and student, each a registered
            :class:`~infoclip_mmseg.losses.DistillationLoss`. Those that compare relation maps get
            the neck's, or without a neck the plain cosine cost volume.
        guard_words: Words that the relation maps of these losses are of in place of the training
            classes: a list of names, the name of a vocabulary or its file (of which training
            classes are left out). They get the student's own embeddings, cached where its text
            tower is frozen. None takes the training classes.
        loss_aux: More losses that need no teacher, such as
            :class:`~infoclip_mmseg.losses.FiSeRLoss`: each of the head's pooled image embeddings,
            one text embedding a class, and the classes that each image shows.
        mask_generator: :class:`FrozenMaskGenerator`, whose masks a head that makes none classifies.
        guidance: :class:`~infoclip_mmseg.models.AppearanceGuidance`, another backbone
            whose maps guide the head in place of CLIP's blocks; the head then needs
            ``guidance_channels``. None: CLIP guides itself.
        input_size: Size in pixels to which every view is resized before CLIP; an int or (h, w),
            multiples of the patch. None leaves views as they are.
        templates: Prompt templates with one ``{}`` each, or ``'imagenet'`` for CLIP's 80.
        synonyms: ``'first'``, ``'average'``, or with a head that scores every word, such as
            :class:`ZeroShotHead`, ``'max'``; see :func:`build_prompts`.
        test_cfg: ``mode``: 'slide' (CAT-Seg's windows and a global view; ``size``, the working size
            in pixels, ``window`` and ``overlap``, see
            :mod:`~infoclip_mmseg.models.views.windows`; with ``keep_ratio`` the working size has
            the image's ratio and ``size`` is its shorter side), 'windows' (windows of the image at
            the size that the pipeline gives it; ``window`` and ``stride`` in pixels) or 'whole'.
            ``view_batch_size`` (None: 1 on a CPU, else 4). Predictions hold a map of every class
            only where there are at most ``max_dense_classes``. ``panoptic``: predictions are
            segments and labels, of a head that finds masks; ``things`` of the data set stay apart.
            ``oracle``: 'masks' or 'classes', of such a head, which are then the true ones; see
            :mod:`~infoclip_mmseg.models.segmentors.oracle`.
            ``share_classes``: with a head that selects classes (``decode_head.num_decoded``) the
            views of an image vote together and are decoded for the same ones, not each for its own.
        train_cfg: Not used; mmseg passes it.
        data_preprocessor: Usually :class:`OpenVocabDataPreProcessor`. Mean and standard deviation
            are those that open_clip has for the weights' tag, and need not be given.
        pretrained: Overrides ``backbone.pretrained`` where given, as in mmseg's segmentors.
        init_cfg: See ``mmengine.model.BaseModule``.
    """

    TRAINING_KEYS = ('neck', 'loss_ib', 'loss_mi', 'loss_distill', 'guard_words', 'loss_aux')
    """Arguments that only training has a use for; all but the last ask for a teacher."""

    def __init__(
        self,
        backbone: dict,
        decode_head: dict,
        neck: dict | None = None,
        loss_ib: dict | None = None,
        loss_mi: dict | None = None,
        loss_distill: Sequence[dict] | None = None,
        guard_words: Sequence[str] | str | None = None,
        loss_aux: Sequence[dict] | None = None,
        mask_generator: dict | None = None,
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
        backbone = {**backbone, **({} if pretrained is None else dict(pretrained=pretrained))}
        if isinstance(data_preprocessor, dict):
            data_preprocessor = as_trained(data_preprocessor, backbone, 'model.data_preprocessor')
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        if neck is None and (loss_ib or loss_mi):
            raise ValueError('loss_ib, loss_mi compare relation maps: set neck=dict(type="LPAM")')
        self.backbone = MODELS.build(backbone)
        self.vocabulary = Vocabulary(templates, synonyms)
        sizes = dict(embed_dim=self.backbone.embed_dim, num_prompts=len(self.vocabulary.templates))
        sizes |= dict(guidance_in_channels=self.backbone.image_width)
        self.decode_head = MODELS.build({**sizes, **decode_head})
        self.guidance = MODELS.build(guidance) if guidance else None
        self.mask_generator = MODELS.build(mask_generator) if mask_generator else None
        self.auxiliary_losses = build_auxiliary(loss_aux or (), self.backbone.embed_dim)
        if neck is not None:
            self.neck = MODELS.build({'embed_dim': self.backbone.embed_dim, **neck})
        losses = [loss for loss in (loss_ib, loss_mi, *(loss_distill or ())) if loss]
        self.distillation_losses = built = build_losses(losses)
        guard = None if guard_words is None else GuardWords(guard_words, templates, synonyms)
        self.distiller = Distiller(self.backbone, built, getattr(self, 'neck', None), guard)
        self.input_size = None if input_size is None else pair(input_size)
        self.test_cfg = {**DEFAULT_TEST_CFG, **(test_cfg or {})}
        self._inference.check_mode(self.test_cfg['mode'])
        if synonyms == 'max' and not self.decode_head.scores_words:
            raise ValueError("synonyms='max' needs decode_head=dict(type='ZeroShotHead')")
        self.train_cfg, self.align_corners = train_cfg, False
        # As configured: the label values that apply unless a data set names others.
        pad = getattr(self.data_preprocessor, 'seg_pad_val', None)
        self._configured_ignore = (self.decode_head.ignore_index, pad)

    def follow_vocabulary(self) -> None:
        """Set what depends on the words: classes and ignored value of head and preprocessor."""
        value = self.vocabulary.ignore_index
        ignored, padded = self._configured_ignore if value is None else (value, value)
        self.decode_head.follow(self.vocabulary.names, self.vocabulary.word_counts)
        self.decode_head.ignore_index = ignored
        if padded is not None:
            self.data_preprocessor.seg_pad_val = padded
        if isinstance(self.data_preprocessor, OpenVocabDataPreProcessor):
            self.data_preprocessor.label_range = (self.vocabulary.num_classes, ignored)

    @property
    def out_channels(self) -> int:
        """T of the current vocabulary."""
        return self.decode_head.num_classes

    # Training -------------------------------------------------------------------------------

    def extract_feat(self, inputs: Tensor) -> ImageFeatures:
        """Image features of normalised images (B, 3, h, w) of any size."""
        images = self._at_input_size(inputs)
        # What is said of an image covers it with the padding that CLIP sees.
        region = images if self.input_size is None else inputs
        features = self.backbone.encode_image(images)
        features = features._replace(size=(region.shape[-2], region.shape[-1]))
        normalisation, generator = normalisation_of(self.data_preprocessor), self.mask_generator
        if generator is not None and (generator.in_training or not self.training):
            features = features._replace(masks=generator(region, normalisation))
        if self.guidance is not None:
            features = features._replace(blocks=self.guidance(images, normalisation))
        return features

    def encode_decode(self, inputs: Tensor, batch_img_metas: list[dict] | None = None) -> Tensor:
        """Logits (B, T, h', w') at the head's resolution of normalised images (B, 3, h, w).

        A head that says something of every pixel says nothing of the padding.
        """
        logits = self.decode_head(self.extract_feat(inputs), self.embed_vocabulary())
        padded = whole_patches((inputs.shape[-2], inputs.shape[-1]), self.backbone.patch_size)
        if self.input_size is None and logits.shape[-2:] == padded:
            logits = logits[..., : inputs.shape[-2], : inputs.shape[-1]]
        return logits

    def loss(self, inputs: Tensor, data_samples: SampleList) -> dict[str, Tensor]:
        """Task loss and the losses between teacher and student, if there are any.

        Images (B, 3, h, w) are normalised, the samples have ``gt_sem_seg`` (1, h, w). A label
        outside the vocabulary and an image smaller than a patch are a ValueError, a neck or a
        distillation loss without a teacher a RuntimeError.
        """
        check_image_sizes(inputs, data_samples, self.backbone.patch_size)
        check_labels(data_samples, self.prompts.num_classes, self.decode_head.ignore_index)

        # Student: image and text embeddings, logits, task loss.
        features, text = self.extract_feat(inputs), self.embed_vocabulary()
        targets = self.decode_head.targets(data_samples)
        losses = add_prefix(self.decode_head.loss(features, text, targets), 'decode')
        if others := self.auxiliary_losses:
            losses |= auxiliary_losses(others, self.decode_head, features, text, data_samples)

        # Teacher: the losses that hold the student to it; one embedding a class.
        if self.distiller.needs_teacher:
            images, words = self._at_input_size(inputs), text.mean(dim=1)
            trunk = features.blocks[-1] if self.backbone.has_stages else None
            losses |= self.distiller.alignment_loss(
                images, self.prompts, features.dense, words, trunk
            )
        return losses

    # Inference ------------------------------------------------------------------------------

    def predict(
        self,
        inputs: Tensor,
        data_samples: SampleList | None = None,
        max_dense_classes: int | None = None,
    ) -> SampleList:
        """Label maps at the original size of each image; errors as in :meth:`loss`.

        Args:
            inputs: Normalised images (B, 3, h, w).
            data_samples: B samples whose metainfo tells padding, flip and ``ori_shape``.
            max_dense_classes: In place of that of ``test_cfg``.

        Returns:
            The samples with ``pred_sem_seg`` (1, h, w), ``pred_probability`` (1, h, w) of the
            class that won, and ``seg_logits`` (T, h, w), which here are probabilities. The last is
            left out where the vocabulary has more than ``max_dense_classes`` words. With
            ``test_cfg.panoptic`` they have ``pred_panoptic`` (1, h, w), ids, ``pred_segments``
            and ``pred_sem_seg``.
        """
        if data_samples is None:
            data_samples = [SegDataSample() for _ in inputs]
        check_image_sizes(inputs, data_samples, self.backbone.patch_size)
        check_labels(data_samples, self.prompts.num_classes, self.decode_head.ignore_index)
        if max_dense_classes is None:
            max_dense_classes = self.test_cfg['max_dense_classes']
        rest, oracle = iter(data_samples), self.test_cfg['oracle']
        for images in batches(inputs, data_samples):
            samples, size = list(islice(rest, len(images))), (images.shape[-2], images.shape[-1])
            look = look_with_truth(self, samples, size) if oracle else self.extract_feat
            if self.test_cfg['panoptic']:
                fill_panoptic(self, look(images), self.embed_vocabulary(), images, samples)
                continue
            inference = replace(self._inference, decode=partial(self._decode, look=look))
            for sample, views in zip(samples, inference.views(images, self.test_cfg['mode'])):
                inference.fill_sample(sample, views, size, max_dense_classes)
        return data_samples

    def probabilities(self, inputs: Tensor, mode: str = 'slide') -> Tensor:
        """Class probabilities, float32, of normalised images (B, 3, h, w).

        They are (B, T, ...) at the working size in mode 'slide', (B, T, h, w) in mode 'windows',
        (B, T, h', w') at the head's resolution in mode 'whole'; a mode that does not fit is a
        ValueError.
        """
        return self._inference.probabilities(inputs, mode)

    @property
    def _inference(self) -> Inference:
        head, patch = self.decode_head, self.backbone.patch_size
        resizes = self.input_size is not None
        decode, together = self._decode, partial(decode_together, self)
        return Inference(head, self.vocabulary, patch, resizes, self.test_cfg, decode, together)

    def _decode(
        self, inputs: Tensor, look: Callable[[Tensor], ImageFeatures] | None = None
    ) -> ClassLogits:
        """As :meth:`encode_decode`, of the classes that the head decodes only."""
        return self.decode_features(inputs, (look or self.extract_feat)(inputs))

    def decode_features(
        self, inputs: Tensor, features: ImageFeatures, classes: Tensor | None = None
    ) -> ClassLogits:
        """As :meth:`encode_decode`, of views and their features, and of ``classes`` (B or 1, k)."""
        text = self.embed_vocabulary()
        if classes is None:
            return self.decode_head.decode(features, text)
        return self.decode_head.decode(features, text, classes.expand(len(inputs), -1))

    def _forward(self, inputs: Tensor, data_samples: SampleList | None = None) -> Tensor:
        """Logits (B, T, h', w') at the head's resolution."""
        return self.encode_decode(inputs)

    def embed_vocabulary(self) -> Tensor:
        """Text embeddings of the current vocabulary, as the head takes them."""
        return self.backbone.embed_prompts(self.prompts)

    def _at_input_size(self, inputs: Tensor) -> Tensor:
        """Images as CLIP gets them: resized, or padded to whole patches."""
        if self.input_size is not None:
            return resize(inputs, self.input_size)
        return pad_to_patches(inputs, self.backbone.patch_size)
