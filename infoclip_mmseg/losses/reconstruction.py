"""FiSeR: a class that an image shows is taken out of its text and found again (auxiliary loss).

Of Fine-grained Semantic Reconstruction (FOV-Seg, IEEE TCSVT 2026) only the abstract is public: "one
target class label of the text is masked at random and predicted from image features and the
remaining text". What stands here is our reading.

Legend: B images, T classes, C channels of the joint embedding space.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from mmseg.registry import MODELS
from torch import Tensor, nn

from infoclip_mmseg.losses.masks import average_over_ranks
from infoclip_mmseg.utils.tensors import at_least_float32, cosine


def present_classes(labels: Tensor, num_classes: int) -> Tensor:
    """Which classes each label map (B, h, w) holds, (B, T), bool; other values are no class."""
    present = torch.zeros(len(labels), num_classes, dtype=torch.bool, device=labels.device)
    for row, values in zip(present, map(torch.unique, labels.long())):
        row[values[(values >= 0) & (values < num_classes)]] = True
    return present


def drop_one(present: Tensor) -> Tensor:
    """One of the classes of each image (B, T), bool, at random; of an image without any class 0."""
    chances = torch.rand(present.shape, device=present.device)
    return chances.masked_fill(~present, -1).argmax(dim=1)


@MODELS.register_module()
class FiSeRLoss(nn.Module):
    """Cross-entropy of a dropped class, predicted from the image and the classes that are left.

    The text of an image is that of the classes that it shows; were it that of the whole vocabulary,
    the dropped class could be told from the others without the image. A token in its place, the
    image embedding plus a learned one, attends to the image and to the rest of the text, and its
    cosines with all T classes are the logits.

    Args:
        embed_dim: C; a segmentor fills it in.
        num_heads: Heads of the attention.
        temperature: Divides the cosines.
        loss_weight: Factor of the loss.
        loss_name: Key of the loss.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int = 8,
        temperature: float = 0.07,
        loss_weight: float = 1.0,
        loss_name: str = 'loss_fiser',
    ) -> None:
        super().__init__()
        self.temperature, self.loss_weight, self.loss_name = temperature, loss_weight, loss_name
        self.mask = nn.Parameter(torch.zeros(embed_dim))
        self.norm = nn.LayerNorm(embed_dim)
        self.attention = nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)

    def extra_repr(self) -> str:
        """Options, shown when the model is printed."""
        return f'loss_weight={self.loss_weight}, temperature={self.temperature}'

    def logits(self, image: Tensor, text: Tensor, left: Tensor) -> Tensor:
        """Logits (B, T) of image embeddings (B, C), text (T, C) and the classes left (B, T)."""
        image, text = F.normalize(image, dim=-1), F.normalize(text, dim=-1)
        token = (image + self.mask)[:, None]
        context = torch.cat([image[:, None], text.expand(len(image), -1, -1)], dim=1)
        hidden = F.pad(~left, (1, 0), value=False)
        found, _ = self.attention(
            self.norm(token), context, context, key_padding_mask=hidden, need_weights=False
        )
        return cosine(token + found, text)[:, 0] / self.temperature

    def forward(
        self, image: Tensor, text: Tensor, present: Tensor, dropped: Tensor | None = None
    ) -> Tensor:
        """The loss, a scalar: the mean over the images, of all ranks, that show a class.

        Args:
            image: Pooled image embeddings (B, C).
            text: Text embeddings (T, C).
            present: Classes that each image shows (B, T), bool.
            dropped: The class taken out of each (B,); None draws one.
        """
        dropped = drop_one(present) if dropped is None else dropped
        left = present & ~F.one_hot(dropped, present.shape[1]).bool()
        with torch.autocast(device_type=image.device.type, enabled=False):
            logits = self.logits(at_least_float32(image), at_least_float32(text), left)
            losses = F.cross_entropy(logits, dropped, reduction='none')
            shown = present.any(dim=1).to(losses)
            count = average_over_ranks(shown.sum()).clamp(min=torch.finfo(losses.dtype).tiny)
            return self.loss_weight * (losses * shown).sum() / count
