"""Hooks that keep CLIP near its pretrained weights: while it trains, or afterwards."""

from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS
from torch import Tensor

from infoclip_mmseg.engine.launch import unwrap_segmentor
from infoclip_mmseg.models.distillation.interpolation import (
    interpolate_weights,
    pretrained_weights,
)


@HOOKS.register_module()
class DecayToStartHook(Hook):
    """Pull the trained weights of CLIP back to where they started, after every iteration.

    Each goes ``lr * weight`` of the way, lr being that of its parameter group, as AdamW's decay
    does towards 0: L2-SP (Li et al., 2018, arXiv 1802.01483) apart from the gradient. The start is
    the weights before the first iteration; a resumed run takes those of the checkpoint, which holds
    them. They take as much memory as the trained weights.

    Args:
        weight: Strength, 0 or more.
        prefix: Beginning of the names of the parameters that are pulled.
    """

    ENTRY = 'decay_to_start'

    def __init__(self, weight: float, prefix: str = 'backbone.') -> None:
        if weight < 0:
            raise ValueError(f'weight must be 0 or more, got {weight}')
        self.weight, self.prefix = weight, prefix
        self._start: dict[str, Tensor] = {}

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Take up the start of the run that is resumed."""
        if runner._resume:
            self._start = checkpoint.get(self.ENTRY, {})

    def before_train(self, runner: Runner) -> None:
        """Remember the weights."""
        model = unwrap_segmentor(runner.model, 'backbone')
        trained = {
            name: parameter
            for name, parameter in model.named_parameters()
            if name.startswith(self.prefix) and parameter.requires_grad
        }
        if not trained:
            raise ValueError(
                f'no trained parameter begins with {self.prefix!r}: DecayToStartHook has nothing '
                'to pull; set prefix, or model.backbone.finetune'
            )
        start = self._start or {name: p.detach().clone() for name, p in trained.items()}
        self._start = {name: start[name].to(p.device) for name, p in trained.items()}
        self._pulled = {id(p): self._start[name] for name, p in trained.items()}

    @torch.no_grad()
    def after_train_iter(self, runner: Runner, batch_idx: int, *_: Any, **__: Any) -> None:
        """Pull, with the learning rates of the step that was just made."""
        for group in runner.optim_wrapper.optimizer.param_groups:
            for parameter in group['params']:
                start = self._pulled.get(id(parameter))
                if start is not None:
                    parameter.lerp_(start, min(1.0, group['lr'] * self.weight))

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Put the start into the checkpoint."""
        checkpoint[self.ENTRY] = {name: tensor.cpu() for name, tensor in self._start.items()}


@HOOKS.register_module()
class InterpolationHook(Hook):
    """Load a checkpoint with CLIP part of the way back at its pretrained weights.

    WiSE-FT (Wortsman et al., 2022, arXiv 2109.01903) for the encoder; the head stays as it was
    trained. For validation and test; ``tools/interpolate.py`` writes such checkpoints.

    Args:
        factor: 0: the pretrained CLIP, 1: the checkpoint's.
    """

    def __init__(self, factor: float) -> None:
        if not 0 <= factor <= 1:
            raise ValueError(f'factor must be from 0 (pretrained) to 1 (tuned), got {factor}')
        self.factor = factor

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Mix the weights before they go into the model."""
        state_dict = checkpoint.get('state_dict', checkpoint)
        encoder = unwrap_segmentor(runner.model, 'backbone').backbone
        state_dict.update(
            interpolate_weights(pretrained_weights(encoder), state_dict, self.factor, 'backbone.')
        )
