import numpy as np
import pytest
from PIL import Image

from infoclip_mmseg.utils.palette import colour_labels
from infoclip_mmseg.visualization.sheet import draw_sheet, find_truths, read_truth

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


def write(path, values):
    Image.fromarray(np.array(values)).save(path)
    return path


def test_labels_and_void(tmp_path):
    values = np.array([[0, 1, 2, 255]], np.uint8)
    path = write(tmp_path / 'a.png', values)
    assert read_truth(path, (1, 4), 3).tolist() == [[0, 1, 2, 3]]
    assert read_truth(path, (1, 4), 2, reduce_zero_label=True).tolist() == [[2, 0, 1, 2]]
    path = write(tmp_path / 'b.png', np.array([[0, 300, 65535]], np.uint16))
    assert read_truth(path, (1, 3), 301).tolist() == [[0, 300, 301]]


def test_indexed_images_are_read_as_labels(tmp_path):
    image = Image.fromarray(np.array([[1, 0]], np.uint8))
    image.putpalette([9, 9, 9, 200, 0, 0])
    image.save(tmp_path / 'a.png')
    assert read_truth(tmp_path / 'a.png', (1, 2), 2).tolist() == [[1, 0]]


def test_what_does_not_fit(tmp_path):
    path = write(tmp_path / 'a.png', np.array([[0, 7]], np.uint8))
    with pytest.raises(ValueError, match=r'a.png: class 7 is beyond the 3 classes'):
        read_truth(path, (1, 2), 3)
    with pytest.raises(ValueError, match=r'\(h, w\) = \(2, 2\), got \(1, 2\)'):
        read_truth(path, (2, 2), 9)
    colour = write(tmp_path / 'c.png', np.zeros((2, 2, 3), np.uint8))
    with pytest.raises(ValueError, match=r'got \(2, 2, 3\)'):
        read_truth(colour, (2, 2), 9)
    assert find_truths(['a'], tmp_path) == [path]
    with pytest.raises(FileNotFoundError, match='no label files b.png, d.png; each image needs'):
        find_truths(['a', 'b', 'd'], tmp_path)
