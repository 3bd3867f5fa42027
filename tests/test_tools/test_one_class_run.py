"""A data set of masks 0 and 255, one class: training, validation, test, own images, one mIoU."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_run import ROOT, write_config, write_images

pytestmark = pytest.mark.slow
WORDS = 'background; crack'
DATASET = """
dataset = dict(
    _delete_=True,
    type='VocabularyDataset',
    vocabulary='names.txt',
    data_root='{data}',
    data_prefix=dict(img_path='images', seg_map_path='masks'),
    label_map={{0: 0, 255: 1}},
    pipeline=[
        dict(type='LoadImageFromFile'), dict(type='LoadLabelMap'), dict(type='PackSegInputs')
    ],
)
loader = dict(num_workers=0, persistent_workers=False, dataset=dataset)
train_dataloader = dict(batch_size=4, **loader)
test_loader = dict(**loader)
test_loader['dataset'] = dict(dataset, test_mode=True)
val_dataloader = test_dataloader = test_loader
val_evaluator = dict(_delete_=True, type='OpenVocabIoUMetric', iou_metrics=['mIoU'])
test_evaluator = val_evaluator
test_pipeline = dataset['pipeline']
train_cfg = dict(max_iters=4, val_interval=4)
"""


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('masks')
    write_images(folder / 'data')
    (folder / 'data/masks').mkdir()
    (folder / 'data/names.txt').write_text('background\ncrack\n')
    for path in (folder / 'data/labels').iterdir():
        mask = np.where(np.array(Image.open(path)) < 2, 255, 0).astype(np.uint8)
        Image.fromarray(mask).save(folder / 'data/masks' / path.name)
    name = write_config(folder, 'masks')
    text = (folder / name).read_text().replace("    dict(type='LossRecorder'),\n", '')
    (folder / name).write_text(text + DATASET.format(data=folder / 'data'))
    return folder


def run(folder: Path, *command: str) -> str:
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
    script = [sys.executable, str(ROOT / 'tools' / command[0]), *command[1:]]
    done = subprocess.run(script, cwd=folder, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def said_miou(text: str) -> float:
    return float(re.findall(r' mIoU: ([\d.]+)', text)[-1])


def test_all_programs_agree(folder):
    validated = said_miou(run(folder, 'train.py', 'masks.py', '--work-dir', 'out'))
    checkpoint = 'out/iter_4.pth'
    options = ('--work-dir', 'tested', '--out', 'written')
    tested = said_miou(run(folder, 'test.py', 'masks.py', checkpoint, *options))

    # From the files alone: what was written has the values of the masks.
    common, union = np.zeros(2), np.zeros(2)
    for path in sorted((folder / 'data/masks').iterdir()):
        truth, written = (np.array(Image.open(p)) for p in (path, folder / 'written' / path.name))
        assert set(np.unique(written)) <= {0, 255} and written.dtype == np.uint8
        for index, value in enumerate((0, 255)):
            common[index] += ((truth == value) & (written == value)).sum()
            union[index] += ((truth == value) | (written == value)).sum()
    expected = 100 * (common / union).mean()
    assert tested == pytest.approx(expected, abs=0.006)
    assert validated == pytest.approx(tested, abs=0.011)

    images = str(folder / 'data/images')
    words = ('--weights', checkpoint, '--classes', WORDS, '--out', 'own')
    run(folder, 'infer.py', images, '--config', 'masks.py', *words)
    for path in (folder / 'written').iterdir():
        own = np.array(Image.open(folder / 'own/pred' / path.name))
        assert np.array_equal(own * 255, np.array(Image.open(path)))
    summary = json.loads((folder / 'own/summary.json').read_text())
    assert summary['classes'] == ['background', 'crack']
