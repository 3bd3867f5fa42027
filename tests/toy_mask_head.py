"""A toy-sized head that classifies masks: all that a new head of that kind has to write.

Queries make class-agnostic masks, the features inside each mask are pooled and compared with the
text, and the map of a class is the sum of its masks. It shows that such a head needs no change of
segmentor, inference, loading or tools; it is no model of use.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from infoclip_mmseg.models import ImageFeatures, OpenVocabHead
from infoclip_mmseg.models.layers.cost_volume import ClassLogits
from infoclip_mmseg.utils.tensors import resize


@MODELS.register_module()
class ToyMaskHead(OpenVocabHead):
    """Q masks an image, each with a distribution over the T classes and 'void'."""

    def __init__(self, embed_dim: int, num_queries: int = 5, scale: float = 10.0, **sizes: Any):
        super().__init__(threshold=0.3)
        self.queries = nn.Parameter(torch.randn(num_queries, embed_dim))
        self.void = nn.Parameter(torch.randn(embed_dim))
        self.scale = scale

    def classify_masks(self, features: ImageFeatures, text: Tensor) -> tuple[Tensor, Tensor]:
        """Masks (B, Q, H, W), 0..1, and class probabilities (B, Q, T + 1)."""
        masks = torch.einsum('bchw,qc->bqhw', F.normalize(features.dense, dim=1), self.queries)
        masks = masks.sigmoid()
        pooled = torch.einsum('bqhw,bchw->bqc', masks, features.dense)
        words = F.normalize(torch.cat([text.mean(dim=1), self.void[None]]), dim=-1)
        cosines = F.normalize(pooled, dim=-1) @ words.T
        return masks, (self.scale * cosines).softmax(dim=-1)

    def decode(self, features: ImageFeatures, text: Tensor) -> ClassLogits:
        masks, classes = self.classify_masks(features, text)
        return ClassLogits(torch.einsum('bqt,bqhw->bthw', classes[..., :-1], masks), None)

    def scores(self, logits: Tensor) -> Tensor:
        return logits.float() / len(self.queries)

    def loss(self, features: ImageFeatures, text: Tensor, targets: Tensor) -> dict[str, Tensor]:
        maps = self.scores(self.decode(features, text).logits).clamp(min=1e-6).log()
        maps = resize(maps, tuple(targets.shape[1:]))
        return dict(loss_mask=F.nll_loss(maps, targets, ignore_index=self.ignore_index))

    def segments(self, features, text, size, threshold: float = 0.1):
        masks, classes = self.classify_masks(features, text)
        results = []
        for mask, probability in zip(resize(masks, size), classes[..., :-1]):
            score, label = probability.max(dim=1)
            winner = (mask * score[:, None, None]).argmax(dim=0)
            ids = torch.zeros_like(winner)
            found = []
            for query in range(len(mask)):
                region = winner == query
                if region.any() and score[query] > threshold:
                    ids[region] = len(found) + 1
                    area = int(region.sum())
                    found.append(dict(id=len(found) + 1, label=int(label[query]), area=area))
            results.append((ids, found))
        return results
