from __future__ import annotations

import pytest

from infoclip_mmseg.experiments.timing.memory import (
    Footprint,
    count_jobs,
    fit_footprint,
    memory_guide,
)
from infoclip_mmseg.experiments.timing.results import Outcome
from infoclip_mmseg.experiments.timing.runs import Side
from infoclip_mmseg.experiments.timing.settings import Setting

TRUE = Footprint(2e9, 1e6, 3e8, 2e7)
SIDE = Side('base', 'c.py', '.', 'abc')
BASE = Setting('', '', '.', num_classes=171, cfg_options={'model.input_size': 48})


class Machine:
    """Takes what TRUE says, up to its capacity."""

    def __init__(self, capacity: float) -> None:
        self.capacity = capacity
        self.jobs = []

    def run(self, job):
        self.jobs.append(job)
        setting = job.setting
        peak = TRUE.peak(setting.batch_size, setting.num_classes)
        outcome = Outcome(job.side.label, 'default', 'memory', info=dict(trained=0))
        if peak > self.capacity:
            outcome.status, outcome.reason = 'skipped', 'does not fit in memory'
        outcome.memory = dict(peak_rss=int(peak), start_rss=int(TRUE.static))
        return outcome


def test_the_model_is_found_again():
    loads = [(1, 20), (1, 40), (2, 20), (2, 40), (4, 171)]
    found = fit_footprint(TRUE.static - 3e8, {load: TRUE.peak(*load) for load in loads})
    assert found == pytest.approx(TRUE, rel=1e-6)


def test_noise_gives_no_negative_terms():
    peaks = {(1, 20): 2.2e9, (1, 40): 2.1e9, (2, 20): 2.5e9, (2, 40): 2.5e9}
    found = fit_footprint(2e9, peaks)
    assert min(found) >= 0
    assert found.peak(2, 20) == pytest.approx(2.4e9, rel=0.1)


def test_what_the_first_step_sets_up_is_not_taken_for_activations():
    peaks = {(b, t): 1.1e9 + b * t * 1e4 for b in (1, 2) for t in (3, 6)}
    assert fit_footprint(0.9e9, peaks).peak(16, 24) == pytest.approx(1.104e9, rel=0.01)


def test_cells_that_fit_are_measured_and_the_others_computed():
    machine = Machine(capacity=1e12)
    cells = list(memory_guide([SIDE], BASE, (1, 2, 4, 8), 20_000_000_000, machine.run))
    assert len(cells) == 24
    by_batch = {cell.batch_size: cell for cell in cells}
    assert [by_batch[b].measured for b in (1, 2, 4, 8)] == [True, True, True, False]
    assert by_batch[8].peak == pytest.approx(TRUE.peak(8, 171), rel=1e-3)
    assert 'more than 20' in by_batch[8].reason
    assert all(job.setting.batch_size < 8 for job in machine.jobs)


def test_a_cell_that_turns_out_too_large_is_computed():
    machine = Machine(capacity=TRUE.peak(4, 171))
    cells = list(memory_guide([SIDE], BASE, (4, 8), 0, machine.run))
    assert [cell.measured for cell in cells[:2]] == [True, False]
    assert cells[1].reason == 'does not fit in memory'


def test_rows_differ_in_precision_and_checkpointing():
    machine = Machine(capacity=1e12)
    cells = list(memory_guide([SIDE], BASE, (1,), 0, machine.run))
    rows = [(cell.row.dtype, cell.row.checkpointing) for cell in cells]
    assert rows == [(dtype, cp) for dtype in ('fp32', 'bf16') for cp in ('off', 'head', 'all')]
    options = machine.jobs[-1].setting.cfg_options
    assert options['model.backbone.with_cp'] is options['model.decode_head.with_cp'] is True
    assert options['model.input_size'] == 48
    assert len(machine.jobs) == count_jobs(1, 1)
