"""MaskTokenEncoder: a CLIP whose image tower also embeds masks, by one token each.

Legend: B images, Q masks, h w their size, W words, C channels of the joint embedding space.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from mmengine.logging import print_log
from mmseg.registry import MODELS
from torch import Tensor, nn

from infoclip_mmseg.models.backbones.dual_encoder import CLIPDualEncoder, ImageFeatures
from infoclip_mmseg.models.backbones.vit import ViTTower
from infoclip_mmseg.models.layers.mask_tokens import (
    keys_and_values,
    mask_token_block,
    visible_patches,
)
from infoclip_mmseg.utils.files import first_few

TRAINED = {  # what CLIP itself trains, and whether mask tokens have queries of their own
    'frozen': ('frozen', False),
    'mask_q': ('frozen', True),
    'image_q': ('image_query', False),
    'both': ('image_query', True),
    'all': ('image', True),
}


class WordAttention(nn.Module):
    """What mask tokens read of the words, through a gate that starts at zero (our reading of SEVE).

    Args:
        width: Of the mask tokens.
        embed_dim: C.
        num_heads: Heads of the attention.
    """

    def __init__(self, width: int, embed_dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.key, self.value = nn.Linear(embed_dim, width), nn.Linear(embed_dim, width)
        self.gate = nn.Parameter(torch.zeros(1))

    def read(self, words: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values, each (1, heads, W, width / heads), of words (W, C)."""
        key, value = (
            project(words).unflatten(-1, (self.num_heads, -1)).transpose(0, 1)[None]
            for project in (self.key, self.value)
        )
        return key, value

    def forward(self, tokens: Tensor, key: Tensor, value: Tensor) -> Tensor:
        """What is added to mask tokens; these, normed, and the result are (B, Q, width)."""
        query = tokens.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
        shape = (len(query), -1, -1, -1)
        key, value = (x.to(query.dtype).expand(shape) for x in (key, value))
        found = nn.functional.scaled_dot_product_attention(query, key, value)
        return self.gate * found.transpose(1, 2).flatten(2)


