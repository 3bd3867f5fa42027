"""Hooks and optimizer construction for MMEngine's runner."""

from infoclip_mmseg.engine.nan_hook import NonFiniteLossHook
from infoclip_mmseg.engine.optim import GroupedOptimWrapperConstructor
from infoclip_mmseg.engine.teacher_hook import FrozenTeacherHook
from infoclip_mmseg.engine.vocabulary_hook import VocabularyHook

__all__ = [
    'FrozenTeacherHook',
    'GroupedOptimWrapperConstructor',
    'NonFiniteLossHook',
    'VocabularyHook',
]
