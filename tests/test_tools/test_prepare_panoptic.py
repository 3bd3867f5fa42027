"""tools/prepare_data.py on the panoptic sets: what the configs read of them, and bad input."""

from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from mmengine.config import Config
from mmseg.registry import DATASETS
from original_archives import (
    MAKERS,
    ade_panoptic_maps,
    coco_panoptic_members,
    encode,
    id_colours,
    make_ade150_panoptic,
    make_coco_panoptic,
    write_zip,
)
from PIL import Image

from infoclip_mmseg.datasets.panoptic import read_id_map

ROOT = Path(__file__).resolve().parents[2]
ADE = 'ade/ADEChallengeData2016'
MAPS, LIST = f'{ADE}/ade20k_panoptic_val', f'{ADE}/ade20k_panoptic_val.json'
CONFIGS = {
    'ade150-panoptic': ('maft-plus/maftp_convnext-l_ade20k-panoptic.py', ['test'], 150, 100),
    'coco-panoptic': ('fc-clip/fcclip_convnext-l_coco-panoptic.py', ['train', 'val'], 133, 80),
}


@pytest.fixture
def prepared(program, tmp_path, monkeypatch):
    """ADE20K panoptic below data/."""
    monkeypatch.chdir(tmp_path)
    make_ade150_panoptic(Path('data'))
    assert program('ade150-panoptic') == 0
    return tmp_path / 'data'


@pytest.mark.parametrize('name', CONFIGS)
def test_the_configs_read_what_was_prepared(name, program, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = MAKERS[name](Path('data'))
    assert program(name) == 0
    file, loops, classes, things = CONFIGS[name]
    cfg, seen = Config.fromfile(ROOT / 'configs' / file), set()
    for loop in loops:
        dataset = DATASETS.build({**cfg[f'{loop}_dataloader'].dataset, 'pipeline': []})
        meta = dataset.metainfo
        assert len(meta['classes']) == classes and len(meta['things']) == things
        for index in range(len(dataset)):
            info = dataset.get_data_info(index)
            assert Path(info['img_path']).is_file()
            path = Path(info['seg_map_path'])
            ids = set(np.unique(read_id_map(path)).tolist()) - {0}
            assert {segment['id'] for segment in info['gt_segments']} == ids
            seen.add(str(path.relative_to('data')))
    assert seen == expected.keys()


def test_the_list_of_ade20k(prepared):
    content = json.loads((prepared / LIST).read_text())
    names = [category['name'] for category in content['categories']]
    assert names[:2] == ['wall', 'building'] and names[149] == 'flag'
    assert [image['id'] for image in content['images']] == ['ADE_val_00000001', 'ADE_val_00000002']
    image = content['images'][1]
    assert (image['file_name'], image['height'], image['width']) == (
        'ADE_val_00000002.jpg',
        40,
        52,
    )
    _, _, ids = ade_panoptic_maps(2)
    segments = content['annotations'][1]['segments_info']
    assert sum(segment['area'] for segment in segments) == (ids > 0).sum()
    assert {s['category_id'] for s in segments} == {0, 16, 7, 12, 149}


def test_a_stopped_run_goes_on(prepared, program, capsys):
    text = (prepared / LIST).read_bytes()
    kept, lost = sorted((prepared / MAPS).iterdir())
    time = kept.stat().st_mtime_ns
    lost.unlink()
    assert program('ade150-panoptic') == 0
    assert lost.is_file() and kept.stat().st_mtime_ns == time
    (prepared / LIST).unlink()
    assert program('ade150-panoptic') == 0
    assert (prepared / LIST).read_bytes() == text and kept.stat().st_mtime_ns == time
    capsys.readouterr()
    assert program('ade150-panoptic') == 0
    assert 'already prepared' in capsys.readouterr().out


def test_both_sets_of_coco_take_the_images_archive(program, tmp_path):
    """Each unpacks it into its own folder, though the other has done so."""
    make_coco_panoptic(tmp_path)
    assert program('coco-panoptic', '--root', str(tmp_path)) == 0
    MAKERS['coco-stuff'](tmp_path)
    images = tmp_path / 'coco_stuff164k/images/train2017'
    images.mkdir(parents=True)  # as a stopped run leaves it
    (images / f'{9:012}.jpg').write_bytes(b'')
    assert program('coco-stuff', '--root', str(tmp_path)) == 0
    assert program('coco-stuff', '--root', str(tmp_path), '--check') == 0
    assert program('coco-panoptic', '--root', str(tmp_path), '--check') == 0


def test_an_archive_within_an_archive(program, tmp_path, capsys):
    make_coco_panoptic(tmp_path)
    path = tmp_path / 'downloads/panoptic_annotations_trainval2017.zip'
    whole = path.read_bytes()
    with zipfile.ZipFile(io.BytesIO(whole)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = 'annotations/panoptic_val2017.zip'
    write_zip(path, {**members, name: members[name][:-60]})
    assert program('coco-panoptic', '--root', str(tmp_path)) == 2
    error = capsys.readouterr().err
    assert f'coco/{name}' in error and 'cut short or damaged' in error and 'Traceback' not in error
    path.write_bytes(whole)
    (tmp_path / 'downloads' / f'{path.name}.unpacked').unlink()
    assert program('coco-panoptic', '--root', str(tmp_path)) == 0
    assert not list(tmp_path.rglob('__MACOSX'))


def test_what_is_missing_of_coco_is_described(program, tmp_path, capsys):
    make_coco_panoptic(tmp_path)
    (tmp_path / 'downloads/panoptic_annotations_trainval2017.zip').unlink()
    assert program('coco-panoptic', '--root', str(tmp_path)) == 2
    error = capsys.readouterr().err
    assert 'coco-panoptic needs:\n  panoptic_annotations_trainval2017.zip (0.8 GB)' in error
    assert 'from  panoptic_annotations_trainval2017.zip, which holds it' in error


def break_missing(path: Path) -> None:
    path.unlink()


def break_colours(path: Path) -> None:
    Image.open(path).convert('L').save(path)


def break_size(path: Path) -> None:
    path.write_bytes(encode(np.asarray(Image.open(path))[:-1], 'PNG'))


def break_category(path: Path) -> None:
    pixels = np.array(Image.open(path))
    pixels[0, 0] = 101, 9, 0
    path.write_bytes(encode(pixels, 'PNG'))


def break_cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-60])


