"""FrozenTeacherHook: the pretrained CLIP beside the student during training."""

from __future__ import annotations

from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import BaseLoop, Runner
from mmseg.registry import HOOKS

from infoclip_mmseg.engine.launch import unwrap_segmentor
from infoclip_mmseg.models.distillation.distiller import teacher_dtype

ENTRY = 'distillation'
"""Key of a checkpoint with the weights that are in no state dict."""


@HOOKS.register_module()
class FrozenTeacherHook(Hook):
    """Build the segmentor's frozen teacher before training.

    The teacher's weights are the pretrained ones, loaded from ``model.backbone.pretrained`` before
    any checkpoint is: also on resume and with ``load_from``, when the student has moved on. With
    ``pretrained=None`` they are the student's initial random weights, which a resumed run builds
    again from the same seed. Tensors that the student does not train are shared with it.
    Checkpoints hold the teacher's fingerprint, never its weights; a resumed run must have the same
    fingerprint. Of a ``DistilledSegmentor``, whose state dict is the student's alone, they also
    hold LPAM's weights, as ``checkpoint['distillation']``.

    Validation and test do not need a teacher and do not build one.

    Args:
        dtype: 'bfloat16' or 'float16': the teacher encodes images under autocast to it, also where
            the training is in float32; quicker on processors that multiply such numbers. None: as
            the training.
    """

    def __init__(self, dtype: str | None = None) -> None:
        self.dtype = teacher_dtype(dtype)
        self._fingerprint = self._pretrained = None

    def before_run(self, runner: Runner) -> None:
        """Build the teacher while the student still has its initial weights."""
        # Only Runner.train has built the training loop by now.
        if not isinstance(runner._train_loop, BaseLoop) or self._fingerprint is not None:
            return
        device = next(runner.model.parameters()).device
        teacher = _distiller(runner).attach_teacher(device)
        teacher.dtype = self.dtype
        self._pretrained = teacher.encoder.pretrained
        if self._pretrained is None:
            runner.logger.warning(
                'pretrained of the teacher (model.backbone, or distillation.teacher) is None: it '
                'has random weights and guards nothing; set it to pretrained CLIP weights for '
                'anything but a trial run'
            )
        self._fingerprint = teacher.fingerprint()

    def after_load_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Restore LPAM; on resume, check that the teacher is the one the run started with."""
        self.before_run(runner)  # MMEngine's FlexibleRunner reads the checkpoint before that
        if self._fingerprint is not None:
            _distiller(runner).restore(checkpoint.get(ENTRY), runner._resume)
        recorded = checkpoint.get('meta', {}).get('teacher')
        if not (runner._resume and recorded and self._fingerprint):
            return
        if recorded['fingerprint'] != self._fingerprint:
            raise ValueError(
                f'the checkpoint was trained with teacher {recorded["fingerprint"]} '
                f'(pretrained={recorded["pretrained"]!r}), this run would go on with teacher '
                f'{self._fingerprint} (pretrained={self._pretrained!r}); resume with the '
                'same pretrained, and with the same seed where it is None'
            )

    def before_train(self, runner: Runner) -> None:
        """Share what the student does not train."""
        distiller = _distiller(runner)
        shared = distiller.share_with_teacher()
        tensors = dict(distiller.teacher.encoder.named_parameters())
        unshared = sum(tensor.numel() for name, tensor in tensors.items() if name not in shared)
        runner.logger.info(
            f'frozen teacher {self._fingerprint}, pretrained={self._pretrained!r}: '
            f'{len(shared)} tensors shared with the student, {unshared / 1e6:.1f} M parameters '
            'of its own'
        )

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Record which teacher the run has."""
        if self._fingerprint is None:
            return
        present = dict(fingerprint=self._fingerprint, pretrained=self._pretrained)
        checkpoint['meta']['teacher'] = present
        entry = _distiller(runner).checkpoint_entry()
        if entry is not None:
            checkpoint[ENTRY] = entry

    def after_train(self, runner: Runner) -> None:
        """Let the teacher go; inference does not need it."""
        _distiller(runner).teacher = None


def _distiller(runner: Runner) -> Any:
    return unwrap_segmentor(runner.model, 'teacher').distiller
