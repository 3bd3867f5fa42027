"""Annotations are read back by the tools' own readers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import cv2
import numpy as np
import pytest
import yaml
from pycocotools.coco import COCO

from infoclip_mmseg.annotations import FORMATS, Region, Regions, label_regions, make_writer
from infoclip_mmseg.annotations.formats import cvat_runs
from infoclip_mmseg.annotations.regions import keyhole, polygons, rings

ROOT = Path(__file__).resolve().parents[2]
NAMES = ['wall', 'sky & "clouds"', 'Baum, ä']
PALETTE = [[255, 0, 0], [0, 128, 0], [1, 2, 3]]


def blob(size=(40, 60), seed=0) -> np.ndarray:
    """A mask of several parts, some with holes, single pixels and lines among them."""
    noise = np.random.default_rng(seed).normal(size=size)
    return cv2.GaussianBlur(noise, (0, 0), 1.5) > 0.1


def holed() -> np.ndarray:
    mask = np.zeros((40, 60), bool)
    mask[5:35, 5:50] = True
    mask[10:15, 10:20] = mask[20:30, 25:40] = False
    mask[22:26, 28:35] = True  # an island in a hole
    return mask


def filled(shapes, size) -> np.ndarray:
    canvas = np.zeros(size, np.uint8)
    for shape in shapes:
        cv2.fillPoly(canvas, shape if isinstance(shape, list) else [shape], 1)
    return canvas.astype(bool)


def sample(number=0) -> Regions:
    labels = np.where(blob(seed=number), 0, 2)
    labels[:4] = 1
    labels[30:33] = 3  # background
    found = label_regions(labels, NAMES, [0.9, 0.8, 0.7])
    return Regions(f'folder/image {number}.jpg', f'image {number}', labels.shape, found)


def write(name: str, folder: Path, count=2) -> Path:
    writer = make_writer(name, folder, NAMES, PALETTE)
    for number in range(count):
        writer.add(sample(number))
    return writer.close()


@pytest.mark.parametrize('mask', [holed(), *(blob(seed=s) for s in range(8))])
def test_polygons_are_the_mask_to_the_pixel(mask):
    found = polygons(mask)
    each = [filled([[p.outer, *p.holes]], mask.shape) for p in found]
    assert np.array_equal(np.any(each, axis=0), mask)
    assert len(found) == cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1
    ringed = np.any([filled([ring], mask.shape) for ring in rings(mask)], axis=0)
    assert np.array_equal(ringed, mask)


def test_a_hole_hangs_on_the_ring_by_one_cut():
    outer, inner = sorted(polygons(holed()), key=lambda p: len(p.holes), reverse=True)
    assert len(outer.holes) == 2 and inner.holes == []
    ring = keyhole(outer)
    assert len(ring) == len(outer.outer) + sum(len(hole) + 2 for hole in outer.holes)
    assert np.array_equal(keyhole(inner), inner.outer)


def test_small_and_empty_masks():
    assert polygons(np.zeros((4, 4), bool)) == [] == rings(np.zeros((4, 4), bool))
    dot = np.zeros((4, 6), bool)
    dot[2, 3] = True
    assert [ring.tolist() for ring in rings(dot)] == [[[3, 2]] * 3]
    assert Region(0, 'dot', dot).box == (3, 2, 1, 1) and Region(0, 'dot', dot).area == 1


def test_coco(tmp_path):
    coco = COCO(str(write('coco', tmp_path)))
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == NAMES
    for number, image in enumerate(coco.loadImgs(coco.getImgIds())):
        expected = sample(number)
        assert image['file_name'] == expected.image
        entries = coco.loadAnns(coco.getAnnIds(imgIds=image['id']))
        assert len(entries) == len(expected.regions)
        for entry, region in zip(entries, expected.regions):
            assert entry['category_id'] == region.label + 1 and entry['score'] == region.score
            assert np.array_equal(coco.annToMask(entry).astype(bool), region.mask)
            assert entry['area'] == region.area and entry['bbox'] == list(region.box)


def test_labelme(tmp_path):
    folder = write('labelme', tmp_path)
    for number in range(2):
        expected = sample(number)
        content = json.loads((folder / f'{expected.stem}.json').read_text(encoding='utf-8'))
        assert (content['imageHeight'], content['imageWidth']) == expected.size
        for region in expected.regions:
            shapes = [s['points'] for s in content['shapes'] if s['label'] == region.name]
            masks = [filled([np.array(points)], expected.size) for points in shapes]
            assert np.array_equal(np.any(masks, axis=0), region.mask)


def test_labelme_reads_it(tmp_path):
    """Its reader takes the file; its rasteriser (Pillow) draws a little less of the borders."""
    labelme = pytest.importorskip('labelme')
    from labelme.utils.shape import shape_to_mask

    expected = sample(0)
    photo = tmp_path / 'photos' / 'a b.png'
    photo.parent.mkdir()
    cv2.imwrite(str(photo), np.zeros((*expected.size, 3), np.uint8))
    writer = make_writer('labelme', tmp_path / 'out', NAMES, PALETTE)
    writer.add(Regions(str(photo), 'a b', expected.size, expected.regions))
    read = labelme.LabelFile(str(writer.close() / 'a b.json'))
    for region in expected.regions:
        masks = [
            shape_to_mask(expected.size, shape['points'], shape['shape_type'])
            for shape in read.shapes
            if shape['label'] == region.name
        ]
        union = np.any(masks, axis=0)
        assert (union & region.mask).sum() / (union | region.mask).sum() > 0.97


def read_cvat(runs: str, box: tuple[int, int, int, int], size) -> np.ndarray:
    left, top, width, height = box
    lengths = [int(run) for run in runs.split(',')]
    flat = np.repeat(np.arange(len(lengths)) % 2, lengths)
    mask = np.zeros(size, bool)
    mask[top : top + height, left : left + width] = flat.reshape(height, width)
    return mask


def test_cvat(tmp_path):
    root = ElementTree.parse(write('cvat', tmp_path)).getroot()
    labels = root.findall('meta/task/labels/label')
    assert [label.findtext('name') for label in labels] == NAMES
    assert [label.findtext('color') for label in labels] == ['#ff0000', '#008000', '#010203']
    for number, image in enumerate(root.findall('image')):
        expected = sample(number)
        assert image.get('name') == expected.image
        for element, region in zip(image.findall('mask'), expected.regions):
            box = tuple(int(element.get(k)) for k in ('left', 'top', 'width', 'height'))
            assert element.get('label') == region.name and box == region.box
            assert np.array_equal(read_cvat(element.get('rle'), box, expected.size), region.mask)
    assert cvat_runs(np.array([[1, 1, 0]], bool)) == [0, 2, 1]


def test_cvat_runs_are_those_of_its_sdk():
    masks = pytest.importorskip('cvat_sdk.masks')
    mask = blob()
    x, y, w, h = Region(0, '', mask).box
    theirs = masks.encode_mask(mask)
    assert [int(v) for v in theirs[:-4]] == cvat_runs(mask[y : y + h, x : x + w])
    assert [int(v) for v in theirs[-4:]] == [x, y, x + w - 1, y + h - 1]


def test_label_studio(tmp_path):
    brush = pytest.importorskip('label_studio_sdk.converter.brush')
    tasks = json.loads(write('label-studio', tmp_path).read_text(encoding='utf-8'))
    for number, task in enumerate(tasks):
        expected = sample(number)
        (prediction,) = task['predictions']
        assert len(prediction['result']) == len(expected.regions)
        for result, region in zip(prediction['result'], expected.regions):
            assert result['value']['brushlabels'] == [region.name]
            flat = brush.decode_rle(result['value']['rle'])
            mask = np.reshape(flat, [*expected.size, 4])[..., 3] > 0
            assert np.array_equal(mask, region.mask)
    view = ElementTree.parse(tmp_path / 'labels.xml').getroot()
    assert [e.get('value') for e in view.iter('Label')] == NAMES


def test_label_studio_without_its_sdk(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, 'label_studio_sdk.converter.brush', None)
    with pytest.raises(ValueError, match=r'pip install "infoclip_mmseg\[label-studio\]"'):
        make_writer('label-studio', tmp_path, NAMES, PALETTE)


def test_yolo(tmp_path):
    folder = write('yolo-seg', tmp_path)
    content = yaml.safe_load((tmp_path / 'data.yaml').read_text(encoding='utf-8'))
    assert content['names'] == dict(enumerate(NAMES))
    for number in range(2):
        expected = sample(number)
        lines = (folder / f'{expected.stem}.txt').read_text().splitlines()
        masks = {region.label: [] for region in expected.regions}
        for line in lines:
            label, *values = line.split()
            corners = np.array(values, dtype=float).reshape(-1, 2)
            assert len(corners) >= 3 and corners.min() >= 0 and corners.max() < 1
            corners = np.rint(corners * expected.size[::-1]).astype(np.int32)
            masks[int(label)].append(filled([corners], expected.size))
        for region in expected.regions:
            assert np.array_equal(np.any(masks[region.label], axis=0), region.mask)


def test_supervision_reads_yolo(tmp_path):
    supervision = pytest.importorskip('supervision')
    folder = write('yolo-seg', tmp_path)
    (tmp_path / 'images').mkdir()
    for number in range(2):
        expected = sample(number)
        image = np.zeros((*expected.size, 3), np.uint8)
        cv2.imwrite(str(tmp_path / 'images' / f'{expected.stem}.jpg'), image)
    data = supervision.DetectionDataset.from_yolo(
        str(tmp_path / 'images'), str(folder), str(tmp_path / 'data.yaml'), force_masks=True
    )
    assert data.classes == NAMES and len(data) == 2
    for path, _, detections in data:
        expected = sample(int(Path(path).stem[-1]))
        for region in expected.regions:
            union = detections.mask[detections.class_id == region.label].any(axis=0)
            assert (union & region.mask).sum() / (union | region.mask).sum() > 0.97


def test_unknown_format(tmp_path):
    with pytest.raises(ValueError, match="format must be one of .*'coco'.* got 'voc'"):
        make_writer('voc', tmp_path, NAMES, PALETTE)


@pytest.mark.parametrize('name', [name for name in FORMATS if name != 'label-studio'])
def test_no_image_at_all(name, tmp_path):
    """The classes are said, where a format says them for all images, and nothing else."""
    write(name, tmp_path, count=0)
    files = {path.name: path.read_text('utf-8') for path in tmp_path.rglob('*') if path.is_file()}
    expected = dict(coco='annotations.json', cvat='annotations.xml')
    expected |= {'labelme': None, 'yolo-seg': 'data.yaml'}
    assert list(files) == [file for file in [expected[name]] if file]
    if name == 'coco':
        content = json.loads(files['annotations.json'])
        assert content['images'] == content['annotations'] == []
        assert [category['name'] for category in content['categories']] == NAMES
    if name == 'cvat':
        root = ElementTree.fromstring(files['annotations.xml'])
        assert root.find('image') is None
        assert [label.text for label in root.iter('name')] == NAMES
    if name == 'yolo-seg':
        assert yaml.safe_load(files['data.yaml'])['names'] == dict(enumerate(NAMES))


@pytest.mark.slow
def test_infer_writes_annotations(tmp_path):
    photos = ROOT / 'tests/data/ade/images/validation'
    words = ['--classes', 'sky; wall', '--format', 'coco', '--out', str(tmp_path)]
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    command = [sys.executable, str(ROOT / 'tools/infer.py'), str(photos), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=env)
    assert done.returncode == 0, done.stderr[-2000:]
    coco = COCO(str(tmp_path / 'annotations.json'))
    assert len(coco.getImgIds()) == len(list(photos.glob('*.jpg')))
    assert str(tmp_path / 'annotations.json') in done.stderr