@pytest.mark.parametrize(
    ('damage', 'words'),
    [
        (break_missing, 'ADE_val_00000002.png is missing'),
        (break_colours, 'is a picture of mode L; expected RGB'),
        (break_size, 'is 39 x 52 pixels'),
        (break_category, 'has instances of category 101; expected 1..100'),
        (break_cut, 'truncated or damaged'),
    ],
)
def test_a_bad_instance_map_is_named_and_the_others_are_made(
    damage, words, prepared, program, capsys
):
    for path in (prepared / MAPS).iterdir():
        path.unlink()
    (prepared / LIST).unlink()
    instances = prepared / ADE / 'annotations_instance/validation/ADE_val_00000002.png'
    whole = instances.read_bytes()
    damage(instances)
    assert program('ade150-panoptic') == 2
    error = capsys.readouterr().err
    assert '1 of 2 could not be converted' in error and words in error
    assert 'annotations_instance/validation/ADE_val_00000002.png' in error
    assert [path.name for path in (prepared / MAPS).iterdir()] == ['ADE_val_00000001.png']
    assert not (prepared / LIST).exists(), 'nothing lists a part of the set'
    assert program('ade150-panoptic', '--check') == 1
    instances.write_bytes(whole)
    assert program('ade150-panoptic') == 0
    assert program('ade150-panoptic', '--check') == 0


def test_id_maps_of_another_program_are_not_listed(prepared, program, capsys):
    (prepared / LIST).unlink()
    path = prepared / MAPS / 'ADE_val_00000001.png'
    path.write_bytes(encode(id_colours(np.full((40, 51), 7829367)), 'PNG'))
    assert program('ade150-panoptic') == 2
    error = capsys.readouterr().err
    assert 'has the id 7829367, which this program does not give' in error
    assert not (prepared / LIST).exists()


def spoil_id(folder: Path) -> None:
    path = folder / 'ade20k_panoptic_val/ADE_val_00000001.png'
    pixels = np.array(Image.open(path))
    pixels[0, 0] = 9, 0, 0
    path.write_bytes(encode(pixels, 'PNG'))


def spoil_map_size(folder: Path) -> None:
    path = folder / 'ade20k_panoptic_val/ADE_val_00000001.png'
    path.write_bytes(encode(np.array(Image.open(path))[1:], 'PNG'))


def spoil_map(folder: Path) -> None:
    (folder / 'ade20k_panoptic_val/ADE_val_00000001.png').unlink()


def spoil_image(folder: Path) -> None:
    (folder / 'images/validation/ADE_val_00000001.jpg').unlink()


def spoil_list(folder: Path) -> None:
    path = folder / 'ade20k_panoptic_val.json'
    path.write_bytes(path.read_bytes()[:-9])


def remove_list(folder: Path) -> None:
    (folder / 'ade20k_panoptic_val.json').unlink()


def other_list(folder: Path) -> None:
    _, maps = coco_panoptic_members('val2017', {1: (20, 20)})
    (folder / 'ade20k_panoptic_val.json').write_bytes(maps['panoptic.json'])


def shorter_list(folder: Path) -> None:
    path = folder / 'ade20k_panoptic_val.json'
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, 'annotations': content['annotations'][:1]}))


@pytest.mark.parametrize(
    ('spoil', 'words'),
    [
        (spoil_id, '1 id maps with ids that the JSON file lacks: '),
        (spoil_map_size, '1 sizes differ or files are damaged: '),
        (spoil_map, '1 files are missing: '),
        (spoil_image, '1 files are missing: '),
        (spoil_list, 'is cut short, damaged or no panoptic JSON'),
        (remove_list, 'ade20k_panoptic_val.json is missing: prepare it first'),
        (other_list, 'has 133 categories, expected 150'),
        (shorter_list, '1 images, expected 2'),
    ],
)
def test_check_finds_damage(spoil, words, prepared, program, capsys):
    spoil(prepared / ADE)
    capsys.readouterr()
    assert program('ade150-panoptic', '--check') == 1
    failed = [line for line in capsys.readouterr().out.splitlines() if line.startswith('FAIL')]
    assert len(failed) == 1 and words in failed[0]


def test_covered_segments_of_the_published_preparation_are_no_damage(prepared, program):
    """Its JSON file keeps stuff that lies under instances altogether."""
    content = json.loads((prepared / LIST).read_text())
    content['annotations'][0]['segments_info'].append(dict(id=9, category_id=2, iscrowd=0))
    (prepared / LIST).write_text(json.dumps(content))
    assert program('ade150-panoptic', '--check') == 0
