"""The whole way of the six benchmarks: original archives, prepare_data.py, test.py --benchmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from miniatures import SIX
from mmengine.config import Config
from mmseg.registry import DATASETS, MODELS
from original_archives import MAKERS
from test_benchmark_runs import CONFIG, ROOT, evaluate

from infoclip_mmseg.datasets.benchmarks import BENCHMARKS, find_layout
from infoclip_mmseg.datasets.loaders import make_dataset_cfg

IGNORED = dict(ade847=65535, pc459=65535)


@pytest.fixture
def prepared(program, tmp_path, monkeypatch):
    """Folder with a tiny model and prepared data; gives the expected labels of each set by name."""
    monkeypatch.chdir(tmp_path)
    expected = {key: MAKERS[key](Path('data')) for key in SIX}
    for key in SIX:
        assert program(key, '--root', 'data') == 0
    assert program('all', '--root', 'data', '--check') == 1, 'COCO-Stuff is not there'
    Path('tiny.py').write_text(CONFIG.format(root=ROOT))
    torch.manual_seed(0)
    torch.save(
        dict(state_dict=MODELS.build(Config.fromfile('tiny.py').model).state_dict()), 'tiny.pth'
    )
    return {
        key: {Path(name).stem: label for name, label in labels.items()}
        for key, labels in expected.items()
    }


@pytest.mark.parametrize('key', SIX)
def test_the_data_set_reads_what_the_archive_says(key, prepared):
    layout = find_layout(BENCHMARKS[key], 'data')
    dataset = DATASETS.build(make_dataset_cfg(layout, 'data', [dict(type='LoadAnnotations')]))
    ignored, count = IGNORED.get(key, 255), len(dataset.metainfo['classes'])
    assert len(dataset) == len(prepared[key])
    for item in dataset:
        expected = prepared[key][Path(item['seg_map_path']).stem].astype(np.int64)
        if key == 'ade150':  # its archive counts from 1, and nothing is converted
            expected -= 1
        outside = (expected < 0) | (expected >= count)
        assert np.array_equal(item['gt_seg_map'], np.where(outside, ignored, expected))
        assert outside.any() and not outside.all()


@pytest.mark.slow
def test_all_six_are_evaluated(prepared):
    results = evaluate('all')['results']
    assert list(results) == list(SIX)
    for key, result in results.items():
        assert 0 <= result['figures']['mIoU'] <= 100, key
