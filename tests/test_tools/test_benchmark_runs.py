"""Programs on miniatures of all six sets: test.py --benchmarks, val_benchmarks of train.py."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from miniatures import SIX, make_ade150, make_all
from mmengine.config import Config
from mmseg.registry import MODELS
from PIL import Image

from infoclip_mmseg.evaluation.benchmarks import run as run_module
from infoclip_mmseg.models.text.encoder import TextEncoder

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
_base_ = ['{root}/configs/infoclip_vitb16_coco-stuff.py']
model = dict(
    data_preprocessor=dict(size=(32, 32)),
    backbone=dict(
        model_name=dict(
            _delete_=True,
            embed_dim=32,
            quick_gelu=True,
            vision_cfg=dict(image_size=32, layers=3, width=64, head_width=32, patch_size=8),
            text_cfg=dict(context_length=77, vocab_size=49408, width=32, heads=2, layers=1),
        ),
        pretrained=None,
    ),
    decode_head=dict(
        hidden_dim=32,
        num_heads=2,
        window_size=2,
        pad_len=8,
        text_proj_dim=8,
        appearance_proj_dim=8,
        decoder_dims=(32, 16),
        decoder_guidance_dims=(16, 8),
        decoder_guidance_proj_dims=(16, 8),
    ),
    input_size=32,
    test_cfg=dict(mode='whole'),
)
loading = [dict(type='LoadImageFromFile'), dict(type='LoadLabelMap'), dict(type='CheckInputs')]
resize = dict(type='Resize', scale=(48, 48), keep_ratio=False)
pipeline = [loading[0], resize, *loading[1:], dict(type='PackSegInputs')]
loader = dict(num_workers=0, persistent_workers=False)
test_dataloader = dict(**loader, dataset=dict(pipeline=pipeline))
voc = dict(
    type='PascalVOC20Dataset',
    data_root='data/VOCdevkit/VOC2012',
    data_prefix=dict(img_path='JPEGImages', seg_map_path='SegmentationClass'),
    ann_file='ImageSets/Segmentation/val.txt',
)
crops = [*loading, dict(type='Resize', scale=(32, 32), keep_ratio=False), pipeline[-1]]
train_dataloader = dict(
    **loader, batch_size=2, dataset=dict(_delete_=True, **voc, pipeline=crops)
)
val_dataloader = dict(**loader, dataset=dict(_delete_=True, **voc, pipeline=pipeline))
train_cfg = dict(max_iters=2, val_interval=1)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=8, by_epoch=False)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=100))
"""


@pytest.fixture(scope='module')
def data(tmp_path_factory, ade_root):
    """All six in mmseg's layout."""
    return make_all(tmp_path_factory.mktemp('all') / 'data', 'mmseg', ade_root)


