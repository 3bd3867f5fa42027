"""tools/prepare_data.py on miniatures of the original archives, and on bad input."""

from __future__ import annotations

import errno
import json
import os
import pickle
import tarfile
import threading
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from original_archives import (
    COUNTS,
    MAKERS,
    Expected,
    ade847_members,
    ade_index,
    ade_seg,
    blocks,
    context_json,
    encode,
    make_pc59,
    make_voc20,
    write_zip,
)
from PIL import Image

from infoclip_mmseg.datasets.prepare import RECIPES, label_files

ROOT = Path(__file__).resolve().parents[2]
ADE_FULL = 'ADE20K_2021_17_01'
VOC = 'VOCdevkit/VOC2012'


def assert_labels(root: Path, expected: Expected) -> None:
    for name, label in expected.items():
        with Image.open(root / name) as image:
            grey = 'I;16' if name.endswith('.tif') else 'L'
            assert image.mode == ('RGB' if label.ndim == 3 else grey), name
            np.testing.assert_array_equal(np.asarray(image), label, err_msg=name)


def leftovers(root: Path) -> list[Path]:
    return [path for path in root.rglob('.*') if path.is_file()]


@pytest.mark.parametrize('workers', [1, 2])
@pytest.mark.parametrize('name', list(MAKERS))
def test_from_archive_to_labels(name, workers, program, tmp_path, capsys):
    root = tmp_path / 'data'
    expected = MAKERS[name](root)
    assert program(name, '--root', str(root), workers=workers) == 0, capsys.readouterr().err
    assert_labels(root, expected)
    assert leftovers(root) == []
    assert program(name, '--root', str(root), '--check', workers=workers) == 0
    out = capsys.readouterr().out
    assert 'FAIL' not in out and out.count('ok  ') == (8 if name.startswith('coco') else 4)


def test_a847_holds_255_300_and_the_ignored_label(program, tmp_path):
    expected = MAKERS['ade847'](tmp_path)
    assert program('ade847', '--root', str(tmp_path)) == 0
    labels = tmp_path / ADE_FULL / 'annotations_detectron2/validation'
    for name in expected:
        values = set(np.unique(np.asarray(Image.open(tmp_path / name))))
        assert values == {0, 11, 255, 256, 300, 846, 65535}
    sizes = [Image.open(labels / f'ADE_val_0000000{n}.tif').size for n in (1, 2, 3)]
    assert sizes == [(130, 90), (681, 512), (512, 689)]
    images = tmp_path / ADE_FULL / 'images_detectron2/validation'
    assert [Image.open(images / f'ADE_val_0000000{n}.jpg').size for n in (1, 2, 3)] == sizes
    unpacked = {path.name for path in (tmp_path / ADE_FULL / 'images').rglob('*.*')}
    assert not any('train' in n or 'parts' in n or 'instance' in n for n in unpacked)


def test_second_run_does_nothing_again(program, tmp_path, capsys):
    expected = MAKERS['voc20'](tmp_path)
    assert program('voc20', '--root', str(tmp_path)) == 0
    times = [(tmp_path / name).stat().st_mtime_ns for name in expected]
    assert program('voc20', '--root', str(tmp_path)) == 0
    assert 'already prepared' in capsys.readouterr().out
    missing = tmp_path / list(expected)[1]
    missing.unlink()
    assert program('voc20', '--root', str(tmp_path)) == 0
    after = [(tmp_path / name).stat().st_mtime_ns for name in expected]
    assert after[0] == times[0] and after[2] == times[2] and after[1] != times[1]


def test_missing_sources_are_described(program, tmp_path, capsys):
    assert program('all', '--root', str(tmp_path)) == 2
    error = capsys.readouterr().err
    for recipe in RECIPES.values():
        assert f'{recipe.name} needs:' in error
        for source in recipe.sources:
            assert str(tmp_path / 'downloads' / source.filename) in error
            assert all(url in error for url in source.urls)
    assert 'https://groups.csail.mit.edu/vision/datasets/ADE20K/request_data/' in error
    assert 'Traceback' not in error


def test_check_without_data_fails(program, tmp_path, capsys):
    assert program('all', '--root', str(tmp_path), '--check') == 1
    out = capsys.readouterr().out
    assert all(f'FAIL  {title}: ' in out for title in COUNTS) and 'ok  ' not in out


