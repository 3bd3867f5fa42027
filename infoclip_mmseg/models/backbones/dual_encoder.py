"""CLIPDualEncoder: dense image embeddings and text embeddings of an open_clip model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple, cast

import open_clip
import torch
import torch.nn.functional as F
from mmengine.logging import print_log
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from open_clip.transformer import QuickGELU
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from infoclip_mmseg.models.backbones.attention import split_attention
from infoclip_mmseg.models.backbones.build import build_clip, interpolate_positions
from infoclip_mmseg.models.backbones.dense_modes import DENSE_MODES
from infoclip_mmseg.models.backbones.finetune import apply_finetune_policy
from infoclip_mmseg.models.backbones.weights import find_weights, load_clip_weights
from infoclip_mmseg.models.text.cache import recall, vocabulary_key, weights_key
from infoclip_mmseg.models.text.prompts import PromptSet
from infoclip_mmseg.models.text.tower import (
    Progress,
    describe_tower,
    encode_in_batches,
    encode_tokens,
    text_parameters,
)

Tokenizer = Callable[[list[str]], Tensor]


class ImageFeatures(NamedTuple):
    """What the image tower returns.

    Attributes:
        dense: Dense embeddings (B, C, H, W) in the space of the text embeddings, not normalised.
        cls: The class token read in the same way (B, C).
        blocks: Outputs of the chosen blocks, each (B, width, H, W).
    """

    dense: Tensor
    cls: Tensor
    blocks: tuple[Tensor, ...]


@MODELS.register_module()
class CLIPDualEncoder(BaseModule):
    """Both towers of a CLIP model with a ViT image tower, as a backbone for segmentation.

    All sizes are read from the built model. The image tower takes any grid: position embeddings are
    interpolated (bicubic) to the input's. Weights are loaded by :meth:`init_weights`, which
    MMEngine's runner calls before training; a model that loads a checkpoint does not need them.

    Args:
        model_name: open_clip model name, or a dict in the form of open_clip's model configs.
            OpenAI's weights need the ``-quickgelu`` variants.
        pretrained: open_clip tag, a local .pt / .safetensors / .bin file, or None (random weights).
        finetune: ``'attention'``, ``'full'`` or ``'frozen'``; see
            :func:`~infoclip_mmseg.models.backbones.finetune.apply_finetune_policy`.
        dense_mode: How the last block is read: ``'catseg'``, or training-free ``'vanilla'``,
            ``'maskclip'``, ``'sclip'`` or ``'clearclip'``, with ``'_residual'`` behind it where
            residual connection and MLP are kept; see ``models/dense_modes.py``.
        out_blocks: 0-based image blocks whose outputs are returned; None takes the last block of
            the first and of the second third (blocks 3 and 7 of 12, 7 and 15 of 24, as CAT-Seg).
        text_batch_size: Prompts that go through the text tower together where no gradients are
            needed; progress is logged.
        text_cache_dir: Folder in which text embeddings are kept between runs, each file keyed by
            the tower's weights and the prompts; None keeps them in memory only. Training that
            changes the text tower never reads from it.
        with_cp: Recompute activations of each block in the backward pass (activation
            checkpointing).
        init_cfg: See ``mmengine.model.BaseModule``.

    Attributes:
        trainable_names: Names of the CLIP parameters that are trained.
    """

    def __init__(
        self,
        model_name: str | dict,
        pretrained: str | None = None,
        finetune: str = 'attention',
        dense_mode: str = 'catseg',
        out_blocks: Sequence[int] | None = None,
        text_batch_size: int = 256,
        text_cache_dir: str | None = None,
        with_cp: bool = False,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        if dense_mode not in DENSE_MODES:
            raise ValueError(f'dense_mode must be one of {sorted(DENSE_MODES)}, got {dense_mode!r}')
        self.model_name = model_name
        self.pretrained = pretrained
        self.finetune = finetune
        self.dense_mode = dense_mode
        if text_batch_size < 1:
            raise ValueError(f'text_batch_size must be at least 1, got {text_batch_size}')
        self.text_batch_size = text_batch_size
        self.text_cache_dir = text_cache_dir
        self.with_cp = with_cp
        self.clip = cast(Any, split_attention(build_clip(model_name)))
        layers = len(self.clip.visual.transformer.resblocks)
        default = (layers // 3 - 1, 2 * layers // 3 - 1)
        self.out_blocks = tuple(default if out_blocks is None else out_blocks)
        if not all(0 <= index < layers - 1 for index in self.out_blocks):
            raise ValueError(f'out_blocks must lie in 0..{layers - 2}, got {self.out_blocks}')
        self.trainable_names = apply_finetune_policy(self.clip, finetune)
        self._tokenizer: Tokenizer | None = None
        self._token_cache: dict[tuple[str, ...], Tensor] = {}
        self._text_cache: dict[tuple, Tensor] = {}

    @property
    def embed_dim(self) -> int:
        """C of the joint embedding space."""
        return self.clip.visual.proj.shape[1]

    @property
    def image_width(self) -> int:
        """Channels of the image tower's block maps."""
        return self.clip.visual.conv1.out_channels

    @property
    def patch_size(self) -> tuple[int, int]:
        """Height and width of a patch in pixels."""
        height, width = self.clip.visual.conv1.kernel_size
        return height, width

    @property
    def text_tower(self) -> Any:
        """The module that holds the text tower's parts."""
        return getattr(self.clip, 'text', self.clip)

    @property
    def tokenizer(self) -> Tokenizer:
        """Prompt strings to token ids (n, L); built at first use, may be replaced."""
        if self._tokenizer is None:
            if isinstance(self.model_name, str):
                self._tokenizer = open_clip.get_tokenizer(self.model_name)
            else:
                length = self.text_tower.context_length
                self._tokenizer = open_clip.SimpleTokenizer(context_length=length)
        return self._tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._token_cache.clear()
        self._text_cache.clear()

    def init_weights(self) -> None:
        """Load ``pretrained``; with None the weights stay as they were built.

        Raises:
            FileNotFoundError: The weights are neither at hand nor downloadable.
            ValueError: The weights belong to another model; see
                :func:`~infoclip_mmseg.models.backbones.weights.load_clip_weights`.
        """
        if self.pretrained is not None:
            name = self.model_name if isinstance(self.model_name, str) else 'custom CLIP'
            quick_gelu = any(isinstance(m, QuickGELU) for m in self.clip.visual.modules())
            path = find_weights(name, self.pretrained, quick_gelu)
            load_clip_weights(self.clip, name, path, quick_gelu)
            print_log(f'CLIP weights of {name} loaded from {path}', logger='current')
        self._is_init = True

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Block maps (B, width, H, W) and, last, the dense embeddings (B, C, H, W)."""
        features = self.encode_image(images)
        return (*features.blocks, features.dense)

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """Dense embeddings and block maps.

        Args:
            images: Normalised images (B, 3, h, w); h and w multiples of the patch size.

        Raises:
            ValueError: h or w is not a multiple of the patch size.
        """
        visual = self.clip.visual
        tokens, grid = self._embed_patches(images)
        blocks = []
        *body, last = visual.transformer.resblocks
        for index, block in enumerate(body):
            tokens = self._run(block, tokens)
            if index in self.out_blocks:
                blocks.append(tokens[:, 1:].transpose(1, 2).unflatten(2, grid))
        tokens = self._run(DENSE_MODES[self.dense_mode], last, tokens)
        tokens = visual.ln_post(tokens) @ visual.proj
        dense = tokens[:, 1:].transpose(1, 2).unflatten(2, grid)
        return ImageFeatures(dense, tokens[:, 0], tuple(blocks))

    def encode_pooled(self, images: Tensor) -> Tensor:
        """CLIP's ordinary image embedding (B, C), not normalised, at any grid."""
        visual = self.clip.visual
        tokens, _ = self._embed_patches(images)
        for block in visual.transformer.resblocks:
            tokens = self._run(block, tokens)
        pooled, _ = visual._pool(tokens)
        return pooled @ visual.proj

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Text embeddings (n, C), not normalised, of token ids (n, L).

        See :func:`~infoclip_mmseg.models.text.tower.encode_tokens`.
        """
        return encode_tokens(self.text_tower, tokens, self._run)

    def embed_prompts(self, prompts: PromptSet) -> Tensor:
        """L2-normalised text embeddings (T, P, C).

        With synonyms 'average' those of a class are averaged and normalised again, with 'max' each
        has its own row, and T is the number of words.

        Embeddings are cached where the text tower cannot change under them: in evaluation, or when
        it is frozen. Those are computed outside autocast, once, so that mixed precision costs no
        accuracy in them.
        """
        if self._text_is_trained():
            return self._embed_prompts(prompts)
        key = (prompts, self._text_version())
        if key not in self._text_cache:
            self._text_cache.clear()
            with torch.no_grad(), torch.autocast(key[1][0].type, enabled=False):
                self._text_cache[key] = self._recall_prompts(prompts)
        return self._text_cache[key]

    def train(self, mode: bool = True) -> CLIPDualEncoder:
        """Set the mode; a change forgets text embeddings computed before."""
        if mode != self.training:
            self._text_cache.clear()
        return super().train(mode)

    def _recall_prompts(self, prompts: PromptSet) -> Tensor:
        """:meth:`_embed_prompts` by way of the cache on disk, if all the weights are here."""
        parameters = text_parameters(self.clip)
        sharded = any(hasattr(parameter, 'placements') for _, parameter in parameters)
        if self.text_cache_dir is None or sharded:
            return self._embed_prompts(prompts)
        weights = weights_key(parameters, describe_tower(self.text_tower))
        device, dtype, _ = self._text_version()
        key = vocabulary_key(weights, prompts, self._tokenize(prompts.texts), dtype)
        shape = (prompts.num_embeddings, prompts.num_templates, self.embed_dim)
        encode = partial(self._embed_prompts, prompts)
        return recall(self.text_cache_dir, key, shape, encode).to(device)

    def _embed_prompts(self, prompts: PromptSet) -> Tensor:
        tokens, texts = self._tokenize(prompts.texts), prompts.texts
        batch_size = len(texts) if torch.is_grad_enabled() else self.text_batch_size
        embeddings = encode_in_batches(self._embed_tokens, tokens, texts, batch_size, Progress())
        slots = prompts.num_embeddings * prompts.num_templates
        if len(texts) != slots:
            owners = torch.tensor(prompts.owners, device=embeddings.device)
            zeros = embeddings.new_zeros(slots, embeddings.shape[-1])
            embeddings = F.normalize(zeros.index_add(0, owners, embeddings), dim=-1)
        return embeddings.unflatten(0, (prompts.num_embeddings, prompts.num_templates))

    def _embed_tokens(self, tokens: Tensor) -> Tensor:
        """L2-normalised embeddings (n, C), float32, of token ids (n, L)."""
        return F.normalize(self.encode_text(tokens).float(), dim=-1)

    def _tokenize(self, texts: tuple[str, ...]) -> Tensor:
        """Token ids (n, L) on the CPU."""
        if texts not in self._token_cache:
            self._token_cache = {texts: self.tokenizer(list(texts)).int()}
        return self._token_cache[texts]

    def _text_is_trained(self) -> bool:
        trained = any(parameter.requires_grad for _, parameter in text_parameters(self.clip))
        return trained and (self.training or torch.is_grad_enabled())

    def _text_version(self) -> tuple[Any, ...]:
        weight = self.text_tower.token_embedding.weight
        versions = tuple((p.data_ptr(), p._version) for _, p in text_parameters(self.clip))
        return weight.device, weight.dtype, versions

    def _embed_patches(self, images: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Tokens (B, 1 + N, width) that enter the first block, and the grid (H, W)."""
        visual, patch = self.clip.visual, self.patch_size
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

    def _run(self, function: Callable, *args: Any, **kwargs: Any) -> Tensor:
        if self.with_cp and self.training and torch.is_grad_enabled():
            return checkpoint(function, *args, use_reentrant=False, **kwargs)
        return function(*args, **kwargs)
