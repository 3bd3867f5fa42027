"""DistilledSegmentor on closed-set models of mmseg: losses, gradients, checkpoints, resuming."""

from __future__ import annotations

import copy

import pytest
import torch
from mmengine.config import ConfigDict
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from infoclip_mmseg.losses import info_bottleneck, mutual_information_transfer
from infoclip_mmseg.models.normalisation import CLIP_MEAN, CLIP_STD
from infoclip_mmseg.models.segmentors.vocabulary import Vocabulary

PREPROCESSOR = dict(
    type='SegDataPreProcessor',
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    bgr_to_rgb=True,
    size=(48, 48),
    seg_pad_val=255,
)
FCN = dict(
    type='EncoderDecoder',
    data_preprocessor=PREPROCESSOR,
    backbone=dict(
        type='ResNet',
        depth=18,
        stem_channels=8,
        base_channels=8,
        strides=(1, 2, 1, 1),
        dilations=(1, 1, 2, 4),
        norm_cfg=dict(type='BN', requires_grad=True),
    ),
    decode_head=dict(
        type='FCNHead',
        in_channels=64,
        in_index=3,
        channels=16,
        num_convs=1,
        num_classes=150,
        dropout_ratio=0.0,
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
SEGFORMER = dict(
    type='EncoderDecoder',
    data_preprocessor=PREPROCESSOR,
    backbone=dict(
        type='MixVisionTransformer', embed_dims=8, num_layers=[1, 1, 1, 1], num_heads=[1, 1, 1, 1]
    ),
    decode_head=dict(
        type='SegformerHead',
        in_channels=[8, 8, 8, 8],
        in_index=[0, 1, 2, 3],
        channels=16,
        num_classes=150,
        dropout_ratio=0.0,
        norm_cfg=dict(type='BN', requires_grad=True),
    ),
    train_cfg=dict(),
    test_cfg=dict(mode='whole'),
)
STUDENTS = dict(FCN=FCN, SegFormer=SEGFORMER)
CONV_SEG = dict(module='decode_head.conv_seg', side='input')


def distillation(toy_cfg, **changes) -> dict:
    """Arguments of a toy-sized teacher, LPAM and both losses."""
    model_name = toy_cfg()['backbone']['model_name']
    config = dict(
        teacher=dict(type='CLIPDualEncoder', model_name=model_name),
        dense=CONV_SEG,
        channels=16,
        neck=dict(type='LPAM'),
        loss_ib=dict(type='InfoBottleneckLoss'),
        loss_mi=dict(type='MITransferLoss'),
    )
    config.update(changes)
    return config


def config_of(toy_cfg, student: str = 'FCN', **changes) -> dict:
    return dict(
        type='DistilledSegmentor',
        student=copy.deepcopy(STUDENTS[student]),
        distillation=distillation(toy_cfg, **changes),
    )


def build(config: dict, classes: int = 5):
    torch.manual_seed(0)
    model = MODELS.build(ConfigDict(config))
    model.set_vocabulary([f'thing {i}' for i in range(classes)])
    model.distiller.attach_teacher()
    return model.train()


def samples(batch: int = 2) -> list[SegDataSample]:
    labels = torch.randint(0, 5, (batch, 1, 48, 48))
    return [SegDataSample(gt_sem_seg=PixelData(data=label)) for label in labels]


@pytest.mark.parametrize('student', STUDENTS)
def test_the_model_is_the_student(toy_cfg, student):
    model = build(config_of(toy_cfg, student))
    torch.manual_seed(0)
    plain = MODELS.build(ConfigDict(STUDENTS[student]))
    assert isinstance(model, type(plain))
    assert list(model.state_dict()) == list(plain.state_dict())
    names = {name for name, _ in model.named_parameters()}
    extra = names - {name for name, _ in plain.named_parameters()}
    assert extra and all(name.startswith('distillation.') for name in extra)
    assert not any('teacher' in name for name in names)
    plain.load_state_dict(model.state_dict(), strict=True)
    image = torch.randn(1, 3, 48, 48)
    model.eval(), plain.eval()
    expected = plain.predict(image)[0].seg_logits.data
    assert torch.equal(model.predict(image)[0].seg_logits.data, expected)


@pytest.mark.parametrize('student', STUDENTS)
def test_losses_train_student_and_lpam(toy_cfg, student):
    model = build(config_of(toy_cfg, student))
    losses = model.loss(torch.randn(2, 3, 48, 48), samples())
    assert {'decode.loss_ce', 'loss_ib', 'loss_mi'} <= losses.keys()
    (losses['loss_ib'] + losses['loss_mi']).backward()
    assert all(p.grad is not None for p in model.distillation.parameters())
    touched = {n for n, p in model.backbone.named_parameters() if p.grad is not None}
    assert touched == {n for n, _ in model.backbone.named_parameters()}
    assert model.decode_head.conv_seg.weight.grad is None
    assert all(p.grad is None for p in model.teacher.encoder.parameters())


def test_losses_are_those_of_the_formula(toy_cfg):
    model = build(config_of(toy_cfg, input_size=32))
    inputs, batch = torch.randn(2, 3, 48, 48), samples()
    seen = []
    hook = model.decode_head.conv_seg.register_forward_pre_hook(
        lambda module, args: seen.append(args[0])
    )
    losses = model.loss(inputs, batch)
    hook.remove()

    mean, std = (torch.tensor(v)[:, None, None] for v in (CLIP_MEAN, CLIP_STD))
    own = model.data_preprocessor
    images = ((inputs * own.std + own.mean) - mean) / std
    images = torch.nn.functional.interpolate(images, size=(32, 32), mode='bilinear')
    encoder = model.teacher.encoder
    dense = encoder.encode_image(images).dense.flatten(2).transpose(1, 2)
    text = encoder.embed_prompts(model.vocabulary.prompts)[:, 0]
    parts = model.distillation
    pooled = torch.nn.functional.adaptive_avg_pool2d(seen[0], (4, 4))
    student = parts.projection(pooled).flatten(2).transpose(1, 2)
    teacher_map, student_map = parts.neck(dense, text), parts.neck(student, text)
    expected = info_bottleneck(teacher_map, dense, text)
    torch.testing.assert_close(losses['loss_ib'], expected, rtol=1e-4, atol=1e-5)
    expected = mutual_information_transfer(teacher_map, student_map)
    torch.testing.assert_close(losses['loss_mi'], expected, rtol=1e-4, atol=1e-5)


def test_no_hook_stays_behind(toy_cfg):
    model = build(config_of(toy_cfg))
    model.loss(torch.randn(2, 3, 48, 48), samples())
    assert not model.decode_head.conv_seg._forward_pre_hooks
    with pytest.raises(TypeError):
        model.loss(torch.randn(2, 3, 48, 48), None)
    assert not model.decode_head.conv_seg._forward_pre_hooks


def test_the_student_trains_as_if_alone_at_weight_zero(toy_cfg):
    model = build(
        config_of(toy_cfg, loss_ib=None, loss_mi=dict(type='MITransferLoss', loss_weight=0.0))
    )
    torch.manual_seed(0)
    plain = MODELS.build(ConfigDict(FCN)).train()
    inputs, batch = torch.randn(2, 3, 48, 48), samples()
    for each in (model, plain):
        sum(v for k, v in each.loss(inputs, batch).items() if 'loss' in k).backward()
    for name, parameter in plain.named_parameters():
        torch.testing.assert_close(model.get_parameter(name).grad, parameter.grad)


@pytest.mark.parametrize(
    'loss',
    [
        'KLDistillationLoss',
        'SelfDistillationLoss',
        'RepresentationCompensationLoss',
        'MITransferLoss',
    ],
)
@pytest.mark.parametrize('neck', [None, dict(type='LPAM')], ids=['cosine', 'LPAM'])
def test_any_distillation_loss_reaches_the_student(toy_cfg, loss, neck):
    config = config_of(toy_cfg, neck=neck, loss_ib=None, loss_mi=None)
    config['distillation']['loss_distill'] = [dict(type=loss, loss_name='loss_x')]
    model = build(config)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        value = model.loss(torch.randn(2, 3, 48, 48), samples())['loss_x']
    value.backward()
    assert value.isfinite() and model.backbone.conv1.weight.grad.abs().sum() > 0


def test_copies_keep_the_keys_and_share_the_teacher(toy_cfg):
    model = build(config_of(toy_cfg))
    twin = copy.deepcopy(model)
    assert twin.teacher is model.teacher and type(twin) is type(model)
    assert list(twin.state_dict()) == list(model.state_dict())
    twin.load_state_dict(model.state_dict(), strict=True)
    own, theirs = (m.distillation.neck.query_proj for m in (twin, model))
    assert own is not theirs and torch.equal(own.weight, theirs.weight)


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(dense=dict(module='decode_head.nothing')), "decode_head has .*'conv_seg'"),
        (dict(dense=dict(module='backbone', side='inside')), 'side of'),
        (dict(loss_ib=None, loss_mi=None), 'without a loss'),
    ],
)
def test_bad_configs_are_refused_when_built(toy_cfg, changes, message):
    with pytest.raises(ValueError, match=message):
        MODELS.build(config_of(toy_cfg, **changes))