@pytest.mark.parametrize('options', [['ade150', '--check', '--download'], ['ade']])
def test_bad_options(options, program, capsys):
    assert program(*options) == 2
    assert 'error:' in capsys.readouterr().err


def test_no_workers(program, capsys):
    assert program('ade150', workers=0) == 2
    assert '--workers 0: expected at least 1' in capsys.readouterr().err


def test_layout_of_mmseg_is_accepted_for_pc59(program, tmp_path, capsys):
    make_pc59(tmp_path)
    assert program('pc59', '--root', str(tmp_path)) == 0
    made = tmp_path / 'VOCdevkit/VOC2010/annotations_detectron2/pc59_val'
    other = tmp_path / 'VOCdevkit/VOC2010/SegmentationClassContext'
    other.mkdir()
    for path in list(made.iterdir()):
        label = np.asarray(Image.open(path)).astype(int) + 1
        label[label == 256] = 0
        Image.fromarray(label.astype(np.uint8)).save(other / path.name)
        path.unlink()
    assert program('pc59', '--root', str(tmp_path), '--check') == 0
    assert 'SegmentationClassContext' in capsys.readouterr().out
    assert program('pc59', '--root', str(tmp_path)) == 0
    assert 'already prepared' in capsys.readouterr().out and not list(made.iterdir())


def test_labels_of_sbd_stand_in_for_missing_ones(program, tmp_path):
    expected = make_voc20(tmp_path)
    (tmp_path / 'downloads/VOCtrainval_11-May-2012.tar').rename(tmp_path / 'voc.tar')
    with tarfile.open(tmp_path / 'voc.tar') as archive:
        archive.extractall(tmp_path)
    folder = tmp_path / VOC
    (folder / 'SegmentationClass').rename(folder / 'SegmentationClassAug')
    for path in (folder / 'SegmentationClassAug').iterdir():  # these are grey, not indexed
        Image.fromarray(np.asarray(Image.open(path))).save(path)
    assert program('voc20', '--root', str(tmp_path)) == 0
    assert_labels(tmp_path, expected)


# Bad input


def unpacked_voc(root: Path, program) -> tuple[Expected, Path]:
    """VOC unpacked and converted, then without the converted label maps."""
    expected = make_voc20(root)
    assert program('voc20', '--root', str(root)) == 0
    for name in expected:
        (root / name).unlink()
    return expected, root / VOC / 'SegmentationClass'


def break_missing(labels: Path) -> None:
    (labels / '2007_000042.png').unlink()


def break_swapped(labels: Path) -> None:
    first, second = labels / '2007_000042.png', labels / '2007_000061.png'
    first.rename(labels / 'x'), second.rename(first), (labels / 'x').rename(second)


def break_size(labels: Path) -> None:
    values = np.asarray(Image.open(labels / '2007_000042.png'))
    (labels / '2007_000042.png').write_bytes(encode(values[:-1], 'PNG', palette=True))


def break_range(labels: Path) -> None:
    values = np.array(Image.open(labels / '2007_000042.png'))
    values[0, 0] = 21
    (labels / '2007_000042.png').write_bytes(encode(values, 'PNG', palette=True))


def break_colours(labels: Path) -> None:
    Image.open(labels / '2007_000042.png').convert('RGB').save(labels / '2007_000042.png')


