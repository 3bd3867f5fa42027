"""Data sets, and checks that turn bad input into one clear error."""

from infoclip_mmseg.datasets.benchmark_datasets import (
    ADE20K847Dataset,
    COCOObjectDataset,
    PascalContext459Dataset,
    PascalVOC20bDataset,
    PascalVOC20Dataset,
)
from infoclip_mmseg.datasets.checks import CheckInputs, check_dataloader_cfg
from infoclip_mmseg.datasets.label_maps import LoadLabelMap
from infoclip_mmseg.datasets.panoptic import LoadPanoptic, PackPanopticInputs, PanopticDataset
from infoclip_mmseg.datasets.vocabularies import load_vocabulary
from infoclip_mmseg.datasets.vocabulary_dataset import VocabularyDataset
from infoclip_mmseg.world import ComposedWorldDataset

__all__ = [
    'ADE20K847Dataset',
    'COCOObjectDataset',
    'CheckInputs',
    'ComposedWorldDataset',
    'LoadLabelMap',
    'LoadPanoptic',
    'PackPanopticInputs',
    'PanopticDataset',
    'PascalContext459Dataset',
    'PascalVOC20Dataset',
    'PascalVOC20bDataset',
    'VocabularyDataset',
    'check_dataloader_cfg',
    'load_vocabulary',
]