@pytest.mark.parametrize(
    ('changes', 'message'),
    [
        (dict(channels=8), 'set distillation.channels=16'),
        (dict(dense=dict(module='backbone')), 'a tuple of .*set module, side and index'),
        (dict(dense=dict(module='backbone', index=7)), 'no entry'),
        (dict(text=dict(module='decode_head.conv_seg', index=0)), 'tensor of 2 or 3 dim|text'),
    ],
)
def test_modules_that_give_no_embeddings_are_clear_errors(toy_cfg, changes, message):
    model = build(config_of(toy_cfg, **changes))
    with pytest.raises(ValueError, match=message):
        model.loss(torch.randn(2, 3, 48, 48), samples())


def test_dense_maps_without_gradient_are_refused(toy_cfg):
    config = config_of(toy_cfg, dense=dict(module='backbone', index=0), channels=8)
    model = build(config)
    model.backbone.requires_grad_(False)
    with pytest.raises(ValueError, match='no gradient flows'):
        model.loss(torch.randn(2, 3, 48, 48), samples())


def test_a_student_must_be_a_segmentor(toy_cfg):
    config = config_of(toy_cfg)
    config['student'] = dict(type='ResNet', depth=18)
    with pytest.raises(TypeError, match='must be a segmentor'):
        MODELS.build(config)


