"""CheckpointMatchHook: a checkpoint of another architecture ends the run."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import Runner
from mmseg.registry import HOOKS

from infoclip_mmseg.utils.checkpoint_files import check_state_dict


@HOOKS.register_module()
class CheckpointMatchHook(Hook):
    """Stops a run whose checkpoint belongs to another architecture, which MMEngine only logs.

    Args:
        complete: See :func:`check_state_dict`.
        optional: See :func:`check_state_dict`.
    """

    def __init__(self, complete: bool = True, optional: tuple[str, ...] = ()) -> None:
        self.complete = complete
        self.optional = tuple(optional)

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict[str, Any]) -> None:
        """Check a checkpoint before its weights go into the model."""
        state_dict = checkpoint.get('state_dict', checkpoint)
        check_state_dict(runner.model, state_dict, self.complete, self.optional)
