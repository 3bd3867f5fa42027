"""Content-Dependent Transfer of MAFT+ (arXiv 2408.00744): text embeddings that see the image.

Legend: B images, W words, C channels of the joint embedding space, K channels of the last stage,
H W its grid, N = H*W.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor, nn

FORMS, TOKENS = ('semantic', 'panoptic'), ('published', 'positions')


def sine_positions(height: int, width: int, channels: int) -> Tensor:
    """Sine embeddings (N, C) of the positions of a grid, row by row, float32.

    Half of the channels are of the row, half of the column, each from 0 to 2 pi over the grid.
    """
    half = channels // 2
    steps = 10000 ** (2 * (torch.arange(half) // 2) / half)
    parts = []
    for side in (height, width):
        place = torch.arange(1, side + 1) / (side + 1e-6) * 2 * math.pi
        angles = place[:, None] / steps
        waves = torch.stack([angles[:, 0::2].sin(), angles[:, 1::2].cos()], dim=2)
        parts.append(waves.flatten(1))
    rows = parts[0][:, None].expand(height, width, half)
    columns = parts[1][None].expand(height, width, half)
    return torch.cat([rows, columns], dim=-1).flatten(0, 1)


def image_tokens(
    features: Tensor, project: Callable[[Tensor], Tensor], tokens: str = 'published'
) -> Tensor:
    """Tokens (B, N, C) of the last stage (B, K, H, W), through the tower's own projection.

    'positions': one a position. 'published': the map is cut as it lies in memory into N pieces of K
    values, which are no positions; published weights were trained so.
    """
    if tokens not in TOKENS:
        raise ValueError(f'tokens must be one of {TOKENS}, got {tokens!r}')
    batch, channels, height, width = features.shape
    if tokens == 'positions':
        pieces = features.flatten(2).transpose(1, 2)
    else:
        pieces = features.reshape(batch, height * width, channels)
    return project(pieces)


@MODELS.register_module()
class ContentDependentTransfer(BaseModule):
    """Cross-attention of words to an image, whose result is added to the words.

    Args:
        embed_dim: C.
        num_heads: Heads of the attention.
        form: 'semantic': LN(text + Linear(a)); 'panoptic': text + LN(Linear(a)), which begins as
            the text. A checkpoint of one form computes something else in the other, so it says
            which it is.
        tokens: See :func:`image_tokens`.
        init_cfg: See ``mmengine.model.BaseModule``.
    """

    def __init__(
        self,
        embed_dim: int,
        num_heads: int = 8,
        form: str = 'semantic',
        tokens: str = 'published',
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        for name, value, known in (('form', form, FORMS), ('tokens', tokens, TOKENS)):
            if value not in known:
                raise ValueError(f'{name} must be one of {known}, got {value!r}')
        self.form, self.tokens = form, tokens
        self.attention = nn.MultiheadAttention(embed_dim, num_heads, batch_first=True)
        self.proj = nn.Linear(embed_dim, embed_dim)
        self.norm = nn.LayerNorm(embed_dim)
        for parameter in self.attention.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)
        if form == 'panoptic':
            nn.init.zeros_(self.proj.weight)
            nn.init.zeros_(self.proj.bias)
        # 0 or 1, so that a checkpoint tells its form.
        self.register_buffer('is_panoptic', torch.tensor(float(form == 'panoptic')))

    def forward(
        self, text: Tensor, features: Tensor, project: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """Words (B, W, C) as an image sees them, not normalised.

        Args:
            text: Words (W, C), L2-normalised, the void embedding among them.
            features: Last stage (B, K, H, W).
            project: The tower's projection, see :meth:`CLIPDualEncoder.project`.
        """
        tokens = image_tokens(features, project, self.tokens)
        height, width = features.shape[-2:]
        position = sine_positions(height, width, tokens.shape[-1])
        position = position.to(tokens, non_blocking=True)
        words = text.expand(len(features), -1, -1).to(tokens.dtype)
        attended, _ = self.attention(words, tokens + position, tokens, need_weights=False)
        change = self.proj(attended)
        if self.form == 'panoptic':
            return words + self.norm(change)
        return self.norm(words + change)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        key = f'{prefix}is_panoptic'
        if key in state_dict and bool(state_dict[key]) != (self.form == 'panoptic'):
            theirs = FORMS[int(bool(state_dict[key]))]
            raise ValueError(
                f'the checkpoint was trained with the {theirs} form of the transfer, the config '
                f'has form={self.form!r}: set model.decode_head.transfer.form={theirs!r}'
            )
        super()._load_from_state_dict(state_dict, prefix, *args)
