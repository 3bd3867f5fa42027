"""Where the head's own backward passes can run in place of activation checkpoints."""

from __future__ import annotations

import torch
from torch import Tensor

FLASH_ATTENTION = '_scaled_dot_product_flash_attention_for_cpu'
"""Operator whose log-sum-exp its backward pass (the same name and ``_backward``) takes."""


def is_supported(x: Tensor) -> bool:
    """Whether backward passes of our own run for ``x``: on a CPU, with torch 2.4 or later.

    Under autocast, and in models that are compiled or traced, autograd records everything.
    """
    if x.device.type != 'cpu' or x.dtype not in (torch.float32, torch.float64):
        return False
    known = all(
        hasattr(torch.ops.aten, name) for name in (FLASH_ATTENTION, f'{FLASH_ATTENTION}_backward')
    )
    if not known or not hasattr(torch.amp, 'custom_fwd') or torch.is_autocast_enabled('cpu'):
        return False
    return not (torch.jit.is_tracing() or torch.compiler.is_compiling())
