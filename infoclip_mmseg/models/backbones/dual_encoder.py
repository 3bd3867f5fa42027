"""CLIPDualEncoder: dense image embeddings and text embeddings of an open_clip model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, cast

import torch
from mmengine.model import BaseModule
from mmseg.registry import MODELS
from torch import Tensor

from infoclip_mmseg.models.backbones.build import apply_finetune_policy, build_clip
from infoclip_mmseg.models.backbones.convnext import ConvNeXtTower, is_convnext
from infoclip_mmseg.models.backbones.timm_vit import TimmViTTower, is_timm_vit
from infoclip_mmseg.models.backbones.vit import ViTTower
from infoclip_mmseg.models.backbones.weights import load_image_weights, load_pretrained
from infoclip_mmseg.models.text.encoder import TextEncoder, Tokenizer
from infoclip_mmseg.models.text.prompts import PromptSet
from infoclip_mmseg.utils.recompute import Recompute, check_recompute, checkpointed
from infoclip_mmseg.utils.tensors import Size


class ImageFeatures(NamedTuple):
    """What the image tower returns; nothing is normalised."""

    dense: Tensor  # dense embeddings (B, C, H, W), in the space of the text embeddings
    cls: Tensor  # the class token read in the same way (B, C); of a ConvNeXt the pooled embedding
    blocks: tuple[Tensor, ...]  # outputs of the chosen blocks (B, width, H, W), or stages
    encoder: CLIPDualEncoder | None = None  # for what a head asks of features that it has pooled
    inputs: tuple[Tensor, ...] = ()  # tokens (B, 1 + N, width) that enter each block, if kept
    size: Size | None = None  # of the images, padding included, before CLIP's input size
    masks: Tensor | None = None  # given masks (B, Q, h, w), logits, in place of the head's own
    labels: Tensor | None = None  # their known classes (B, Q), T for void


@MODELS.register_module()
class CLIPDualEncoder(BaseModule):
    """Both towers of a CLIP model with a ViT or ConvNeXt, as a backbone for segmentation.

    All sizes are read from the built model. The image tower takes any grid: learned position
    embeddings are interpolated (bicubic) to the input's, rotary ones computed for it. Weights are
    loaded by :meth:`init_weights`, which MMEngine's runner calls before training; a model that
    loads a checkpoint does not need them.

    Args:
        model_name: open_clip model name, or a dict in the form of open_clip's model configs.
            OpenAI's weights need the ``-quickgelu`` variants.
        pretrained: open_clip tag, a local .pt / .safetensors / .bin file, or None (random weights).
        image_weights: File with weights of the image tower, loaded over ``pretrained``: a CLIP
            whose image tower alone was trained further, such as DeCLIP or CLIPSelf.
        finetune: ``'attention'``, ``'image_attention'``, ``'full'`` or ``'frozen'``; see
            :func:`~infoclip_mmseg.models.backbones.build.apply_finetune_policy`.
        dense_mode: How the last block is read: ``'catseg'``, or training-free ``'vanilla'``,
            ``'maskclip'``, ``'sclip'`` or ``'clearclip'``, with ``'_residual'`` behind it where
            residual connection and MLP are kept; see ``models/backbones/dense_modes.py``.
        out_blocks: 0-based image blocks whose outputs are returned; None takes the last block of
            the first and of the second third (blocks 3 and 7 of 12, 7 and 15 of 24, as CAT-Seg).
        text_batch_size: Prompts that go through the text tower together where no gradients are
            needed; progress is logged.
        text_cache_dir: Folder in which text embeddings are kept between runs, each file keyed by
            the tower's weights and the prompts; None keeps them in memory only. Training that
            changes the text tower never reads from it.
        tokenizer_dir: Folder with the tokenizer's files, for models whose tokenizer does not come
            with open_clip (SigLIP); None takes those in Hugging Face's cache, or downloads them.
        with_cp: Recompute activations of each block in the backward pass; ``'selective'`` keeps
            the outputs of matrix products, convolutions and attention.
        init_cfg: See ``mmengine.model.BaseModule``.

    ``clip``, the open_clip model, holds all the weights, ``trainable_names`` names those that
    train; ``image_tower`` and ``text_encoder`` read them. ``embed_dim`` is C of the joint space,
    ``image_width`` the channels of the block maps; ``patch_size`` is (h, w) in pixels.
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
        with_cp: Recompute = False,
        image_weights: str | None = None,
        tokenizer_dir: str | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(init_cfg)
        self.model_name, self.pretrained = model_name, pretrained
        self.with_cp = check_recompute(with_cp)
        self.image_weights = image_weights
        self.clip = cast(Any, build_clip(model_name))
        self.trainable_names = apply_finetune_policy(self.clip, finetune)
        self.image_tower = image_tower(self.clip.visual, dense_mode, out_blocks)
        self.text_encoder = TextEncoder(
            self.clip, model_name, text_batch_size, text_cache_dir, tokenizer_dir
        )
        tower = self.image_tower
        self.embed_dim, self.image_width = tower.embed_dim, tower.width
        self.patch_size, self.out_blocks = tower.patch_size, tower.out_blocks

    @property
    def text_tower(self) -> Any:
        """The module that holds the text tower's parts."""
        return self.text_encoder.tower

    @property
    def tokenizer(self) -> Tokenizer:
        """Prompt strings to token ids (n, L); built at first use, may be replaced."""
        return self.text_encoder.tokenizer

    @tokenizer.setter
    def tokenizer(self, tokenizer: Tokenizer) -> None:
        self.text_encoder.tokenizer = tokenizer

    def init_weights(self) -> None:
        """Load ``pretrained`` and ``image_weights``; with None the weights stay as they were built.

        Weights that are neither at hand nor downloadable are a FileNotFoundError, those of another
        model a ValueError.
        """
        if self.pretrained is not None:
            load_pretrained(self.clip, self.model_name, self.pretrained)
        if self.image_weights is not None:
            load_image_weights(self.clip, self.model_name, self.image_weights)
        self._is_init = True

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Block maps (B, width, H, W) and, last, the dense embeddings (B, C, H, W)."""
        features = self.encode_image(images)
        return (*features.blocks, features.dense)

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """Dense embeddings and block maps of normalised images (B, 3, h, w) in whole patches."""
        return ImageFeatures(*self.image_tower.dense(images, self._run), self)

    def project(self, features: Tensor) -> Tensor:
        """Pooled features (..., K) of the last stage to embeddings (..., C), not normalised.

        Of a ConvNeXt; for a ViT, whose last block mixes positions, it is a TypeError.
        """
        if not isinstance(self.image_tower, ConvNeXtTower):
            raise TypeError(
                'only the features of a ConvNeXt CLIP can be pooled and then projected; got a '
                f'{type(self.image_tower).__name__}'
            )
        return self.image_tower.project(features)

    @property
    def has_stages(self) -> bool:
        """Whether the block maps are the stages of a pyramid."""
        return isinstance(self.image_tower, ConvNeXtTower)

    @property
    def logit_scale(self) -> Tensor:
        """CLIP's factor of cosines, a scalar: exp of what is learned.

        It is at most 100, as in training, but for SigLIP, which has a bias and no limit.
        """
        scale = self.clip.logit_scale.exp()
        return scale.clamp(max=100) if self.clip.logit_bias is None else scale

    def encode_pooled(self, images: Tensor) -> Tensor:
        """CLIP's ordinary image embedding (B, C), not normalised, at any grid."""
        return self.image_tower.pooled(images, self._run)

    def encode_text(self, tokens: Tensor) -> Tensor:
        """Text embeddings (n, C), not normalised, of token ids (n, L)."""
        return self.text_encoder.encode(tokens, self._run)

    def embed_prompts(self, prompts: PromptSet) -> Tensor:
        """L2-normalised text embeddings (T, P, C), cached where the text tower cannot change."""
        return self.text_encoder.embed(prompts, self._run)

    def train(self, mode: bool = True) -> CLIPDualEncoder:
        """Set the mode; a change forgets text embeddings computed before."""
        if mode != self.training:
            self.text_encoder.forget()
        return super().train(mode)

    def _run(self, function: Callable, *args: Any, **kwargs: Any) -> Tensor:
        if self.with_cp and self.training and torch.is_grad_enabled():
            return cast(Tensor, checkpointed(function, self.with_cp)(*args, **kwargs))
        return function(*args, **kwargs)


def image_tower(
    visual: Any, dense_mode: str, out_blocks: Sequence[int] | None
) -> ViTTower | ConvNeXtTower:
    """The reader of an image tower of open_clip."""
    if is_convnext(visual):
        return ConvNeXtTower(visual, dense_mode, out_blocks)
    return (TimmViTTower if is_timm_vit(visual) else ViTTower)(visual, dense_mode, out_blocks)
