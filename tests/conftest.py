"""Fixtures shared by the tests: toy models, golden numbers, the real images."""

from __future__ import annotations

import copy
import json
import os
import zlib
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.registry import init_default_scope
from mmengine.runner import Runner
from mmseg.registry import MODELS
from PIL import Image
from safetensors.torch import load_file, save_file
from toys import DISTILLATION, TOY_CLIP, TOY_MODEL

import infoclip_mmseg  # noqa: F401  (registers the modules)

DATA = Path(__file__).parent / 'data'
ROOT = Path(__file__).parent.parent


def pytest_configure() -> None:
    """Processes that run tests side by side share the cores."""
    workers = int(os.environ.get('PYTEST_XDIST_WORKER_COUNT', 1))
    if workers > 1:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // workers))


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
def photo(tmp_path):
    """A picture file: left half red, right half blue, 48 high, 64 wide."""
    array = np.zeros((48, 64, 3), np.uint8)
    array[:, :32, 0] = 200
    array[:, 32:, 2] = 200
    path = tmp_path / 'photo.png'
    Image.fromarray(array).save(path)
    return path


@pytest.fixture(scope='session')
def toy():
    """Builder of toy models: ``toy(distill=False, seed=0, **changes)``."""
    return build_toy


@pytest.fixture(scope='session')
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
def fill_rule():
    """The rule by which the golden files' weights follow from keys: ``fill_rule(key, shape)``."""
    return fill


@pytest.fixture(scope='session')
def golden() -> dict[str, torch.Tensor]:
    """Expected numbers of the toy-sized CAT-Seg."""
    return load_file(str(DATA / 'catseg_tiny.safetensors'))


@pytest.fixture(scope='session')
def published_state() -> dict[str, torch.Tensor]:
    """State dict of the toy-sized CAT-Seg in the published layout."""
    shapes = json.loads((DATA / 'catseg_tiny.json').read_text())['state_dict_shapes']
    return {key: fill(key, shape) for key, shape in shapes.items()}


def ade_pipelines(crop: int = 48) -> tuple[list[dict], list[dict]]:
    """Training (without random augmentation) and test pipelines for the real images at toy size."""
    train = [
        dict(type='LoadImageFromFile'),
        dict(type='LoadAnnotations'),
        dict(type='CheckInputs'),
        dict(type='Resize', scale=(crop, crop), keep_ratio=False),
        dict(type='PackSegInputs'),
    ]
    test = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=(10000, 80), keep_ratio=True),
        dict(type='LoadAnnotations'),
        dict(type='CheckInputs'),
        dict(type='PackSegInputs'),
    ]
    return train, test


def runner_config(work_dir: Path, model: dict, max_iters: int = 4, **changes) -> dict:
    """MMEngine config that trains ``model`` on the real images; ``changes`` replace entries."""
    train, test = ade_pipelines()
    dataset = dict(
        type='ADE20KDataset',
        data_root=str(DATA / 'ade'),
        data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
    )
    loader = dict(num_workers=0, persistent_workers=False)
    config = dict(
        default_scope='mmseg',
        custom_imports=dict(imports=['infoclip_mmseg'], allow_failed_imports=False),
        work_dir=str(work_dir),
        experiment_name=f'toy-{work_dir.name}-{work_dir.parent.name}',
        model=model,
        train_dataloader=dict(
            **loader,
            batch_size=2,
            sampler=dict(type='InfiniteSampler', shuffle=True),
            dataset=dict(**dataset, pipeline=train),
        ),
        val_dataloader=dict(
            **loader,
            batch_size=1,
            sampler=dict(type='DefaultSampler', shuffle=False),
            dataset=dict(**dataset, pipeline=test),
        ),
        val_evaluator=dict(type='IoUMetric', iou_metrics=['mIoU']),
        optim_wrapper=dict(
            type='OptimWrapper',
            constructor='GroupedOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1e-3, weight_decay=1e-4),
            clip_grad=dict(max_norm=0.01, scope='all'),
            paramwise_cfg=dict(norm_decay_mult=0.0, custom_keys={'backbone': dict(lr_mult=0.01)}),
        ),
        param_scheduler=[dict(type='CosineAnnealingLR', T_max=100, by_epoch=False, eta_min=0)],
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=max_iters, val_interval=10**6),
        val_cfg=dict(type='ValLoop'),
        test_cfg=dict(type='TestLoop'),
        default_hooks=dict(
            logger=dict(type='LoggerHook', interval=1, log_metric_by_epoch=False),
            checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=2),
        ),
        custom_hooks=[
            dict(type='FrozenTeacherHook'),
            dict(type='VocabularyHook'),
            dict(type='NonFiniteLossHook'),
        ],
        log_processor=dict(by_epoch=False),
        log_level='WARNING',
        randomness=dict(seed=0),
    )
    config['test_dataloader'] = copy.deepcopy(config['val_dataloader'])
    config['test_evaluator'] = copy.deepcopy(config['val_evaluator'])
    config.update(changes)
    return config


class LossRecorder(Hook):
    """Keeps what every training iteration returned."""

    def __init__(self) -> None:
        self.losses: list[dict[str, float]] = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        """Record the losses of the iteration."""
        self.losses.append({key: value.item() for key, value in outputs.items()})


@pytest.fixture
def make_runner(tmp_path):
    """Builder of runners: ``make_runner(model_cfg, work_dir=None, **changes)``.

    The runner has a ``recorder`` whose ``losses`` fill up in training.
    """

    def build(model: dict, work_dir: Path | None = None, **changes):
        config = runner_config(work_dir or tmp_path / 'work', model, **changes)
        runner = Runner.from_cfg(Config(config))
        runner.recorder = LossRecorder()
        runner.register_hook(runner.recorder)
        return runner

    return build


@pytest.fixture(scope='session')
def toy_weights(tmp_path_factory) -> Path:
    """A pretrained CLIP file of the toy architecture, in open_clip's layout."""
    torch.manual_seed(42)
    clip = open_clip.CLIP(**copy.deepcopy(TOY_CLIP))
    path = tmp_path_factory.mktemp('clip') / 'toy.safetensors'
    save_file(clip.state_dict(), str(path))
    return path
