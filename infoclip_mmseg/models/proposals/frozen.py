"""FrozenMaskGenerator: the masks of another model, which has learnt to find them.

Legend: B images, Q masks, h w their size.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS
from torch import Tensor

from infoclip_mmseg.models.normalisation import Normalisation, normalisation_of, renormalise
from infoclip_mmseg.utils.checkpoint_files import (
    CheckpointError,
    check_state_dict,
    load_checkpoint_file,
)
from infoclip_mmseg.utils.tensors import pad_to_patches, resize


@MODELS.register_module()
class FrozenMaskGenerator:
    """Masks of any model of this package whose head finds masks, such as FC-CLIP or MAFT+.

    It is no module: as an attribute of the segmentor it is in no state dict, no optimizer and no
    bucket of a distributed wrapper, and copies of the segmentor share it. The model is built, and
    its weights are read, when masks are first asked for.

    Args:
        config: File of the model's config, or its ``model`` as a dict.
        checkpoint: Its weights (.pth or .safetensors); None leaves random ones.
        in_training: Whether training learns from these masks; False: from the true ones.
    """

    def __init__(
        self, config: str | dict, checkpoint: str | None = None, in_training: bool = True
    ) -> None:
        self.config, self.checkpoint, self.in_training = config, checkpoint, in_training
        self._model: Any = None

    def __deepcopy__(self, memo: dict) -> FrozenMaskGenerator:
        return self

    @torch.no_grad()
    def __call__(self, images: Tensor, normalisation: Normalisation) -> Tensor:
        """Masks (B, Q, h, w), logits over images (B, 3, H, W) of any size, normalised as told."""
        model = self.model.to(images.device)
        size = (images.shape[-2], images.shape[-1])
        images = renormalise(images, normalisation, normalisation_of(model.data_preprocessor))
        images = pad_to_patches(images, model.backbone.patch_size)
        masks = model.decode_head.propose(model.extract_feat(images))
        if tuple(images.shape[-2:]) == size:
            return masks
        return resize(masks, (images.shape[-2], images.shape[-1]))[..., : size[0], : size[1]]

    @property
    def model(self) -> Any:
        """The model, in evaluation mode and without gradients.

        Raises:
            FileNotFoundError: Config or checkpoint are not there.
            CheckpointError: The checkpoint cannot be read or belongs to another model.
            ValueError: The model's head finds no masks.
        """
        if self._model is None:
            self._model = self._build()
        return self._model

    def _build(self) -> Any:
        for path in (self.config, self.checkpoint):
            if isinstance(path, str) and not Path(path).is_file():
                raise FileNotFoundError(
                    f'model.mask_generator names {path!r}, which does not exist (working directory '
                    f'{Path.cwd()}): train the generator, or convert published weights by '
                    'tools/convert_maftp.py'
                )
        config: Any = self.config
        config = Config.fromfile(config).model if isinstance(config, str) else config
        unused = getattr(MODELS.get(config['type']), 'TRAINING_KEYS', ())
        config = {key: value for key, value in config.items() if key not in unused}
        with DefaultScope.overwrite_default_scope('mmseg'):  # it may be asked for after the start
            model = MODELS.build(config)
        if not model.decode_head.finds_masks:
            raise ValueError(
                f'model.mask_generator has a {type(model.decode_head).__name__}, which finds no '
                'masks; name a config with a MaskClassificationHead'
            )
        if self.checkpoint is not None:
            checkpoint = load_checkpoint_file(self.checkpoint)
            state = checkpoint.get('state_dict', checkpoint)
            try:
                check_state_dict(model, state)
            except CheckpointError as error:
                raise CheckpointError(
                    f'model.mask_generator, {self.checkpoint!r}: {error}'
                ) from None
            model.load_state_dict(state, strict=False)
        return model.eval().requires_grad_(False)
