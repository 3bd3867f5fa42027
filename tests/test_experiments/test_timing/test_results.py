from __future__ import annotations

import json

import pytest

from infoclip_mmseg.experiments.timing import runs
from infoclip_mmseg.experiments.timing.plots import draw_operators, draw_sweep
from infoclip_mmseg.experiments.timing.report import make_json, make_markdown, seconds_text
from infoclip_mmseg.experiments.timing.results import Outcome, derive, find, merge
from infoclip_mmseg.experiments.timing.runs import Plan, Side, plan_jobs, run_jobs
from infoclip_mmseg.experiments.timing.settings import Setting

ORDERS = {
    'order 2': [0.1],
    'eigenvalues': [9.0],
    'order 2, value': [0.05],
    'eigenvalues, value': [2.0],
}
SIDES = [Side('a', 'a.py', '.', '1'), Side('b', 'b.py', '.', '1')]


def outcome(side: str, part: str, **fields) -> Outcome:
    return Outcome(side, 'default', part, **fields)


def test_sides_go_in_turn():
    plan = Plan(SIDES, Setting('', '', '.'), parts=['train', 'head'], rounds=2)
    order = [(job.setting.part, job.side.label) for job in plan_jobs(plan)]
    assert order == [
        *(('train', 'a'), ('train', 'b'), ('train_plain', 'a'), ('train_plain', 'b')) * 2,
        *(('head', 'a'), ('head', 'b')) * 2,
    ]


def test_sweeps_vary_one_field_of_every_side_and_allocator():
    plan = Plan(SIDES, Setting('', '', '.'), ('default', 'kept'), sweeps={'classes': [10, 100]})
    jobs = [job for job in plan_jobs(plan) if job.setting.part == 'inference']
    assert [job.setting.num_classes for job in jobs] == [10] * 4 + [100] * 4
    assert {job.setting.allocator for job in jobs} == {'default', 'kept'}
    assert jobs[0].sweep == ('classes', 10)


def test_larger_values_are_skipped_after_one_that_did_not_fit(monkeypatch):
    ran = []

    def run(job):
        ran.append(job.setting.num_classes)
        status = 'measured' if job.setting.num_classes < 100 else 'skipped'
        reason = '' if status == 'measured' else 'does not fit in memory: 9 GB'
        return outcome('a', 'text', sweep=job.sweep, status=status, reason=reason)

    monkeypatch.setattr(runs, 'run_job', run)
    base = Setting('', '', '.')
    plan = Plan(SIDES[:1], base, parts=['text'], sweeps={'classes': [10, 100, 1000]})
    found = list(run_jobs(plan_jobs(plan), lambda job, outcome: None))
    assert ran == [10, 100]
    assert found[2].reason == '100 did not fit in memory'


def test_rounds_are_merged():
    first = outcome('a', 'head', seconds={'view': [1.0, 2.0]}, memory=dict(peak_rss=5))
    second = outcome('a', 'head', seconds={'view': [3.0]}, memory=dict(peak_rss=9))
    failed = outcome('b', 'head', status='failed', reason='broken')
    together = merge([first, failed, second, outcome('b', 'head', seconds={'view': [1.0]})])
    assert together[0].seconds == {'view': [1.0, 2.0, 3.0]} and together[0].peak == 9
    assert together[1].status == 'failed'
    assert find(together, 'b', 'default', 'head') is None


def test_figures_that_follow():
    outcomes = [
        outcome('a', 'train', seconds={'step': [1.12]}, info=dict(images=4)),
        outcome('a', 'train_plain', seconds={'step': [1.0]}),
        outcome('a', 'entropy', seconds=ORDERS),
        outcome('a', 'matrix', seconds={'product': [2.0]}, info=dict(flops=8)),
        outcome('a', 'profile_train', info=dict(flops=2.24)),
    ]
    figures = derive(outcomes, 'a', 'default')
    assert figures['distillation_share'] == pytest.approx(0.12)
    assert figures['eigenvalues_over_order_2'] == pytest.approx(90)
    assert figures['eigenvalues_over_order_2, value'] == pytest.approx(40)
    assert figures['training_images_per_second'] == pytest.approx(4 / 1.12)
    assert figures['training_share_of_matrix_rate'] == pytest.approx(0.5)
    assert derive(outcomes, 'a', 'kept') == {}


def test_report_compares_and_says_what_is_missing():
    outcomes = [
        outcome('a', 'head', seconds={'view': [1.0]}, memory=dict(peak_rss=2 * 10**9, start_rss=1)),
        outcome('b', 'head', seconds={'view': [0.25]}, memory=dict(peak_rss=10**9, start_rss=1)),
        outcome('b', 'teacher', status='skipped', reason='no neck'),
        outcome('a', 'teacher', seconds={'views': [1.0]}, memory=dict(peak_rss=1, start_rss=0)),
    ]
    page = make_markdown({'device': 'CPU'}, outcomes, SIDES)
    assert '| decode head | view | 1 s (1..1 s) | 250 ms (0.25..0.25 s) | 0.250 |' in page
    assert '| 0.500 |' in page
    assert '- teacher, text cached, b: no neck' in page
    content = make_json({'device': 'CPU'}, outcomes, SIDES)
    assert json.loads(json.dumps(content))['outcomes'][1]['spread']['view']['median'] == 0.25


@pytest.mark.parametrize(('seconds', 'text'), [(12.34, '12.3 s'), (0.5, '500 ms'), (2e-5, '20 µs')])
def test_units(seconds, text):
    assert seconds_text(seconds) == text


def test_pictures_are_written_where_there_is_something_to_draw(tmp_path):
    sweep = [
        outcome(side, 'text', sweep=('classes', n), seconds={'embeddings': [n / 10, n / 9]})
        for side in 'ab'
        for n in (10, 1000)
    ]
    groups = dict(operators=dict(groups={'attention': 1.0, 'other': 2.0}))
    files = draw_sweep(sweep, 'classes', tmp_path)
    files += draw_operators([outcome('a', 'profile_train', info=groups)], tmp_path)
    names = ['sweep_classes.png', 'sweep_classes.svg', 'operators.png', 'operators.svg']
    assert [file.name for file in files] == names
    assert all(file.stat().st_size > 5000 for file in files)
    assert draw_sweep(sweep, 'image-size', tmp_path) == draw_operators(sweep, tmp_path) == []
