"""Guard words: relation maps of other words than the training classes."""

from __future__ import annotations

import pytest
import torch

from infoclip_mmseg.losses import Branch
from infoclip_mmseg.models import Distillation
from infoclip_mmseg.models.distillation import distiller as module
from infoclip_mmseg.models.distillation.guard_words import GuardWords
from infoclip_mmseg.models.text import encoder
from infoclip_mmseg.models.text.prompts import build_prompts

CLASSES = ['wall', 'sky', 'tree']
WORDS = ['sofa', 'red car, automobile', 'cat', 'dog']
LOSS = [dict(type='CauchySchwarzLoss')]


@pytest.fixture
def branches(monkeypatch):
    """The branches of teacher and student of each alignment loss, as they come."""
    kept = []

    def keep(teacher: Branch, student: Branch, losses) -> dict:
        kept.append((teacher, student))
        return {}

    monkeypatch.setattr(module, 'distill', keep)
    return kept


def align(model, images) -> None:
    dense = model.extract_feat(images).dense
    text = model.backbone.embed_prompts(model.prompts).mean(1)
    model.distiller.alignment_loss(images, model.prompts, dense, text)


@pytest.mark.parametrize('finetune', ['attention', 'image_attention'])
def test_relation_maps_are_of_the_words(toy, branches, finetune):
    """Of the student's own embeddings where its text tower trains, else of the same ones."""
    model = toy(loss_distill=LOSS, guard_words=WORDS, backbone=dict(finetune=finetune))
    model.set_vocabulary(CLASSES)
    model.distiller.attach_teacher()
    with torch.no_grad():
        for parameter in model.backbone.parameters():
            if parameter.requires_grad:
                parameter.mul_(1.2)
    images = torch.randn(2, 3, 48, 48)
    align(model, images)
    [(teacher, student)] = branches
    prompts = build_prompts(WORDS)
    for branch, clip in ((teacher, model.teacher.encoder), (student, model.backbone)):
        torch.testing.assert_close(branch.text, clip.embed_prompts(prompts).mean(1))
        assert branch.relation.shape == (2, 36, len(WORDS))
    trains = finetune == 'attention'
    assert student.text.requires_grad is trains and not teacher.text.requires_grad
    assert torch.equal(teacher.text, student.text.detach()) is not trains


def test_without_guard_words_the_maps_are_of_the_classes(toy, branches):
    model = toy(loss_distill=LOSS)
    model.set_vocabulary(CLASSES)
    model.distiller.attach_teacher()
    align(model, torch.randn(2, 3, 48, 48))
    assert branches[0][0].relation.shape == (2, 36, len(CLASSES))


def test_frozen_text_is_encoded_once_beside_the_classes(toy, branches, monkeypatch):
    model = toy(loss_distill=LOSS, guard_words=WORDS, backbone=dict(finetune='image_attention'))
    model.set_vocabulary(CLASSES)
    model.distiller.attach_teacher()
    calls = []
    encode = encoder.encode_tokens
    monkeypatch.setattr(
        encoder, 'encode_tokens', lambda *args: calls.append(len(args[1])) or encode(*args)
    )
    model.train()
    for _ in range(3):
        align(model, torch.randn(1, 3, 48, 48))
    assert sorted(calls) == [3, 4, 4]  # classes and words of the student, words of the teacher


def test_losses_of_a_training_step(toy):
    """The words change the loss; the task's does not see them."""
    images = torch.randn(2, 3, 48, 48)
    values = {}
    for words in (None, WORDS):
        model = toy(loss_distill=LOSS, guard_words=words)
        model.set_vocabulary(CLASSES)
        model.distiller.attach_teacher()
        with torch.no_grad():
            for parameter in model.backbone.parameters():
                parameter.mul_(1.05)
        dense = model.extract_feat(images).dense
        text = model.backbone.embed_prompts(model.prompts).mean(1)
        [value] = model.distiller.alignment_loss(images, model.prompts, dense, text).values()
        values[str(words)] = value.item()
    first, second = values.values()
    assert first > 0 and second > 0 and abs(first - second) > 1e-6


def test_foreign_students_have_the_teachers_embeddings(toy_cfg, branches):
    distillation = Distillation(
        teacher=dict(model_name=toy_cfg()['backbone']['model_name']),
        dense=dict(module='decode_head'),
        loss_distill=LOSS,
        guard_words=WORDS,
    )
    distillation.attach_teacher()
    dense = torch.randn(2, distillation.embed_dim, 6, 6)
    own = torch.randn(len(CLASSES), distillation.embed_dim)
    images = torch.randn(2, 3, 48, 48)
    distillation.alignment_loss(images, build_prompts(CLASSES), dense, own)
    [(teacher, student)] = branches
    assert teacher.text is student.text and len(teacher.text) == len(WORDS)


@pytest.mark.parametrize('word', ['sky', 'Sky', ' sky ', 'SKY, heaven'])
def test_training_classes_are_no_guard_words(toy, word):
    model = toy(loss_distill=LOSS, guard_words=['sofa', word])
    model.set_vocabulary(CLASSES)
    model.distiller.attach_teacher()
    with pytest.raises(ValueError, match='1 of 2 guard words are training classes .*leave these'):
        align(model, torch.randn(1, 3, 48, 48))


def test_words_without_a_loss_guard_nothing(toy):
    with pytest.raises(ValueError, match='guard nothing: set loss_distill'):
        toy(guard_words=WORDS)


def test_a_vocabulary_is_read_by_the_hook(toy, make_runner, toy_cfg, tmp_path, caplog):
    model = toy(loss_distill=LOSS, guard_words='ade150')
    model.set_vocabulary(CLASSES)
    model.distiller.attach_teacher()
    with pytest.raises(RuntimeError, match="'ade150' were not read: add dict"):
        align(model, torch.randn(1, 3, 48, 48))

    path = tmp_path / 'words.txt'
    path.write_text('Wall\nsofa bed\nzebra\n')
    config = toy_cfg(loss_distill=LOSS, guard_words=str(path))
    runner = make_runner(config, max_iters=1)
    runner.train()
    assert list(runner.model.distiller.guard.words) == ['sofa bed', 'zebra']
    assert 'loss_cs' in runner.recorder.losses[0]

    path.write_text('wall\nSky\n')
    with pytest.raises(ValueError, match='every guard word of .* is a training class'):
        make_runner(toy_cfg(loss_distill=LOSS, guard_words=str(path)), tmp_path / 'b').train()


def test_every_synonym_mode_gives_one_embedding_a_word():
    classes, tokenizer = build_prompts(CLASSES), lambda texts: torch.tensor([[len(texts)]])
    for synonyms in ('first', 'average', 'max'):
        words = GuardWords(['cat, kitten', 'dog'], synonyms=synonyms)
        words.among = lambda *_: []  # the tokenizer is a stand-in
        assert words.prompts(classes, tokenizer).num_embeddings == 2
