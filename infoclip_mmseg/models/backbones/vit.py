"""The image tower of a CLIP with a ViT, read densely at any image size.

Legend: B images, h w pixels, H W grid of patches, N = H*W positions row by row, L tokens (prefix
tokens such as the class token, then the positions), C channels of the joint embedding space.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
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

    num_prefix_tokens = 1
    reads_class_token = True

    def __init__(
        self, visual: Any, dense_mode: str = 'catseg', out_blocks: Sequence[int] | None = None
    ) -> None:
        layers = len(visual.transformer.resblocks)
        self.out_blocks = chosen_blocks(dense_mode, out_blocks, layers)
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
            Dense embeddings (B, C, H, W); the class token read in the same way, or what a tower
            without one pools of the same tokens (B, C); the maps of ``out_blocks``, each
            (B, width, H, W). Nothing is normalised.
        """
        tokens, grid = self._embed_patches(images)
        maps, prefix = [], self.num_prefix_tokens
        *body, last = self._blocks(grid)
        for index, block in enumerate(body):
            if inputs is not None:
                inputs.append(tokens)
            tokens = run(block, tokens)
            if index in self.out_blocks:
                maps.append(to_map(tokens, grid, prefix))
        if inputs is not None:
            inputs.append(tokens)
        tokens = run(DENSE_MODES[self.dense_mode], last, tokens)
        embedded = self._project(tokens)
        pooled = embedded[:, 0] if self.reads_class_token else self._pool(tokens)
        return to_map(embedded, grid, prefix), pooled, tuple(maps)

    def pooled(self, images: Tensor, run: Callable[..., Tensor]) -> Tensor:
        """CLIP's ordinary image embedding (B, C), not normalised; see :meth:`dense`."""
        tokens, grid = self._embed_patches(images)
        for block in self._blocks(grid):
            tokens = run(block, tokens)
        return self._pool(tokens)

    def _embed_patches(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens (B, L, width), prefix first, that enter the first block, and the grid (H, W)."""
        self._check_sides(images)
        visual = self.visual
        x = visual.conv1(images)
        grid = (x.shape[-2], x.shape[-1])
        x = x.flatten(2).transpose(1, 2)
        cls = visual.class_embedding.to(x.dtype).expand(x.shape[0], 1, -1)
        x = torch.cat([cls, x], dim=1)
        position = interpolate_positions(visual.positional_embedding, visual.grid_size, grid)
        return visual.ln_pre(x + position.to(x.dtype)), grid

    def _blocks(self, grid: tuple[int, int]) -> Iterable[Any]:
        """Blocks that take and give tokens (B, L, width) of a grid (H, W)."""
        return self.visual.transformer.resblocks

    def _project(self, tokens: Tensor) -> Tensor:
        """Tokens (B, L, width) behind the last block, each to an embedding (B, L, C)."""
        return self.visual.ln_post(tokens) @ self.visual.proj

    def _pool(self, tokens: Tensor) -> Tensor:
        """The tower's pooled embedding (B, C) of tokens (B, L, width) behind the last block."""
        return self.visual._pool(tokens)[0] @ self.visual.proj

    def _check_sides(self, images: Tensor) -> None:
        (height, width), patch = images.shape[-2:], self.patch_size
        if min(height, width) == 0 or height % patch[0] or width % patch[1]:
            raise ValueError(
                f'the image tower needs images whose sides are multiples of its {patch[0]} x '
                f'{patch[1]} pixel patch, got {height} x {width}; set input_size accordingly'
            )


def chosen_blocks(
    dense_mode: str, out_blocks: Sequence[int] | None, layers: int
) -> tuple[int, ...]:
    """Blocks whose outputs are returned; an unknown dense mode or block is a ValueError."""
    if dense_mode not in DENSE_MODES:
        raise ValueError(f'dense_mode must be one of {sorted(DENSE_MODES)}, got {dense_mode!r}')
    default = (layers // 3 - 1, 2 * layers // 3 - 1)
    chosen = tuple(default if out_blocks is None else out_blocks)
    if not all(0 <= index < layers - 1 for index in chosen):
        raise ValueError(f'out_blocks must lie in 0..{layers - 2}, got {chosen}')
    return chosen


def to_map(tokens: Tensor, grid: tuple[int, int], prefix: int = 1) -> Tensor:
    """Tokens (B, prefix + N, C), the class token first, to (B, C, H, W) without prefix; a view."""
    return tokens[:, prefix:].transpose(1, 2).unflatten(2, grid)


def interpolate_positions(
    embedding: Tensor, source: tuple[int, int], target: tuple[int, int], prefix: int = 1
) -> Tensor:
    """Position embeddings (prefix + H*W, C) of grid ``source`` resized to grid ``target``.

    Bicubic, align_corners=False; those of prefix tokens, in the first rows, are kept.
    """
    if tuple(source) == tuple(target):
        return embedding
    kept, grid = embedding[:prefix], embedding[prefix:]
    grid = grid.T.unflatten(1, tuple(source))[None].float()
    grid = F.interpolate(grid, size=tuple(target), mode='bicubic', align_corners=False)
    return torch.cat([kept, grid[0].flatten(1).T.to(kept.dtype)])
