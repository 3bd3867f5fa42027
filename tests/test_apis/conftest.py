from __future__ import annotations

import pytest

from infoclip_mmseg import OpenVocabInferencer
from infoclip_mmseg.world import ComposedWorldDataset


@pytest.fixture(scope='session')
def inferencer():
    """The small CLIP of the composed world, as it comes with the repository."""
    return OpenVocabInferencer(device='cpu')


@pytest.fixture(scope='session')
def world():
    """Six scenes of the composed world."""
    dataset = ComposedWorldDataset(length=6, split='test', seed=1, pipeline=[])
    scenes = [dataset.scene(index) for index in range(6)]
    return dict(
        classes=list(dataset.metainfo['classes']),
        images=[scene.image for scene in scenes],
        labels=[dataset.labels_of(scene) for scene in scenes],
    )
