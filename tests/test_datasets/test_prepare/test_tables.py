"""Tables of values of VOC, COCO-Stuff and PASCAL Context against independent lists."""

import numpy as np
import pytest
from scipy.io import savemat

from infoclip_mmseg.datasets.prepare import coco_stuff, pascal_context, voc
from infoclip_mmseg.datasets.vocabularies import load_vocabulary

DETAIL_IDS = [2, 9, 18, 19, 22, 23, 25, 31, 33, 34, 44, 45, 46, 59, 65, 68, 72, 80, 85, 98]
DETAIL_IDS += [104, 105, 113, 115, 144, 158, 159, 162, 187, 189, 207, 220, 232, 258, 259, 260]
DETAIL_IDS += [284, 295, 296, 308, 324, 326, 347, 349, 354, 355, 360, 366, 368, 397, 415, 416]
DETAIL_IDS += [420, 424, 427, 440, 445, 454, 458]
"""Category numbers of the 59 classes in the `detail` API, in ascending order."""


def test_pc59_by_the_two_vocabularies():
    table = pascal_context.pc59_table()
    assert len(DETAIL_IDS) == 59
    assert [int(table[number]) for number in DETAIL_IDS] == list(range(59))
    assert table[0] == 255 and (table == pascal_context.UNKNOWN).sum() == 460 - 60


def test_pc59_counts_as_mmseg_does():
    pytest.importorskip('mmseg')
    from mmseg.datasets import PascalContextDataset59

    names = list(PascalContextDataset59.METAINFO['classes'])
    assert [n for n in zip(names, load_vocabulary('pc59')) if n[0] != n[1]] == [
        ('table', 'diningtable')
    ]


def test_coco_stuff_by_mmseg_s_classes():
    table = coco_stuff.label_table()
    assert len(set(table.tolist())) == 171 + 2  # and ignored and unknown
    # From the published list: person, stop sign, backpack, dining table, toothbrush, banner, wood
    values, labels = [0, 12, 26, 66, 89, 91, 181], [0, 11, 24, 60, 79, 80, 170]
    assert table[values].tolist() == labels
    assert table[255] == 255 and table[182] == table[11] == coco_stuff.UNKNOWN


@pytest.mark.parametrize('background', [255, 20])
def test_voc(background):
    table = voc.label_table(background)
    assert table[:21].tolist() == [background, *range(20)]
    assert table[255] == 255 and set(table[21:255].tolist()) == {voc.UNKNOWN}


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
        pascal_context.read_label_map(path)


def test_bad_json(tmp_path):
    path = tmp_path / 'trainval_merged.json'
    for text in ('{"images": [', '[]', '{"images": []}', '{"images": [{}]}'):
        path.write_text(text)
        with pytest.raises(pascal_context.PrepareError, match='cut short, damaged'):
            pascal_context.read_annotations(path)


def test_masks_must_fit_the_image():
    with pytest.raises(ValueError, match='its image'):
        pascal_context.draw_masks(3, 4, [(2, dict(size=[4, 3], counts=[12]))])
