import numpy as np
import pytest
from original_archives import compress, run_lengths

from infoclip_mmseg.datasets.prepare.rle import decode_counts, decode_mask


@pytest.mark.parametrize(
    'text, counts',
    [
        ('012', [0, 1, 2]),
        ('`0', [16]),  # 16 has the sign bit of a single character set
        ('1112', [1, 1, 1, 3]),  # the fourth is a difference to the second
        ('151N', [1, 5, 1, 3]),  # and may be negative
        ('', []),
    ],
)
def test_counts_by_hand(text, counts):
    assert decode_counts(text) == counts


@pytest.mark.parametrize('text', ['P', '0 ', '1\x7f'])
def test_bad_strings(text):
    with pytest.raises(ValueError, match='run-length string'):
        decode_counts(text)


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('form', ['string', 'bytes', 'list'])
def test_masks_come_back(seed, form):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(1, 90, 2)
    mask = rng.random((height, width)) < (0.01, 0.5, 0.99, 0.0, 1.1)[seed]
    counts = run_lengths(mask)
    assert sum(counts) == mask.size
    text = compress(counts)
    stored = dict(string=text, bytes=text.encode(), list=counts)[form]
    decoded = decode_mask(dict(size=[int(height), int(width)], counts=stored))
    assert decoded.dtype == bool
    np.testing.assert_array_equal(decoded, mask)


@pytest.mark.parametrize(
    'segmentation',
    [
        dict(size=[3, 3], counts=[4, 4]),
        dict(size=[3, 3], counts=[10, -1]),
        [[0, 0, 1, 1, 2, 0]],
        dict(size=[3, 3]),
    ],
)
def test_bad_masks(segmentation):
    with pytest.raises(ValueError, match='mask'):
        decode_mask(segmentation)
