"""FISA through the tools: real images, resuming, two ranks as one, the bottleneck analysis."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import mask_tokens
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmseg.registry import MODELS
from small_run import CLASSES, ROOT, free_port, write_images

WORKER = Path(__file__).with_name('rank_worker.py')
CONFIG = """
_base_ = [{base!r}]
max_iters = 4
model = dict(
    backbone=dict(finetune='both', text_cache_dir='text'),
    loss_aux=None,
    mask_generator=dict(type='FrozenMaskGenerator', config={generator!r}, checkpoint={weights!r}),
    test_cfg=dict(oracle=None),
)
pipeline = [
    dict(type='LoadImageFromFile'),
    dict(type='LoadAnnotations'),
    dict(type='PackSegInputs'),
]
dataset = dict(
    _delete_=True,
    type='BaseSegDataset',
    metainfo=dict(classes={classes}, palette=[[i, i, i] for i in range(5)]),
    data_root={data!r},
    data_prefix=dict(img_path='images', seg_map_path='labels'),
    img_suffix='.png',
    seg_map_suffix='.png',
    pipeline=pipeline,
)
train_dataloader = dict(batch_size=4, dataset=dataset)
test_dataloader = dict(dataset=dataset)
train_cfg = dict(max_iters=4)
default_hooks = dict(logger=dict(interval=1), checkpoint=dict(interval=2))
custom_hooks = [dict(type='VocabularyHook'), dict(type='LossRecorder')]
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    """A folder with data, a generator with its checkpoint, and a config that uses both."""
    init_default_scope('mmseg')
    folder = tmp_path_factory.mktemp('fisa')
    write_images(folder / 'data')
    generator = Config(dict(model=mask_tokens.GENERATOR))
    generator.dump(folder / 'generator.py')
    torch.manual_seed(0)
    model = MODELS.build(generator.model)
    torch.save(dict(state_dict=model.state_dict()), folder / 'generator.pth')
    text = CONFIG.format(
        base=str(ROOT / 'configs/toy/fisa_toy_ade-3-images.py'),
        generator=str(folder / 'generator.py'),
        weights=str(folder / 'generator.pth'),
        classes=CLASSES,
        data=str(folder / 'data'),
    )
    (folder / 'fisa.py').write_text(text)
    return folder


@pytest.fixture(scope='module')
def runs(folder) -> Path:
    """Working folders of one process, of two, and of two halves."""
    jobs = [
        (ranks, 'pytorch' if ranks > 1 else 'none', free_port(), 'train', ['fisa.py', *arguments])
        for ranks, arguments in (
            (1, ['--work-dir', 'one']),
            (2, ['--work-dir', 'two', '--cfg-options', 'train_dataloader.batch_size=2']),
            (1, ['--work-dir', 'resumed', '--resume', 'one/iter_2.pth']),
        )
    ]
    (folder / 'jobs.json').write_text(json.dumps(jobs))
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    with (folder / 'log.txt').open('w') as log:
        worker = subprocess.Popen(
            [sys.executable, WORKER, 'jobs.json'],
            cwd=folder,
            env=env,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        status = worker.wait(timeout=900)
    finally:
        if worker.poll() is None:  # with the ranks that it has forked
            os.killpg(worker.pid, signal.SIGKILL)
    assert status == 0, (folder / 'log.txt').read_text()[-5000:]
    return folder


def losses(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / 'losses.json').read_text())


def state(path: Path) -> dict[str, torch.Tensor]:
    return torch.load(path, weights_only=False)['state_dict']


