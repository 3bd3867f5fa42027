"""Data sets, and checks that turn bad input into one clear error."""

from infoclip_mmseg.datasets.checks import check_dataloader_cfg
from infoclip_mmseg.datasets.transforms import CheckInputs
from infoclip_mmseg.datasets.world import ComposedWorldDataset

__all__ = ['CheckInputs', 'ComposedWorldDataset', 'check_dataloader_cfg']
