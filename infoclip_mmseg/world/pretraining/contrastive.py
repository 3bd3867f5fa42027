"""Contrastive pretraining of a small CLIP on captioned views.

Legend: n views, C channels of the joint space, L tokens, h w pixels.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmseg.registry import MODELS
from open_clip import ClipLoss
from torch import Tensor

MAX_LOGIT_SCALE = math.log(100)
"""CLIP's bound on the logarithm of the inverse temperature (arXiv 2103.00020, section 2.5)."""

CACHED_CAPTIONS = 20_000


@MODELS.register_module()
class ContrastiveCLIP(BaseModel):
    """CLIP's contrastive loss (open_clip's), one for each size of views.

    Views of one size are contrasted among each other only: a patch and a whole scene with the
    same object in them are not negatives of each other.

    Args:
        backbone: Config of a :class:`~infoclip_mmseg.models.CLIPDualEncoder` that trains in full.
        data_preprocessor: Config of a :class:`ViewPreprocessor`.
        init_cfg: See ``mmengine.model.BaseModel``.
    """

    def __init__(
        self, backbone: dict, data_preprocessor: dict | None = None, init_cfg: dict | None = None
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        self.backbone.clip.logit_scale.requires_grad_(True)
        self.contrast = ClipLoss()
        self._token_cache: dict[str, Tensor] = {}

    def forward(
        self, images: dict[str, Tensor], texts: dict[str, list[str]], mode: str = 'loss'
    ) -> dict[str, Tensor]:
        """Losses of a batch.

        Args:
            images: Size to normalised views (n, 3, h, w).
            texts: Size to their n captions.
            mode: 'loss' only.

        Raises:
            ValueError: Another mode.
        """
        if mode != 'loss':
            raise ValueError(f"ContrastiveCLIP only knows mode='loss', got {mode!r}")
        scale = self.backbone.clip.logit_scale
        scale.data.clamp_(max=MAX_LOGIT_SCALE)
        # Small views share many captions; each goes through the text tower once.
        different = sorted({text for captions in texts.values() for text in captions})
        place = {text: row for row, text in enumerate(different)}
        tokens = self._tokenize(different).to(scale.device)
        embeddings = F.normalize(self.backbone.encode_text(tokens).float(), dim=-1)
        losses = {}
        for size, views in images.items():
            image = F.normalize(self.backbone.encode_pooled(views).float(), dim=-1)
            text = embeddings[[place[caption] for caption in texts[size]]]
            losses[f'loss_{size}'] = self.contrast(image, text, scale.exp())
        return losses

    def _tokenize(self, texts: list[str]) -> Tensor:
        """Captions to token ids (n, L); those of captions seen lately are at hand."""
        if len(self._token_cache) > CACHED_CAPTIONS:
            self._token_cache.clear()
        new = sorted(set(texts) - self._token_cache.keys())
        if new:
            self._token_cache.update(zip(new, self.backbone.tokenizer(new)))
        return torch.stack([self._token_cache[text] for text in texts])
