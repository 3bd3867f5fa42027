"""Hooks and optimizer construction for MMEngine's runner."""

from infoclip_mmseg.engine.amp import BFloat16OptimWrapper
from infoclip_mmseg.engine.benchmark_hook import BenchmarkHook
from infoclip_mmseg.engine.checkpoint import CheckpointMatchHook
from infoclip_mmseg.engine.nan_hook import NonFiniteLossHook
from infoclip_mmseg.engine.optim import GroupedOptimWrapperConstructor
from infoclip_mmseg.engine.sharding import FullyShardedStrategy
from infoclip_mmseg.engine.teacher_hook import FrozenTeacherHook
from infoclip_mmseg.engine.vocabulary_hook import VocabularyHook

__all__ = [
    'BFloat16OptimWrapper',
    'BenchmarkHook',
    'CheckpointMatchHook',
    'FrozenTeacherHook',
    'FullyShardedStrategy',
    'GroupedOptimWrapperConstructor',
    'NonFiniteLossHook',
    'VocabularyHook',
]
