import numpy as np
import pytest

from infoclip_mmseg.apis.prediction import make_tiles


@pytest.mark.parametrize('size', [(480, 640), (640, 320), (100, 100)])
def test_ordinary_images_are_not_cut(size):
    whole = (0, size[0], 0, size[1])
    assert make_tiles(*size) == [(whole, whole)]


@pytest.mark.parametrize('size', [(500, 4000), (500, 1001), (4000, 500), (33, 1000), (64, 140)])
def test_every_pixel_is_kept_once_from_the_tile_that_sees_most_around_it(size):
    count = np.zeros(size, int)
    tiles = make_tiles(*size)
    side, long = min(size), max(size)
    assert len(tiles) > 1
    for seen, kept in tiles:
        assert seen[1] - seen[0] == seen[3] - seen[2] == side
        assert kept[0] >= seen[0] and kept[1] <= seen[1]
        assert kept[2] >= seen[2] and kept[3] <= seen[3]
        count[kept[0] : kept[1], kept[2] : kept[3]] += 1
        axis = 2 if size[1] == long else 0
        for inner, outer, border in ((0, 0, 0), (1, 1, long)):
            distance = abs(seen[axis + inner] - kept[axis + outer])
            assert distance >= side // 8 or seen[axis + inner] == border
    assert (count == 1).all()
