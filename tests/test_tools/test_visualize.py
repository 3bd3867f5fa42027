from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from PIL import Image

from infoclip_mmseg.world import ComposedWorldDataset, export_world

ROOT = Path(__file__).resolve().parents[2]
ADE = sorted((ROOT / 'tests/data/ade/images/validation').glob('*.jpg'))
ADE_LABELS = ROOT / 'tests/data/ade/annotations/validation'
WORDS = 'red plain object; grass; snow'
PAIR = ['--config', 'a', '--config', 'b']


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """tools/visualize.py as a module, in an empty working directory."""
    monkeypatch.setattr(sys, 'path', list(sys.path))
    monkeypatch.chdir(tmp_path)
    spec = importlib.util.spec_from_file_location('tool_visualize', ROOT / 'tools/visualize.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def spy(tool, monkeypatch):
    """``spy('draw_sheet')`` gives the arguments of the latest call of a function of the tool."""

    def watch(name: str) -> list:
        calls: list = []
        original = getattr(tool, name)

        def record(*args, **options):
            calls[:] = args
            return original(*args, **options)

        monkeypatch.setattr(tool, name, record)
        return calls

    return watch


@pytest.fixture(scope='session')
def infoclip(tmp_path_factory):
    """An untrained checkpoint of configs/world/infoclip.py."""
    init_default_scope('mmseg')  # session fixtures come before that of each test
    cfg = Config.fromfile(ROOT / 'configs/world/infoclip.py')
    cfg.model.backbone.pretrained = str(ROOT / 'data/clip/composed_world.safetensors')
    torch.manual_seed(0)
    model = MODELS.build(cfg.model)
    model.init_weights()
    path = tmp_path_factory.mktemp('infoclip') / 'iter_0.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return path


@pytest.fixture(scope='session')
def world(tmp_path_factory):
    """Folders with images and labels of three scenes, and a file with the classes."""
    folder = tmp_path_factory.mktemp('world')
    dataset = ComposedWorldDataset(length=3, split='test', pipeline=[])
    export_world(dataset, folder)
    (folder / 'names.txt').write_text('\n'.join(dataset.metainfo['classes']))
    images = sorted({path.parent for path in folder.rglob('*.png')})
    return dict(images=images[1], labels=images[0], names=folder / 'names.txt')


def test_alignment_of_real_images_with_nothing_downloaded(tool, capsys):
    tool.main(['alignment', *map(str, ADE), '--classes', WORDS, '--limit', '2'])
    out = capsys.readouterr().out
    assert 'no LPAM in this checkpoint, cosines only' in out
    assert 'the first 2 images are drawn' in out
    assert Image.open('work_dirs/figures/alignment.png').size[0] > 800
    assert Path('work_dirs/figures/alignment.pdf').read_bytes().startswith(b'%PDF')


def test_alignment_of_two_checkpoints(tool, spy, infoclip):
    calls = spy('draw_alignment')
    options = ['--config', 'world/zero_shot', '--weights', 'none', '--title', 'CLIP']
    options += ['--config', 'world/infoclip', '--weights', str(infoclip), '--title', 'ours']
    words = 'Snow; grass; snow'
    tool.main(['alignment', str(ADE[0]), '--classes', words, '--out', 'a.png', *options])
    rows = calls[1]
    assert list(rows) == ['CLIP\ncosine', 'ours\ncosine', 'ours\nLPAM']
    assert all(maps[0].shape == (3, 8, 8) for maps in rows.values())
    assert np.allclose(rows['CLIP\ncosine'][0], rows['ours\ncosine'][0], atol=1e-5)  # untrained
    assert not np.allclose(rows['ours\ncosine'][0], rows['ours\nLPAM'][0], atol=0.05)
    cosine = rows['CLIP\ncosine'][0]
    assert np.array_equal(cosine[0], cosine[2]) and not np.allclose(cosine[0], cosine[1])
    assert Path('a.png').is_file() and not Path('a.pdf').exists()


def test_tsne(tool, spy, world, infoclip):
    pytest.importorskip('sklearn')
    calls = spy('draw_embeddings')
    options = ['tsne', str(world['images']), '--classes-file', str(world['names'])]
    options += ['--config', 'world/zero_shot', '--weights', 'none']
    options += ['--config', 'world/infoclip', '--weights', str(infoclip)]
    options += ['--points', '90', '--perplexity', '9']
    tool.main([*options, '--out', 'a'])
    first = calls[0]
    assert list(first) == ['zero_shot', 'infoclip']
    assert all(places.shape == (90, 2) and len(own) == 90 for places, own in first.values())
    assert len(set(first['zero_shot'][1])) > 1
    tool.main([*options, '--out', 'b'])
    assert Path('a.png').read_bytes() == Path('b.png').read_bytes()
    tool.main([*options, '--out', 'c', '--seed', '1'])
    assert Path('a.png').read_bytes() != Path('c.png').read_bytes()


def test_labels_at_the_middle_of_patches(tool):
    labels = np.arange(6 * 8).reshape(6, 8)
    assert tool.labels_of_patches(labels, (2, 2)).tolist() == [[10, 14], [34, 38]]
    assert np.array_equal(tool.labels_of_patches(labels, (6, 8)), labels)


def test_lambda(tool, capsys):
    results = ROOT / 'configs/world/results/ablation_lambda.csv'
    tool.main(['lambda', str(results), '--tests', 'joint', '--out', 'grid.pdf'])
    assert capsys.readouterr().out == 'grid.pdf\n'
    assert Path('grid.pdf').stat().st_size > 5000


def test_sheet_with_truth(tool, spy, world):
    calls = spy('draw_sheet')
    names = ['--classes-file', str(world['names'])]
    tool.main(['sheet', str(world['images']), *names, '--truth', str(world['labels'])])
    columns = calls[2]
    assert list(columns) == ['ground truth', 'zero_shot']
    pairs = list(zip(columns['ground truth'], columns['zero_shot']))
    assert len(pairs) == 3
    assert all((truth == found).mean() > 0.4 for truth, found in pairs)
    assert Path('work_dirs/figures/sheet.pdf').is_file()


def test_other_words_give_another_sheet(tool, spy):
    calls = spy('draw_sheet')
    found = []
    for words in (WORDS, 'blue plain object; sand; water'):
        tool.main(['sheet', str(ADE[0]), '--classes', words, '--out', f'{len(found)}.png'])
        found.append((calls[2]['zero_shot'][0], calls[3]))
    assert found[0][0].shape == Image.open(ADE[0]).size[::-1]
    assert not np.array_equal(found[0][0], found[1][0])
    assert found[1][1] == ('blue plain object', 'sand', 'water')


def test_sheet_of_ade_labels(tool, spy):
    calls = spy('draw_sheet')
    options = ['--vocabulary', 'ade150', '--truth', str(ADE_LABELS), '--reduce-zero-label']
    tool.main(['sheet', str(ADE[0]), *options, '--out', 'a.png'])
    (truth,) = calls[2]['ground truth']
    raw = np.array(Image.open(ADE_LABELS / f'{ADE[0].stem}.png')).astype(int)
    assert np.array_equal(truth, np.where(raw == 0, 150, raw - 1))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['alignment', 'no.jpg', '--classes', WORDS], 'no.jpg: no such file or folder'),
        (['alignment', ADE[0], '--vocabulary', 'ade150'], '150 words are too many for a figure'),
        (['alignment', ADE[0], '--classes', ' ; '], 'the vocabulary is empty'),
        (['alignment', ADE[0], '--classes', WORDS, '--limit', '0'], '--limit must be 1 or more'),
        (['alignment', ADE[0], '--classes', WORDS, '--out', 'a.svg'], 'written as .png or .pdf'),
        (['sheet', ADE[0], '--classes', WORDS, '--truth', '.'], 'each image needs one'),
        (['sheet', ADE[0], '--classes', WORDS, '--truth', ADE_LABELS], 'is beyond the 3 classes'),
        (['sheet', ADE[0], '--classes', WORDS, '--opacity', '7'], '--opacity must be 0..1'),
        (['sheet', ADE[0], '--classes', WORDS, '--config', 'nono'], "config 'nono' is neither"),
        (['sheet', ADE[0], '--classes', WORDS, '--config', 'world/catseg'], 'weights of its own'),
        (['sheet', ADE[0], '--classes', WORDS, '--weights', 'no.pth'], 'no.pth'),
        (
            ['sheet', ADE[0], '--classes', WORDS, *PAIR, '--weights', 'c'],
            '2 --config and 1 --weights',
        ),
        (
            ['sheet', ADE[0], '--classes', WORDS, '--title', 'a', '--title', 'b'],
            'expected a different --title for each of 1 checkpoints',
        ),
        (['lambda', 'no.csv'], 'no.csv'),
        (['lambda', ADE[0]], 'expected the results.csv'),
    ],
)
def test_one_clear_error(tool, capsys, options, message):
    with pytest.raises(SystemExit) as stopped:
        tool.main([*map(str, options)])
    err = capsys.readouterr().err
    assert stopped.value.code == 2
    assert message in err.splitlines()[-1] and 'Traceback' not in err


def test_tsne_says_how_to_install(tool, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, 'sklearn', None)
    monkeypatch.setitem(sys.modules, 'sklearn.manifold', None)
    with pytest.raises(SystemExit):
        tool.main(['tsne', str(ADE[0]), '--classes', WORDS])
    assert "pip install -e '.[figures]'" in capsys.readouterr().err


def test_titles(tool):
    assert tool._make_titles(['a/x.py', 'b/y'], ['none', 'none']) == ['x', 'y']
    assert tool._make_titles(['x', 'x'], ['p/1.pth', 'p/2.pth']) == ['x 1', 'x 2']
    assert tool._make_titles(['x', 'x'], ['p/1.pth', 'q/1.pth']) == ['x 1 (1)', 'x 1 (2)']
