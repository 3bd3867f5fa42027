"""Files of configs/compose: CLIP below closed-set heads, guided CAT-Seg, distilled students."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from mmengine.config import Config, ConfigDict
from mmengine.dataset import Compose
from mmengine.model import revert_sync_batchnorm
from mmengine.optim import build_optim_wrapper
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

FOLDER = Path(__file__).resolve().parents[1] / 'configs/compose'
RUNS = sorted(FOLDER.glob('*.py'))
CLIP_BACKBONES = [path for path in RUNS if '_clip-' in path.stem]
STUDENTS = [path for path in RUNS if path.stem.startswith('infoclip') and 'san' not in path.stem]
TOY_CLIP = dict(
    embed_dim=32,
    quick_gelu=True,
    vision_cfg=dict(image_size=32, layers=10, width=64, head_width=32, patch_size=16),
    text_cfg=dict(context_length=16, vocab_size=49408, width=32, heads=2, layers=1),
)


def name_of(path: Path) -> str:
    return path.stem


def samples(size: tuple[int, int], **meta) -> list[SegDataSample]:
    labels = torch.randint(0, 150, (2, 1, *size))
    meta = dict(ori_shape=size, img_shape=size, **meta)
    return [SegDataSample(gt_sem_seg=PixelData(data=x), metainfo=meta) for x in labels]


def build_on_toy_clip(path: Path):
    """An EncoderDecoder of the configs on a CLIP of 64 channels."""
    model = Config.fromfile(path).model
    model.backbone.update(model_name=TOY_CLIP, pretrained=None)
    if 'neck' in model:
        model.neck.update(in_channels=[64, 64, 64, 32], out_channels=16)
        model.decode_head.in_channels = [16] * 4
    else:
        model.decode_head.in_channels = 64
    model.decode_head.channels = 16
    return MODELS.build(model)


@pytest.mark.parametrize('path', RUNS, ids=name_of)
def test_a_run_is_short_starts_with_its_command_and_has_pipelines(path):
    lines = path.read_text().splitlines()
    assert len(lines) <= 20
    assert lines[1] == f'# python tools/train.py configs/compose/{path.name}'
    cfg = Config.fromfile(path)
    assert cfg.custom_imports.imports == ['infoclip_mmseg']
    Compose(cfg.train_dataloader.dataset.pipeline)
    Compose(cfg.test_dataloader.dataset.pipeline)
    hooks = [hook.type for hook in cfg.get('custom_hooks', [])]
    assert ('FrozenTeacherHook' in hooks) is (cfg.model.type == 'DistilledSegmentor')


@pytest.mark.parametrize('path', CLIP_BACKBONES, ids=name_of)
def test_clip_is_a_backbone_of_plain_encoder_decoders(path):
    model = build_on_toy_clip(path)
    assert type(model).__name__ == 'EncoderDecoder'
    strides = {'fcn': [16] * 4}.get(path.stem.split('_')[0], [4, 8, 16, 32])
    maps = model.extract_feat(torch.randn(2, 3, 64, 96))
    assert [(64 // m.shape[2], 96 // m.shape[3]) for m in maps] == [(s, s) for s in strides]
    losses = model.train().loss(torch.randn(2, 3, 64, 64), samples((64, 64)))
    losses['decode.loss_ce'].backward()
    trained = {n for n, p in model.backbone.named_parameters() if p.grad is not None}
    assert any('q_proj_weight' in n for n in trained) and any('v_proj_weight' in n for n in trained)
    assert all('visual' in name for name in trained)


@pytest.mark.parametrize('path', CLIP_BACKBONES, ids=name_of)
def test_images_of_any_size_are_predicted(path):
    model = build_on_toy_clip(path).eval()
    image = torch.randint(0, 256, (3, 50, 71), dtype=torch.uint8)
    data = dict(inputs=[image], data_samples=samples((50, 71))[:1])
    assert model.test_step(data)[0].pred_sem_seg.shape == (50, 71)


@pytest.mark.parametrize('path', STUDENTS, ids=name_of)
def test_closed_set_students_get_all_losses(path):
    cfg = Config.fromfile(path)
    model = cfg.model
    model.distillation.teacher.update(model_name=TOY_CLIP, pretrained=None)
    model.student.pretrained = None
    model = revert_sync_batchnorm(MODELS.build(model))
    model.set_vocabulary([f'thing {i}' for i in range(150)])
    model.distiller.attach_teacher()
    losses = model.train().loss(torch.randn(2, 3, 64, 64), samples((64, 64)))
    assert {'decode.loss_ce', 'loss_ib', 'loss_mi'} <= losses.keys()
    losses['loss_mi'].backward()
    assert all(p.grad is not None for p in model.backbone.parameters())
    optimizer = build_optim_wrapper(model, cfg.optim_wrapper).optimizer
    rates = {id(p): g['lr'] for g in optimizer.param_groups for p in g['params']}
    assert rates[id(model.distillation.neck.query_proj.weight)] == pytest.approx(1.8e-4)
    assert rates[id(model.decode_head.conv_seg.weight)] == pytest.approx(6e-4)
    assert rates[id(next(model.backbone.parameters()))] == pytest.approx(6e-5)


@pytest.mark.parametrize(
    'name', ['catseg_r50_vitb16_coco-stuff', 'catseg_swin-b_vitb16_coco-stuff']
)
def test_cat_seg_is_guided_by_the_named_backbone(name):
    cfg = Config.fromfile(FOLDER / f'{name}.py')
    cfg.model.backbone.update(model_name=TOY_CLIP, pretrained=None, out_blocks=None)
    model = MODELS.build(cfg.model).eval()
    model.set_vocabulary(['wall', 'sky'])
    strides = [96 // m.shape[-1] for m in model.guidance.backbone(torch.randn(1, 3, 96, 96))]
    assert strides == [4, 8, 16]
    model.input_size = (96, 96)
    assert model.segment(torch.rand(1, 3, 60, 80) * 255, mode='whole').shape == (1, 2, 24, 24)


def test_a_clip_encoder_decoder_can_be_a_student(toy_cfg):
    clip = toy_cfg()['backbone']['model_name']
    student = dict(
        type='EncoderDecoder',
        data_preprocessor=dict(type='SegDataPreProcessor', bgr_to_rgb=True),
        backbone=dict(type='CLIPDualEncoder', model_name=clip, out_blocks=(0, 1, 2)),
        decode_head=dict(type='FCNHead', in_channels=128, in_index=2, channels=16, num_classes=150),
        train_cfg=dict(),
        test_cfg=dict(mode='whole'),
    )
    # The backbone's own dense embeddings: in CLIP's space, so no projection.
    distillation = dict(
        teacher=dict(model_name=clip),
        dense=dict(module='backbone', index=-1),
        loss_mi=dict(type='MITransferLoss'),
    )
    config = dict(type='DistilledSegmentor', student=student, distillation=distillation)
    model = MODELS.build(ConfigDict(config))
    model.set_vocabulary(['a', 'b', 'c'])
    model.distiller.attach_teacher()
    model.train().loss(torch.randn(2, 3, 48, 48), samples((48, 48)))['loss_mi'].backward()
    assert list(model.distillation.parameters()) == []
    assert any(p.grad is not None for p in model.backbone.parameters())
