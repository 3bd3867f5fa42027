import numpy as np
import pytest
from PIL import Image

from infoclip_mmseg.utils.palette import colour_labels
from infoclip_mmseg.visualization.sheet import draw_sheet

PALETTE = [[255, 0, 0], [0, 255, 0]]


def test_labels_get_their_colours():
    labels = np.array([[0, 1], [255, 2]])
    expected = [[PALETTE[0], PALETTE[1]], [[0, 0, 0], [0, 0, 0]]]
    assert colour_labels(labels, PALETTE).tolist() == expected


def test_a_sheet_shows_every_map(tmp_path):
    images = [np.full((20, 30, 3), 128, np.uint8), np.zeros((20, 30, 3), np.uint8)]
    truth = [np.zeros((20, 30), int), np.full((20, 30), 255)]
    truth[1][0] = 1
    maps = {'ground truth': truth, 'ours': [np.ones((20, 30), int), np.zeros((20, 30), int)]}
    path = draw_sheet(tmp_path / 'a/sheet.png', images, maps, ['x', 'y'], PALETTE, marked=['y'])
    pixels = np.array(Image.open(path).convert('RGB')).reshape(-1, 3)
    for colour in (*PALETTE, (128, 128, 128)):
        assert (pixels == colour).all(1).sum() > 500, colour


def test_columns_of_another_length(tmp_path):
    images = [np.zeros((8, 8, 3), np.uint8)]
    with pytest.raises(
        ValueError, match="needs 1 maps in every column and a column 'ground truth'"
    ):
        draw_sheet(tmp_path / 'a.png', images, {'ours': [np.zeros((8, 8))]}, ['x', 'y'], PALETTE)