@pytest.mark.slow
@pytest.mark.parametrize(('name', 'steps'), [('two', 4), ('resumed', 2)])
def test_two_ranks_and_two_halves_are_one_run(runs, name, steps):
    """Losses, gradient norms and weights; the images of a batch have unequal numbers of masks."""
    expected, got = losses(runs / 'one')[-steps:], losses(runs / name)
    assert len(got) == steps and len({step['loss'] for step in expected}) == steps
    for step, joint in zip(got, expected):
        for key, value in joint.items():
            assert step[key] == pytest.approx(value, rel=1e-4, abs=1e-5), key
    joint = state(runs / 'one/iter_4.pth')
    for key, value in state(runs / name / 'iter_4.pth').items():
        torch.testing.assert_close(value, joint[key], atol=1e-5, rtol=1e-4, msg=key)
    first = state(runs / 'one/iter_2.pth')
    moved = {key for key in joint if not torch.equal(first[key], joint[key])}
    queries = {f'backbone.mask_queries.{i}.{k}' for i in range(4) for k in ('weight', 'bias')}
    assert queries <= moved
    assert all('mask_queries' in k or 'word_attention' in k or 'q_proj' in k for k in moved)
    log = (runs / 'log.txt').read_text()
    assert "MaskTokenEncoder, finetune='both':" in log and 'mask_queries.0.weight' in log


def run_tool(tool: str, *arguments, cwd: Path = ROOT) -> str:
    done = subprocess.run(
        [sys.executable, ROOT / f'tools/{tool}.py', *map(str, arguments)],
        cwd=cwd,
        capture_output=True,
        text=True,
        env={**os.environ, 'OMP_NUM_THREADS': '1'},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.slow
def test_the_true_masks_of_real_images_are_learnt(tmp_path):
    config = ROOT / 'configs/toy/fisa_toy_ade-3-images.py'
    options = ['--cfg-options', 'train_cfg.max_iters=60', 'default_hooks.checkpoint.interval=60']
    run_tool('train', config, '--work-dir', tmp_path, *options)
    scalars = next(tmp_path.glob('*/vis_data/scalars.json')).read_text().splitlines()
    values = [json.loads(line)['decode.loss_ce'] for line in scalars]
    assert values[-1] < 0.25 * values[0]
    said = run_tool('test', config, tmp_path / 'iter_60.pth', '--work-dir', tmp_path / 'test')
    accuracy = float(said.rsplit('aAcc: ', 1)[1].split()[0])
    assert accuracy > 80


@pytest.mark.slow
def test_the_bottleneck_of_any_mask_model(folder, tmp_path):
    """mIoU and PQ of a panoptic set; true classes gain, and the figures are in every file."""
    config = f"""
_base_ = [{str(ROOT / 'configs/world/_base_/segmentation.py')!r}]
model = dict(
    _delete_=True, **{mask_tokens.GENERATOR!r}
)
_load = [dict(type='LoadImageFromFile'), dict(type='LoadPanoptic')]
_pack = dict(type='PackPanopticInputs')
test_dataloader = dict(batch_size=2, dataset=dict(length=4, pipeline=[*_load, _pack]))
"""
    (tmp_path / 'model.py').write_text(config)
    work = tmp_path / 'work'
    said = run_tool(
        'test', tmp_path / 'model.py', folder / 'generator.pth', '--bottleneck', '--work-dir', work
    )
    figures = json.loads((work / 'bottleneck.json').read_text())
    assert list(figures) == ['as it is', 'true masks', 'true classes']
    assert all({'mIoU', 'PQ', 'SQ', 'RQ'} == set(row) for row in figures.values())
    assert figures['true classes']['mIoU'] > figures['as it is']['mIoU']
    table = (work / 'bottleneck.md').read_text()
    assert table in said and f'{figures["true masks"]["PQ"]:.2f}' in table
    assert (work / 'bottleneck.png').stat().st_size and (work / 'bottleneck.pdf').stat().st_size


def test_the_bottleneck_needs_a_mask_model(tmp_path):
    done = subprocess.run(
        [
            sys.executable,
            ROOT / 'tools/test.py',
            ROOT / 'configs/toy/infoclip_toy_ade-3-images.py',
            __file__,
            '--bottleneck',
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    assert 'a CATSegHead finds no masks' in done.stderr
