"""A config and a checkpoint to a segmentor that is ready to predict."""

from __future__ import annotations

import copy
import os
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmseg.registry import MODELS, TRANSFORMS
from numpy.typing import NDArray
from torch import Tensor

from infoclip_mmseg.datasets.vocabularies import read_seen_classes
from infoclip_mmseg.models.segmentors.open_vocab import OpenVocabSegmentor
from infoclip_mmseg.utils.checkpoint_files import check_state_dict, load_checkpoint_file

# Larger images are reduced to so many pixels and their label maps enlarged. What the model itself
# looks at is far smaller (640 x 640 as published).
MAX_LABEL_PIXELS = 16_000_000
# Steps of a pipeline that read files; images are read before.
_READING = ('Load', 'CheckInputs', 'InferencerLoader')


def pick_device(device: str | torch.device | None) -> torch.device:
    """The device of a name; None takes CUDA where there is one."""
    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    try:
        chosen = torch.device(device or ('cuda' if torch.cuda.is_available() else 'cpu'))
    except RuntimeError as error:
        wanted = "device must be such as 'cpu', 'cuda', 'cuda:1'"
        raise ValueError(f'{wanted}, got {device!r}') from error
    if chosen.type == 'cuda' and (chosen.index or 0) >= count:
        raise ValueError(
            f'device {str(chosen)!r} is not there: PyTorch {torch.__version__} sees {count} CUDA '
            "devices; use device='cpu'"
        )
    return chosen


def build_segmentor(cfg: Config) -> Any:
    """The segmentor of a config, without what only training needs and with random weights."""
    model_cfg = cfg.get('model') or {}
    if model_cfg.get('type') != 'OpenVocabSegmentor':
        raise ValueError(
            f'{cfg.filename}: expected a config whose model is an OpenVocabSegmentor, got '
            f'{model_cfg.get("type")!r}'
        )
    parts = {k: v for k, v in model_cfg.items() if k not in OpenVocabSegmentor.TRAINING_KEYS}
    with DefaultScope.overwrite_default_scope('mmseg'):
        return MODELS.build(copy.deepcopy(parts))


def load_clip(model: Any, weights: str | None = None) -> None:
    """Load a CLIP's weights into the backbone: a file's, or by default those of the config."""
    backbone = model.backbone
    backbone.pretrained = weights or backbone.pretrained
    backbone.init_weights()


def load_state(model: Any, state: Mapping[str, Tensor]) -> None:
    """Load a segmentor's weights; those of the parts that only train are passed over."""
    check_state_dict(model, state)
    state = {key.removeprefix('module.'): value for key, value in state.items()}
    model.load_state_dict({key: state[key] for key in model.state_dict()})


def load_segmentor(
    cfg: Config, weights: str | os.PathLike[str] | None, device: torch.device
) -> Any:
    """Build the segmentor of a config, without what only training needs, and load its weights.

    These are a checkpoint (.pth or .safetensors). Where the decode head has no weights, None takes
    the pretrained CLIP of the config, and a file may hold a CLIP's weights only.
    """
    model = build_segmentor(cfg)
    read_seen_classes(model)
    checkpoint = {} if weights is None else load_checkpoint_file(weights)
    state = checkpoint.get('state_dict', checkpoint)
    bare = not model.decode_head.trained
    if weights is None and not bare:
        raise ValueError(
            f'a {type(model.decode_head).__name__} has weights of its own: pass '
            "weights=CHECKPOINT, or the config 'world/zero_shot', which needs none"
        )
    if weights is None or (bare and not any('backbone.' in key for key in state)):
        load_clip(model, None if weights is None else str(weights))
    else:
        load_state(model, state)
    return model.to(device).eval().requires_grad_(False)


def pipeline_steps(cfg: Config) -> list[dict[str, Any]]:
    """Configs of the steps of a test pipeline after those that read files."""
    loader = cfg.get('test_dataloader') or {}
    steps = loader.get('dataset', {}).get('pipeline') or cfg.get('test_pipeline')
    steps = steps or [dict(type='PackSegInputs')]
    return [step for step in steps if not step['type'].startswith(_READING)]


def build_pipeline(cfg: Config) -> list[Any]:
    """The steps of a config's test pipeline after those that read files."""
    with DefaultScope.overwrite_default_scope('mmseg'):
        return [TRANSFORMS.build(step) for step in pipeline_steps(cfg)]


def run_pipeline(steps: Sequence[Any], image: NDArray[np.uint8], name: str) -> dict[str, Any]:
    """A BGR image (h, w, 3) through a test pipeline, reduced where it is very large."""
    height, width = image.shape[:2]
    shrink = min(1.0, (MAX_LABEL_PIXELS / (height * width)) ** 0.5)
    target = (max(1, round(height * shrink)), max(1, round(width * shrink)))
    if shrink < 1:
        image = np.asarray(cv2.resize(image, target[::-1], interpolation=cv2.INTER_AREA))
    item: Any = dict(img=image, img_path=name, img_shape=image.shape[:2], ori_shape=target)
    for step in steps:
        item = step(item)
    return item