def test_no_teacher_or_no_words_is_a_clear_error(toy_cfg):
    model = build(config_of(toy_cfg))
    model.vocabulary = Vocabulary(owner='the teacher')
    with pytest.raises(RuntimeError, match='VocabularyHook'):
        model.loss(torch.randn(2, 3, 48, 48), samples())
    model.teacher = None
    with pytest.raises(RuntimeError, match='FrozenTeacherHook'):
        model.loss(torch.randn(2, 3, 48, 48), samples())


def test_trained_student_loads_without_the_plugin_and_training_resumes(
    make_runner, toy_cfg, tmp_path
):
    config = config_of(toy_cfg)
    runner = make_runner(copy.deepcopy(config), max_iters=4)
    runner.train()
    assert {'decode.loss_ce', 'loss_ib', 'loss_mi'} <= runner.recorder.losses[0].keys()
    checkpoint = torch.load(tmp_path / 'work' / 'iter_4.pth', weights_only=False)
    plain = MODELS.build(ConfigDict(FCN))
    assert plain.load_state_dict(checkpoint['state_dict'], strict=True)
    saved = checkpoint['distillation']
    assert {name.split('.')[0] for name in saved} == {'neck', 'projection'}
    for name, value in runner.model.distiller.checkpoint_entry().items():
        assert torch.equal(saved[name], value)

    resumed = make_runner(
        config,
        work_dir=tmp_path / 'resumed',
        max_iters=4,
        resume=True,
        load_from=str(tmp_path / 'work' / 'iter_2.pth'),
    )
    resumed.train()
    for before, after in zip(runner.recorder.losses[2:], resumed.recorder.losses):
        assert before == pytest.approx(after, rel=1e-4)


def test_a_plain_checkpoint_is_no_resume(make_runner, toy_cfg, tmp_path):
    make_runner(copy.deepcopy(FCN), max_iters=2, custom_hooks=[]).train()
    resumed = make_runner(
        config_of(toy_cfg),
        work_dir=tmp_path / 'resumed',
        max_iters=3,
        resume=True,
        load_from=str(tmp_path / 'work' / 'iter_2.pth'),
    )
    with pytest.raises(ValueError, match='load_from instead of resuming'):
        resumed.train()
