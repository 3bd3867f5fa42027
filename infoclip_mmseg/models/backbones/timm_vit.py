"""The image tower of a CLIP with one of timm's ViTs (EVA-02, SigLIP, PE ...), read densely.

Legend: B images, h w pixels, H W grid of patches, N = H*W positions, L tokens (prefix tokens such
as the class token, then the positions), K channels of the tokens, C of the joint embedding space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from open_clip.timm_model import TimmModel
from timm.layers import apply_rot_embed_cat, build_rotary_pos_embed
from timm.models.eva import Eva, EvaBlock, EvaBlockPostNorm
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from infoclip_mmseg.models.backbones.dense_modes import DENSE_MODES
from infoclip_mmseg.models.backbones.vit import ViTTower, chosen_blocks, interpolate_positions


class TimmViTTower(ViTTower):
    """Dense and pooled embeddings of open_clip's ``TimmModel`` around a ViT.

    The pooled embedding is the tower's own. How a position is read follows from how the tower pools
    its tokens z behind the last block and norm:

    - class token: the last block is read as ``dense_mode`` says, and the head is applied to each
      position.
    - attention (``map``; SigLIP, PE): a position goes through the pooling block as if it were the
      only one, whose attention weight is 1: ``y = proj(v(z)); y + mlp(norm(y))``. With 'catseg',
      CAT-Seg's reading with this block in the place of the last, the blocks before stay as they
      are. The other modes take the place of the last of them.
    - mean: as with a class token; 'catseg', which needs one, is a ValueError.

    For the arguments see :class:`~infoclip_mmseg.models.backbones.vit.ViTTower`.
    """

    def __init__(
        self, visual: Any, dense_mode: str = 'catseg', out_blocks: Sequence[int] | None = None
    ) -> None:
        self.visual, self.trunk = visual, visual.trunk
        trunk, pooling = visual.trunk, visual.trunk.attn_pool
        if dense_mode == 'catseg' and pooling is None and trunk.cls_token is None:
            raise ValueError(
                "dense_mode='catseg' takes the class token for the residual connection, which this "
                "image tower does not have; take 'maskclip_residual', in which each position has "
                f'its own, or another of {sorted(set(DENSE_MODES) - {dense_mode})}'
            )
        self.out_blocks = chosen_blocks(dense_mode, out_blocks, len(trunk.blocks))
        reads_pooling = dense_mode == 'catseg' and pooling is not None
        self.dense_mode = 'vanilla_residual' if reads_pooling else dense_mode
        self.num_prefix_tokens = trunk.num_prefix_tokens
        self.reads_class_token = trunk.global_pool == 'token'
        self.width: int = trunk.embed_dim
        linear = [m for m in (trunk.head, *visual.head.modules()) if isinstance(m, nn.Linear)]
        self.embed_dim: int = linear[-1].out_features if linear else self.width
        self.patch_size: tuple[int, int] = tuple(trunk.patch_embed.feat_ratio(as_scalar=False))

    def _embed_patches(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        self._check_sides(images)
        trunk, embed = self.trunk, self.trunk.patch_embed
        x = embed.proj(embed.backbone(images) if hasattr(embed, 'backbone') else images)
        grid = (x.shape[-2], x.shape[-1])
        x = x.flatten(2).transpose(1, 2)
        if hasattr(embed, 'norm'):
            x = embed.norm(x)
        learned = (trunk.cls_token, getattr(trunk, 'reg_token', None))
        prefix = [token.expand(x.shape[0], -1, -1) for token in learned if token is not None]
        if trunk.pos_embed is None:
            return trunk.norm_pre(torch.cat([*prefix, x], dim=1)), grid
        rows = 0 if trunk.no_embed_class else self.num_prefix_tokens
        position = interpolate_positions(trunk.pos_embed[0], embed.grid_size, grid, rows)
        position = position.to(x.dtype)
        if trunk.no_embed_class:
            return trunk.norm_pre(torch.cat([*prefix, x + position], dim=1)), grid
        return trunk.norm_pre(torch.cat([*prefix, x], dim=1) + position), grid

    def _blocks(self, grid: tuple[int, int]) -> list[TimmBlock]:
        rope = getattr(self.trunk, 'rope', None)
        device = next(self.trunk.parameters()).device
        angles = None if rope is None else rotary_positions(rope, grid, device)
        return [TimmBlock(block, angles) for block in self.trunk.blocks]

    def _project(self, tokens: Tensor) -> Tensor:
        trunk = self.trunk
        tokens = trunk.norm(tokens)
        if trunk.attn_pool is not None:
            tokens = read_pooling_block(trunk.attn_pool, tokens)
        return self.visual.head(trunk.head(trunk.fc_norm(tokens)))

    def _pool(self, tokens: Tensor) -> Tensor:
        return self.visual.head(self.trunk.forward_head(self.trunk.norm(tokens)))


def read_pooling_block(pooling: Any, tokens: Tensor) -> Tensor:
    """Tokens (B, L, K), each through timm's ``AttentionPoolLatent`` as if it were the only one.

    The softmax over one key is 1, so neither query nor key counts.
    """
    value, bias = pooling.kv.weight.chunk(2)[1], pooling.kv.bias
    tokens = pooling.proj(F.linear(tokens, value, None if bias is None else bias.chunk(2)[1]))
    return tokens if pooling.mlp is None else tokens + pooling.mlp(pooling.norm(tokens))


def rotary_positions(rope: Any, grid: tuple[int, int], device: torch.device) -> Tensor:
    """Sines and cosines (N, 2 D) of timm's axial rotary positions for heads of D channels.

    Coordinates of any grid are scaled to the one of pretraining, ``rope.ref_feat_shape`` (EVA-02,
    arXiv 2303.11331), so that positions keep their meaning.
    """
    sin, cos = build_rotary_pos_embed(
        list(grid),
        dim=rope.dim,
        max_res=rope.max_res,
        temperature=rope.temperature,
        linear_bands=rope.linear_bands,
        in_pixels=rope.in_pixels,
        ref_feat_shape=rope.ref_feat_shape,
        grid_offset=rope.grid_offset,
        grid_indexing=rope.grid_indexing,
        device=device,
    )
    return torch.cat([sin, cos], dim=-1)


class TimmBlock:
    """A block of timm on one grid, with the names that dense modes read of open_clip's blocks.

    Called with tokens (B, L, K) it is the block itself. EVA-02-CLIP-E's blocks have their norms
    behind attention and MLP, that is, in the place of the layer scales.
    """

    def __init__(self, block: Any, rope: Tensor | None) -> None:
        self.block, self.rope, self.mlp = block, rope, block.mlp
        self.attn = TimmAttention(block.attn, rope)
        self.ln_1, self.ln_2 = block.norm1, block.norm2
        if isinstance(block, EvaBlockPostNorm):
            self.ln_1 = self.ln_2 = nn.Identity()
            self.ls_1, self.ls_2 = block.norm1, block.norm2
        elif isinstance(block, EvaBlock):
            self.ls_1, self.ls_2 = _scale(block.gamma_1), _scale(block.gamma_2)
        else:
            self.ls_1, self.ls_2 = block.ls1, block.ls2

    def __call__(self, tokens: Tensor) -> Tensor:
        """Tokens (B, L, K) behind the block."""
        return self.block(tokens) if self.rope is None else self.block(tokens, rope=self.rope)


def _scale(gamma: Tensor | None) -> Callable[[Tensor], Tensor]:
    return nn.Identity() if gamma is None else gamma.mul


class TimmAttention:
    """timm's self-attention in parts; the methods are those of ``SplitAttention``.

    Queries and keys are normed and rotated where the model does that, and the sub-norm of EVA-02 is
    part of the output projection, as in the readings of CLIPSelf (arXiv 2310.01403).
    """

    def __init__(self, attention: Any, rope: Tensor | None) -> None:
        self.attention, self.rope = attention, rope

    def query(self, x: Tensor) -> Tensor:
        """Queries (B, L, K) of tokens (B, L, K)."""
        return self._rotate(self._part('q', x), self.attention.q_norm)

    def key(self, x: Tensor) -> Tensor:
        """Keys (B, L, K) of tokens (B, L, K)."""
        return self._rotate(self._part('k', x), self.attention.k_norm)

    def value(self, x: Tensor) -> Tensor:
        """Values (B, L, K) of tokens (B, L, K)."""
        return self._part('v', x)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, scale: float | None = None) -> Tensor:
        """Softmax attention (B, L, K) in heads, without the output projection.

        The scale of the products is 1 / sqrt(K / heads) where none is given.
        """
        q, k, v = (self._heads(x) for x in (q, k, v))
        return F.scaled_dot_product_attention(q, k, v, scale=scale).transpose(1, 2).flatten(2)

    def without_positions(self) -> TimmAttention:
        """The same attention with queries and keys that are not rotated."""
        return TimmAttention(self.attention, None)

    def out_proj(self, x: Tensor) -> Tensor:
        """Sub-norm, if there is one, and output projection of (B, L, K)."""
        return self.attention.proj(self.attention.norm(x))

    def _part(self, part: str, x: Tensor) -> Tensor:
        attention = self.attention
        if attention.qkv is None:
            return getattr(attention, f'{part}_proj')(x)
        # The first EVA keeps biases, of which keys have none, beside the weights.
        return attention.qkv.project(part, x, getattr(attention, f'{part}_bias', None))

    def _rotate(self, x: Tensor, norm: nn.Module) -> Tensor:
        x = norm(self._heads(x))
        if self.rope is not None:
            prefix = self.attention.num_prefix_tokens
            rotated = apply_rot_embed_cat(x[:, :, prefix:], self.rope).to(x.dtype)
            x = torch.cat([x[:, :, :prefix], rotated], dim=2)
        return x.transpose(1, 2).flatten(2)

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.attention.num_heads, -1)).transpose(1, 2)


def is_timm_vit(visual: Any) -> bool:
    """Whether an image tower is one that :class:`TimmViTTower` reads."""
    trunk = getattr(visual, 'trunk', None)
    return (
        isinstance(visual, TimmModel)
        and isinstance(trunk, (Eva, VisionTransformer))
        and all(isinstance(block, (Block, EvaBlock, EvaBlockPostNorm)) for block in trunk.blocks)
    )
