"""The distiller of both segmentors: teacher, neck, losses, and what checkpoints keep."""

from __future__ import annotations

import copy

import pytest
import torch

from infoclip_mmseg.engine import FrozenTeacherHook
from infoclip_mmseg.losses import info_bottleneck, mutual_information_transfer
from infoclip_mmseg.models import Distillation
from infoclip_mmseg.models.distillation.distiller import Distiller

WORDS = ['wall', 'sky', 'tree']


def foreign(toy_cfg, **changes) -> Distillation:
    config = dict(
        teacher=dict(model_name=toy_cfg()['backbone']['model_name']),
        dense=dict(module='decode_head'),
        channels=16,
        neck=dict(type='LPAM'),
        loss_mi=dict(type='MITransferLoss'),
    )
    return Distillation(**{**config, **changes})


def test_losses_are_those_of_the_paper(toy):
    model = toy(distill=True)
    model.set_vocabulary(WORDS)
    model.distiller.attach_teacher()
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            parameter.mul_(1.05)
    images = torch.randn(2, 3, 48, 48)
    dense = model.extract_feat(images).dense
    text = model.backbone.embed_prompts(model.prompts).mean(1)
    losses = model.distiller.alignment_loss(images, model.prompts, dense, text)

    encoder = model.teacher.encoder
    teacher_dense = encoder.encode_image(images).dense.flatten(2).transpose(1, 2)
    teacher_text = encoder.embed_prompts(model.prompts).mean(1)
    first = model.neck(teacher_dense, teacher_text)
    second = model.neck(dense.flatten(2).transpose(1, 2), text)
    assert not torch.allclose(first, second, atol=1e-3)
    expected = dict(
        loss_ib=info_bottleneck(first, teacher_dense, teacher_text),
        loss_mi=mutual_information_transfer(first, second),
    )
    assert losses.keys() == expected.keys()
    for name, value in losses.items():
        torch.testing.assert_close(value, expected[name], rtol=1e-4, atol=1e-5)


def test_keys_are_those_of_neck_and_model(toy):
    model, plain = toy(distill=True), toy()
    extra = set(model.state_dict()) - set(plain.state_dict())
    assert extra and all(key.startswith('neck.') for key in extra)
    model.distiller.attach_teacher()
    assert set(model.state_dict()) - set(plain.state_dict()) == extra
    assert model.distiller.checkpoint_entry() is None


def test_a_copy_distils_with_its_parts_and_the_same_teacher(toy):
    model = toy(distill=True)
    teacher = model.distiller.attach_teacher()
    twin = copy.deepcopy(model)
    assert twin.distiller.neck is twin.neck and twin.neck is not model.neck
    assert twin.distiller.encoder is twin.backbone
    assert twin.distiller.losses is twin.distillation_losses
    assert twin.teacher is twin.distiller.teacher is teacher


def test_the_teacher_is_made_once_and_shares_what_is_not_trained(toy):
    model = toy(distill=True)
    distiller = model.distiller
    assert distiller.share_with_teacher() == []
    teacher = distiller.attach_teacher()
    assert distiller.attach_teacher() is model.teacher is teacher
    frozen = {n for n, p in model.backbone.named_parameters() if not p.requires_grad}
    assert frozen and frozen <= set(distiller.share_with_teacher())


@pytest.mark.parametrize(
    ('changes', 'needed'),
    [
        ({}, False),
        (dict(neck=dict(type='LPAM')), True),
        (dict(loss_distill=[dict(type='SelfDistillationLoss')]), True),
    ],
)
def test_who_needs_a_teacher(toy, changes, needed):
    model = toy(**changes)
    model.set_vocabulary(WORDS)
    assert model.distiller.needs_teacher is needed
    if needed:
        with pytest.raises(RuntimeError, match='a neck or a distillation loss but no teacher'):
            model.distiller.alignment_loss(torch.zeros(1, 3, 48, 48), model.prompts, None, None)


def test_weights_of_a_foreign_distillation_are_in_its_entry_only(toy_cfg):
    distillation, other = foreign(toy_cfg), foreign(toy_cfg)
    assert not distillation.state_dict()
    entry = distillation.checkpoint_entry()
    assert {'neck.query_proj.weight', 'projection.weight', 'projection.bias'} <= entry.keys()
    assert len(entry) == len(list(distillation.parameters()))
    assert not torch.equal(other.projection.weight, distillation.projection.weight)
    other.restore(entry, resumes=True)
    for name, value in other.checkpoint_entry().items():
        assert torch.equal(value, entry[name])
    other.load_state_dict({}, strict=True)  # a student's, which has none of them


def test_entries_that_do_not_fit_are_refused(toy_cfg):
    distillation = foreign(toy_cfg)
    entry = distillation.checkpoint_entry()
    distillation.restore(None, resumes=False)
    with pytest.raises(ValueError, match='load_from instead of resuming'):
        distillation.restore(None, resumes=True)
    with pytest.raises(RuntimeError, match='Unexpected key.*projection'):
        foreign(toy_cfg, channels=None).restore(entry, resumes=True)
    del entry['projection.bias']
    with pytest.raises(RuntimeError, match='Missing key.*projection.bias'):
        distillation.restore(entry, resumes=True)


def test_the_teacher_of_a_config_follows_from_a_seed_and_draws_nothing(toy_cfg):
    distillation = foreign(toy_cfg)
    prints = set()
    for seed in (1, 2):
        torch.manual_seed(seed)
        state = torch.get_rng_state()
        prints.add(distillation.build_teacher().fingerprint())
        assert torch.equal(torch.get_rng_state(), state)
    assert len(prints) == 1
    assert not any('teacher' in name for name, _ in distillation.named_modules())
    assert distillation.attach_teacher('cpu') is distillation.teacher
    assert distillation.share_with_teacher() == []


def test_a_distiller_without_encoder_or_config_says_so():
    with pytest.raises(NotImplementedError, match='build_teacher'):
        Distiller(None).attach_teacher()


def test_a_teacher_in_half_the_bits(toy):
    """Its image tower only, near float32's embeddings; what it gives is float32."""
    model = toy(distill=True)
    model.set_vocabulary(WORDS)
    teacher = model.distiller.attach_teacher()
    images = torch.randn(2, 3, 48, 56)
    usual, text = teacher.encode(images, model.prompts)
    teacher.dtype = torch.bfloat16
    short, same = teacher.encode(images, model.prompts)
    assert same is text
    for a, b in zip(
        (short.dense, short.cls, *short.blocks), (usual.dense, usual.cls, *usual.blocks)
    ):
        assert a.dtype == torch.float32
        error = (a - b).norm() / b.norm()
        assert 0 < error < 0.03  # bfloat16 has 8 bits
    square = images[..., :48]
    dense = model.extract_feat(square).dense
    mean = model.backbone.embed_prompts(model.prompts).mean(1)
    losses = model.distiller.alignment_loss(square, model.prompts, dense, mean)
    assert all(loss.isfinite() and loss.dtype == torch.float32 for loss in losses.values())
    with pytest.raises(ValueError, match="None, 'bfloat16' or 'float16', got 'bf16'"):
        FrozenTeacherHook(dtype='bf16')
    assert FrozenTeacherHook(dtype='bfloat16').dtype == torch.bfloat16
