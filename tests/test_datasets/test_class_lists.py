"""Class lists of other projects are read as meant, or refused showing the line."""

from __future__ import annotations

import json
import re

import pytest
from mmengine.logging import MMLogger
from mmseg.datasets import (
    ADE20KDataset,
    CityscapesDataset,
    COCOStuffDataset,
    MapillaryDataset_v2,
    PascalContextDataset,
)
from open_clip.zero_shot_metadata import IMAGENET_CLASSNAMES

from infoclip_mmseg.datasets.vocabularies import (
    _lists,
    load_vocabulary,
    parse_class_json,
    parse_class_list,
    shipped_vocabularies,
)

LISTS = [ADE20KDataset, CityscapesDataset, COCOStuffDataset, MapillaryDataset_v2]
LISTS += [PascalContextDataset]


@pytest.mark.parametrize(
    ('text', 'names'),
    [
        ('cat\n\n red car, automobile \n', ['cat', 'red car, automobile']),
        ('\n# lists\nroad # drivable\n// more\nC# book\n  \n', ['road', 'C# book']),
        # headers
        ('name\nroad\nsky', ['road', 'sky']),
        ('Class_ID;Name\n0;road\n1;sky', ['road', 'sky']),
        ('name,r,g,b\nHand,0,255,0\nGlobal,0,0,0\n', ['Hand', 'Global']),
        ('names:\n  0: person\n  1: bicycle', ['person', 'bicycle']),
        ('id\ttrain_id\tcolour\nroad\nsky', ['road', 'sky']),
        ('red\ngreen\nblue', ['red', 'green', 'blue']),
        ('class', ['class']),
        ('train\nclass', ['train', 'class']),
        ('naïve label\nroad', ['naïve label', 'road']),
        # indices
        ('0:background,crops\n1:bird,birds', ['background,crops', 'bird,birds']),
        ('0:background,crops', ['background,crops']),
        ('1: road\n2: sky', ['road', 'sky']),
        ('0,road\n1,3 seater sofa', ['road', '3 seater sofa']),
        ('0;road\n1;sky\n2 ; tree', ['road', 'sky', 'tree']),
        ('1\troad\n2 \tsky', ['road', 'sky']),
        ('1. road\n2. sky', ['road', 'sky']),
        ('1) road\n2) sky', ['road', 'sky']),
        ('0 - road\n1 - sky', ['road', 'sky']),
        ('[road]\n{sky}', ['[road]', '{sky}']),
        ('0 road\n1 night sky', ['road', 'night sky']),
        ('10 a\n' + '\n'.join(f'{i} b' for i in range(9)), ['10 a', *(f'{i} b' for i in range(9))]),
        ('2:tree\n0:road\n1:sky', ['road', 'sky', 'tree']),
        ('2\ttree\n1\troad', ['road', 'tree']),
        ('0,"cat, feline"\n1,"dog"', ['cat, feline', 'dog']),
        ('0:invalid_class_id\n1:road\n2:invalid_class_id\n3:sky', ['road', 'sky']),
        ('__ignore__\n_background_\ncat', ['_background_', 'cat']),
        # colours
        ('road,128,64,128\nsky,70,130,180', ['road', 'sky']),
        ('0,road,128,64,128\n1,sky, 70, 130,180', ['road', 'sky']),
        ('1;sky;70;130;180\n0;road;128;64;128', ['road', 'sky']),
        ('0 128 64 128 road\n1 70 130 180 sky', ['road', 'sky']),
        ('1,70,130,180,sky\n0,128,64,128,road', ['road', 'sky']),
        ('64 128 64\tAnimal\n192 0 128\t\tArchway', ['Animal', 'Archway']),
        ('0 0 0 background\n255 0 124 oil, spill', ['background', 'oil, spill']),
        ('road #8040ff\nnight sky\t#000000', ['road', 'night sky']),
        ('0: road (128, 64, 128)\n1: sky [70, 130, 180]', ['road', 'sky']),
        ('# label:color_rgb:parts:actions\nroad:0,0,0::\nman:1,2,3:hand,foot:run', ['road', 'man']),
        ('"road","128","64","128"\n"sky, air","0","0","0"', ['road', 'sky, air']),
        # names that merely begin or end with a number
        ('1 euro coin\n2 euro coin', ['1 euro coin', '2 euro coin']),
        ('3 seater sofa\n7up\n18-wheeler', ['3 seater sofa', '7up', '18-wheeler']),
        ('1 euro coin', ['1 euro coin']),
        ('cat\n747, jumbo jet\n1,000 rupee note\n16:9 screen', None),
        ('0\n1\n2', ['0', '1', '2']),
        ('terminal 1\nterminal 2', ['terminal 1', 'terminal 2']),
        ('1 road\n3 sky', ['1 road', '3 sky']),
    ],
)
def test_text(text, names):
    assert parse_class_list(text) == (text.split('\n') if names is None else names)


