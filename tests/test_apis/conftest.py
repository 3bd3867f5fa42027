from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

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


@pytest.fixture
def photo(tmp_path):
    """A picture file: left half red, right half blue, 48 high, 64 wide."""
    array = np.zeros((48, 64, 3), np.uint8)
    array[:, :32, 0] = 200
    array[:, 32:, 2] = 200
    path = tmp_path / 'photo.png'
    Image.fromarray(array).save(path)
    return path
