"""Toy-sized settings for the tests of measurements."""

from __future__ import annotations

import pytest
from mmengine.config import Config

from infoclip_mmseg.experiments.timing.bench import Bench, Setting
from infoclip_mmseg.experiments.timing.subjects import SUBJECTS


@pytest.fixture
def toy_setting(toy_cfg, tmp_path):
    """Builder of settings: ``toy_setting(part, distill=True, model=None, **fields)``."""

    def build(part: str, distill: bool = True, model: dict | None = None, **fields) -> Setting:
        path = tmp_path / 'toy_config.py'
        optim_wrapper = dict(
            type='OptimWrapper',
            constructor='GroupedOptimWrapperConstructor',
            optimizer=dict(type='AdamW', lr=1e-3),
            clip_grad=dict(max_norm=0.01, scope='all'),
        )
        config = dict(model=toy_cfg(distill, **(model or {})), optim_wrapper=optim_wrapper)
        Config(config).dump(path)
        fields = {'num_classes': 6, 'batch_size': 2, **fields}
        return Setting(part=part, config=str(path), **fields)

    return build


@pytest.fixture
def run_part(toy_setting):
    """Call a part once: ``run_part(part, ...)`` gives its bench and the seconds of its clock."""

    def run(part: str, **fields):
        bench = Bench(toy_setting(part, **fields))
        SUBJECTS[part].make(bench)()
        return bench, bench.clock.seconds

    return run