def break_cut(labels: Path) -> None:
    data = (labels / '2007_000042.png').read_bytes()
    (labels / '2007_000042.png').write_bytes(data[: len(data) // 2])


@pytest.mark.parametrize(
    'damage, words',
    [
        (break_missing, 'is missing'),
        (break_swapped, '50 x 30 pixels (height x width)'),
        (break_size, 'is 32 x 50 pixels'),
        (break_range, 'holds [21]'),
        (break_colours, 'holds RGB pixels'),
        (break_cut, 'damaged'),
    ],
)
def test_bad_label_is_named_and_the_others_are_made(damage, words, program, tmp_path, capsys):
    expected, labels = unpacked_voc(tmp_path, program)
    good = {path.name: path.read_bytes() for path in labels.iterdir()}
    damage(labels)
    assert program('voc20', '--root', str(tmp_path)) == 2
    error = capsys.readouterr().err
    assert words in error and '2007_000042' in error and 'Traceback' not in error
    assert '2007_000033' not in error and leftovers(tmp_path) == []
    assert not (tmp_path / VOC / 'annotations_detectron2/2007_000042.png').exists()
    assert program('voc20', '--root', str(tmp_path), '--check') == 1
    for name, data in good.items():
        (labels / name).write_bytes(data)
    assert program('voc20', '--root', str(tmp_path)) == 0
    assert_labels(tmp_path, expected)


def test_bad_labels_of_ade_full(program, tmp_path, capsys):
    members, _ = ade847_members()
    names = [name for name in members if '/validation/' in name and name.endswith('_seg.png')]
    members[names[0]], members[names[1]] = members[names[1]], members[names[0]]
    members[names[2]] = ade_seg(np.full((700, 520), OUTSIDE := 3689))
    write_zip(tmp_path / 'downloads/ADE20K_2021_17_01.zip', members)
    assert program('ade847', '--root', str(tmp_path)) == 2
    error = capsys.readouterr().err
    assert '3 of 3 could not be converted' in error and f'holds [{OUTSIDE}]' in error
    assert 'is 601 x 799 pixels (height x width)' in error and '90 x 130' in error


@pytest.mark.parametrize('name', list(MAKERS))
def test_archives_cut_short(name, program, tmp_path, capsys):
    expected = MAKERS[name](tmp_path)
    for archive in (tmp_path / 'downloads').iterdir():
        if archive.suffix == '.txt':
            continue
        whole = archive.read_bytes()
        archive.write_bytes(whole[: int(len(whole) * 0.3)])
        assert program(name, '--root', str(tmp_path)) == 2
        error = capsys.readouterr().err
        assert 'cut short' in error and archive.name in error and 'Traceback' not in error
        assert leftovers(tmp_path) == []
        archive.write_bytes(whole)
    assert program(name, '--root', str(tmp_path)) == 0
    assert_labels(tmp_path, expected)


class Attack:
    def __init__(self, command: str) -> None:
        self.command = command

    def __reduce__(self):
        return os.system, (self.command,)


@pytest.mark.parametrize('by_hand', [False, True])
def test_malicious_index_is_refused(by_hand, program, tmp_path, capsys):
    command = f'touch {tmp_path}/attacked'
    members, _ = ade847_members()
    data = pickle.dumps({**ade_index([]), 'scene': [Attack(command)]})
    if by_hand:
        data = f"cos\nsystem\n(S'{command}'\ntR.".encode()
    members[f'{ADE_FULL}/index_ade20k.pkl'] = data
    write_zip(tmp_path / 'downloads/ADE20K_2021_17_01.zip', members)
    assert program('ade847', '--root', str(tmp_path)) == 2
    error = capsys.readouterr().err
    assert ('os.system' if by_hand else 'posix.system') in error and 'refused' in error
    assert not (tmp_path / 'attacked').exists()


@pytest.mark.parametrize('name', ['ade847', 'coco-stuff', 'pc59'])
@pytest.mark.parametrize('workers', [1, 2])
def test_disk_full_in_the_middle(name, workers, program, tmp_path, capsys, monkeypatch):
    """The second file can't be written; what stands there is whole, a second run finishes."""
    expected = MAKERS[name](tmp_path)
    if name != 'ade847':
        assert program(name, '--root', str(tmp_path)) == 0
        for path in expected:
            (tmp_path / path).unlink()
    last = Path(list(expected)[-1]).name
    write = Path.write_bytes

    def full(self, data):
        if last in self.name:
            write(self, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, 'No space left on device')
        return write(self, data)

    with monkeypatch.context() as patch:
        patch.setattr(Path, 'write_bytes', full)
        assert program(name, '--root', str(tmp_path), workers=workers) == 2
    error = capsys.readouterr().err
    assert 'the disk is full' in error and 'start the same command again' in error
    assert 'Traceback' not in error and error.count('error:') == 1
    assert not (tmp_path / list(expected)[-1]).exists()
    made = {path: label for path, label in expected.items() if (tmp_path / path).exists()}
    assert_labels(tmp_path, made)
    assert program(name, '--root', str(tmp_path), '--check') == 1
    assert program(name, '--root', str(tmp_path), workers=workers) == 0
    assert_labels(tmp_path, expected)
    assert leftovers(tmp_path) == []
    assert program(name, '--root', str(tmp_path), '--check') == 0


def test_disk_full_while_unpacking(program, tmp_path, capsys, monkeypatch):
    expected = MAKERS['voc20b'](tmp_path)
    replace_file, calls = os.replace, []

    def full(source, target):
        calls.append(target)
        if len(calls) == 3:
            raise OSError(errno.ENOSPC, 'No space left on device')
        replace_file(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, 'replace', full)
        assert program('voc20b', '--root', str(tmp_path)) == 2
    assert 'the disk is full' in capsys.readouterr().err and leftovers(tmp_path) == []
    assert program('voc20b', '--root', str(tmp_path)) == 0
    assert_labels(tmp_path, expected)


def damage_converted(root: Path, name: str, kind: str) -> None:
    """Damage one converted label map or its pair."""
    path = root / next(iter(MAKERS[name](root / 'again')))
    label = np.array(Image.open(path))
    if kind == 'missing':
        path.unlink()
    elif kind == 'size':
        label_files.write_image(path, label[:-1])
    elif kind == 'range':
        label[0, 0] = {'ade847': 847, 'ade150': 151, 'voc20': 20, 'pc459': 460, 'pc59': 59}[name]
        label_files.write_image(path, label)
    elif kind == 'bits':
        label_files.write_image(path, (label % 256).astype(np.uint8))
    elif kind == 'cut':
        path.write_bytes(path.read_bytes()[:-20])
    elif kind == 'image':
        RECIPES[name].parts[0].made.image_file(path.stem, root).unlink()


KINDS = ('missing', 'size', 'range', 'cut', 'image')
DAMAGES = [(n, k) for n in ('ade847', 'ade150', 'voc20', 'pc459', 'pc59') for k in KINDS]


@pytest.mark.parametrize('name, kind', [*DAMAGES, ('ade847', 'bits'), ('pc459', 'bits')])
def test_check_finds_damage(name, kind, program, tmp_path, capsys):
    MAKERS[name](tmp_path)
    assert program(name, '--root', str(tmp_path)) == 0
    damage_converted(tmp_path, name, kind)
    capsys.readouterr()
    assert program(name, '--root', str(tmp_path), '--check') == 1
    lines = capsys.readouterr().out.splitlines()
    words = dict(missing='missing', image='missing', size='sizes', cut='sizes')
    failed = [line for line in lines if line.startswith('FAIL')]
    assert any(words.get(kind, 'values') in line for line in failed), lines


def test_check_compares_with_the_published_count(program, tmp_path, capsys):
    MAKERS['voc20'](tmp_path)
    assert program('voc20', '--root', str(tmp_path)) == 0
    assert program('voc20', '--root', str(tmp_path), '--check', counts={}) == 1
    assert 'FAIL  voc20: 3 images, expected 1,449' in capsys.readouterr().out


def test_json_with_a_category_outside_of_the_59(program, tmp_path, capsys):
    make_pc59(tmp_path)
    data, _ = context_json()
    data['annos_segmentation'][3]['category_id'] = 1
    (tmp_path / 'downloads/trainval_merged.json').write_text(json.dumps(data))
    assert program('pc59', '--root', str(tmp_path)) == 2
    assert 'trainval_merged.json:2008_000002 holds [1]' in capsys.readouterr().err


def test_blocks_hold_all_values():
    assert set(np.unique(blocks(40, 50, [3, 300, 65535]))) == {3, 300, 65535}


@pytest.mark.parametrize('name', ['pc459', 'ade847'])
def test_download_from_a_server(name, program, tmp_path, capsys, monkeypatch):
    """Everything is fetched, unpacked, converted; what needs a registration is not fetched."""
    expected = MAKERS[name](tmp_path / 'server')
    handler = partial(QuietHandler, directory=str(tmp_path / 'server/downloads'))
    recipe = RECIPES[name]
    with ThreadingHTTPServer(('127.0.0.1', 0), handler) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        address = f'http://127.0.0.1:{server.server_port}'
        urls = [(f'{address}/{one.filename}',) if one.urls else () for one in recipe.sources]
        served = tuple(replace(one, urls=url) for one, url in zip(recipe.sources, urls))
        monkeypatch.setitem(RECIPES, name, replace(recipe, sources=served))
        monkeypatch.setenv('no_proxy', '127.0.0.1')
        status = program(name, '--root', str(tmp_path / 'data'), '--download')
        server.shutdown()
    captured = capsys.readouterr()
    if name == 'ade847':
        assert status == 2 and 'registration' in captured.err
        return
    assert status == 0, captured.err
    assert 'fetch trainval.tar.gz' in captured.out and 'unpack trainval.tar.gz' in captured.out
    assert_labels(tmp_path / 'data', expected)


class QuietHandler(SimpleHTTPRequestHandler):
    def log_message(self, *args):
        pass
