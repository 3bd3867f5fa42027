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
from torch import Tensor, nn

from infoclip_mmseg.losses.masks import Targets
from infoclip_mmseg.models.backbones.dual_encoder import ImageFeatures
from infoclip_mmseg.models.decode_heads.mask_head import MaskHead, encoder_of, image_size, padded
from infoclip_mmseg.models.layers.mask_pooling import (
    class_logits,
    geometric_ensemble,
    mask_pooling,
    mask_probabilities,
)
from infoclip_mmseg.models.proposals.mask2former import Proposals


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
class MaskClassificationHead(MaskHead):
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
        ensemble: See :class:`MaskHead`; the exponents are of the out-of-vocabulary probabilities.
            None takes these alone, as MAFT+ does.
        loss_masks: Criterion of masks and in-vocabulary classes.
        loss_mask_aware: :class:`MaskAwareLoss` of the out-of-vocabulary logits, or None: CLIP does
            not learn.
        score, overlap, ignore_index, init_cfg: See :class:`MaskHead`.
        sizes: What the segmentor tells every head; not needed here.
    """

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
        super().__init__(ensemble, score, overlap, ignore_index, init_cfg)
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
        self.loss_masks = MODELS.build(loss_masks or dict(type='Mask2FormerCriterion'))
        self.loss_mask_aware = None if loss_mask_aware is None else MODELS.build(loss_mask_aware)

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
        encoder, last = encoder_of(features), features.blocks[-1]
        embeddings = encoder.project(mask_pooling(last, masks))
        if self.transfer is not None:
            words = self.transfer(words, last, encoder.project)
        return class_logits(embeddings, words, encoder.logit_scale, self.word_counts)

    def propose(self, features: ImageFeatures) -> Tensor:
        """See :meth:`OpenVocabHead.propose`: the masks of the last layer."""
        return self.proposals(features.blocks).masks[-1]

    def classify_masks(self, features: ImageFeatures, text: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`MaskHead.classify`; a given mask has the query whose mask is nearest."""
        proposals, words = self.proposals(features.blocks), self.words(text)
        masks = proposals.masks[-1]
        if features.masks is not None:
            masks, proposals = features.masks, proposals.nearest(features.masks)
        inside = self.inside_logits(proposals, words)
        classes = self.outside_logits(features, masks, words)[..., :-1]
        if self.ensemble is not None:
            classes = geometric_ensemble(inside[..., :-1], classes, self._exponents(classes))
        return mask_probabilities(classes, inside), masks

    # Training -----------------------------------------------------------------------------------

    def loss(self, features: ImageFeatures, text: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Losses of the masks and in-vocabulary classes, and the mask-aware loss of CLIP."""
        size = image_size(features)
        targets = [(labels, padded(masks, size)) for labels, masks in targets]

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
