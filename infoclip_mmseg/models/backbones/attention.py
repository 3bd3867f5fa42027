"""Self-attention whose query, key and value weights are parameters of their own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from infoclip_mmseg.models.backbones.names import split_qkv
from infoclip_mmseg.models.text.packing import PackedLayout, packed_attention


class SplitAttention(nn.Module):
    """Drop-in for the self-attention of open_clip's blocks with the packed projection split.

    The packed ``in_proj_weight`` cannot be trained in part; here ``q_proj_weight``,
    ``k_proj_weight`` and ``v_proj_weight`` are separate and the bias stays packed, which are also
    the names in published CAT-Seg checkpoints. State dicts with the packed weight load as they are.
    The tensors of ``attention`` are reused.
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        super().__init__()
        self.embed_dim, self.num_heads = attention.embed_dim, attention.num_heads
        q, k, v = split_qkv({'in_proj_weight': attention.in_proj_weight.detach()}).values()
        self.q_proj_weight = nn.Parameter(q.clone())
        self.k_proj_weight = nn.Parameter(k.clone())
        self.v_proj_weight = nn.Parameter(v.clone())
        self.in_proj_bias = nn.Parameter(attention.in_proj_bias.detach().clone())
        self.out_proj = attention.out_proj

    def query(self, x: Tensor) -> Tensor:
        """Queries (B, L, C) of tokens (B, L, C)."""
        return F.linear(x, self.q_proj_weight, self.in_proj_bias[: self.embed_dim])

    def key(self, x: Tensor) -> Tensor:
        """Keys (B, L, C) of tokens (B, L, C)."""
        bias = self.in_proj_bias[self.embed_dim : 2 * self.embed_dim]
        return F.linear(x, self.k_proj_weight, bias)

    def value(self, x: Tensor) -> Tensor:
        """Values (B, L, C) of tokens (B, L, C)."""
        return F.linear(x, self.v_proj_weight, self.in_proj_bias[2 * self.embed_dim :])

    def split_heads(self, x: Tensor) -> Tensor:
        """(..., C) to (..., heads, C // heads)."""
        return x.unflatten(-1, (self.num_heads, -1))

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        attn_mask: Tensor | None = None,
        scale: float | None = None,
    ) -> Tensor:
        """Softmax attention (B, L, C) in heads, without the output projection.

        Any of the three projections (B, L, C) may stand in any place; the mask, (L, L) or
        (B, 1, L, L), is additive, or of bools that say what is seen; the scale of the products is
        1 / sqrt(C / heads) where none is given.
        """
        q, k, v = (self.split_heads(x).transpose(1, 2) for x in (q, k, v))
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask, scale=scale)
        return out.transpose(1, 2).flatten(2)

    def without_positions(self) -> SplitAttention:
        """Itself: queries and keys hold no positions of their own."""
        return self

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | PackedLayout | None = None,
        **_: Any,
    ) -> tuple[Tensor, None]:
        """Self-attention with the call signature that open_clip's blocks use.

        Query, key and value are the same tokens, (B, L, C), or (N, C) of packed prompts; the mask
        (L, L) is additive, or tells where packed prompts lie. None stands for attention weights.
        """
        projected = (self.query(query), self.key(key), self.value(value))
        if attn_mask is not None:
            attn_mask = attn_mask.to(projected[0].dtype)
        if isinstance(attn_mask, PackedLayout):
            q, k, v = (self.split_heads(x) for x in projected)
            return self.out_proj(packed_attention(q, k, v, attn_mask).flatten(-2)), None
        return self.out_proj(self.attend(*projected, attn_mask)), None

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        packed = prefix + 'in_proj_weight'
        if packed in state_dict:
            state_dict.update(split_qkv({packed: state_dict.pop(packed)}))
        super()._load_from_state_dict(state_dict, prefix, *args)


class SplitLinear(nn.Module):
    """Drop-in for timm's fused ``qkv`` layer with the three weights as parameters of their own.

    ``q_weight``, ``k_weight`` and ``v_weight`` are (C, K), the bias stays fused, (3 C) or None.
    State dicts with the fused weight load as they are.
    """

    def __init__(self, linear: nn.Linear) -> None:
        super().__init__()
        parts = linear.weight.detach().chunk(3)
        self.q_weight, self.k_weight, self.v_weight = (nn.Parameter(w.clone()) for w in parts)
        self.bias = linear.bias

    @property
    def weight(self) -> Tensor:
        """The fused weight (3 C, K)."""
        return torch.cat([self.q_weight, self.k_weight, self.v_weight])

    def project(self, part: str, x: Tensor, bias: Tensor | None = None) -> Tensor:
        """Queries, keys or values ('q', 'k', 'v') (..., C) of tokens (..., K).

        The bias (C) is for attention that keeps it beside this layer.
        """
        if self.bias is not None:
            bias = self.bias.chunk(3)['qkv'.index(part)]
        return F.linear(x, getattr(self, f'{part}_weight'), bias)

    def forward(self, x: Tensor) -> Tensor:
        """Queries, keys and values (..., 3 C) of tokens (..., K)."""
        return F.linear(x, self.weight, self.bias)

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        if (fused := prefix + 'weight') in state_dict:
            parts = state_dict.pop(fused).chunk(3)
            state_dict.update((f'{prefix}{part}_weight', w) for part, w in zip('qkv', parts))
        super()._load_from_state_dict(state_dict, prefix, *args)


def replace_modules(
    model: nn.Module, kind: type[nn.Module], make: Callable[[Any], nn.Module]
) -> None:
    """Replace all modules of a kind below ``model`` by what ``make`` makes of them, in place."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, kind):
                setattr(module, name, make(child))
