"""Hooks and optimizer construction for MMEngine's runner."""

from infoclip_mmseg.engine.hooks.benchmark import BenchmarkHook
from infoclip_mmseg.engine.hooks.forgetting import ForgettingHook
from infoclip_mmseg.engine.hooks.guards import CheckpointMatchHook, NonFiniteLossHook
from infoclip_mmseg.engine.hooks.near_start import DecayToStartHook, InterpolationHook
from infoclip_mmseg.engine.hooks.teacher import FrozenTeacherHook
from infoclip_mmseg.engine.hooks.vocabulary import VocabularyHook
from infoclip_mmseg.engine.optim import BFloat16OptimWrapper, GroupedOptimWrapperConstructor
from infoclip_mmseg.engine.sharding import FullyShardedStrategy
from infoclip_mmseg.utils.checkpoint_files import install_safe_loader

__all__ = [
    'BFloat16OptimWrapper',
    'BenchmarkHook',
    'CheckpointMatchHook',
    'DecayToStartHook',
    'ForgettingHook',
    'FrozenTeacherHook',
    'FullyShardedStrategy',
    'GroupedOptimWrapperConstructor',
    'InterpolationHook',
    'NonFiniteLossHook',
    'VocabularyHook',
    'install_safe_loader',
]
