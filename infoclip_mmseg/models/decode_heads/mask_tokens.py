"""MaskTokenHead: given masks, and which word each of them shows.

Legend: B images, Q masks, T classes, W words of all classes, P prompts, C channels.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor

from infoclip_mmseg.losses.masks import Targets, match_masks, stack_targets
from infoclip_mmseg.models.backbones.dual_encoder import ImageFeatures
from infoclip_mmseg.models.backbones.mask_tokens import MaskTokenEncoder
from infoclip_mmseg.models.decode_heads.mask_head import MaskHead, encoder_of, image_size, padded
from infoclip_mmseg.models.layers.mask_pooling import (
    class_logits,
    geometric_ensemble,
    mask_pooling,
    mask_probabilities,
)
from infoclip_mmseg.models.text.prompts import build_prompts


@MODELS.register_module()
class MaskTokenHead(MaskHead):
    """Classifies the masks of a frozen generator (our reading of FISA, arXiv 2409.16278).

    Mask tokens of :class:`MaskTokenEncoder`, which holds all that is trained, are compared with the
    words and with the text of void. The masks are those of the segmentor's ``mask_generator``; in
    training without one the true masks.

    Args:
        void: Prompt of what is no class.
        ensemble: See :class:`MaskHead`; the exponents are of the probabilities of the dense
            embeddings pooled inside of the masks. None takes the mask tokens alone.
        loss_decode: Loss of the logits; by default :class:`MaskClassLoss`.
        score, overlap, ignore_index, init_cfg: See :class:`MaskHead`.
        sizes: What the segmentor tells every head; not needed here.
    """

    trained = False

    def __init__(
        self,
        void: str = 'background',
        ensemble: dict | None = None,
        loss_decode: dict | None = None,
        score: float = 0.2,
        overlap: float = 0.7,
        ignore_index: int = 255,
        init_cfg: dict | None = None,
        **sizes: Any,
    ) -> None:
        super().__init__(ensemble, score, overlap, ignore_index, init_cfg)
        self.void = build_prompts([void], '{}')
        self.loss_decode = MODELS.build(loss_decode or dict(type='MaskClassLoss'))

    def propose(self, features: ImageFeatures) -> Tensor:
        """See :meth:`OpenVocabHead.propose`: the given masks; a ValueError where there are none."""
        if features.masks is None:
            raise ValueError(
                'a MaskTokenHead classifies masks and makes none: set model.mask_generator='
                "dict(type='FrozenMaskGenerator', config=CONFIG, checkpoint=FILE), or "
                "test_cfg=dict(oracle='masks') for the true ones"
            )
        return features.masks

    def words(self, features: ImageFeatures, text: Tensor) -> Tensor:
        """Words and void (W + 1, C), L2-normalised, of text embeddings (W, P, C)."""
        void = encoder_of(features).embed_prompts(self.void)
        return torch.cat([F.normalize(x.mean(dim=1), dim=-1) for x in (text, void)])

    def mask_logits(self, features: ImageFeatures, masks: Tensor, words: Tensor) -> Tensor:
        """Logits (B, Q, T + 1), void last, of masks (B, Q, h, w)."""
        encoder = mask_token_encoder(features)
        embeddings = encoder.encode_masks(features, masks, words[:-1])
        return class_logits(embeddings, words, encoder.logit_scale, self.word_counts)

    def classify_masks(self, features: ImageFeatures, text: Tensor) -> tuple[Tensor, Tensor]:
        """See :meth:`MaskHead.classify`."""
        masks, words = self.propose(features), self.words(features, text)
        logits = self.mask_logits(features, masks, words)
        classes = logits[..., :-1]
        if self.ensemble is not None:
            scale = encoder_of(features).logit_scale
            pooled = mask_pooling(features.dense, masks)
            pooled = class_logits(pooled, words, scale, self.word_counts)[..., :-1]
            classes = geometric_ensemble(classes, pooled, self._exponents(classes))
        return mask_probabilities(classes, logits), masks

    def pooled(self, features: ImageFeatures) -> Tensor:
        """See :meth:`OpenVocabHead.pooled`: a mask token that sees the whole image, and no word."""
        everything = features.dense.new_ones(len(features.dense), 1, 1, 1)
        return mask_token_encoder(features).encode_masks(features, everything)[:, 0]

    def loss(self, features: ImageFeatures, text: Tensor, targets: Targets) -> dict[str, Tensor]:
        """Cross-entropy of the given masks, matched on masks alone, or of the true ones."""
        size = image_size(features)
        targets = [(labels, padded(masks, size)) for labels, masks in targets]
        if features.masks is None:
            masks, labels = stack_targets(targets)
        else:
            masks, labels = features.masks, match_masks(features.masks, targets, self.num_classes)
        logits = self.mask_logits(features, masks, self.words(features, text))
        return {self.loss_decode.loss_name: self.loss_decode(logits, labels)}


def mask_token_encoder(features: ImageFeatures) -> MaskTokenEncoder:
    """The encoder of features; another one than a :class:`MaskTokenEncoder` is a TypeError."""
    encoder = encoder_of(features)
    if not isinstance(encoder, MaskTokenEncoder):
        raise TypeError(
            "a MaskTokenHead needs model.backbone.type='MaskTokenEncoder', got a "
            f'{type(encoder).__name__}'
        )
    return encoder
