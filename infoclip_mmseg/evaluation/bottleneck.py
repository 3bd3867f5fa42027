"""Where a model that classifies masks loses: in its masks, or in their classes.

The same model is tested as it is, with the true masks, and with the true classes of its own masks
(the analysis of FISA, arXiv 2409.16278, Figure 2); what an oracle gains is what its part loses.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.runner import Runner
from mmseg.registry import MODELS

from infoclip_mmseg.utils.files import write_text

ROWS = {'as it is': None, 'true masks': 'masks', 'true classes': 'classes'}
"""Title of a row to ``test_cfg.oracle``."""
FIGURES = ('mIoU', 'PQ', 'SQ', 'RQ')
Figures = dict[str, dict[str, float]]


def prepare_bottleneck(cfg: Config) -> None:
    """Let a config measure PQ beside mIoU where its test set is panoptic.

    A head that finds no masks is a ValueError.
    """
    head = cfg.model.decode_head.type
    if not getattr(MODELS.get(head), 'finds_masks', False):
        raise ValueError(
            f'--bottleneck asks what masks and their classes lose; a {head} finds no masks: name a '
            'config with a MaskClassificationHead or a MaskTokenHead'
        )
    steps = [step['type'] for step in cfg.test_dataloader.dataset.pipeline]
    if 'LoadPanoptic' in steps:
        cfg.model.test_cfg.panoptic = True
        given = cfg.test_evaluator
        given = list(given) if isinstance(given, (list, tuple)) else [given]
        kinds = [evaluator['type'] for evaluator in given]
        if 'PanopticMetric' not in kinds:
            given.append(dict(type='PanopticMetric'))
        if not any(kind.endswith('IoUMetric') for kind in kinds):
            given.append(dict(type='OpenVocabIoUMetric', iou_metrics=['mIoU']))
        cfg.test_evaluator = given


def measure_bottleneck(runner: Runner, segmentor: Any) -> Figures:
    """Figures of :data:`FIGURES` by row, in percent, of the runner's test set.

    ``segmentor`` is the model within the runner's wrappers; its own oracle is put back.
    """
    usual, measured = segmentor.test_cfg.get('oracle'), {}
    runner.call_hook('before_run')
    runner.load_or_resume()
    loop = runner._test_loop = runner.build_test_loop(runner._test_loop)
    try:
        for title, oracle in ROWS.items():
            segmentor.test_cfg['oracle'] = oracle
            runner.logger.info(f'bottleneck: {title}')
            found = loop.run()
            measured[title] = {k: float(found[k]) for k in FIGURES if k in found}
    finally:
        segmentor.test_cfg['oracle'] = usual
    runner.call_hook('after_run')
    return measured


def bottleneck_table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """A Markdown table, with what each oracle gains in brackets."""
    rows = list(figures)
    names = list(figures[rows[0]])
    lines = ['| | ' + ' | '.join(names) + ' |', '| --- |' + ' --- |' * len(names)]
    for row in rows:
        cells = [f'{figures[row][name]:.2f}' for name in names]
        if row != rows[0]:
            gains = [figures[row][name] - figures[rows[0]][name] for name in names]
            cells = [f'{cell} ({gain:+.2f})' for cell, gain in zip(cells, gains)]
        lines.append(f'| {row} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines) + '\n'


def write_bottleneck(folder: Path, figures: Figures) -> str:
    """Write ``bottleneck.md`` and ``bottleneck.json``; returns the table."""
    table = bottleneck_table(figures)
    write_text(folder / 'bottleneck.md', table)
    write_text(folder / 'bottleneck.json', json.dumps(figures, indent=1) + '\n')
    return table
