import numpy as np
import pytest
from original_archives import compress, run_lengths

from infoclip_mmseg.datasets.prepare.pascal_context import decode_mask


@pytest.mark.parametrize(
    'text, counts',
    [
        ('012', [0, 1, 2]),
        ('`0', [16]),  # 16 has the sign bit of a single character set
        ('1112', [1, 1, 1, 3]),  # the fourth is a difference to the second
        ('151N', [1, 5, 1, 3]),  # and may be negative
    ],
)
def test_counts_by_hand(text, counts):
    mask = decode_mask(dict(size=[sum(counts), 1], counts=text))
    expected = [index % 2 for index, count in enumerate(counts) for _ in range(count)]
    assert mask[:, 0].tolist() == expected


@pytest.mark.parametrize('text', ['P', '0 ', '1\x7f', ''])
@pytest.mark.parametrize('size', [[1, 1], [16, 2]])
def test_bad_strings(text, size):
    with pytest.raises(ValueError, match='runs of a mask'):
        decode_mask(dict(size=size, counts=text))


@pytest.mark.parametrize('counts', [[4, 4], [4, 6], [9, 1], [0, 8], [10], []])
@pytest.mark.parametrize('form', ['string', 'list'])
def test_runs_must_fill_the_mask(counts, form):
    assert decode_mask(dict(size=[3, 3], counts=compress([4, 5]))).sum() == 5
    stored = compress(counts) if form == 'string' else counts
    with pytest.raises(ValueError, match='3 x 3 pixels'):
        decode_mask(dict(size=[3, 3], counts=stored))


@pytest.mark.parametrize('counts', [[3, 0, 2, 4], [3, 2, 4, 0], [0, 0, 9]])
def test_empty_runs_are_allowed(counts):
    expected = np.repeat(np.arange(len(counts)) % 2 == 1, counts).reshape(3, 3).T
    for stored in (counts, compress(counts)):
        assert (decode_mask(dict(size=[3, 3], counts=stored)) == expected).all()


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
