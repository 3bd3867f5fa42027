"""MAFT+ and FC-CLIP as whole models: training, the teacher, panoptic and instance output."""

from __future__ import annotations

import copy

import convnext
import pytest
import torch
from mmengine.structures import PixelData
from mmseg.registry import MODELS
from mmseg.structures import SegDataSample

from infoclip_mmseg.datasets.vocabularies import read_seen_classes

CLASSES = ['wall', 'sky, clouds', 'tree', 'cat']
TEACHER = [dict(type='RepresentationCompensationLoss', compares='trunk')]


def build(toy_cfg, head: dict | None = None, **changes):
    torch.manual_seed(0)
    config = toy_cfg(**convnext.mask_config(**changes))
    config['decode_head'] = {**convnext.MASKS, **(head or {})}
    model = MODELS.build(config)
    model.set_vocabulary(CLASSES)
    return model


def batch(size=(96, 160), count: int = 2):
    torch.manual_seed(1)
    samples = []
    for index in range(count):
        labels = torch.full((1, *size), 255)
        if index != 1:
            labels[:, : size[0] // 2], labels[:, size[0] // 2 :] = 1, 3
        sample = SegDataSample(gt_sem_seg=PixelData(data=labels))
        samples.append(sample)
    return torch.randn(count, 3, *size), samples


def test_a_training_step_reaches_what_trains(toy_cfg):
    model = build(toy_cfg, loss_distill=TEACHER).train()
    teacher = model.distiller.attach_teacher()
    with torch.no_grad():
        for name in model.backbone.trainable_names:
            model.backbone.clip.get_parameter(name).mul_(1.05)
    losses = model.loss(*batch())
    expected = {'loss_ce', 'loss_mask', 'loss_dice', 'loss_mask_aware'}
    expected |= {f'{n}_{i}' for n in ('loss_ce', 'loss_mask', 'loss_dice') for i in (0, 1)}
    assert losses.keys() == {f'decode.{name}' for name in expected} | {'loss_rc'}
    assert all(value.isfinite() for value in losses.values()) and losses['loss_rc'] > 0
    sum(losses.values()).backward()
    missing = [n for n, p in model.named_parameters() if p.requires_grad and p.grad is None]
    assert missing == []
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    trunk = ('backbone.clip.visual.trunk.stem.', 'backbone.clip.visual.trunk.stages.')
    assert all(n.startswith((*trunk, 'decode_head.')) for n in trained)
    assert not any(p.requires_grad for p in teacher.encoder.parameters())
    assert not teacher.encoder.training


def reached_by_gradient(model) -> list[str]:
    named = model.named_parameters()
    return [n for n, p in named if p.grad is not None and p.grad.abs().max() > 0]


def test_which_loss_reaches_what(toy_cfg):
    model = build(toy_cfg).train()
    losses = model.loss(*batch())
    aware = losses.pop('decode.loss_mask_aware')
    aware.backward(retain_graph=True)
    reached = set(reached_by_gradient(model))
    assert all(n.startswith(('backbone.', 'decode_head.transfer.')) for n in reached)
    model.zero_grad()
    sum(losses.values()).backward()
    reached = set(reached_by_gradient(model))
    assert all(n.startswith('decode_head.') and '.transfer.' not in n for n in reached)
    assert 'decode_head.void_embedding.weight' in reached


def test_one_pass_of_the_trunk_a_step(toy_cfg):
    """The published code runs it twice."""
    model = build(toy_cfg).train()
    calls = []
    model.backbone.clip.visual.trunk.stem.register_forward_hook(lambda *_: calls.append(1))
    model.loss(*batch())
    assert len(calls) == 1


def test_fc_clip_trains_its_head_alone(toy_cfg):
    head = dict(transfer=None, loss_mask_aware=None)
    model = build(toy_cfg, head, backbone=dict(finetune='frozen')).train()
    losses = model.loss(*batch())
    sum(losses.values()).backward()
    reached = {n for n, p in model.named_parameters() if p.grad is not None}
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    assert reached == trained and all(n.startswith('decode_head.') for n in trained)


def test_batches_without_targets(toy_cfg):
    """A batch of unlabelled images trains the masks to be void."""
    model = build(toy_cfg).train()
    images, samples = batch(count=2)
    losses = model.loss(images[1:], samples[1:])
    assert losses['decode.loss_mask_aware'] == 0 and losses['decode.loss_mask'] == 0
    assert all(value.isfinite() for value in losses.values())
    sum(losses.values()).backward()


def test_padding_says_nothing(toy_cfg):
    """Images are padded to whole patches, their targets with no mask."""
    model = build(toy_cfg).eval()
    images = torch.rand(2, 3, 70, 100) * 255
    maps = model.segment(images, mode='whole')
    assert maps.shape == (2, 4, 70, 100)
    labels, probability = model.label(images, mode='whole')
    assert torch.equal(labels, maps.argmax(1))
    torch.testing.assert_close(probability, maps.amax(1))
    model.train()
    images, samples = batch((70, 100))
    assert all(value.isfinite() for value in model.loss(images, samples).values())


def test_panoptic(toy_cfg):
    model = build(toy_cfg).eval()
    images = torch.rand(2, 3, 70, 100) * 255
    results = model.panoptic(
        images, ['sky, clouds', 'cat', 'dog'], things=['cat'], score=0.0, overlap=0.0
    )
    assert len(results) == 2 and model.vocabulary.names == tuple(CLASSES)
    for ids, segments in results:
        assert ids.shape == (70, 100)
        assert set(ids.unique().tolist()) - {0} == {s['id'] for s in segments}
        for segment in segments:
            assert segment['area'] == int((ids == segment['id']).sum()) > 0
            assert segment['is_thing'] is (segment['class'] == 'cat')
        stuff = [s['class'] for s in segments if not s['is_thing']]
        assert len(set(stuff)) == len(stuff)
    with pytest.raises(ValueError, match="'Cat' are none of the 3 classes"):
        model.panoptic(images, ['sky', 'cat', 'dog'], things=['Cat'])


@pytest.mark.parametrize('flip', ['horizontal', None])
def test_panoptic_samples_have_labels_too(toy_cfg, flip):
    """One pass gives both, at the size of the file."""
    model = build(toy_cfg).eval()
    images, samples = batch((70, 100))
    meta = dict(ori_shape=(35, 50), flip=flip is not None, flip_direction=flip)
    for sample in samples:
        sample.set_metainfo(meta)
    expected = model.predict(images, copy.deepcopy(samples))
    model.test_cfg['panoptic'] = True
    for sample, semantic in zip(model.predict(images, samples), expected):
        ids = sample.pred_panoptic.data[0]
        assert ids.shape == (35, 50)
        assert set(ids.unique().tolist()) - {0} == {s['id'] for s in sample.pred_segments}
        labels, other = sample.pred_sem_seg.data[0], semantic.pred_sem_seg.data[0]
        assert labels.shape == (35, 50)
        assert (labels == other).float().mean() > 0.95  # masks, not maps, are resized here
        assert 'seg_logits' not in sample


def test_instances(toy_cfg):
    model = build(toy_cfg).eval()
    [(ids, found)] = model.segments(
        torch.rand(1, 3, 70, 100) * 255, task='instance', things=[3], top=8
    )
    assert not ids.any() and all(f['label'] == 3 for f in found)
    assert [f['score'] for f in found] == sorted((f['score'] for f in found), reverse=True)
    assert all(f['mask'].shape == (70, 100) for f in found)
    with pytest.raises(ValueError, match=r"task must be one of \('panoptic', 'instance'\)"):
        model.segments(torch.rand(1, 3, 70, 100), task='semantic')
    with pytest.raises(ValueError, match=r'things \[7\] are no class'):
        model.segments(torch.rand(1, 3, 70, 100), things=[7])


def test_a_checkpoint_of_the_other_form_is_refused(toy_cfg):
    semantic = build(toy_cfg)
    panoptic = build(
        toy_cfg, dict(transfer=dict(type='ContentDependentTransfer', num_heads=4, form='panoptic'))
    )
    with pytest.raises(ValueError, match='semantic form of the transfer, the config has'):
        panoptic.load_state_dict(semantic.state_dict())
    panoptic.load_state_dict(copy.deepcopy(panoptic.state_dict()))


def test_a_vit_has_no_stages_to_find_masks_in(toy_cfg):
    config = toy_cfg(input_size=None, test_cfg=dict(mode='whole'))
    config['decode_head'] = dict(convnext.MASKS)
    with pytest.raises(ValueError, match='needs the stages of a pyramid'):
        MODELS.build(config)


@pytest.mark.parametrize('tokens', ['published', 'positions'])
def test_tokens_of_the_transfer(toy_cfg, tokens):
    transfer = dict(type='ContentDependentTransfer', num_heads=4, tokens=tokens)
    model = build(toy_cfg, dict(transfer=transfer)).eval()
    maps = model.segment(torch.rand(1, 3, 64, 96) * 255, mode='whole')
    assert maps.isfinite().all()


def test_infoclip_meets_maft_plus(toy_cfg):
    """LPAM and both losses between the dense ConvNeXt embeddings of teacher and student."""
    model = build(
        toy_cfg,
        neck=dict(type='LPAM'),
        loss_ib=dict(type='InfoBottleneckLoss'),
        loss_mi=dict(type='MITransferLoss'),
        loss_distill=TEACHER,
    ).train()
    model.distiller.attach_teacher()
    losses = model.loss(*batch())
    assert {'loss_ib', 'loss_mi', 'loss_rc', 'decode.loss_mask_aware'} <= losses.keys()
    losses['loss_mi'].backward()
    assert model.backbone.clip.visual.trunk.stem[0].weight.grad.abs().max() > 0


def test_seen_classes_of_a_vocabulary(toy_cfg):
    """FC-CLIP trusts CLIP less for words that it was trained on."""
    ensemble = dict(alpha=0.4, beta=0.8, seen='voc20')
    head = dict(transfer=None, loss_mask_aware=None, ensemble=ensemble)
    model = build(toy_cfg, head, backbone=dict(finetune='frozen')).eval()
    model.set_vocabulary(['sofa, cat', 'violin', 'bus'])
    images = torch.rand(1, 3, 64, 96) * 255
    with pytest.raises(RuntimeError, match="seen classes 'voc20' were not read"):
        model.segment(images, mode='whole')
    read_seen_classes(model)
    assert model.decode_head._exponents(images).tolist() == pytest.approx([0.4, 0.8, 0.4])
    assert model.segment(images, mode='whole').isfinite().all()
