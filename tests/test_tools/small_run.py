"""A miniature of InfoCLIP's recipe with data of its own, for runs with several ranks."""

from __future__ import annotations

import socket
from pathlib import Path

import numpy as np
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
FSDP = '_base_/fsdp.py'
HAS_FSDP = tuple(map(int, torch.__version__.split('.')[:2])) >= (2, 7)
CLASSES = ('wall', 'sky', 'tree', 'door', 'lamp')
CONFIG = """
_base_ = {bases}
model = dict(
    data_preprocessor=dict(size=(32, 32)),
    backbone=dict(
        model_name=dict(
            _delete_=True,
            embed_dim=16,
            quick_gelu=True,
            vision_cfg=dict(image_size=32, layers=3, width=32, head_width=16, patch_size=8),
            text_cfg=dict(context_length=77, vocab_size=49408, width=16, heads=2, layers=2),
        ),
        pretrained=None,
        with_cp={with_cp},
        text_cache_dir='text',
        finetune='{finetune}',
    ),
    decode_head=dict(
        hidden_dim=16,
        num_layers=2,
        num_heads=2,
        window_size=2,
        pad_len=8,
        text_proj_dim=8,
        appearance_proj_dim=8,
        decoder_dims=(16, 16),
        decoder_guidance_dims=(16, 8),
        decoder_guidance_proj_dims=(8, 8),
    ),
    input_size=32,
    test_cfg=dict(_delete_=True, mode='whole'),
)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
dataset = dict(
    _delete_=True,
    type='BaseSegDataset',
    metainfo=dict(classes={classes}, palette=[[i, i, i] for i in range(5)]),
    data_root='{data}',
    data_prefix=dict(img_path='images', seg_map_path='labels'),
    img_suffix='.png',
    seg_map_suffix='.png',
    pipeline=pipeline,
)
loader = dict(num_workers=0, persistent_workers=False, dataset=dataset)
train_dataloader = dict(batch_size=4, **loader)
val_dataloader = loader
test_dataloader = loader
val_evaluator = dict(_delete_=True, type='IoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
train_cfg = dict(max_iters=4, val_interval=1000)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
custom_hooks = [
    dict(type='FrozenTeacherHook'),
    dict(type='VocabularyHook'),
    dict(type='NonFiniteLossHook'),
    dict(type='LossRecorder'),
]
"""


def write_images(folder: Path, count: int = 8) -> None:
    rng = np.random.default_rng(0)
    for kind in ('images', 'labels'):
        (folder / kind).mkdir(parents=True)
    for index in range(count):
        image = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(image).resize((32, 32)).save(folder / f'images/{index}.png')
        labels = rng.integers(0, len(CLASSES) + 1, (8, 8), dtype=np.uint8)
        labels[labels == len(CLASSES)] = 255  # ignored
        Image.fromarray(labels).resize((32, 32), 0).save(folder / f'labels/{index}.png')


def write_config(
    folder: Path, name: str, *bases: str, finetune='attention', with_cp=False, backbone=None
) -> str:
    """A config of the miniature; ``backbone`` replaces entries of it and brings a tower of timm."""
    bases = ('infoclip_vitb16_coco-stuff.py', *bases)
    text = CONFIG.format(
        bases=[str(ROOT / 'configs' / base) for base in bases],
        classes=CLASSES,
        data=folder / 'data',
        finetune=finetune,
        with_cp=with_cp,
    )
    if backbone is not None:
        text += f'model["backbone"].update({backbone!r})\n'
        text += 'custom_imports = dict(imports=["infoclip_mmseg", "timm_toys"])\n'
    (folder / f'{name}.py').write_text(text)
    return f'{name}.py'


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]
