"""InfoCLIP, CAT-Seg and zero-shot segmentation on EVA-02, SigLIP and others, on the real images."""

from __future__ import annotations

import math

import pytest
import torch
from mmengine.runner import load_checkpoint
from mmseg.registry import MODELS
from timm_toys import MODES, clip_config

from infoclip_mmseg.models import FrozenTeacher

WORDS = ['wall', 'sky', 'tree', 'cat']
TRAINED = ['toy_eva02', 'toy_siglip']


def backbone(kind: str, **changes) -> dict:
    return dict(model_name=clip_config(kind), dense_mode=MODES[kind], out_blocks=(1, 2), **changes)


@pytest.mark.parametrize('amp', [False, True])
@pytest.mark.parametrize('kind', TRAINED)
def test_infoclip_trains_on_the_real_images(
    kind, amp, toy, toy_cfg, make_runner, tmp_path, monkeypatch
):
    changes = {}
    if amp:
        optimizer = dict(type='AdamW', lr=1e-3)
        wrapper = dict(type='BFloat16OptimWrapper', optimizer=optimizer)
        constructor = 'GroupedOptimWrapperConstructor'
        changes = dict(optim_wrapper=dict(**wrapper, constructor=constructor))
    runner = make_runner(toy_cfg(distill=True, backbone=backbone(kind)), **changes)
    model = runner.model
    teachers, encode = [], FrozenTeacher.encode
    monkeypatch.setattr(
        FrozenTeacher, 'encode', lambda t, *args: teachers.append(t.encoder) or encode(t, *args)
    )
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    runner.train()
    losses = runner.recorder.losses
    assert len(losses) == 4
    assert all(math.isfinite(value) for step in losses for value in step.values())
    assert losses[-1]['decode.loss_seg'] < losses[0]['decode.loss_seg']
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    trained = {f'backbone.clip.{name}' for name in model.backbone.trainable_names}
    unused = {n for n in trained if n not in moved}
    assert {n for n in moved if n.startswith('backbone.')} == trained - unused
    assert all('blocks.3.' in name for name in unused) and len(unused) == (kind == 'toy_eva02')
    # The teacher stays what the student was.
    assert len(teachers) >= 4 and not teachers[-1].training
    teacher = teachers[-1].clip.named_parameters()
    assert all(torch.equal(p, before[f'backbone.clip.{name}']) for name, p in teacher)
    if amp:
        return
    other = toy(distill=True, seed=1, backbone=backbone(kind)).eval()
    load_checkpoint(other, str(tmp_path / 'work/iter_4.pth'), map_location='cpu')
    images = torch.rand(2, 3, 60, 90) * 255
    first, second = (m.eval().segment(images, WORDS, mode='slide') for m in (model, other))
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)


@pytest.mark.parametrize('kind', MODES)
def test_zero_shot(kind, toy):
    """On two different images that are not square, with any of the towers."""
    frozen = backbone(kind, finetune='frozen')
    model = toy(backbone=frozen, input_size=None, test_cfg=dict(mode='whole'))
    model.decode_head = MODELS.build(dict(type='ZeroShotHead'))
    model.eval()
    images = torch.rand(2, 3, 48, 72) * 255
    both = model.segment(images, WORDS, mode='whole')
    assert both.shape == (2, 4, 6, 9) and (both[0] - both[1]).abs().max() > 0
    torch.testing.assert_close(both[1:], model.segment(images[1:], WORDS, mode='whole'))
    labels, probability = model.label(images, WORDS, mode='whole')
    assert labels.shape == (2, 48, 72) and (probability >= 0.25).all()


@pytest.mark.parametrize('kind', MODES)
def test_cat_seg_is_guided_by_its_blocks(kind, toy):
    model = toy(backbone=backbone(kind), input_size=48)
    model.set_vocabulary(WORDS)
    features = model.extract_feat(torch.randn(2, 3, 48, 48))
    assert [m.shape for m in features.blocks] == [(2, 64, 6, 6)] * 2
    text = model.backbone.embed_prompts(model.prompts)
    logits = model.decode_head(features, text)
    assert logits.shape == (2, 4, 24, 24)
    logits.square().mean().backward()
    named = dict(model.backbone.clip.named_parameters())
    without = [n for n in model.backbone.trainable_names if named[n].grad is None]
    assert len(without) == (kind not in ('toy_siglip', 'toy_pe'))  # the last block's query
