"""Hooks that keep CLIP near its pretrained weights."""

from __future__ import annotations

import pytest
import torch

from infoclip_mmseg.engine import DecayToStartHook, InterpolationHook


def trained_clip(runner) -> dict[str, torch.Tensor]:
    return {
        name: parameter.detach().clone()
        for name, parameter in runner.model.named_parameters()
        if name.startswith('backbone.') and parameter.requires_grad
    }


def hooks(**pull) -> list[dict]:
    return [dict(type='VocabularyHook'), dict(type='DecayToStartHook', **pull)]


def test_pull_goes_the_said_part_of_the_way(make_runner, toy_cfg, tmp_path):
    """After one step the distance is 1 - lr * weight of that without the hook."""
    lr = 1e-3 * 0.01
    distances = {}
    for weight in (0.0, 0.25 / lr, 10 / lr):
        runner = make_runner(
            toy_cfg(), tmp_path / str(weight), max_iters=1, custom_hooks=hooks(weight=weight)
        )
        start = trained_clip(runner)
        head = runner.model.decode_head.state_dict()
        head = {name: x.clone() for name, x in head.items()}
        runner.train()
        end = trained_clip(runner)
        distances[weight] = {name: end[name] - start[name] for name in start}
        moved = runner.model.decode_head.state_dict()
        assert any(not torch.equal(moved[name], head[name]) for name in head)
    free, quarter, whole = distances.values()
    assert any(x.abs().max() > 0 for x in free.values())
    for name in free:
        torch.testing.assert_close(quarter[name], 0.75 * free[name], atol=1e-8, rtol=2e-2)
        assert whole[name].eq(0).all()


def test_a_resumed_run_is_pulled_to_the_same_start(make_runner, toy_cfg, tmp_path):
    strong = hooks(weight=2e4)
    runner = make_runner(toy_cfg(), tmp_path / 'a', max_iters=4, custom_hooks=strong)
    start = trained_clip(runner)
    runner.train()
    checkpoint = torch.load(tmp_path / 'a/iter_2.pth', weights_only=False)
    saved = checkpoint[DecayToStartHook.ENTRY]
    assert saved.keys() == start.keys()
    assert all(torch.equal(saved[name], start[name]) for name in start)
    resumed = make_runner(
        toy_cfg(),
        tmp_path / 'b',
        max_iters=4,
        custom_hooks=strong,
        resume=True,
        load_from=str(tmp_path / 'a/iter_2.pth'),
    )
    resumed.train()
    for name, expected in trained_clip(runner).items():
        torch.testing.assert_close(trained_clip(resumed)[name], expected, atol=1e-7, rtol=1e-5)


def test_nothing_to_pull_is_said(make_runner, toy_cfg):
    with pytest.raises(ValueError, match="begins with 'backbone.': DecayToStartHook has nothing"):
        make_runner(toy_cfg(backbone=dict(finetune='frozen')), custom_hooks=hooks(weight=1)).train()
    with pytest.raises(ValueError, match='weight must be 0 or more, got -1'):
        DecayToStartHook(-1)


def test_interpolated_checkpoint_in_a_test(make_runner, toy_cfg, toy_weights, tmp_path):
    config = toy_cfg(backbone=dict(pretrained=str(toy_weights), finetune='full'))
    options = dict(custom_hooks=[dict(type='VocabularyHook')])
    runner = make_runner(config, tmp_path / 'a', max_iters=2, **options)
    runner.train()
    tuned = runner.model.state_dict()
    path = str(tmp_path / 'a/iter_2.pth')
    for factor in (0.0, 0.5, 1.0):
        mixed = [*options['custom_hooks'], dict(type='InterpolationHook', factor=factor)]
        tester = make_runner(config, tmp_path / str(factor), load_from=path, custom_hooks=mixed)
        tester.test()
        pretrained = toy_start(tester)
        for name, value in tester.model.state_dict().items():
            expected = tuned[name]
            if name.startswith('backbone.'):
                start = pretrained[name.removeprefix('backbone.')]
                expected = torch.lerp(start, expected, factor) if factor < 1 else expected
            torch.testing.assert_close(value, expected, atol=0, rtol=0)
    with pytest.raises(ValueError, match=r'got -0\.1'):
        InterpolationHook(-0.1)


def toy_start(runner) -> dict[str, torch.Tensor]:
    encoder = runner.model.backbone
    state = {name: x.clone() for name, x in encoder.state_dict().items()}
    encoder.init_weights()
    start = {name: x.clone() for name, x in encoder.state_dict().items()}
    encoder.load_state_dict(state)
    return start
