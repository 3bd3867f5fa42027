"""How well each place of an image fits each word: cosines, and the relation map of LPAM.

Legend: B images, T classes, C channels, H W grid of patches, h w pixels.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample
from numpy.typing import NDArray
from torch import Tensor

from infoclip_mmseg.utils.checkpoint_files import check_state_dict, load_checkpoint_file
from infoclip_mmseg.utils.tensors import cosine


@dataclass(frozen=True)
class RelationMaps:
    """Maps (T, H, W) of one image for T words, float32: cosines, -1..1, and LPAM's, without a unit.

    Without an LPAM there is no relation.
    """

    names: tuple[str, ...]
    cosine: NDArray[np.float32] = field(repr=False)
    relation: NDArray[np.float32] | None = field(default=None, repr=False)


def relation_maps(relate: Callable, dense: Tensor, text: Tensor) -> Tensor:
    """Relation (B, T, H, W) of dense embeddings (B, C, H, W) and text (T, C).

    ``relate`` is LPAM, the cosine, or another function of positions (B, N, C) and text to
    (B, N, T).
    """
    positions = dense.flatten(2).transpose(1, 2)
    return relate(positions, text).transpose(1, 2).unflatten(2, dense.shape[-2:])


@torch.no_grad()
def dense_embeddings(model: Any, image: NDArray[np.uint8]) -> Tensor:
    """Dense embeddings (1, C, H, W) of a whole image, RGB (h, w, 3), 0..255, as one view."""
    pixels = torch.from_numpy(np.ascontiguousarray(image[..., ::-1].transpose(2, 0, 1)))
    data = dict(inputs=[pixels], data_samples=[SegDataSample()])
    return model.extract_feat(model.data_preprocessor(data, False)['inputs']).dense


@torch.no_grad()
def align(
    model: Any, image: NDArray[np.uint8], names: Sequence[str], lpam: Any = None
) -> RelationMaps:
    """Maps of a whole image, RGB (h, w, 3), 0..255, resized to ``model.input_size`` as one view.

    The model, an ``OpenVocabSegmentor`` in evaluation, keeps the T names as its vocabulary. Not to
    be called while another thread uses it. Without :func:`load_lpam`'s module: cosines only.
    """
    model.set_vocabulary(names)
    dense = dense_embeddings(model, image)
    text = model.backbone.embed_prompts(model.prompts).mean(dim=1)
    maps = [relation_maps(f, dense, text)[0] for f in (cosine, lpam) if f is not None]
    return RelationMaps(tuple(names), *(one.float().cpu().numpy() for one in maps))


def load_lpam(cfg: Config, weights: str | os.PathLike[str] | None, model: Any) -> Any:
    """The trained LPAM of a checkpoint, which inference itself has no use for.

    The module is in evaluation; None where the config has no neck, or the checkpoint no weights
    for it. ``model`` is the segmentor that was built from both.
    """
    neck = cfg.model.get('neck')
    if not neck or weights is None:
        return None
    state = load_checkpoint_file(weights)
    parts = {key.removeprefix('module.'): v for key, v in state.get('state_dict', state).items()}
    weights_of_neck = {k.removeprefix('neck.'): v for k, v in parts.items() if k[:5] == 'neck.'}
    if not weights_of_neck:
        return None
    with DefaultScope.overwrite_default_scope('mmseg'):
        lpam = MODELS.build({'embed_dim': model.backbone.embed_dim, **neck})
    check_state_dict(lpam, weights_of_neck)
    lpam.load_state_dict(weights_of_neck)
    return lpam.to(next(model.backbone.parameters()).device).eval().requires_grad_(False)
