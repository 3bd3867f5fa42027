"""Pretraining of a small CLIP on the composed world."""

from infoclip_mmseg.world.pretraining.contrastive import ContrastiveCLIP
from infoclip_mmseg.world.pretraining.export import export_clip
from infoclip_mmseg.world.pretraining.self_distillation import SelfDistilledCLIP, window_embeddings
from infoclip_mmseg.world.pretraining.views import (
    CaptionedViewsDataset,
    ViewPreprocessor,
    collate_views,
)

__all__ = [
    'CaptionedViewsDataset',
    'ContrastiveCLIP',
    'SelfDistilledCLIP',
    'ViewPreprocessor',
    'collate_views',
    'export_clip',
    'window_embeddings',
]
