"""tools/train.py and tools/test.py as programs, started from a folder that is not the clone."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
CONFIG = """
_base_ = ['{root}/configs/{method}_vitb16_ade20k.py']
model = dict(
    data_preprocessor=dict(size=(48, 48)),
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
        window_size=3,
        pad_len=8,
        text_proj_dim=8,
        appearance_proj_dim=8,
        decoder_dims=(32, 16),
        decoder_guidance_dims=(16, 8),
        decoder_guidance_proj_dims=(16, 8),
    ),
    input_size=48,
    test_cfg=dict(size=(80, 80), window=48, view_batch_size=5),
)
train_pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='Resize', scale=(64, 48)),
    dict(type='RandomCrop', crop_size=(48, 48)),
    dict(type='PackSegInputs'),
]
ade = dict(
    type='ADE20KDataset',
    data_root='{ade}',
    data_prefix=dict(img_path='images/validation', seg_map_path='annotations/validation'),
    reduce_zero_label=True,
)
train_dataloader = dict(
    batch_size=2,
    num_workers=0,
    persistent_workers=False,
    dataset=dict(_delete_=True, **ade, pipeline=train_pipeline),
)
val_dataloader = None
val_cfg = None
val_evaluator = None
test_dataloader = dict(
    num_workers=0, persistent_workers=False, dataset=dict(data_root='{ade}')
)
train_cfg = dict(max_iters=4, val_interval=100)
param_scheduler = [dict(type='CosineAnnealingLR', T_max=8, by_epoch=False)]
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
"""


def write_config(folder: Path, ade_root: Path, method: str = 'infoclip') -> Path:
    path = folder / f'{method}_tiny.py'
    path.write_text(CONFIG.format(root=ROOT, ade=ade_root, method=method))
    return path


def start(folder: Path, program: str, *arguments: object) -> subprocess.CompletedProcess:
    """Run a program of tools/ in another folder, on the CPU, without PYTHONPATH."""
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    env.pop('PYTHONPATH', None)
    command = [sys.executable, str(ROOT / 'tools' / program), *map(str, arguments)]
    return subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True)


def losses(process: subprocess.CompletedProcess) -> dict[int, float]:
    """Iteration to loss, as logged."""
    assert process.returncode == 0, process.stderr[-2000:]
    found = re.findall(r'Iter\(train\) \[(\d+)/\d+\].* loss: (\S+)', process.stdout)
    return {int(step): float(loss) for step, loss in found}


@pytest.fixture(scope='module')
def trained(tmp_path_factory, ade_root):
    """Folder with infoclip_tiny.py and a finished run of four iterations in it."""
    folder = tmp_path_factory.mktemp('run')
    process = start(folder, 'train.py', write_config(folder, ade_root).name)
    assert sorted(losses(process)) == [1, 2, 3, 4]
    return folder


def test_training_writes_to_the_default_folder_and_logs_norms_by_group(trained):
    work_dir = trained / 'work_dirs' / 'infoclip_tiny'
    assert {'iter_2.pth', 'iter_4.pth'} <= {path.name for path in work_dir.iterdir()}
    log = next(work_dir.glob('*/vis_data/scalars.json')).read_text().splitlines()
    scalars = json.loads(log[0])
    names = ('clip', 'head', 'lpam')
    assert all(scalars[f'grad_norm_{name}'] > 0 for name in names)
    assert {'decode.loss_seg', 'loss_ib', 'loss_mi'} <= scalars.keys()


@pytest.mark.slow
def test_resuming_goes_on_behind_the_checkpoint(trained):
    checkpoint = trained / 'work_dirs/infoclip_tiny/iter_2.pth'
    process = start(
        trained, 'train.py', 'infoclip_tiny.py', '--work-dir', 'resumed', '--resume', checkpoint
    )
    assert sorted(losses(process)) == [3, 4]
    options = ('--resume', '--cfg-options', 'train_cfg.max_iters=5')
    process = start(trained, 'train.py', 'infoclip_tiny.py', '--work-dir', 'resumed', *options)
    assert sorted(losses(process)) == [5]


@pytest.mark.slow
def test_evaluation_prints_the_table_and_writes_labels_and_overlays(trained):
    process = start(
        trained,
        'test.py',
        'infoclip_tiny.py',
        'work_dirs/infoclip_tiny/iter_4.pth',
        *('--work-dir', 'tested', '--out', 'labels', '--show-dir', 'drawn'),
    )
    assert process.returncode == 0, process.stderr[-2000:]
    assert re.search(r'\| +wall +\| +[\d.]+ +\|', process.stdout)
    assert 'mIoU' in process.stdout
    for image in (trained / 'labels').iterdir():
        labels = np.array(Image.open(image))
        truth = Image.open(ROOT / 'tests/data/ade/annotations/validation' / image.name)
        assert labels.shape == truth.size[::-1]
        assert 1 <= labels.min() <= labels.max() <= 150
    assert len(list((trained / 'labels').iterdir())) == 3
    assert len(list((trained / 'drawn').rglob('test_*.png'))) == 3


def test_augmentation_and_mixed_precision_evaluate(trained):
    process = start(
        trained,
        'test.py',
        'infoclip_tiny.py',
        'work_dirs/infoclip_tiny/iter_4.pth',
        *('--work-dir', 'augmented', '--tta', '--amp'),
    )
    assert process.returncode == 0, process.stderr[-2000:]
    assert 'mIoU' in process.stdout


def test_mixed_precision_trains(trained):
    process = start(trained, 'train.py', 'infoclip_tiny.py', '--work-dir', 'bf16', '--amp')
    assert all(np.isfinite(list(losses(process).values())))


@pytest.mark.slow
def test_a_checkpoint_without_lpam_starts_a_distillation_and_evaluates(trained, ade_root):
    write_config(trained, ade_root, 'catseg')
    process = start(trained, 'train.py', 'catseg_tiny.py', '--work-dir', 'plain')
    assert sorted(losses(process)) == [1, 2, 3, 4]
    arguments = ('infoclip_tiny.py', '--work-dir', 'warm')
    options = ('--cfg-options', 'load_from=plain/iter_4.pth')
    assert losses(start(trained, 'train.py', *arguments, *options))
    process = start(trained, 'test.py', 'infoclip_tiny.py', 'plain/iter_4.pth', '--work-dir', 'x')
    assert process.returncode == 0, process.stderr[-2000:]


class Malicious:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ('made-by-the-checkpoint',)


@pytest.mark.slow
def test_a_pickle_with_code_in_it_does_not_run(trained):
    torch.save({'state_dict': {}, 'meta': Malicious()}, trained / 'malicious.pth')
    for program, arguments in (
        ('test.py', ['malicious.pth']),
        ('train.py', ['--resume', 'malicious.pth']),
    ):
        process = start(trained, program, 'infoclip_tiny.py', *arguments, '--work-dir', 'x')
        assert process.returncode == 2
        assert re.fullmatch(
            program + r": error: checkpoint 'malicious\.pth' refers to \w+\.mkdir, .*",
            process.stderr.splitlines()[-1],
        )
    assert not (trained / 'made-by-the-checkpoint').exists()


def test_a_checkpoint_of_another_architecture_is_refused(trained):
    process = start(
        trained,
        'test.py',
        'infoclip_tiny.py',
        'work_dirs/infoclip_tiny/iter_4.pth',
        *('--work-dir', 'x', '--cfg-options', 'model.decode_head.hidden_dim=64'),
    )
    assert process.returncode == 2
    assert 'belongs to another architecture' in process.stderr.splitlines()[-1]


@pytest.fixture
def tool(monkeypatch, tmp_path):
    """Loader of a program as a module, with an empty folder to run it in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, 'path', list(sys.path))

    def load(name: str):
        spec = importlib.util.spec_from_file_location(f'tool_{name}', ROOT / 'tools' / f'{name}.py')
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    return load


