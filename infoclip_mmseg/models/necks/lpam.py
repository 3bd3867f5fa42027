"""Learnable pixel-text alignment module (LPAM) of InfoCLIP (arXiv 2511.15967).

Legend: B images, N = H*W positions of the dense grid, T classes, C = d channels.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

from infoclip_mmseg.utils import tensors
from infoclip_mmseg.utils.tensors import at_least_float32


def relation_map(
    query: Tensor, key: Tensor, image: Tensor, text: Tensor, cosine: bool = True
) -> Tensor:
    """Relation (B, N, T) of positions to classes: ``query key^T / sqrt(d)`` plus a residual.

    Computed in float32 outside autocast (float64 stays float64), so that half precision neither
    overflows in the norms nor coarsens the relation.

    ``query`` (B, N, d) and ``key``, (T, d) or (B, T, d), are the projected image and text
    embeddings, ``image`` and ``text`` those of the residual, of the same shapes. The residual is
    their cosine or, without ``cosine``, their dot product.
    """
    with torch.autocast(device_type=query.device.type, enabled=False):
        query, key = at_least_float32(query), at_least_float32(key)
        attention = (query / math.sqrt(query.shape[-1])) @ key.transpose(-1, -2)
        if cosine:
            return attention + tensors.cosine(image, text)
        return attention + at_least_float32(image) @ at_least_float32(text).transpose(-1, -2)


@MODELS.register_module()
class LPAM(BaseModule):
    """Pixel-text relation map, with weights shared by teacher and student.

    R = LN_v(V) W_q (LN_l(L) W_k)^T / sqrt(d) + cos(V, L), where W_q and W_k have biases. With
    d = 512 it has 527,360 parameters. It is used in training only.

    Args:
        embed_dim: Width d of the embeddings. ``OpenVocabSegmentor`` fills it in from the backbone.
        residual: 'cosine', or 'dot' for the dot product of the layer-normed embeddings,
            LN_v(V) LN_l(L)^T, in place of the cosine.
        frozen: Whether it keeps the weights that it has when training begins.
        init_cfg: Initialisation of MMEngine; by default that of PyTorch's layers is kept.
    """

    def __init__(
        self,
        embed_dim: int | None = None,
        residual: str = 'cosine',
        frozen: bool = False,
        init_cfg: dict[str, Any] | list[dict[str, Any]] | None = None,
    ) -> None:
        super().__init__(init_cfg=init_cfg)
        if embed_dim is None or embed_dim < 1:
            raise ValueError(
                f'LPAM needs embed_dim, the width of the CLIP embeddings, but got {embed_dim}; '
                'OpenVocabSegmentor fills it in, elsewhere give it (512 for ViT-B/16)'
            )
        if residual not in ('cosine', 'dot'):
            raise ValueError(f"residual is {residual!r}, but must be 'cosine' or 'dot'")
        self.embed_dim, self.residual = embed_dim, residual
        self.image_norm = nn.LayerNorm(embed_dim)
        self.text_norm = nn.LayerNorm(embed_dim)
        self.query_proj = nn.Linear(embed_dim, embed_dim)
        self.key_proj = nn.Linear(embed_dim, embed_dim)
        self.requires_grad_(not frozen)

    def forward(self, image: Tensor, text: Tensor) -> Tensor:
        """Relation map R (B, N, T), float32 (or float64), also under autocast.

        Args:
            image: Dense image embeddings, (B, N, d) or (B, d, H, W), flattened row by row.
            text: Text embeddings, (T, d) shared by the batch or (B, T, d) by image. What does not
                fit is a ValueError.
        """
        if image.dim() == 4:
            image = image.flatten(2).transpose(1, 2)
        fits = image.dim() == 3 and image.shape[-1] == text.shape[-1] == self.embed_dim
        if not fits or text.dim() not in (2, 3) or (text.dim() == 3 and len(image) != len(text)):
            raise ValueError(
                f'image must be (B, N, {self.embed_dim}) or (B, {self.embed_dim}, H, W) and text '
                f'(T, {self.embed_dim}) or (B, T, {self.embed_dim}), but they are '
                f'{tuple(image.shape)} (positions flattened) and {tuple(text.shape)}'
            )
        normed_image, normed_text = self.image_norm(image), self.text_norm(text)
        query, key = self.query_proj(normed_image), self.key_proj(normed_text)
        if self.residual == 'dot':
            return relation_map(query, key, normed_image, normed_text, cosine=False)
        return relation_map(query, key, image, text)