@pytest.mark.parametrize(
    ('text', 'parts'),
    [
        ('', ['holds no class name']),
        ('# a\n\n// b', ['holds no class name', 'comments']),
        ('__ignore__', ['holds no class name']),
        ('0:road\n\nsky', ["line 3, 'sky'", 'no index', "line 1, '0:road'"]),
        ('road\n# one\n1,sky', ["line 1, 'road'", 'no index', "line 3, '1,sky'"]),
        ('0:road\n2:sky', ["line 2, '2:sky'", 'index 2', 'expected 0..1, each once']),
        ('1\troad\n2\tsky\n2\ttree', ["line 3, '2\\ttree'", 'index 2', 'expected 1..3']),
        ('5;road', ["line 1, '5;road'", 'index 5', 'expected 1..1']),
        ('0:road\n1:', ["line 2, '1:'", 'no name']),
        ('road,128,64,128\nsky', ["line 2, 'sky'", 'no colour', "line 1, 'road,128,64,128'"]),
        ('road,128,64,128\nsky,70,256,180', ["line 2, 'sky,70,256,180'", '0..255']),
        ('64 128 64\tAnimal\nArchway', ["line 2, 'Archway'", 'no colour']),
        ('road #8040ff\nsky #12', ["line 2, 'sky #12'", '#rrggbb']),
        ('road,7,0,128,64,128\nsky,23,10,0,0,0', ["line 1, 'road,7,0,12", "'road,7,0' is left"]),
        ('road 128 64 128 255\nsky 0 0 0 255', ["line 1, 'road 128 64", 'more columns']),
        ('7 road 128 64 128\n8 sky 0 0 0', ["line 1, '7 road", "'7 road' is left"]),
        ('128 64 128\n0 0 0', ["line 1, '128 64 128'", 'more columns']),
        ('0 1 2 3\n1 3 4 5', ["line 1, '0 1 2 3'", 'more columns']),
        ('road,0.5,0.2,0.5\nsky,0.1,0,0', ["line 1, 'road,0.5", 'more columns']),
        ('Idx\tRatio\tName\n1\t0.15\twall', ["line 1, 'Idx\\tRatio\\tName'", 'no index']),
        ('1\t0.15\twall\n2\t0.1\tsky', ["line 1, '1\\t0.15\\twall'", "'0.15\\twall' is left"]),
        ('road\tflat\nsky', ["line 1, 'road\\tflat'", 'more columns']),
        ('["cat", "dog"]', ["""line 1, '["cat", "dog"]'""", 'named .json']),
        ('{\n"0": "cat"\n}', ["line 1, '{'", 'named .json']),
        ("{0: 'cat',\n1: 'dog'}", ['line 1, "{0:', 'looks like JSON or code']),
        ('road,0\nsky,1', ["line 1, 'road,0'", 'more columns']),
    ],
)
def test_text_that_is_refused(text, parts):
    with pytest.raises(ValueError) as caught:
        parse_class_list(text)
    for part in [*parts, 'write one name a line', '.json list of strings']:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ('content', 'names'),
    [
        (['0:road', '1,2,3', ' bed '], ['0:road', '1,2,3', ' bed ']),
        ({'0': 'road', '1': 'sky'}, ['road', 'sky']),
        ({'2': 'sky', '10': 'j', **{str(i): 'x' for i in (1, *range(3, 10))}}, None),
        ([{'name': 'road', 'color': [1, 2, 3]}, {'name': 'sky'}], ['road', 'sky']),
        ([{'id': 9, 'name': 'sky'}, {'id': 2, 'name': 'road'}], ['road', 'sky']),
    ],
)
def test_json(content, names):
    expected = ['x', 'sky', *['x'] * 7, 'j'] if names is None else names
    assert parse_class_json(json.dumps(content)) == expected


