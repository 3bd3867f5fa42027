"""What the writers wrote, and what the tools write, becomes label maps."""

from __future__ import annotations

import base64
import importlib.util
import io
import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from mmseg.registry import DATASETS
from PIL import Image

from infoclip_mmseg.annotations import Regions, label_regions, make_writer
from infoclip_mmseg.annotations.reading import (
    AnnotationError,
    label_map,
    label_names,
    place,
    read_annotations,
    split,
)

ROOT = Path(__file__).resolve().parents[2]
NAMES = ['wall', 'Baum, ä', 'sky']


def labels_of(number: int) -> np.ndarray:
    noise = np.random.default_rng(number).normal(size=(40, 60))
    labels = np.where(cv2.GaussianBlur(noise, (0, 0), 2) > 0, 0, 1).astype(np.uint8)
    labels[:5] = 2
    labels[20:23] = 255
    return labels


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / 'photos'
    folder.mkdir()
    for number in range(5):
        Image.fromarray(np.full((40, 60, 3), number, np.uint8)).save(folder / f'{number}.png')
    return folder


def write(name, photos, out):
    writer = make_writer(name, out, NAMES, [[0, 0, 0]] * 3)
    for path in sorted(photos.iterdir()):
        labels = labels_of(int(path.stem))
        shown = str(path) if name == 'labelme' else path.name
        writer.add(Regions(shown, path.stem, labels.shape, label_regions(labels, NAMES)))
    return writer.close()


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.setattr(sys, 'path', list(sys.path))
    path = ROOT / 'tools/import_annotations.py'
    spec = importlib.util.spec_from_file_location('tool_import', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize('name', ['labelme', 'coco', 'cvat'])
def test_there_and_back(name, photos, tmp_path, tool, capsys):
    source = write(name, photos, tmp_path / 'annotations')
    out = tmp_path / 'mine'
    tool.main([str(source), '--images', str(photos), '--out', str(out), '--val', '0.4'])
    assert '3 images to train, 2 to validate, 3 classes' in capsys.readouterr().out
    names = (out / 'classes.txt').read_text(encoding='utf-8').splitlines()
    assert sorted(names) == sorted(NAMES)
    files = sorted((out / 'labels').rglob('*.png'))
    assert sorted(path.stem for path in files) == list('01234')
    for path in files:
        got, expected = np.asarray(Image.open(path)), labels_of(int(path.stem))
        assert (out / 'images' / path.parent.name / path.name).is_file()
        for index, name_ in enumerate(NAMES):
            assert np.array_equal(got == names.index(name_), expected == index)
        assert np.array_equal(got == 255, expected == 255)


def test_the_data_set_loads(photos, tmp_path, tool):
    source = write('coco', photos, tmp_path / 'annotations')
    out = tmp_path / 'mine'
    tool.main([str(source), '--images', str(photos), '--out', str(out), '--rest', 'sky'])
    prefix = dict(img_path='images/train', seg_map_path='labels/train')
    dataset = DATASETS.build(
        dict(
            type='VocabularyDataset',
            data_root=str(out),
            vocabulary='classes.txt',
            data_prefix=prefix,
            pipeline=[dict(type='LoadImageFromFile'), dict(type='LoadLabelMap')],
        )
    )
    classes = dataset.metainfo['classes']
    assert classes[0] == 'sky' and set(classes) == set(NAMES) and len(dataset) == 4
    assert set(np.unique(dataset[0]['gt_seg_map'])) == {0, 1, 2}  # each pixel has a label


def test_shapes_of_labelme(tmp_path):
    part = np.zeros((4, 5), bool)
    part[1:3, 2:] = True
    content = io.BytesIO()
    Image.fromarray(part).save(content, 'PNG')
    mask = base64.b64encode(content.getvalue()).decode()
    shapes = [
        dict(label='box', shape_type='rectangle', points=[[10, 3], [2, 8]]),
        dict(label='disc', shape_type='circle', points=[[20, 10], [20, 15]]),
        dict(label='mask', shape_type='mask', points=[[30, 4], [35, 8]], mask=mask),
        dict(label='line', shape_type='linestrip', points=[[0, 0], [5, 5]]),
        dict(label='top', shape_type='polygon', points=[[2, 3], [4, 3], [4, 5], [2, 5]]),
    ]
    whole = dict(shapes=shapes, imagePath='..\\x.png', imageHeight=20, imageWidth=40)
    (tmp_path / 'a').mkdir()
    (tmp_path / 'a/x.json').write_text(json.dumps(whole))
    [one] = read_annotations(tmp_path)
    assert one.image == 'x.png' and one.left_out == ['linestrip']
    names = label_names([one])
    assert names == ['box', 'disc', 'mask', 'top']
    labels = label_map(one, names, 255)
    assert labels[6, 6] == 0 and labels[10, 20] == 1 and labels[4, 3] == 3
    assert np.array_equal(labels[4:8, 30:35] == 2, part)
    assert abs((labels == 1).sum() - np.pi * 25) < 20
    assert (labels[:, 36:] == 255).all()


def test_a_mask_over_the_edge_is_cut():
    part = np.ones((3, 3), bool)
    assert place(part, -1, -1, (4, 4)).sum() == 4
    assert place(part, 3, 2, (4, 4)).sum() == 2


def test_large_shapes_of_coco_lie_below(tmp_path):
    ring = [[0, 0, 9, 0, 9, 9, 0, 9]]
    small = [[2, 2, 5, 2, 5, 5, 2, 5]]
    runs = dict(size=[10, 10], counts=[90, 10])  # the last column, not packed
    images = [dict(id=7, file_name='a.png', height=10, width=10)]
    categories = [dict(id=3, name='small'), dict(id=5, name='large')]
    entries = [
        dict(id=1, image_id=7, category_id=3, segmentation=small, area=9),
        dict(id=2, image_id=7, category_id=5, segmentation=ring, area=81),
        dict(id=3, image_id=7, category_id=5, bbox=[0, 0, 1, 1], area=1),
        dict(id=4, image_id=7, category_id=3, segmentation=runs, area=10),
    ]
    path = tmp_path / 'coco.json'
    path.write_text(json.dumps(dict(images=images, categories=categories, annotations=entries)))
    [one] = read_annotations(path)
    labels = label_map(one, ['small', 'large'], 255)
    assert labels[3, 3] == 0 and labels[7, 7] == 1 and one.left_out == ['box']
    assert (labels[:, 9] == 0).all()


def test_splits():
    assert list(split(1, 0.5)) == ['train'] and list(split(2, 0.01)).count('val') == 1
    assert list(split(10, 0)).count('val') == 0
    assert list(split(10, 0.3)).count('val') == 3
    assert list(split(10, 0.3, 1)) != list(split(10, 0.3, 2))


def test_bad_input(tmp_path, photos, tool, capsys):
    def error(*options) -> str:
        with pytest.raises(SystemExit) as stopped:
            tool.main([*map(str, options), '--out', str(tmp_path / 'out')])
        assert stopped.value.code == 2 and not (tmp_path / 'out').exists()
        return capsys.readouterr().err

    assert 'has no .json files' in error(photos)
    assert 'neither a folder of labelme files nor' in error(tmp_path / 'none.txt')
    (tmp_path / 'bad.json').write_text('{')
    assert 'bad.json: not as expected (JSONDecodeError' in error(tmp_path / 'bad.json')
    (tmp_path / 'bad.json').write_text('{"a": 1}')
    assert 'has no images and categories' in error(tmp_path / 'bad.json')
    (tmp_path / 'bad.xml').write_text('<a>')
    assert 'is no valid XML' in error(tmp_path / 'bad.xml')
    (tmp_path / 'bad.xml').write_text('<a/>')
    assert 'expected <annotations> of CVAT, got <a>' in error(tmp_path / 'bad.xml')
    source = write('coco', photos, tmp_path / 'annotations')
    assert '5 of 5 images are not there' in error(source)
    assert '--val must be 0 or more and below 1' in error(source, '--val', '1')
    Image.new('RGB', (9, 9)).save(photos / '3.png')
    assert '9 x 9 pixels, its annotations say 60 x 40' in error(source, '--images', photos)
    with pytest.raises(AnnotationError):
        read_annotations(tmp_path / 'bad.xml')


def test_one_class_asks_for_the_rest(tmp_path, photos, tool, capsys):
    writer = make_writer('coco', tmp_path / 'one', ['crack'], [[0, 0, 0]])
    mask = np.zeros((40, 60), np.uint8)
    mask[:5] = 1
    writer.add(Regions('0.png', '0', mask.shape, label_regions(1 - mask, ['crack'])))
    options = [str(writer.close()), '--images', str(photos), '--out', str(tmp_path / 'out')]
    with pytest.raises(SystemExit):
        tool.main(options)
    assert "'crack' is the only class; name the other pixels too" in capsys.readouterr().err
    tool.main([*options, '--rest', 'background'])
    labels = np.asarray(Image.open(tmp_path / 'out/labels/train/0.png'))
    assert np.array_equal(labels, mask)