@pytest.mark.parametrize(
    ('name', 'arguments', 'message'),
    [
        ('train', ['nothing.py'], "config 'nothing.py' is neither a file"),
        ('test', ['nothing.py', 'a.pth'], "config 'nothing.py' is neither a file"),
        ('test', ['CONFIG', 'a.pth'], "checkpoint 'a.pth' does not exist"),
        ('test', ['CONFIG'], 'a CATSegHead needs a checkpoint'),
        ('train', ['CONFIG', '--resume', 'a.pth'], "checkpoint 'a.pth' does not exist"),
        ('train', ['CONFIG', '--cfg-options', 'load_from=a.pth'], "checkpoint 'a.pth' does not"),
        ('train', ['CONFIG'], "train_dataloader.dataset.data_root='data/coco_stuff164k'"),
        ('train', ['CONFIG', '--amp', '--amp-dtype', 'fp16'], 'fp16 needs a CUDA device'),
    ],
)
def test_bad_input_ends_with_one_error_before_any_work(tool, capsys, name, arguments, message):
    if '--amp' in arguments and torch.cuda.is_available():
        pytest.skip('fp16 is fine with CUDA')
    config = str(ROOT / 'configs/infoclip_vitb16_coco-stuff.py')
    arguments = [config if value == 'CONFIG' else value for value in arguments]
    with pytest.raises(SystemExit) as stopped:
        tool(name).main(arguments)
    assert stopped.value.code == 2
    assert ': error: ' in (text := capsys.readouterr().err)
    assert message in text
    assert not Path('work_dirs').exists()


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh'])
def test_distributed_scripts_say_how_they_are_used(script):
    process = subprocess.run([ROOT / 'tools' / script, 'a'], capture_output=True, text=True)
    assert process.returncode == 2
    assert process.stderr.startswith('usage: ')


@pytest.mark.slow
def test_two_processes_train_and_evaluate(trained):
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        port = str(probe.getsockname()[1])
    env = {**os.environ, 'PYTHON': sys.executable, 'OMP_NUM_THREADS': '1', 'PORT': port}
    env['CUDA_VISIBLE_DEVICES'] = ''
    train = [ROOT / 'tools/dist_train.sh', 'infoclip_tiny.py', '2', '--work-dir', 'two']
    options = ['--cfg-options', 'train_dataloader.batch_size=1']
    run = dict(cwd=trained, env=env, capture_output=True, text=True)
    assert sorted(losses(subprocess.run([*train, *options], **run))) == [1, 2, 3, 4]
    test = [ROOT / 'tools/dist_test.sh', 'infoclip_tiny.py', 'two/iter_4.pth', '2']
    process = subprocess.run([*test, '--work-dir', 'two'], **run)
    assert process.returncode == 0, process.stderr[-2000:]
    assert 'mIoU' in process.stdout
