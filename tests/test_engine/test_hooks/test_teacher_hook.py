"""The frozen teacher through training, resuming and testing of one checkpoint."""

from __future__ import annotations

import copy

import pytest
import torch
from safetensors.torch import load_file

from infoclip_mmseg.models import FrozenTeacher


class TeacherProbe:
    """Wraps ``FrozenTeacher.encode`` to look at the teacher in use."""

    def __init__(self, monkeypatch) -> None:
        self.teachers: list[dict[str, torch.Tensor]] = []
        encode = FrozenTeacher.encode

        def probe(teacher, *args):
            self.teachers.append(copy.deepcopy(teacher.encoder.state_dict()))
            assert not teacher.encoder.training
            return encode(teacher, *args)

        monkeypatch.setattr(FrozenTeacher, 'encode', probe)


def same_as_file(state: dict[str, torch.Tensor], path) -> bool:
    """Whether an encoder's weights are those of a CLIP file with packed projections."""
    expected = load_file(str(path))
    for key, value in expected.items():
        if key.endswith('in_proj_weight'):
            parts = [state[f'clip.{key}'.replace('in_proj', f'{x}_proj')] for x in 'qkv']
            actual = torch.cat(parts)
        else:
            actual = state[f'clip.{key}']
        if not torch.equal(actual, value):
            return False
    return True


@pytest.fixture
def distilled_cfg(toy_cfg, toy_weights):
    return toy_cfg(distill=True, backbone=dict(pretrained=str(toy_weights)))


def test_train_resume_test(make_runner, distilled_cfg, toy_weights, tmp_path, monkeypatch):
    probe = TeacherProbe(monkeypatch)
    runner = make_runner(copy.deepcopy(distilled_cfg), max_iters=4)
    trainable = {n for n, p in runner.model.named_parameters() if p.requires_grad}
    runner.train()
    held = {id(p) for g in runner.optim_wrapper.optimizer.param_groups for p in g['params']}
    assert held == {id(p) for n, p in runner.model.named_parameters() if n in trainable}
    assert not same_as_file(runner.model.backbone.state_dict(), toy_weights)
    assert runner.model.teacher is None

    work_dir = tmp_path / 'work'
    checkpoint = torch.load(work_dir / 'iter_2.pth', weights_only=False)
    assert set(checkpoint['state_dict']) == set(runner.model.state_dict())
    assert not any('teacher' in key for key in checkpoint['state_dict'])
    assert checkpoint['meta']['teacher']['pretrained'] == str(toy_weights)

    resumed = make_runner(
        copy.deepcopy(distilled_cfg),
        work_dir=tmp_path / 'resumed',
        max_iters=4,
        resume=True,
        load_from=str(work_dir / 'iter_2.pth'),
    )
    resumed.train()
    assert len(probe.teachers) == 6
    assert all(same_as_file(teacher, toy_weights) for teacher in probe.teachers)
    for before, after in zip(runner.recorder.losses[2:], resumed.recorder.losses):
        assert before == pytest.approx(after, rel=1e-5)

    # Testing needs neither the teacher nor the pretrained file.
    distilled_cfg['backbone']['pretrained'] = str(tmp_path / 'absent.safetensors')
    tester = make_runner(
        distilled_cfg, work_dir=tmp_path / 'test', load_from=str(work_dir / 'iter_4.pth')
    )
    metrics = tester.test()
    assert tester.model.teacher is None
    assert set(metrics) >= {'mIoU', 'aAcc'}
    assert len(probe.teachers) == 6


def test_random_teacher_survives_resume(make_runner, toy_cfg, tmp_path, monkeypatch):
    probe = TeacherProbe(monkeypatch)
    first = make_runner(toy_cfg(distill=True), max_iters=2)
    initial = copy.deepcopy(first.model.backbone.state_dict())
    first.train()
    second = make_runner(
        toy_cfg(distill=True),
        work_dir=tmp_path / 'again',
        max_iters=3,
        resume=True,
        load_from=str(tmp_path / 'work' / 'iter_2.pth'),
    )
    second.train()
    assert len(probe.teachers) == 3
    for teacher in probe.teachers:
        assert all(torch.equal(teacher[key], value) for key, value in initial.items())


def test_another_teacher_is_refused_on_resume(make_runner, toy_cfg, tmp_path):
    make_runner(toy_cfg(distill=True), max_iters=2).train()
    other = make_runner(
        toy_cfg(distill=True),
        work_dir=tmp_path / 'other',
        max_iters=3,
        resume=True,
        load_from=str(tmp_path / 'work' / 'iter_2.pth'),
        randomness=dict(seed=1),
    )
    with pytest.raises(ValueError, match='trained with teacher .* resume with the same'):
        other.train()


def test_teacher_shares_what_is_not_trained(toy):
    model = toy(distill=True)
    teacher = FrozenTeacher.from_student(model.backbone)
    shared = set(teacher.share_with(model.backbone))
    student = dict(model.backbone.named_parameters())
    own = dict(teacher.encoder.named_parameters())
    for name, parameter in student.items():
        same_memory = own[name].data_ptr() == parameter.data_ptr()
        assert same_memory == (name in shared) == (not parameter.requires_grad)


def test_copies_of_the_model_share_the_teacher(toy):
    model = toy(distill=True)
    model.teacher = FrozenTeacher.from_student(model.backbone)
    assert copy.deepcopy(model).teacher is model.teacher
    assert not any('teacher' in name for name, _ in model.named_parameters())


def test_the_teacher_of_a_run_has_the_type_of_the_hook(make_runner, toy_cfg, monkeypatch):
    types, encode = [], FrozenTeacher.encode
    monkeypatch.setattr(
        FrozenTeacher, 'encode', lambda self, *args: types.append(self.dtype) or encode(self, *args)
    )
    for dtype, expected in ((None, None), ('bfloat16', torch.bfloat16)):
        hooks = [dict(type='FrozenTeacherHook', dtype=dtype), dict(type='VocabularyHook')]
        make_runner(toy_cfg(distill=True), custom_hooks=hooks, max_iters=1).train()
        assert set(types) == {expected}
        types.clear()


def test_no_teacher_is_a_clear_error(make_runner, toy_cfg):
    runner = make_runner(toy_cfg(distill=True), custom_hooks=[dict(type='VocabularyHook')])
    with pytest.raises(RuntimeError, match='FrozenTeacherHook'):
        runner.train()
