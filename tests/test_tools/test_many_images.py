"""tools/infer.py over many images: killed and going on, each exactly once; ranks of torchrun."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[2]
COUNT = 120
ENV = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'CUDA_VISIBLE_DEVICES': ''}
OPTIONS = ['photos', '--classes', 'grass; snow; sand', '--out', 'out', '--format', 'coco']

pytestmark = pytest.mark.slow


@pytest.fixture
def place(tmp_path):
    (tmp_path / 'photos').mkdir()
    rng = np.random.default_rng(0)
    for number in range(COUNT):
        image = rng.integers(0, 255, (32, 40, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f'photos/{number:03}.jpg')
    return tmp_path


def check(place: Path) -> None:
    """Every image has its results, whole, and is counted once."""
    out = place / 'out'
    names = {f'{number:03}' for number in range(COUNT)}
    assert {path.name for path in (out / 'pred').iterdir()} == {
        f'{name}.{kind}' for name in names for kind in ('json', 'png')
    }
    summary = json.loads((out / 'summary.json').read_text())
    assert summary['images'] == COUNT and summary['skipped'] == []
    assert sum(item['share'] for item in summary['found']) == pytest.approx(1, abs=1e-4)
    images = json.loads((out / 'annotations.json').read_text())['images']
    assert sorted(Path(image['file_name']).stem for image in images) == sorted(names)


def test_killed_twice_each_image_once(place):
    command = [sys.executable, str(ROOT / 'tools/infer.py'), *OPTIONS, '--resume']
    quiet = dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    done = place / 'out/pred'
    for least in (1, 40):
        process = subprocess.Popen(command, cwd=place, env=ENV, **quiet)
        deadline = time.monotonic() + 120
        while len(list(done.glob('*.json'))) < least and time.monotonic() < deadline:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
    written = {path.name: path.stat().st_mtime_ns for path in done.glob('*.json')}
    assert 40 <= len(written) < COUNT
    last = subprocess.run(command, cwd=place, env=ENV, capture_output=True, text=True)
    assert last.returncode == 0, last.stderr[-2000:]
    check(place)
    assert all((done / name).stat().st_mtime_ns == when for name, when in written.items())


def test_ranks_of_torchrun(place):
    launch = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node=2']
    command = [*launch, str(ROOT / 'tools/infer.py'), *OPTIONS]
    done = subprocess.run(command, cwd=place, env=ENV, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    check(place)
    parts = [json.loads(path.read_text()) for path in (place / 'out/parts').iterdir()]
    assert [part['images'] for part in parts] == [COUNT // 2] * 2
