"""Hooks that stop a run: a loss is no longer a number, a checkpoint is of another architecture."""

from __future__ import annotations

import math
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from infoclip_mmseg.utils.checkpoint_files import check_state_dict

ADVICE = (
    'Try a lower learning rate, bf16 rather than fp16 (optim_wrapper.dtype="bfloat16"), and check '
    'the labels and images of the last samples. Go on from the last checkpoint with --resume.'
)


@HOOKS.register_module()
class NonFiniteLossHook(Hook):
    """Raise a FloatingPointError as soon as a loss is NaN or infinite, or broken weights are saved.

    Runs before EMA, logging and checkpoint hooks. Every entry of the step's log whose name contains
    'loss' is looked at, the total included. Gradients are not: with a loss scaler a non-finite
    gradient is a normal event that skips one step.

    Args:
        interval: Look every so many iterations; the weights are looked at before every checkpoint.
    """

    priority = 'ABOVE_NORMAL'

    def __init__(self, interval: int = 1) -> None:
        if interval < 1:
            raise ValueError(f'interval must be 1 or more iterations, got {interval}')
        self.interval = interval

    def after_train_iter(
        self,
        runner: Runner,
        batch_idx: int,
        data_batch: Any = None,
        outputs: dict[str, Any] | None = None,
    ) -> None:
        """Check the losses of the step; see the class."""
        if not self.every_n_train_iters(runner, self.interval):
            return
        losses = {name: value for name, value in (outputs or {}).items() if 'loss' in name}
        values = {name: float(torch.as_tensor(value).detach()) for name, value in losses.items()}
        broken = {name: value for name, value in values.items() if not math.isfinite(value)}
        if broken:
            terms = ', '.join(f'{name}={value}' for name, value in broken.items())
            raise FloatingPointError(
                f'non-finite loss in iteration {runner.iter + 1}: {terms} (of the terms '
                f'{", ".join(values)}); {_describe_samples(data_batch)}. {ADVICE}'
            )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check the trained weights before they are written; see the class."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        # Of a sharded model only the checkpoint has the whole weights.
        saved = checkpoint.get('state_dict', {})
        broken = [
            name
            for name, weight in model.named_parameters()
            if weight.requires_grad and not bool(torch.isfinite(saved.get(name, weight)).all())
        ]
        if broken:
            raise FloatingPointError(
                f'checkpoint not written: {len(broken)} trained tensors hold NaN or infinity, the '
                f'first is {broken[0]} (iteration {runner.iter + 1}). {ADVICE}'
            )


def _describe_samples(data_batch: Any) -> str:
    """Name the images of a batch where its data samples know them."""
    samples = data_batch.get('data_samples', []) if isinstance(data_batch, dict) else []
    paths = [str(sample.img_path) for sample in samples if getattr(sample, 'img_path', None)]
    return f'images {", ".join(paths)}' if paths else 'images unknown'


@HOOKS.register_module()
class CheckpointMatchHook(Hook):
    """Stops a run whose checkpoint belongs to another architecture, which MMEngine only logs.

    ``complete`` and ``optional`` are those of :func:`check_state_dict`.
    """

    def __init__(self, complete: bool = True, optional: tuple[str, ...] = ()) -> None:
        self.complete, self.optional = complete, tuple(optional)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check a checkpoint before its weights go into the model."""
        state_dict = checkpoint.get('state_dict', checkpoint)
        check_state_dict(runner.model, state_dict, self.complete, self.optional)
