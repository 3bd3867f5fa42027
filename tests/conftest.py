"""Fixtures shared by the tests: toy models, golden numbers, the real images."""

from __future__ import annotations

import copy
import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import infoclip_mmseg  # noqa: F401  (registers the modules)
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS

DATA = Path(__file__).parent / 'data'
ROOT = Path(__file__).parent.parent

TOY_CLIP = dict(
    embed_dim=32,
    quick_gelu=True,
    vision_cfg=dict(image_size=32, layers=4, width=128, head_width=64, patch_size=8),
    text_cfg=dict(context_length=77, vocab_size=49408, width=64, heads=2, layers=2),
)
CLIP_MEAN = [122.7709383, 116.7460125, 104.09373615]
CLIP_STD = [68.5005327, 66.6321579, 70.32316305]
TOY_MODEL = dict(
    type='OpenVocabSegmentor',
    data_preprocessor=dict(
        type='OpenVocabDataPreProcessor',
        mean=CLIP_MEAN,
        std=CLIP_STD,
        bgr_to_rgb=True,
        pad_val=0,
        seg_pad_val=255,
        size=(48, 48),
    ),
    backbone=dict(type='CLIPDualEncoder', model_name=TOY_CLIP, out_blocks=(1, 2)),
    decode_head=dict(
        type='CATSegHead',
        hidden_dim=32,
        num_layers=2,
        num_heads=2,
        window_size=3,
        pad_len=8,
        text_proj_dim=16,
        appearance_proj_dim=16,
        decoder_dims=(32, 16),
        decoder_guidance_dims=(32, 16),
        decoder_guidance_proj_dims=(16, 8),
    ),
    input_size=48,
    test_cfg=dict(mode='slide', size=80, window=48, overlap=0.333, view_batch_size=4),
)
DISTILLATION = dict(
    neck=dict(type='LPAM'),
    loss_ib=dict(type='InfoBottleneckLoss'),
    loss_mi=dict(type='MITransferLoss'),
)


def toy_config(distill: bool = False, **changes) -> dict:
    """Config of a toy-sized model; ``changes`` update top-level dicts or replace entries."""
    config = copy.deepcopy(TOY_MODEL)
    if distill:
        config.update(copy.deepcopy(DISTILLATION))
    for key, value in changes.items():
        if isinstance(value, dict) and isinstance(config.get(key), dict):
            config[key].update(value)
        else:
            config[key] = value
    return config


def build_toy(distill: bool = False, seed: int = 0, **changes):
    """Toy-sized model with weights that depend on the seed only."""
    init_default_scope('mmseg')
    torch.manual_seed(seed)
    return MODELS.build(toy_config(distill, **changes))


@pytest.fixture(autouse=True)
def mmseg_scope():
    """Every test runs in mmseg's scope with a fixed seed."""
    init_default_scope('mmseg')
    torch.manual_seed(0)


@pytest.fixture
def toy():
    """Builder of toy models: ``toy(distill=False, seed=0, **changes)``."""
    return build_toy


@pytest.fixture
def toy_cfg():
    """Builder of toy model configs: ``toy_cfg(distill=False, **changes)``."""
    return toy_config


@pytest.fixture(scope='session')
def ade_root() -> Path:
    """Three real ADE20K images with labels in mmseg's folder layout."""
    return DATA / 'ade'


def fill(key: str, shape: list[int]) -> torch.Tensor:
    """The golden files' weights: a tensor that follows from its key."""
    random = np.random.RandomState(zlib.crc32(key.encode())).standard_normal(shape)
    random = np.asarray(random, dtype=np.float32)
    if not shape:
        value = np.float32(1.0)
    elif key.endswith('bias'):
        value = 0.02 * random
    elif len(shape) == 1:
        value = 1 + 0.05 * random if key.endswith('weight') else 0.05 * random
    else:
        value = random / np.sqrt(np.prod(shape[1:]))
    return torch.from_numpy(np.asarray(value, dtype=np.float32))


@pytest.fixture(scope='session')
def golden() -> dict[str, torch.Tensor]:
    """Expected numbers of the toy-sized CAT-Seg."""
    return load_file(str(DATA / 'catseg_tiny.safetensors'))


@pytest.fixture(scope='session')
def published_state() -> dict[str, torch.Tensor]:
    """State dict of the toy-sized CAT-Seg in the published layout."""
    shapes = json.loads((DATA / 'catseg_tiny.json').read_text())['state_dict_shapes']
    return {key: fill(key, shape) for key, shape in shapes.items()}