@MODELS.register_module()
class MaskTokenEncoder(CLIPDualEncoder):
    """Mask tokens in a ViT CLIP: our reading of FISA (arXiv 2409.16278), whose code is not public.

    A mask token begins as the class token and runs through every block of the image tower; it sees
    the class token and the patches that its mask touches. Patches do not see it, so that
    :meth:`encode_image` is CLIP's own to the last bit. With the default it differs from CLIP in two
    things: queries of its own (SIMO), which start as the block's, and attention to the words in the
    first blocks (SEVE), whose gate starts at zero. With ``word_blocks=0`` it is MasQCLIP (ICCV
    2023).

    Args:
        model_name: See :class:`CLIPDualEncoder`; the image tower must be a ViT.
        finetune: What trains besides the attention to words. ``'mask_q'``: the mask tokens' own
            query projections; ``'image_q'``: the blocks' query weights, which patches and mask
            tokens share; ``'both'``: these two apart; ``'all'``: the mask tokens' queries and the
            whole image tower; ``'frozen'``: nothing.
        word_blocks: Share of the blocks, the first ones, that read the words; 0: none.
        chunk: Mask tokens that go through a block together, which bounds the memory.
        **kwargs: As for :class:`CLIPDualEncoder`.
    """

    def __init__(
        self,
        model_name: str | dict,
        pretrained: str | None = None,
        finetune: str = 'mask_q',
        word_blocks: float = 0.25,
        chunk: int = 128,
        **kwargs: Any,
    ) -> None:
        if finetune not in TRAINED or not 0 <= word_blocks <= 1 or chunk < 1:
            raise ValueError(
                f'finetune must be one of {tuple(TRAINED)}, word_blocks 0..1 and chunk 1 or more, '
                f'got {finetune!r}, {word_blocks} and {chunk}'
            )
        policy, own = TRAINED[finetune]
        super().__init__(model_name, pretrained, policy, **kwargs)
        if not isinstance(self.image_tower, ViTTower):
            raise ValueError(
                f'mask tokens need a CLIP with a ViT image tower, got {model_name!r}; a ConvNeXt '
                'CLIP pools its features inside of masks: take a MaskClassificationHead'
            )
        self.finetune, self.chunk = finetune, chunk
        blocks, width = self._blocks, cast(int, self.image_width)
        reading = round(word_blocks * len(blocks))
        self.mask_queries: Any = nn.ModuleList(nn.Linear(width, width) for _ in blocks if own)
        self.word_attention: Any = nn.ModuleList(
            WordAttention(width, self.embed_dim, block.attn.num_heads) for block in blocks[:reading]
        )
        if own:  # then nothing that is classified asks for the last block's own query
            blocks[-1].attn.q_proj_weight.requires_grad_(False)
        self.trainable_names = [n for n, p in self.clip.named_parameters() if p.requires_grad]
        self._kept: tuple[Tensor, Any, list[tuple[Tensor, Tensor]]] | None = None
        self.reset_mask_queries()

    @property
    def _blocks(self) -> Any:
        return self.clip.visual.transformer.resblocks

    def init_weights(self) -> None:
        """Load ``pretrained``, and let the mask tokens' queries begin as CLIP's."""
        super().init_weights()
        self.reset_mask_queries()
        sizes = self.trained_sizes()
        print_log(
            f'{type(self).__name__}, finetune={self.finetune!r}: {sum(sizes.values()):,} '
            f'parameters train, in {len(sizes)} tensors: {first_few(list(sizes))}',
            logger='current',
        )

    @torch.no_grad()
    def reset_mask_queries(self) -> None:
        """Let the mask tokens' queries be those of the blocks."""
        for query, block in zip(self.mask_queries, self._blocks):
            query.weight.copy_(block.attn.q_proj_weight)
            query.bias.copy_(block.attn.in_proj_bias[: query.in_features])

    def trained_sizes(self) -> dict[str, int]:
        """Names of what trains, and the number of parameters of each."""
        return {name: p.numel() for name, p in self.named_parameters() if p.requires_grad}

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """As in :class:`CLIPDualEncoder`, with what enters each block, for :meth:`encode_masks`."""
        inputs: list[Tensor] = []
        found = self.image_tower.dense(images, self._run, inputs)  # type: ignore[call-arg]
        return ImageFeatures(*found, self, tuple(inputs))

    def encode_masks(
        self, features: ImageFeatures, masks: Tensor, words: Tensor | None = None
    ) -> Tensor:
        """Embeddings (B, Q, C), not normalised, of masks (B, Q, h, w), logits over the image.

        Args:
            features: From :meth:`encode_image`.
            masks: Of any number and size; an empty one sees the class token only. No gradient
                reaches them.
            words: L2-normalised text embeddings (W, C) that the first blocks read; None: they read
                none.

        Masks of another form or of other images are a ValueError.
        """
        if masks.ndim != 4 or len(masks) != len(features.dense) or 0 in masks.shape[2:]:
            raise ValueError(
                f'masks must be (B, Q, h, w) with B={len(features.dense)} images, of one pixel or '
                f'more, got {tuple(masks.shape)}'
            )
        if not masks.shape[1]:
            return features.cls.new_zeros(len(masks), 0, self.embed_dim)
        visual: Any = self.clip.visual
        grid = features.dense.shape[-2:]
        visible = visible_patches(masks, (grid[0], grid[1])).split(self.chunk, dim=1)
        tokens = features.inputs[0][:, :1].expand(-1, masks.shape[1], -1)
        read = [] if words is None else self._read(words)
        for index, (block, image) in enumerate(zip(self._blocks, features.inputs)):
            key, value = keys_and_values(block, image)
            query = self.mask_queries[index] if self.mask_queries else None
            parts = []
            for part, seen in zip(tokens.split(self.chunk, dim=1), visible):
                if index < len(read):
                    part = part + self.word_attention[index](block.ln_1(part), *read[index])
                parts.append(self._run(mask_token_block, block, part, key, value, seen, query))
            tokens = torch.cat(parts, dim=1)
        return visual.ln_post(tokens) @ visual.proj

    def _read(self, words: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the words for each block that reads; without gradients kept."""
        if torch.is_grad_enabled():
            return [layer.read(words) for layer in self.word_attention]
        version = [(p.data_ptr(), p._version) for p in self.word_attention.parameters()]
        kept = self._kept
        if kept is None or kept[1] != version or not same(kept[0], words):
            with torch.autocast(words.device.type, enabled=False):
                read = [layer.read(words) for layer in self.word_attention]
            self._kept = kept = (words, version, read)
        return kept[2]


def same(a: Tensor, b: Tensor) -> bool:
    """Whether two tensors have the same place, type, form and values."""
    return (a.device, a.dtype) == (b.device, b.dtype) and torch.equal(a, b)
