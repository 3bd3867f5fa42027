"""Panoptic quality of two ranks with unequal shares is that of one process.

As a script it is one rank: ``test_panoptic_ranks.py RANK RANKS INIT_FILE OUT``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import torch
from mmengine.dataset import DefaultSampler
from test_panoptic import THINGS, random_case
from torch import distributed

from infoclip_mmseg.evaluation.panoptic import PanopticMetric

IMAGES = 5


def figures_of() -> dict[str, float]:
    """Figures of the images that the sampler gives a rank; the last rank gets one twice."""
    metric = PanopticMetric()
    metric.dataset_meta = dict(classes=list('abcd'), things=THINGS)
    for seed in DefaultSampler(range(IMAGES), shuffle=False):
        predicted, ours, true, theirs = random_case(seed)
        sample = dict(
            pred_panoptic=dict(data=torch.from_numpy(predicted)[None]),
            gt_panoptic=dict(data=torch.from_numpy(true)[None]),
            pred_segments=ours,
            gt_segments=theirs,
        )
        metric.process(None, [sample])
    return metric.evaluate(IMAGES)


def test_two_ranks_count_as_one_process(tmp_path):
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join([root, os.environ.get('PYTHONPATH', '')])
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': paths}
    processes = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), '2', 'meeting', f'{rank}.json'],
            env=environment,
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        for process in processes:
            text = process.communicate(timeout=300)[0]
            assert process.returncode == 0, text
    finally:
        for process in processes:
            process.kill()
    expected = figures_of()
    assert len(expected) == 9 and all(0 < value < 100 for value in expected.values())
    for rank in range(2):
        assert json.loads((tmp_path / f'{rank}.json').read_text()) == expected


if __name__ == '__main__':
    number, count, meet, out = sys.argv[1:]
    meet = f'file://{Path(meet).resolve()}'
    distributed.init_process_group('gloo', meet, rank=int(number), world_size=int(count))
    Path(out).write_text(json.dumps(figures_of()))
    distributed.destroy_process_group()
