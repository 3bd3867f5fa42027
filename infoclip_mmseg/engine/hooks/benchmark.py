"""BenchmarkHook: chosen benchmarks at each validation."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from infoclip_mmseg.datasets.benchmarks import select_benchmarks
from infoclip_mmseg.evaluation.benchmarks import (
    Plan,
    check_finds_masks,
    evaluate_plan,
    evaluation_pipeline,
    make_plans,
)


@HOOKS.register_module()
class BenchmarkHook(Hook):
    """Evaluate benchmarks after each validation of a training.

    Their figures join those of the validation under the benchmark's key, as `ade150/mIoU`: they are
    logged, and `CheckpointHook(save_best='ade150/mIoU')` works. The training vocabulary comes back
    afterwards. `val_benchmarks` in the config of tools/train.py registers this hook.

    Args:
        benchmarks: Keys, or 'all' six; see ``infoclip_mmseg.datasets.benchmarks``.
        data_root: Folder of all data. A benchmark that is not there stops a run before it begins.
    """

    # Before RuntimeInfoHook, which hands the validation's figures to the logger.
    priority = 'HIGHEST'

    def __init__(self, benchmarks: str | Sequence[str], data_root: str | Path = 'data') -> None:
        self.benchmarks = select_benchmarks(benchmarks)
        self.data_root = data_root
        self._plans: list[Plan] = []

    def before_train(self, runner: Runner) -> None:
        """Find the benchmarks."""
        if not self._plans:
            self.prepare(runner.cfg)

    def prepare(self, cfg: Config) -> None:
        """Find the benchmarks of a run, so that a missing one stops it before it has begun."""
        if not cfg.get('val_cfg'):
            raise ValueError(
                'val_benchmarks are evaluated after each validation, but the config has none: set '
                'val_dataloader, val_cfg and val_evaluator'
            )
        check_finds_masks(self.benchmarks, cfg.model)
        template = cfg.get('test_dataloader') or cfg.val_dataloader
        pipeline = evaluation_pipeline(cfg)
        self._plans, absent = make_plans(self.benchmarks, self.data_root, pipeline, template)
        if absent:
            raise FileNotFoundError('\n  '.join(['benchmarks of the validation:', *absent]))

    def after_val_epoch(self, runner: Runner, metrics: dict[str, float] | None = None) -> None:
        """Evaluate, and add the figures to those of the validation."""
        fp16 = bool(getattr(runner.val_loop, 'fp16', False))
        for plan in self._plans:
            figures = evaluate_plan(runner, plan, fp16)
            if metrics is not None:
                metrics.update(figures)
