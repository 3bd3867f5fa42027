"""Mixed precision for a config: float16 with loss scaling on CUDA, bfloat16 anywhere."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.config import Config
from mmengine.device import is_cuda_available
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.runner import autocast
from mmseg.registry import OPTIM_WRAPPERS
from torch import nn

DTYPES = ('auto', 'fp16', 'bf16')


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """OptimWrapper whose forward pass runs under autocast to bfloat16, on a CPU too.

    bfloat16 needs no loss scaling. MMEngine's AmpOptimWrapper always scales and refuses to run
    without an accelerator.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Context of the forward pass and the loss."""
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield


def enable_amp(cfg: Config, dtype: str = 'auto') -> None:
    """Switch the `optim_wrapper` of a config to mixed precision, in place.

    ``dtype`` is 'fp16', 'bf16', or 'auto': float16 on CUDA, bfloat16 on a CPU and with a `strategy`.
    """
    if dtype not in DTYPES:
        raise ValueError(f'dtype must be one of {DTYPES}, got {dtype!r}')
    sharded = cfg.get('strategy') is not None
    if dtype == 'auto':
        dtype = 'fp16' if is_cuda_available() and not sharded else 'bf16'
    if dtype == 'fp16' and sharded:
        raise ValueError('fp16 scales the loss, which sharded training does not support; use bf16')
    if dtype == 'fp16' and not is_cuda_available():
        raise ValueError('fp16 needs a CUDA device and there is none; use bf16 or auto')
    wrapper = cfg.optim_wrapper
    if wrapper.type in ('AmpOptimWrapper', 'BFloat16OptimWrapper'):
        print_log(
            f'the config already sets optim_wrapper.type={wrapper.type!r}; it is left as it is',
            logger='current',
            level=logging.WARNING,
        )
    elif wrapper.type != 'OptimWrapper':
        raise ValueError(
            f"mixed precision needs optim_wrapper.type='OptimWrapper', got {wrapper.type!r}"
        )
    elif dtype == 'bf16':
        wrapper.type = 'BFloat16OptimWrapper'
    else:
        wrapper.update(type='AmpOptimWrapper', loss_scale='dynamic', dtype='float16')
