"""Tables of values of VOC, COCO-Stuff and PASCAL Context against independent lists; masks."""

from pathlib import Path

import numpy as np
import pytest
from original_archives import compress, run_lengths
from scipy.io import savemat

from infoclip_mmseg.datasets.prepare import PrepareError, conversions
from infoclip_mmseg.datasets.prepare.conversions import decode_mask
from infoclip_mmseg.datasets.vocabularies import load_vocabulary

DETAIL_IDS = [2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98]
DETAIL_IDS += [104, 105, 113, 115, 144, 158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260]
DETAIL_IDS += [284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368, 397, 415, 416]
DETAIL_IDS += [420, 424, 427, 440, 445, 454, 458]
"""Category numbers of the 59 classes in the `detail` API, in ascending order."""


def test_pc59_by_the_two_vocabularies():
    table = conversions.pc59_table()
    assert len(DETAIL_IDS) == 59 and len(table) == 60
    assert [table[number] for number in DETAIL_IDS] == list(range(59))
    assert table[0] == 255


def test_pc59_counts_as_mmseg_does():
    pytest.importorskip('mmseg')
    from mmseg.datasets import PascalContextDataset59

    names = list(PascalContextDataset59.METAINFO['classes'])
    assert [n for n in zip(names, load_vocabulary('pc59')) if n[0] != n[1]] == [
        ('table', 'diningtable')
    ]


def test_coco_stuff_by_mmseg_s_classes():
    table = conversions.coco_stuff_table()
    assert len(set(table.values())) == len(table) == 171 + 1  # and ignored
    # From the published list: person, stop sign, backpack, dining table, toothbrush, banner, wood
    values, labels = [0, 12, 26, 66, 89, 91, 181], [0, 11, 24, 60, 79, 80, 170]
    assert [table[value] for value in values] == labels
    assert table[255] == 255 and 182 not in table and 11 not in table


@pytest.mark.parametrize('background', [255, 20])
def test_voc(background):
    table = conversions.voc_table(background)
    assert [table[value] for value in range(21)] == [background, *range(20)]
    assert table[255] == 255 and len(table) == 22


@pytest.mark.parametrize(
    'content, words',
    [
        ({'LabelMap': np.array([[461]])}, '0..460'),
        ({'LabelMap': np.array([[-1]])}, '0..460'),
        ({'LabelMap': np.array([[1.5]])}, 'whole numbers'),
        ({'LabelMap': np.zeros((2, 2, 2))}, 'matrix'),
        ({'Other': np.zeros((2, 2))}, 'has no LabelMap'),
        (None, 'damaged'),
    ],
)
def test_bad_mat_files(content, words, tmp_path):
    path = tmp_path / 'a.mat'
    if content is None:
        path.write_bytes(b'no mat file')
    else:
        savemat(str(path), content)
    with pytest.raises(ValueError, match=words):
        conversions.read_label_map(path)


def test_bad_json(tmp_path):
    path = tmp_path / 'trainval_merged.json'
    for text in ('{"images": [', '[]', '{"images": []}', '{"images": [{}]}'):
        path.write_text(text)
        with pytest.raises(PrepareError, match='cut short, damaged'):
            conversions.read_annotations(path)


def test_masks_must_fit_the_image():
    with pytest.raises(ValueError, match='x.json:a: .* its image'):
        conversions.draw_masks(3, 4, [(2, dict(size=[4, 3], counts=[12]))], Path('x.json:a'))


# Masks


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
