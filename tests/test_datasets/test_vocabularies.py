"""The shipped class lists agree with mmseg's data sets, index by index."""

from __future__ import annotations

from pathlib import Path

import pytest
from mmseg.datasets import (
    ADE20KDataset,
    CityscapesDataset,
    COCOStuffDataset,
    PascalContextDataset,
    PascalContextDataset59,
    PascalVOCDataset,
)

from infoclip_mmseg.datasets.benchmarks import BENCHMARKS
from infoclip_mmseg.datasets.vocabularies import load_vocabulary, shipped_vocabularies
from infoclip_mmseg.models.text.prompts import check_names, split_synonyms

SIZES = dict(ade150=150, ade847=847, coco=171, pc459=459, pc59=59, voc20=20, voc20b=59)
CLEARCLIP = dict(
    ade150=150,
    cityscapes=19,
    coco=171,
    coco_object=81,
    context59=59,
    context60=60,
    voc20=20,
    voc21=21,
)
SIZES |= {f'clearclip_{name}': size for name, size in CLEARCLIP.items()}
SIZES |= dict(sclip_voc21=21, sclip_coco_object=81)
MAFTP = {  # classes, and names with synonyms
    'ade150': (150, 403),
    'ade847': (847, 1342),
    'coco': (171, 328),
    'coco_panoptic': (133, 254),
    'pc459': (459, 559),
    'pc59': (59, 160),
    'voc20': (20, 79),
}
SIZES |= {f'maftp_{name}': size for name, (size, _) in MAFTP.items()}


def test_the_shipped_lists_and_their_sizes():
    of_records = {record.vocabulary for record in BENCHMARKS.values()}
    assert set(shipped_vocabularies()) == SIZES.keys() | of_records
    for name, size in SIZES.items():
        assert len(check_names(load_vocabulary(name))) == size


@pytest.mark.parametrize('name', MAFTP)
def test_names_of_maft_plus(name):
    names = load_vocabulary(f'maftp_{name}')
    assert sum(len(split_synonyms(text)) for text in names) == MAFTP[name][1]


@pytest.mark.parametrize(
    ('name', 'dataset', 'first', 'differences'),
    [
        ('ade150', ADE20KDataset, 0, {}),
        ('coco', COCOStuffDataset, 0, {}),
        ('pc59', PascalContextDataset59, 0, {49: ('diningtable', 'table')}),
        ('voc20', PascalVOCDataset, 1, {}),
    ],
)
def test_lists_agree_with_the_data_sets_of_mmseg(name, dataset, first, differences):
    ours, theirs = load_vocabulary(name), dataset.METAINFO['classes'][first:]
    assert len(ours) == len(theirs)
    unequal = {i: pair for i, pair in enumerate(zip(ours, theirs)) if pair[0] != pair[1]}
    assert unequal == differences


@pytest.mark.parametrize(
    ('name', 'dataset', 'first', 'differences'),
    [
        ('clearclip_ade150', ADE20KDataset, 0, {}),
        ('clearclip_cityscapes', CityscapesDataset, 0, {}),
        ('clearclip_coco', COCOStuffDataset, 0, {}),
        ('clearclip_context59', PascalContextDataset59, 0, {}),
        ('clearclip_context60', PascalContextDataset, 0, {}),
        ('clearclip_voc21', PascalVOCDataset, 0, {4: 'ship', 11: 'table'}),
        ('clearclip_voc20', PascalVOCDataset, 1, {3: 'ship', 10: 'table'}),
    ],
)
def test_lists_of_clearclip_are_in_label_order(name, dataset, first, differences):
    ours, theirs = load_vocabulary(name), dataset.METAINFO['classes'][first:]
    assert len(ours) == len(theirs)
    pairs = {i: (a, b) for i, (a, b) in enumerate(zip(ours, theirs))}
    unequal = {i: a for i, (a, b) in pairs.items() if a != b.replace(' ', '')}
    assert unequal == differences


@pytest.mark.parametrize('name', ['voc21', 'coco_object'])
def test_lists_of_sclip_add_synonyms_and_background_words(name):
    plain, words = load_vocabulary(f'clearclip_{name}'), load_vocabulary(f'sclip_{name}')
    changed = {a: b.split(', ') for a, b in zip(plain, words) if a != b}
    expected = {'background', 'person'} | ({'tvmonitor'} if name == 'voc21' else set())
    assert set(changed) == expected
    assert len(changed['background']) == 26 and changed['background'][0] == 'sky'
    assert plain[0] == 'background' and changed['person'][0] == 'person'


def test_coco_object_has_the_things_of_coco_stuff():
    ours = [name.replace(' ', '') for name in load_vocabulary('clearclip_coco_object')[1:]]
    assert ours == load_vocabulary('clearclip_coco')[:80]


def test_background_names_of_voc_follow_its_twenty_classes():
    names = load_vocabulary('voc20b')
    assert names[:20] == load_vocabulary('voc20')
    assert set(names) == set(load_vocabulary('pc59'))
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(
    ('name', 'index', 'expected'),
    [
        ('ade847', 0, 'wall'),
        ('ade847', 14, 'car, auto, automobile, machine, motorcar'),
        ('pc459', 0, 'accordion'),
        ('pc459', 458, 'wool'),
    ],
)
def test_entries_of_the_large_lists(name, index, expected):
    assert load_vocabulary(name)[index] == expected


def test_an_unknown_name_tells_the_known_ones():
    with pytest.raises(
        FileNotFoundError, match="'ade848' does not exist.*ade150, ade847, .*coco, maftp_.*pc459"
    ):
        load_vocabulary('ade848')


def test_a_file_named_like_a_list_is_read_by_its_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('voc20').write_text('cat\ndog\n')
    assert load_vocabulary('voc20')[0] == 'aeroplane'
    assert load_vocabulary('./voc20') == ['cat', 'dog']
    Path('broken.json').write_text('["cat",')
    with pytest.raises(ValueError, match="'broken.json' is no valid JSON"):
        load_vocabulary('broken.json')


def test_the_lists_are_package_data():
    """The wheel holds every file below the package, and no pattern of git leaves them out."""
    root = Path(__file__).parents[2]
    text = (root / 'pyproject.toml').read_text()
    assert 'packages = ["infoclip_mmseg",' in text
    files = (root / 'infoclip_mmseg/datasets/vocabulary_lists').rglob('*.json')
    assert len(list(files)) == len(shipped_vocabularies())
