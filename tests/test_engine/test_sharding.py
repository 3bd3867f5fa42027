"""Parts of sharded training that one process can show; see test_tools/test_joint_batch.py."""

from __future__ import annotations

import math

import pytest
import torch
from mmengine.config import Config
from torch import distributed

from infoclip_mmseg.engine.launch import enable_amp
from infoclip_mmseg.engine.optim import GroupedClip, gradient_norm
from infoclip_mmseg.engine.sharding import (
    FullyShardedStrategy,
    gather_state,
    shard_like,
    shard_model,
    shard_units,
)

HAS_FSDP = tuple(map(int, torch.__version__.split('.')[:2])) >= (2, 7)
needs_fsdp = pytest.mark.skipif(not HAS_FSDP, reason='needs torch 2.7')


@pytest.fixture
def group():
    """A process group of this process alone."""
    distributed.init_process_group('gloo', store=distributed.HashStore(), rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_units_are_the_blocks_that_train_and_run_as_a_whole(toy):
    model = toy(distill=True)
    names = {id(module): name for name, module in model.named_modules()}
    units = [names[id(module)] for module in shard_units(model)]
    image, text = 'backbone.clip.visual.transformer', 'backbone.clip.transformer'
    assert sorted(units) == sorted(
        [*(f'{image}.resblocks.{i}' for i in range(3)), f'{text}.resblocks.0']
    )
    assert not list(shard_units(toy(backbone=dict(finetune='frozen'))))


@needs_fsdp
def test_only_what_trains_is_sharded_and_comes_back_whole(toy, group):
    model = toy(distill=True)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shard_model(model)
    for parameter in model.parameters():
        assert hasattr(parameter, 'placements') is parameter.requires_grad
    after = gather_state(dict(model.state_dict()))
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    weight = model.decode_head.conv_seg.weight
    part = shard_like(torch.full(weight.shape, 2.0), weight)
    assert part.placements == weight.placements
    assert shard_like(torch.tensor(3.0), weight).shape == ()  # AdamW's step


@needs_fsdp
@pytest.mark.parametrize('norm_type', [2.0, math.inf])
def test_norm_and_clip_of_sharded_gradients(group, norm_type):
    layer = torch.nn.Linear(3, 3)
    shard_model(layer)
    layer(torch.ones(2, 3)).square().sum().backward()
    whole = [p.grad.full_tensor().clone() for p in layer.parameters()]
    expected = torch.linalg.vector_norm(torch.cat([g.flatten() for g in whole]), norm_type)
    torch.testing.assert_close(
        gradient_norm([p.grad for p in layer.parameters()], norm_type), expected
    )
    clip = GroupedClip({'layer': list(layer.parameters())})
    torch.testing.assert_close(clip(layer.parameters(), 0.5, norm_type), expected)
    for parameter, gradient in zip(layer.parameters(), whole):
        torch.testing.assert_close(
            parameter.grad.full_tensor(), gradient * (0.5 / expected), rtol=1e-4, atol=1e-6
        )


@needs_fsdp
def test_a_shard_size_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match='shard_size=2 must divide the number of ranks, .* is 1'):
        shard_model(torch.nn.Linear(1, 1), shard_size=2)


def test_a_run_without_a_launcher_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r'tools/dist_train\.sh CONFIG GPUS'):
        FullyShardedStrategy(work_dir=str(tmp_path), env_kwargs=dict(launcher='none'))


def test_a_distilled_segmentor_is_refused():
    model = torch.nn.Linear(1, 1)
    model.distillation = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match='cannot be sharded: train it with DDP'):
        shard_model(model)


def test_an_old_pytorch_is_refused(monkeypatch):
    monkeypatch.setattr(torch, '__version__', '2.6.0')
    with pytest.raises(RuntimeError, match='needs PyTorch 2.7'):
        shard_model(torch.nn.Linear(1, 1))


def test_sharded_training_has_no_fp16():
    cfg = Config(dict(optim_wrapper=dict(type='OptimWrapper'), strategy=dict(type='X')))
    with pytest.raises(ValueError, match='use bf16'):
        enable_amp(cfg, 'fp16')
    enable_amp(cfg)
    assert cfg.optim_wrapper.type == 'BFloat16OptimWrapper'
