from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from infoclip_mmseg.visualization.overlay import blend, draw_overlay

PALETTE = [[255, 0, 0], [0, 0, 255], [0, 0, 0]]


def test_blend():
    image = np.full((4, 4, 3), 100, np.uint8)
    labels = np.zeros((4, 4), np.uint8)
    assert blend(image, labels, PALETTE, 0.0)[0, 0].tolist() == [100, 100, 100]
    assert blend(image, labels, PALETTE, 1.0)[0, 0].tolist() == [255, 0, 0]
    assert blend(image, labels, PALETTE, 0.2)[0, 0].tolist() == [131, 80, 80]


@pytest.mark.parametrize(
    ('size', 'width'), [((50, 100), 640), ((500, 1000), 1000), ((400, 6000), 4096)]
)
def test_an_overlay_has_the_picture_and_a_legend_below(size, width):
    labels = np.zeros(size, np.uint8)
    labels[:, size[1] // 2 :] = 1
    image = np.full((*size, 3), 128, np.uint8)
    overlay = draw_overlay(image, labels, ['cat', 'dog', 'background'], PALETTE, 0.5)
    assert overlay.shape[1] == width
    height = round(size[0] * width / size[1])
    middle = overlay[height // 2]
    assert np.abs(middle[width // 4].astype(int) - (192, 64, 64)).max() <= 1
    assert np.abs(middle[3 * width // 4].astype(int) - (64, 64, 192)).max() <= 1
    legend = overlay[height:].reshape(-1, 3)
    assert len(legend) > 0
    for colour in PALETTE[:2]:
        assert (legend == colour).all(1).sum() > 100
    assert not (legend == 0).all(1).any()  # what is not there has no entry


def test_a_label_of_every_kind_of_image():
    labels = np.zeros((64, 64), np.uint16)
    overlay = draw_overlay(np.zeros((64, 64, 3), np.uint8), labels, ['x'] * 300, PALETTE * 100)
    assert Image.fromarray(overlay).mode == 'RGB'
