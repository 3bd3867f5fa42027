"""MaskClassificationHead: class-agnostic masks, and which word each of them shows.

Legend: B images, Q masks, T classes, W words of all classes, P prompts, C channels of the joint
embedding space, L predictions of the proposals, H W the padded image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from torch import Tensor, nn

from infoclip_mmseg.losses.masks import Targets, label_targets, segment_targets
from infoclip_mmseg.models.backbones.dual_encoder import CLIPDualEncoder, ImageFeatures
from infoclip_mmseg.models.decode_heads.base import OpenVocabHead
from infoclip_mmseg.models.layers.cost_volume import ClassLogits
from infoclip_mmseg.models.layers.mask_pooling import (
    class_logits,
    geometric_ensemble,
    mask_pooling,
    mask_probabilities,
    semantic_map,
)
from infoclip_mmseg.models.layers.segments import Segment, instances, panoptic_segments
from infoclip_mmseg.models.proposals.mask2former import Proposals
from infoclip_mmseg.models.text.prompts import split_synonyms
from infoclip_mmseg.utils.tensors import Size, resize

TASKS = ('panoptic', 'instance')


class InVocabularyHead(nn.Module):
    """Class embeddings of queries and of the mask features inside of their masks (FC-CLIP)."""

    def __init__(self, hidden_dim: int, embed_dim: int) -> None:
        super().__init__()
        self.pooled_proj = nn.Sequential(
            nn.LayerNorm(hidden_dim), nn.Linear(hidden_dim, hidden_dim)
        )
        widths = (hidden_dim, hidden_dim, hidden_dim, embed_dim)
        self.layers = nn.ModuleList(map(nn.Linear, widths[:-1], widths[1:]))
        self.logit_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))

    def forward(self, masks: Tensor, queries: Tensor, mask_features: Tensor) -> Tensor:
        """Embeddings (B, Q, C) of one layer's masks, (B, Q, h, w), and queries, (B, Q, D)."""
        x = queries + self.pooled_proj(mask_pooling(mask_features, masks))
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return self.layers[-1](x)

    @property
    def scale(self) -> Tensor:
        """Factor of the cosines, at most 100."""
        return self.logit_scale.exp().clamp(max=100)


