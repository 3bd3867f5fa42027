"""The image tower of a CLIP with a ViT, read densely at any image size.

Legend: B images, h w pixels, H W grid of patches, N = H*W positions row by row, C channels of the
joint embedding space.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from infoclip_mmseg.models.backbones.dense_modes import DENSE_MODES


class ViTTower:
    """Dense and pooled embeddings of open_clip's ``VisionTransformer``.

    It is a plain class around the tower and no module, so that the weights keep their place and
    name. A tower of another kind has the same attributes and methods: ``embed_dim`` C, ``width``,
    the channels of the block maps, and ``patch_size`` in pixels.

    Args:
        visual: The tower, whose blocks have split attention.
        dense_mode: A key of ``DENSE_MODES``: how the last block is read.
        out_blocks: See :class:`~infoclip_mmseg.models.CLIPDualEncoder`.

    An unknown mode or block is a ValueError.
    """

    def __init__(
        self, visual: Any, dense_mode: str = 'catseg', out_blocks: Sequence[int] | None = None
    ) -> None:
        if dense_mode not in DENSE_MODES:
            raise ValueError(f'dense_mode must be one of {sorted(DENSE_MODES)}, got {dense_mode!r}')
        layers = len(visual.transformer.resblocks)
        default = (layers // 3 - 1, 2 * layers // 3 - 1)
        self.out_blocks = tuple(default if out_blocks is None else out_blocks)
        if not all(0 <= index < layers - 1 for index in self.out_blocks):
            raise ValueError(f'out_blocks must lie in 0..{layers - 2}, got {self.out_blocks}')
        self.visual, self.dense_mode = visual, dense_mode
        self.embed_dim: int = visual.proj.shape[1]
        self.width: int = visual.conv1.out_channels
        self.patch_size: tuple[int, int] = visual.conv1.kernel_size

    def dense(
        self, images: Tensor, run: Callable[..., Tensor], inputs: list[Tensor] | None = None
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """Dense embeddings of normalised images (B, 3, h, w); h and w in whole patches.

        ``run`` calls its first argument, a block, with the others: the place for checkpointing.
        ``inputs`` gets the tokens (B, 1 + N, width) that enter each block.

        Returns:
            Dense embeddings (B, C, H, W), the class token read in the same way (B, C), and the maps
            of ``out_blocks``, each (B, width, H, W). Nothing is normalised.
        """
        tokens, grid = self._embed_patches(images)
        maps = []
        *body, last = self.visual.transformer.resblocks
        for index, block in enumerate(body):
            if inputs is not None:
                inputs.append(tokens)
            tokens = run(block, tokens)
            if index in self.out_blocks:
                maps.append(to_map(tokens, grid))
        if inputs is not None:
            inputs.append(tokens)
        tokens = run(DENSE_MODES[self.dense_mode], last, tokens)
        tokens = self.visual.ln_post(tokens) @ self.visual.proj
        return to_map(tokens, grid), tokens[:, 0], tuple(maps)

    def pooled(self, images: Tensor, run: Callable[..., Tensor]) -> Tensor:
        """CLIP's ordinary image embedding (B, C), not normalised; see :meth:`dense`."""
        tokens, _ = self._embed_patches(images)
        for block in self.visual.transformer.resblocks:
            tokens = run(block, tokens)
        pooled, _ = self.visual._pool(tokens)
        return pooled @ self.visual.proj

    def _embed_patches(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens (B, 1 + N, width) that enter the first block, and the grid (H, W)."""
        visual, patch = self.visual, self.patch_size
        height, width = images.shape[-2:]
        if min(height, width) == 0 or height % patch[0] or width % patch[1]:
            raise ValueError(
                f'the image tower needs images whose sides are multiples of its {patch[0]} x '
                f'{patch[1]} pixel patch, got {height} x {width}; set input_size accordingly'
            )
        x = visual.conv1(images)
        grid = (x.shape[-2], x.shape[-1])
        x = x.flatten(2).transpose(1, 2)
        cls = visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([cls, x], dim=1)
        position = interpolate_positions(visual.positional_embedding, visual.grid_size, grid)
        return visual.ln_pre(x + position.to(x.dtype)), grid


def to_map(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Tokens (B, 1 + N, C), class token first, to (B, C, H, W) without it; a view."""
    return tokens[:, 1:].transpose(1, 2).unflatten(2, grid)


def interpolate_positions(
    embedding: Tensor, source: tuple[int, int], target: tuple[int, int]
) -> Tensor:
    """Position embeddings (1 + H*W, C) of grid ``source`` resized to grid ``target``.

    Bicubic, align_corners=False; the class token's embedding, in row 0, is kept.
    """
    if tuple(source) == tuple(target):
        return embedding
    cls, grid = embedding[:1], embedding[1:]
    grid = grid.T.unflatten(1, tuple(source))[None].float()
    grid = F.interpolate(grid, size=tuple(target), mode='bicubic', align_corners=False)
    return torch.cat([cls, grid[0].flatten(1).T.to(cls.dtype)])