@pytest.mark.parametrize(
    ('content', 'part'),
    [
        ([], r'got \[\]'),
        ({}, r'got \{\}'),
        (3, 'got 3'),
        (['cat', 7], r'got \["cat", 7\]'),
        ({'road': 0}, r'got \{"road": 0\}'),
        ({'0': 0}, r'got \{"0": 0\}'),
        ([{'title': 'road'}], r'got \[\{"title": "road"\}\]'),
        ([['road', [1, 2, 3]]], r'got \[\["road"'),
        ({'0': 'road', '2': 'sky'}, 'key "2", \'sky\', is repeated or out of range: expected 0..1'),
    ],
)
def test_json_that_is_refused(content, part):
    with pytest.raises(ValueError, match=part) as caught:
        parse_class_json(json.dumps(content))
    assert 'expected 0..1' in part or 'must hold a JSON list of strings' in str(caught.value)


@pytest.mark.parametrize('name', shipped_vocabularies())
def test_shipped_lists_are_what_they_were(name, tmp_path):
    names = json.loads(_lists()[name].read_text(encoding='utf-8'))
    assert load_vocabulary(name) == names
    (tmp_path / 'names.json').write_text(json.dumps(names))
    assert load_vocabulary(tmp_path / 'names.json') == names
    (tmp_path / 'names.txt').write_text('\n'.join(names), encoding='utf-8-sig')
    assert load_vocabulary(tmp_path / 'names.txt') == [name.strip() for name in names]


@pytest.mark.parametrize(
    'names', [*(kind.METAINFO['classes'] for kind in LISTS), IMAGENET_CLASSNAMES]
)
def test_usual_lists_are_names_alone(names):
    assert parse_class_list('\n'.join(names)) == [name.strip() for name in names]
    indexed = '\n'.join(f'{index} {name}' for index, name in enumerate(dict.fromkeys(names)))
    assert parse_class_list(indexed) == [name.strip() for name in dict.fromkeys(names)]


def test_the_file_is_named_and_underscores_are_noted(tmp_path, caplog, monkeypatch):
    logger = MMLogger.get_current_instance()
    monkeypatch.setattr(logger, 'handlers', [*logger.handlers, caplog.handler])
    path = tmp_path / 'names.txt'
    path.write_text('0:road\n2:sky')
    with pytest.raises(ValueError, match=f"file '{re.escape(str(path))}': line 2, '2:sky'"):
        load_vocabulary(path)
    path.write_text('sky\nroad')
    assert load_vocabulary(path) == load_vocabulary(str(path)) == ['sky', 'road']
    assert not caplog.records
    path.write_text('sky\ntraffic_light\n' + '\n'.join(f'a_{i}' for i in range(6)))
    assert load_vocabulary(path)[1] == 'traffic_light'
    (record,) = caplog.records
    assert record.levelname == 'WARNING'
    shown = "'traffic_light', 'a_0', 'a_1', 'a_2', 'a_3' and 2 more"
    assert f'{str(path)!r}: 7 of 8 names have underscores ({shown})' in record.getMessage()
    assert "'traffic light' better than 'traffic_light'" in record.getMessage()
