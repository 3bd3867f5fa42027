"""Self-distillation: what CLIP sees in a window alone becomes its dense embedding there.

Legend: B images, C channels of the joint space, H W grid of patches, h w pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from mmengine.model import BaseModel
from mmseg.registry import MODELS
from torch import Tensor

from infoclip_mmseg.models.backbones.dual_encoder import CLIPDualEncoder
from infoclip_mmseg.models.distillation.distiller import Distiller, Student


@torch.no_grad()
def window_embeddings(encoder: CLIPDualEncoder, images: Tensor, windows: Sequence[int]) -> Tensor:
    """Pooled embeddings of the windows around each position, each cut out and encoded alone.

    Args:
        encoder: The model that looks at the windows.
        images: Normalised images (B, 3, h, w).
        windows: Sides of the windows in pixels, multiples of the patch; the embeddings of a
            position's windows are averaged. Beyond the image's edge its last pixels are repeated.

    Returns:
        Unit vectors (B, C, H, W).
    """
    height, width = encoder.patch_size
    grid = images.shape[-2] // height, images.shape[-1] // width
    total = torch.zeros((), device=images.device)
    for side in windows:
        top, left = (side - height) // 2, (side - width) // 2
        edge = (left, side - width - left, top, side - height - top)
        padded = F.pad(images, edge, mode='replicate')
        parts = padded.unfold(2, side, height).unfold(3, side, width)
        # (B, 3, H, W, sh, sw) -> (B H W, 3, sh, sw)
        pooled = encoder.encode_pooled(parts.permute(0, 2, 3, 1, 4, 5).flatten(0, 2))
        total = total + F.normalize(pooled.float(), dim=-1)
    return F.normalize(total, dim=-1).unflatten(0, (len(images), *grid)).permute(0, 3, 1, 2)


@MODELS.register_module()
class SelfDistilledCLIP(Student, BaseModel):
    """Dense embeddings learn to say what the pooled embedding says of the same place, cut out.

    As CLIPSelf (arXiv 2310.01403): windows of the image are cut out and a frozen copy of the model
    encodes each alone; the dense embedding at the window's centre moves towards it (one minus
    their cosine). The text tower does not train, and neither captions nor labels are read.

    Args:
        backbone: Config of a :class:`~infoclip_mmseg.models.CLIPDualEncoder` with pretrained
            weights; its ``dense_mode`` is the reading that learns.
        windows: Sides in pixels of the windows around each position that the teacher looks at;
            its embeddings of them are averaged.
        data_preprocessor: Config of a :class:`ViewPreprocessor`.
        init_cfg: See ``mmengine.model.BaseModel``.
    """

    def __init__(
        self,
        backbone: dict,
        windows: tuple[int, ...] = (8,),
        data_preprocessor: dict | None = None,
        init_cfg: dict | None = None,
    ) -> None:
        super().__init__(data_preprocessor=data_preprocessor, init_cfg=init_cfg)
        self.backbone = MODELS.build(backbone)
        patch = max(self.backbone.patch_size)
        if not windows or any(side < patch or side % patch for side in windows):
            raise ValueError(
                f'windows must be multiples of the patch of {patch} pixels, got {windows}'
            )
        clip: Any = self.backbone.clip
        visual = {id(parameter) for parameter in clip.visual.parameters()}
        for parameter in clip.parameters():
            parameter.requires_grad_(id(parameter) in visual)
        self.windows = tuple(windows)
        self.distiller = Distiller(self.backbone)

    def forward(
        self, images: dict[str, Tensor], texts: dict[str, list[str]], mode: str = 'loss'
    ) -> dict[str, Tensor]:
        """Losses of a batch; see :meth:`ContrastiveCLIP.forward`. ``texts`` are not read.

        Raises:
            ValueError: Another mode than 'loss'.
            RuntimeError: There is no teacher.
        """
        if mode != 'loss':
            raise ValueError(f"SelfDistilledCLIP only knows mode='loss', got {mode!r}")
        if self.teacher is None:
            raise RuntimeError("no teacher: add dict(type='FrozenTeacherHook') to custom_hooks")
        losses = {}
        for size, views in images.items():
            features = self.backbone.encode_image(views)
            target = window_embeddings(self.teacher.encoder, views, self.windows)
            losses[f'loss_{size}'] = 1 - F.cosine_similarity(features.dense, target, dim=1).mean()
        return losses
