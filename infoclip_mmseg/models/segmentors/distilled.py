"""Teacher, LPAM and any of the losses for any mmseg segmentor, by config alone."""

from __future__ import annotations

import functools
from typing import Any, cast

from mmseg.models.segmentors import BaseSegmentor
from mmseg.registry import MODELS
from torch import Tensor, nn

from infoclip_mmseg.models.distillation.distiller import Student
from infoclip_mmseg.models.distillation.foreign import Distillation
from infoclip_mmseg.models.distillation.taps import find_module, read_modules
from infoclip_mmseg.models.normalisation import normalisation_of
from infoclip_mmseg.models.segmentors.vocabulary import Vocabulary, VocabularyOwner


class DistillationMixin(VocabularyOwner, Student):
    """Makes a segmentor class the student of a teacher; everything else of it stays as it is."""

    distillation: Distillation
    data_preprocessor: Any

    def loss(self, inputs: Tensor, data_samples: list) -> dict[str, Tensor]:
        """The student's own losses, and those between teacher and student.

        Without a teacher or a vocabulary it is a RuntimeError; modules that give no embeddings are
        a ValueError, see :mod:`~infoclip_mmseg.models.distillation.taps`.
        """
        if self.teacher is None:
            raise RuntimeError(
                'the student has no teacher: add dict(type="FrozenTeacherHook") to custom_hooks'
            )
        with read_modules(cast(nn.Module, self), self.distillation.taps) as read:
            losses = super().loss(inputs, data_samples)  # type: ignore[misc]
        source = normalisation_of(self.data_preprocessor)
        return {**losses, **self.distillation(read, inputs, source, self.vocabulary.prompts)}

    @property
    def distiller(self) -> Distillation:  # type: ignore[override]
        """What stands between the student and its teacher."""
        return self.distillation


@functools.cache
def distilled_class(student: type[BaseSegmentor]) -> type[BaseSegmentor]:
    """The class of segmentors that are ``student`` and have a teacher."""
    return type(f'Distilled{student.__name__}', (DistillationMixin, student), {})


@MODELS.register_module(name='DistilledSegmentor')
def distilled_segmentor(student: dict, distillation: dict) -> BaseSegmentor:
    """Build any segmentor of mmseg with a teacher beside it.

    The result is the student: of a subclass of its class, with its parameters under their own
    names, so that its optimizer settings, hooks and checkpoints stay valid, and with its state
    dict. Training needs ``FrozenTeacherHook`` and ``VocabularyHook``. What is no segmentor is a
    TypeError, a path without a module a ValueError.

    Args:
        student: Config of the segmentor, as it would stand in ``model``.
        distillation: Arguments of :class:`Distillation`.
    """
    arguments = dict(student)
    kind = arguments.pop('type')
    base = MODELS.get(kind) if isinstance(kind, str) else kind
    if not (isinstance(base, type) and issubclass(base, BaseSegmentor)):
        raise TypeError(f'student must be a segmentor of mmseg, got type={kind!r} ({base!r})')
    model = cast(Any, distilled_class(base)(**arguments))
    if hasattr(model, 'distillation'):
        raise TypeError(f'{kind} already has an attribute `distillation`; it cannot be a student')
    model.distillation = beside = Distillation(**distillation)
    model.vocabulary = Vocabulary(beside.templates, beside.synonyms, owner='the teacher')
    for tap in beside.taps.values():
        find_module(model, tap.module)
    return model