@MODELS.register_module()
class MaskClassificationHead(OpenVocabHead):
    """FC-CLIP (arXiv 2308.02487) and, with a transfer, MAFT+ (arXiv 2408.00744).

    Proposals give masks. Of each, the features of CLIP's last stage inside of it are pooled,
    projected as CLIP does, and compared with the words: the out-of-vocabulary logits. A learned
    head compares the queries with the same words: the in-vocabulary logits, which also say which
    masks are void. The features that the proposals see are detached: CLIP learns from the
    out-of-vocabulary logits only.

    Args:
        embed_dim: C.
        guidance_in_channels: Channels of the four stages, fine to coarse.
        proposals: :class:`Mask2FormerProposals`; its ``in_channels`` are filled in.
        transfer: :class:`ContentDependentTransfer`, or None: words are the same for all images.
        ensemble: ``alpha`` and ``beta``, the exponents of the out-of-vocabulary probabilities for
            seen and for other classes, and ``seen``, the names of the training vocabulary, which
            :class:`~infoclip_mmseg.engine.VocabularyHook` reads where a vocabulary is named; None
            takes these probabilities alone, as MAFT+ does.
        loss_masks: Criterion of masks and in-vocabulary classes.
        loss_mask_aware: :class:`MaskAwareLoss` of the out-of-vocabulary logits, or None: CLIP does
            not learn.
        score, overlap: Thresholds of :meth:`segments`.
        ignore_index, init_cfg: See :class:`OpenVocabHead`.
        sizes: What the segmentor tells every head; not needed here.
    """

    scores_words = finds_masks = True

    def __init__(
        self,
        embed_dim: int,
        guidance_in_channels: Sequence[int],
        proposals: dict,
        transfer: dict | None = None,
        ensemble: dict | None = None,
        loss_masks: dict | None = None,
        loss_mask_aware: dict | None = None,
        score: float = 0.2,
        overlap: float = 0.7,
        ignore_index: int = 255,
        init_cfg: dict | None = None,
        **sizes: Any,
    ) -> None:
        super().__init__(ignore_index, 0.0, init_cfg)
        if isinstance(guidance_in_channels, int):
            raise ValueError(
                'MaskClassificationHead needs the stages of a pyramid such as a ConvNeXt CLIP, got '
                f'a backbone whose maps all have {guidance_in_channels} channels'
            )
        self.proposals = MODELS.build({'in_channels': tuple(guidance_in_channels), **proposals})
        self.in_vocabulary = InVocabularyHead(self.proposals.hidden_dim, embed_dim)
        self.void_embedding = nn.Embedding(1, embed_dim)
        self.transfer = (
            None if transfer is None else MODELS.build({'embed_dim': embed_dim, **transfer})
        )
        self.ensemble = None if ensemble is None else dict(ensemble)
        self.loss_masks = MODELS.build(loss_masks or dict(type='Mask2FormerCriterion'))
        self.loss_mask_aware = None if loss_mask_aware is None else MODELS.build(loss_mask_aware)
        self.score, self.overlap = score, overlap
        self.names: tuple[str, ...] = ()
        self.word_counts: tuple[int, ...] = ()

    def check_vocabulary(self, num_classes: int) -> None:
        """A single class would take every pixel."""
        if num_classes == 1:
            raise ValueError(
                'a MaskClassificationHead compares words, and one word is all it would find. Add '
                "words for the background, such as 'wall' and 'floor'"
            )

    def follow(self, names: Sequence[str], word_counts: Sequence[int]) -> None:
        """See :meth:`OpenVocabHead.follow`."""
        super().follow(names, word_counts)
        self.names, self.word_counts = tuple(names), tuple(word_counts)

    # Stages -------------------------------------------------------------------------------------

    def words(self, text: Tensor) -> Tensor:
        """Words and void (W + 1, C), L2-normalised, of text embeddings (W, P, C)."""
        words = F.normalize(text.mean(dim=1), dim=-1)
        return torch.cat([words, F.normalize(self.void_embedding.weight, dim=-1).to(words)])

    def inside_logits(self, proposals: Proposals, words: Tensor, layer: int = -1) -> Tensor:
        """In-vocabulary logits (B, Q, T + 1) of a layer's masks."""
        head, masks = self.in_vocabulary, proposals.masks[layer]
        embeddings = head(masks, proposals.queries[layer], proposals.mask_features)
        return class_logits(embeddings, words, head.scale, self.word_counts)

    def outside_logits(self, features: ImageFeatures, masks: Tensor, words: Tensor) -> Tensor:
        """Out-of-vocabulary logits (B, Q, T + 1) of masks (B, Q, h, w)."""
        encoder, last = _encoder_of(features), features.blocks[-1]
        embeddings = encoder.project(mask_pooling(last, masks))
        if self.transfer is not None:
            words = self.transfer(words, last, encoder.project)
        return class_logits(embeddings, words, encoder.logit_scale, self.word_counts)

    def classify(self, features: ImageFeatures, text: Tensor) -> tuple[Tensor, Tensor]:
        """Log probabilities (B, Q, T + 1), void last, and the masks (B, Q, h, w), logits."""
        proposals, words = self.proposals(features.blocks), self.words(text)
        masks = proposals.masks[-1]
        inside = self.inside_logits(proposals, words)
        classes = self.outside_logits(features, masks, words)[..., :-1]
        if self.ensemble is not None:
            classes = geometric_ensemble(inside[..., :-1], classes, self._exponents(classes))
        return mask_probabilities(classes, inside), masks

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
        return ClassLogits(semantic_map(classes, resize(masks, _image_size(features))), None)

    def scores(self, logits: Tensor) -> Tensor:
        """The maps as they are, float32."""
        return logits.float()

    def segments(
        self, features: ImageFeatures, text: Tensor, size: Size, **options: Any
    ) -> list[tuple[Tensor, list[Segment]]]:
        """Id map (h, w) and segments of each image; see :func:`panoptic_segments`.

        Args:
            features, text: As for :meth:`decode`.
            size: Height and width of the images without their padding.
            **options: ``task``: 'panoptic', or 'instance' with an empty id map and segments that
                have a ``mask``; ``things``: indices of the classes whose masks stay apart;
                ``score`` and ``overlap`` in place of the head's; ``top``, see :func:`instances`;
                ``out_sizes``, height and width of each result in place of the image's.
        """
        options = dict(options)
        task, things = options.pop('task', 'panoptic'), options.pop('things', ())
        if task not in TASKS:
            raise ValueError(f'task must be one of {TASKS}, got {task!r}')
        wrong = [index for index in things if not 0 <= index < self.num_classes]
        if wrong:
            raise ValueError(f'things {wrong} are no class: the vocabulary has {self.num_classes}')
        classes, masks = self.classify(features, text)
        masks = resize(masks, _image_size(features))[..., : size[0], : size[1]]
        out_sizes = options.pop('out_sizes', None) or [size] * len(masks)
        each = [(c, resize(m[None], s)[0]) for c, m, s in zip(classes, masks, out_sizes)]
        if task == 'panoptic':
            thresholds = {'score': self.score, 'overlap': self.overlap, **options}
            return [panoptic_segments(c, m, things, **thresholds) for c, m in each]
        return [
            (
                m.new_zeros(m.shape[-2:], dtype=torch.long),
                instances(c, m, things or None, **options),
            )
            for c, m in each
        ]

    # Training -----------------------------------------------------------------------------------

    def targets(self, samples: Sequence[SegDataSample]) -> Targets:
        """Masks of panoptic segments, or of label maps: one a class that an image shows."""
        return [
            segment_targets(sample.gt_panoptic.data[0], sample.gt_segments)
            if 'gt_panoptic' in sample
            else label_targets(sample.gt_sem_seg.data[0], self.ignore_index)
            for sample in samples
        ]

    def loss(self, features: ImageFeatures, text: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Losses of the masks and in-vocabulary classes, and the mask-aware loss of CLIP."""
        size = _image_size(features)
        targets = [(labels, _padded(masks, size)) for labels, masks in targets]

        # Masks and in-vocabulary classes, of features that do not learn from them.
        proposals, words = self.proposals([x.detach() for x in features.blocks]), self.words(text)
        layers = range(len(proposals.masks))
        inside = [self.inside_logits(proposals, words, layer) for layer in layers]
        losses = self.loss_masks(proposals.masks, inside, targets)

        # CLIP, of masks that do not learn from it.
        if self.loss_mask_aware is not None:
            masks = proposals.masks[-1].detach()
            outside = self.outside_logits(features, masks, words)[..., :-1]
            name = self.loss_mask_aware.loss_name
            losses[name] = self.loss_mask_aware(outside, masks, targets)
        return losses


def _encoder_of(features: ImageFeatures) -> CLIPDualEncoder:
    if features.encoder is None:
        raise ValueError('the features do not say which encoder made them')
    return features.encoder


def _image_size(features: ImageFeatures) -> Size:
    """Height and width of the padded images."""
    stride = _encoder_of(features).patch_size
    height, width = features.blocks[-1].shape[-2:]
    return height * stride[0], width * stride[1]


def _padded(masks: Tensor, size: Size) -> Tensor:
    """Masks (n, h, w) with zeros at the bottom and right."""
    return F.pad(masks, (0, size[1] - masks.shape[-1], 0, size[0] - masks.shape[-2]))