@pytest.fixture
def place(tmp_path, monkeypatch, data):
    """Folder with tiny.py, tiny.pth and data/."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', list(sys.path))
    (tmp_path / 'tiny.py').write_text(CONFIG.format(root=ROOT))
    torch.manual_seed(0)
    model = MODELS.build(Config.fromfile('tiny.py').model)
    torch.save(dict(state_dict=model.state_dict()), 'tiny.pth')
    shutil.copytree(data, 'data')
    return tmp_path


def tool(name: str):
    spec = importlib.util.spec_from_file_location(f'tool_{name}', ROOT / f'tools/{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def evaluate(*options: str) -> dict:
    """Content of table1.json after a run of tools/test.py."""
    tool('test').main(['tiny.py', 'tiny.pth', '--benchmarks', *options])
    return json.loads(Path('work_dirs/tiny/benchmarks/table1.json').read_text())


@pytest.fixture
def evaluated(monkeypatch):
    """Keys of the benchmarks that have been evaluated, in order."""
    keys = []
    original = run_module.evaluate_plan

    def record(runner, plan, fp16=False):
        keys.append(plan.benchmark.key)
        return original(runner, plan, fp16)

    monkeypatch.setattr(run_module, 'evaluate_plan', record)
    return keys


@pytest.mark.slow
def test_all_six_in_one_run(place, monkeypatch, capsys, evaluated):
    encoded = []
    encode = TextEncoder.embed_anew
    monkeypatch.setattr(
        TextEncoder,
        'embed_anew',
        lambda self, prompts: encoded.append(prompts.num_classes) or encode(self, prompts),
    )
    table = evaluate('all')
    assert evaluated == list(SIX)
    assert encoded == [847, 459, 150, 59, 20, 59], 'text is encoded once a set'
    for key, result in table['results'].items():
        assert {'mIoU', 'mIoU_present', 'fwIoU', 'mAcc', 'aAcc'} <= result['figures'].keys()
        assert result['images'] == (3 if key == 'ade150' else 2)
    text = capsys.readouterr().out
    assert '| mIoU | A-847 | PC-459 | A-150 | PC-59 | PAS-20 | PAS-20b |' in text
    assert '| tiny tiny.pth (absent classes left out) |' in text
    with Path('work_dirs/tiny/benchmarks/table1.csv').open() as file:
        assert len(list(csv.DictReader(file))) == 2  # no published row for this backbone

    # What is finished stays so, until weights, files or the config change.
    evaluated.clear()
    assert evaluate('all') == table
    assert evaluated == []
    evaluate('voc20', 'ade150', '--redo')
    assert evaluated == ['ade150', 'voc20']
    evaluated.clear()
    label = Path('data/VOCdevkit/VOC2012/SegmentationClass/2008_000001.png')
    Image.fromarray(np.zeros((40, 56), np.uint8)).save(label)
    evaluate('all')
    assert evaluated == ['voc20', 'voc20b']
    evaluated.clear()
    evaluate('voc20', '--cfg-options', 'model.input_size=40')
    assert evaluated == ['voc20']
    weights = torch.load('tiny.pth')
    weights['state_dict']['decode_head.conv_seg.bias'] += 1
    torch.save(weights, 'tiny.pth')
    evaluate('voc20')
    assert evaluated == ['voc20', 'voc20']


def test_an_interrupted_run_goes_on(place, monkeypatch, evaluated):
    label = Path('data/VOCdevkit/VOC2010/SegmentationClassContext/2009_000002.png')
    whole = label.read_bytes()
    Image.fromarray(np.full((40, 56), 61, np.uint8)).save(label)
    with pytest.raises(ValueError, match=r'2009_000002.png has the values 61 .* the 59 classes'):
        evaluate('pc459', 'pc59', 'voc20')
    assert evaluated == ['pc459', 'pc59']
    label.write_bytes(whole)
    evaluate('pc459', 'pc59', 'voc20')
    assert evaluated == ['pc459', 'pc59', 'pc59', 'voc20']


def test_absent_sets_are_named_and_skipped(place, capsys, evaluated):
    shutil.rmtree('data/ADE20K_2021_17_01')
    shutil.rmtree('data/VOCdevkit/VOC2010')
    table = evaluate('all')
    assert evaluated == ['ade150', 'voc20', 'voc20b']
    skipped = [note for note in table['notes'] if note.startswith('Skipped: ')]
    assert [note.split()[1] for note in skipped][:3] == ['A-847', 'PC-459', 'PC-59']
    assert 'data/ADE20K_2021_17_01/annotations_detectron2/validation' in skipped[0]
    assert 'Skipped: A-847 not found' in capsys.readouterr().out


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['voc21'], "unknown benchmarks ['voc21']; expected all, or some of ade847"),
        (['all', '--data-root', 'nowhere'], 'none of the benchmarks is there'),
        (['ade150', '--show-dir', 'x'], 'are for one data set'),
        (['ade150'], 'A-150: 1 of 3 label maps are missing in data/ade/ADEChallengeData2016'),
        (['voc20'], '1 of 2 label maps that'),
    ],
)
def test_bad_input_ends_with_one_error_before_any_work(place, capsys, options, message):
    (place / 'data/ade/ADEChallengeData2016/annotations/validation/ADE_val_00000002.png').unlink()
    (place / 'data/VOCdevkit/VOC2012/SegmentationClass/2008_000001.png').unlink()
    with pytest.raises(SystemExit) as stopped:
        evaluate(*options)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not Path('work_dirs').exists()


def test_real_images_in_both_layouts_give_the_same_figures(place, ade_root):
    ours = evaluate('ade150', '--out', 'labels')['results']['ade150']
    make_ade150(place / 'other', 'detectron2', ade_root)
    theirs = evaluate('ade150', '--data-root', 'other', '--redo')['results']['ade150']
    assert ours['labels'] == 'annotations/validation'
    assert theirs['labels'] == 'annotations_detectron2/validation'
    assert ours['figures'] == theirs['figures']
    assert ours['figures']['mIoU_present'] >= ours['figures']['mIoU']
    assert len(list(Path('labels/ade150').glob('*.png'))) == 3


def test_augmented_evaluation(place):
    table = evaluate('voc20b', '--tta')
    assert 0 <= table['results']['voc20b']['figures']['aAcc'] <= 100


def scalars(place: Path) -> list[dict]:
    path = next(place.glob('work_dirs/tiny/*/vis_data/scalars.json'))
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_chosen_benchmarks_at_each_validation(place):
    options = ['val_benchmarks=pc459,voc20b', 'default_hooks.checkpoint.save_best=pc459/mIoU']
    options += ['visualizer.name=chosen']  # one a process otherwise, with the first run's folder
    tool('train').main(['tiny.py', '--cfg-options', *options])
    rows = [row for row in scalars(place) if 'pc459/mIoU' in row]
    assert len(rows) == 2, 'one a validation'
    assert {'mIoU', 'pc459/mIoU_present', 'voc20b/fwIoU'} <= rows[0].keys()
    log = next(place.glob('work_dirs/tiny/*/*.log')).read_text()
    names = re.findall(r'vocabulary for (\w+): (\d+) names', log)
    assert names == [
        ('train', '20'),
        *([('val', '20'), ('test', '459'), ('test', '59')] * 2),
    ]
    assert list(place.glob('work_dirs/tiny/best_pc459_mIoU*.pth'))


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['val_benchmarks=x'], "unknown benchmarks ['x']"),
        (['val_benchmarks=ade847'], 'benchmarks of the validation:\n  A-847 not found'),
        (['val_benchmarks.benchmarks=voc20', 'val_benchmarks.data_root=no'], 'none of the'),
    ],
)
def test_a_missing_benchmark_stops_a_training_before_it_begins(place, capsys, options, message):
    shutil.rmtree('data/ADE20K_2021_17_01')
    if 'ade847' in options[0]:
        options = ['val_benchmarks=ade847,voc20']
    with pytest.raises(SystemExit) as stopped:
        tool('train').main(['tiny.py', '--cfg-options', *options])
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err
    assert not Path('work_dirs').exists()


@pytest.mark.slow
def test_two_processes_give_the_figures_of_one(place):
    expected = evaluate('ade150', 'voc20b')['results']
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    env = {**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', 'PORT': port}
    env['CUDA_VISIBLE_DEVICES'] = ''
    command = [ROOT / 'tools/dist_test.sh', 'tiny.py', 'tiny.pth', '2', '--work-dir', 'two']
    command += ['--benchmarks', 'ade150', 'voc20b']
    done = subprocess.run(command, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count('| mIoU | A-847 |') == 1
    table = json.loads(Path('two/benchmarks/table1.json').read_text())
    for key, result in expected.items():
        assert table['results'][key]['figures'] == pytest.approx(result['figures'], abs=0.011)
        assert table['results'][key]['fingerprint'] == result['fingerprint']


def write_own_data(root: Path) -> None:
    """Two images a split of 64 x 64 pixels with classes 0 and 1, and names with synonyms."""
    rng = np.random.default_rng(0)
    for split in ('train', 'val'):
        for kind in ('images', 'labels'):
            (root / kind / split).mkdir(parents=True)
        for name in 'ab':
            pixels = rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / f'images/{split}/{name}.jpg')
            labels = np.full((64, 64), 255, np.uint8)
            labels[:30], labels[30:50] = 0, 1
            Image.fromarray(labels).save(root / f'labels/{split}/{name}.png')
    (root / 'classes.txt').write_text('sky\ncar, automobile\n')


def test_own_folders_train_and_test(place):
    write_own_data(place / 'data/mine')
    tiny = CONFIG[: CONFIG.index('loading = ')].replace(
        'configs/infoclip_vitb16_coco-stuff.py', 'configs/custom/infoclip_vitb16_folder.py'
    )
    loader = 'dict(num_workers=0, persistent_workers=False)'
    loaders = [f'{name}_dataloader = {loader}' for name in ('val', 'test')]
    loaders += ['train_dataloader = dict(batch_size=2, num_workers=0, persistent_workers=False)']
    run = 'train_cfg = dict(max_iters=2, val_interval=2)\nvisualizer = dict(name="own")'
    Path('own.py').write_text('\n'.join([tiny.format(root=ROOT), *loaders, run]))
    tool('train').main(['own.py'])
    tool('test').main(['own.py', 'work_dirs/own/iter_2.pth'])
    log = max(place.glob('work_dirs/own/*/*.log')).read_text()
    assert "vocabulary for test: 2 names for VocabularyDataset, 'sky' ... 'car, automobile'" in log
    assert re.search(r'\| +car, automobile +\|', log)
    (place / 'data/mine/labels/val/b.png').unlink()
    with pytest.raises(FileNotFoundError, match='1 of 2 label maps that img_path asks for'):
        tool('test').main(['own.py', 'work_dirs/own/iter_2.pth'])
