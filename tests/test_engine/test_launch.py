"""Mixed precision on a CPU, and how --amp rewrites a config."""

from __future__ import annotations

import pytest
import torch
from mmengine.config import Config
from mmseg.registry import OPTIM_WRAPPERS
from torch import nn

from infoclip_mmseg.engine import BFloat16OptimWrapper, launch
from infoclip_mmseg.engine.launch import enable_amp


@pytest.fixture
def cfg():
    """Config with an ordinary optimizer wrapper."""
    return Config(dict(optim_wrapper=dict(type='OptimWrapper', optimizer=dict(type='SGD', lr=1))))


@pytest.fixture(params=[True, False])
def has_cuda(request, monkeypatch):
    """A machine with CUDA, and one without."""
    monkeypatch.setattr(launch, 'is_cuda_available', lambda: request.param)
    return request.param


def test_auto_takes_the_kind_that_the_device_can_do(cfg, has_cuda):
    enable_amp(cfg)
    expected = 'AmpOptimWrapper' if has_cuda else 'BFloat16OptimWrapper'
    assert cfg.optim_wrapper.type == expected
    assert cfg.optim_wrapper.get('dtype') == ('float16' if has_cuda else None)
    assert cfg.optim_wrapper.optimizer.type == 'SGD'


def test_bf16_needs_no_cuda_and_fp16_does(cfg, has_cuda):
    enable_amp(Config(cfg.to_dict()), 'bf16')
    if has_cuda:
        enable_amp(cfg, 'fp16')
        assert cfg.optim_wrapper.type == 'AmpOptimWrapper'
    else:
        with pytest.raises(ValueError, match='fp16 needs a CUDA device'):
            enable_amp(cfg, 'fp16')


def test_other_wrappers_are_kept_or_refused(cfg):
    cfg.optim_wrapper.type = 'BFloat16OptimWrapper'
    enable_amp(cfg, 'bf16')
    assert cfg.optim_wrapper.type == 'BFloat16OptimWrapper'
    cfg.optim_wrapper.type = 'ApexOptimWrapper'
    with pytest.raises(ValueError, match='ApexOptimWrapper'):
        enable_amp(cfg, 'bf16')
    with pytest.raises(ValueError, match='int8'):
        enable_amp(cfg, 'int8')


@pytest.mark.skipif(torch.cuda.is_available(), reason='MMEngine autocasts on the GPU here')
def test_the_forward_pass_runs_in_bfloat16_and_the_weights_stay_float32():
    model = nn.Linear(4, 4)
    wrapper = OPTIM_WRAPPERS.build(
        dict(type='BFloat16OptimWrapper', optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    )
    assert isinstance(wrapper, BFloat16OptimWrapper)
    before = model.weight.detach().clone()
    with wrapper.optim_context(model):
        output = model(torch.ones(2, 4))
    assert output.dtype == torch.bfloat16
    wrapper.update_params(output.float().sum())
    assert model.weight.dtype == torch.float32
    assert not torch.equal(model.weight, before)
    assert model(torch.ones(2, 4)).dtype == torch.float32
