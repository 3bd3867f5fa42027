"""MMEngine's options on a distilled model: compilation, accumulation, EMA, TTA."""

from __future__ import annotations

import math

import pytest
import torch


def finite(runner) -> bool:
    losses = [value for step in runner.recorder.losses for value in step.values()]
    return bool(losses) and all(map(math.isfinite, losses))


@pytest.mark.skipif(
    not hasattr(torch, 'get_autocast_dtype'), reason='dynamo of torch < 2.4 has no properties'
)
@pytest.mark.slow
def test_compile_flag_changes_no_loss(make_runner, toy_cfg, tmp_path):
    """Tracing alone (backend 'eager') shows that the training step survives dynamo."""
    plain = make_runner(toy_cfg(distill=True), max_iters=2)
    plain.train()
    compiled = make_runner(
        toy_cfg(distill=True),
        work_dir=tmp_path / 'compiled',
        max_iters=2,
        compile=dict(backend='eager'),
    )
    compiled.train()
    for expected, got in zip(plain.recorder.losses, compiled.recorder.losses):
        assert got == pytest.approx(expected, rel=1e-3, abs=1e-5)


def test_gradient_accumulation(make_runner, toy_cfg):
    runner = make_runner(toy_cfg(distill=True), max_iters=2)
    runner.cfg.optim_wrapper.accumulative_counts = 2
    runner.optim_wrapper['accumulative_counts'] = 2
    before = {n: p.clone() for n, p in runner.model.named_parameters() if p.requires_grad}
    runner.train()
    assert finite(runner)
    after = dict(runner.model.named_parameters())
    assert any(not torch.equal(after[name], value) for name, value in before.items())


def test_ema_and_validation(make_runner, toy_cfg, tmp_path):
    hooks = ['FrozenTeacherHook', 'VocabularyHook', 'EMAHook']
    runner = make_runner(
        toy_cfg(distill=True),
        max_iters=2,
        custom_hooks=[dict(type=hook) for hook in hooks],
        train_cfg=dict(type='IterBasedTrainLoop', max_iters=2, val_interval=2),
    )
    runner.train()
    assert finite(runner)
    checkpoint = torch.load(tmp_path / 'work' / 'iter_2.pth', weights_only=False)
    assert not any('teacher' in key for key in checkpoint['ema_state_dict'])
