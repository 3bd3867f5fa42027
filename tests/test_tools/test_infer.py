from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
ADE = sorted((ROOT / 'tests/data/ade/images/validation').glob('*.jpg'))
WORDS = 'red plain object; grass; snow'


@pytest.fixture
def infer(monkeypatch, tmp_path):
    """tools/infer.py as a function: ``infer(*options)`` gives its status."""
    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location('tool_infer', ROOT / 'tools/infer.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def run(*options: str | Path) -> int:
        try:
            return module.main([*map(str, options), '--device', 'cpu'])
        except SystemExit as stopped:
            return stopped.code

    return run


def summary(folder: Path) -> dict:
    return json.loads((folder / 'summary.json').read_text(encoding='utf-8'))


def test_real_images(infer, tmp_path, capsys):
    assert infer(*ADE, '--classes', WORDS, '--out', 'out', '--batch-size', '2') == 0
    for path in ADE:
        size = Image.open(path).size
        labels = Image.open(tmp_path / f'out/pred/{path.stem}.png')
        assert labels.size == size and labels.mode == 'P'
        found = json.loads((tmp_path / f'out/pred/{path.stem}.json').read_text())
        assert (found['width'], found['height']) == size
        assert sum(entry['pixels'] for entry in found['classes']) == size[0] * size[1]
        assert Image.open(tmp_path / f'out/vis/{path.stem}.jpg').size[0] >= size[0]
    assert summary(tmp_path / 'out')['images'] == 3
    assert capsys.readouterr().out.startswith('3 images: ')


def test_other_words_of_the_same_count(infer, tmp_path):
    """Same output folder: labels and names of the second run are those of its words."""
    infer(ADE[0], '--classes', WORDS, '--out', 'out')
    first = np.array(Image.open(tmp_path / f'out/pred/{ADE[0].stem}.png'))
    (tmp_path / 'names.txt').write_text('blue plain object\nsand\nwater\n')
    infer(ADE[0], '--classes-file', 'names.txt', '--out', 'out')
    second = np.array(Image.open(tmp_path / f'out/pred/{ADE[0].stem}.png'))
    assert not np.array_equal(first, second)
    found = json.loads((tmp_path / f'out/pred/{ADE[0].stem}.json').read_text())
    assert {e['name'] for e in found['classes']} <= {'blue plain object', 'sand', 'water'}
    assert summary(tmp_path / 'out')['classes'] == ['blue plain object', 'sand', 'water']


def test_vocabulary_and_background(infer, tmp_path):
    assert infer(ADE[2], '--vocabulary', 'ade847', '--out', 'a') == 0
    labels = Image.open(tmp_path / f'a/pred/{ADE[2].stem}.png')
    assert labels.mode.startswith('I')
    assert infer(ADE[2], '--classes', 'grass', '--background', 'sky; house', '--out', 'b') == 0
    assert summary(tmp_path / 'b')['background'] == ['sky', 'house']
    assert infer(ADE[2], '--classes', 'grass; sand', '--background', '0.99', '--out', 'c') == 0
    (only,) = summary(tmp_path / 'c')['found']
    assert (only['name'], only['share'], only['index']) == ('background', 1.0, 2)


def test_bad_files_are_skipped_and_named(infer, tmp_path, capsys):
    folder = tmp_path / 'set'
    folder.mkdir()
    (folder / 'a.jpg').write_bytes(ADE[0].read_bytes())
    (folder / 'b.jpg').write_bytes(b'')
    (folder / 'c.jpg').write_bytes(ADE[1].read_bytes()[:9000])
    (folder / 'd.jpg').write_text('this is text')
    (folder / 'e.jpg').write_bytes(ADE[2].read_bytes())
    assert infer(folder, '--classes', WORDS, '--out', 'out') == 1
    out = capsys.readouterr().out
    assert '3 skipped:' in out and all(f'{name}.jpg: ' in out for name in 'bcd')
    assert {p.stem for p in (tmp_path / 'out/pred').glob('*.png')} == {'a', 'e'}
    assert [Path(s['image']).stem for s in summary(tmp_path / 'out')['skipped']] == ['b', 'c', 'd']
    assert infer(folder, '--classes', WORDS, '--out', 'strict', '--strict') == 2
    assert summary(tmp_path / 'strict')['images'] == 1


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['no.jpg', '--classes', WORDS], 'no.jpg: no such file or folder'),
        (['.', '--classes', WORDS], 'no image'),
        ([ADE[0], '--classes', ' ; '], 'the vocabulary is empty'),
        ([ADE[0], '--classes', WORDS, '--background', '7'], 'a threshold is a probability'),
        ([ADE[0], '--classes-file', 'no.txt'], 'no.txt'),
        ([ADE[0], '--classes', WORDS, '--config', 'world/catsegg'], 'did you mean'),
        ([ADE[0], '--classes', WORDS, '--config', 'world/catseg'], 'pass weights=CHECKPOINT'),
        ([ADE[0], '--classes', WORDS, '--weights', 'no.pth'], 'no.pth'),
        ([ADE[0], '--classes', WORDS, '--batch-size', '0'], 'batch_size must be 1 or more'),
        ([ADE[0], '--classes', 'a\udce9; b'], 'is no valid text'),
    ],
)
def test_one_clear_error(infer, capsys, options, message):
    assert infer(*options, '--out', 'out') == 2
    err = capsys.readouterr().err
    assert message in err.splitlines()[-1] and 'Traceback' not in err


def test_names_that_are_no_latin(infer, tmp_path):
    assert infer(ADE[2], '--classes', '猫; 🐱 cat; кошка', '--out', 'out') == 0
    assert summary(tmp_path / 'out')['classes'] == ['猫', '🐱 cat', 'кошка']
