from __future__ import annotations

import json

import pytest

from infoclip_mmseg.experiments.timing.bench import Setting
from infoclip_mmseg.experiments.timing.report import (
    derive,
    draw_operators,
    draw_sweep,
    make_json,
    make_markdown,
    time_table,
)
from infoclip_mmseg.experiments.timing.runs import Measurement
from infoclip_mmseg.experiments.timing.sides import Side

ORDERS = {
    'order 2': [0.1],
    'eigenvalues': [9.0],
    'order 2, value': [0.05],
    'eigenvalues, value': [2.0],
}
SIDES = [Side('a', 'a.py', '.', '1'), Side('b', 'b.py', '.', '1')]


def made(side: str, part: str, status: str = 'measured', **fields) -> Measurement:
    return Measurement(side, '.', 'default', Setting(part, 'a.py'), status=status, **fields)


def test_rounds_of_a_side_are_put_together_and_sides_side_by_side():
    table = time_table(
        [
            made('a', 'head', seconds={'view': [1.0, 2.0]}),
            made('b', 'head', seconds={'view': [1.0]}),
            made('a', 'head', seconds={'view': [6.0]}),
            made('a', 'image', seconds={'view': [1.0]}),
            made('b', 'teacher', status='failed', reason='broken'),
        ]
    )
    assert list(table['part']) == ['decode head', 'decode head', 'image tower']
    assert list(table['side']) == ['a', 'b', 'a']
    assert list(table['median']) == [2.0, 1.0, 1.0]
    assert list(table['max']) == [6.0, 1.0, 1.0]
    assert list(table['ratio']) == [1.0, 0.5, 1.0]


def test_figures_that_follow():
    measurements = [
        made('a', 'train', seconds={'step': [1.12]}, info=dict(images=4)),
        made('a', 'train_plain', seconds={'step': [1.0]}),
        made('a', 'entropy', seconds=ORDERS),
        made('a', 'matrix', seconds={'product': [2.0]}, info=dict(flops=8)),
        made('a', 'profile_train', info=dict(flops=2.24)),
        made('a', 'train', seconds={'step': [9.0]}, point=dict(classes=10)),
    ]
    figures = derive(measurements, 'a')
    assert figures['distillation_share'] == pytest.approx(0.12)
    assert figures['eigenvalues_over_order_2'] == pytest.approx(90)
    assert figures['eigenvalues_over_order_2, value'] == pytest.approx(40)
    assert figures['training_images_per_second'] == pytest.approx(4 / 1.12)
    assert figures['training_share_of_matrix_rate'] == pytest.approx(0.5)
    assert 'eigenvalues_over_order_2, entropy' not in figures
    assert derive(measurements, 'b') == {}
    page = make_markdown({}, measurements)
    assert '| distillation share | 12.0 % |' in page and '| training flops | 0.0 G |' in page


def test_report_compares_and_says_what_is_missing():
    measurements = [
        made(
            'a', 'head', seconds={'view': [1.0]}, memory=dict(peak_rss=2 * 10**9, start_rss=10**9)
        ),
        made('b', 'head', seconds={'view': [0.25]}, memory=dict(peak_rss=10**9, start_rss=1)),
        made('b', 'teacher', status='skipped', reason='no neck'),
        made('a', 'teacher', seconds={'views': [1.0]}, memory=dict(peak_rss=1, start_rss=0)),
    ]
    page = make_markdown({'device': 'CPU'}, measurements)
    assert '| decode head | view | b | 0.25 | 0.25 | 0.25 | 0.25 |' in page
    assert (
        '| decode head | a | 2.00 | 1.00 | 1.00 |\n| decode head | b | 1.00 | 1.00 | 0.50 |' in page
    )
    assert '- teacher, b, default allocator: no neck' in page
    content = json.loads(json.dumps(make_json({'device': 'CPU'}, measurements, SIDES)))
    assert content['measurements'][1]['seconds'] == {'view': [0.25]}
    medians = {(row['subject'], row['side']): row['50%'] for row in content['spread']}
    assert medians == {('head', 'a'): 1.0, ('head', 'b'): 0.25, ('teacher', 'a'): 1.0}


def test_memory_of_training_shows_what_was_measured_only():
    def cell(batch: int, peak: int = 0) -> Measurement:
        point = dict(precision='fp32', recomputed='off', batch=batch)
        status = dict() if peak else dict(status='skipped', reason='does not fit in memory: 9')
        return made('a', 'memory', memory=dict(peak_rss=peak), point=point, **status)

    page = make_markdown({}, [cell(1, 2 * 10**9), cell(2, 31 * 10**8), cell(4), cell(8)])
    assert '| config | precision | recomputed | batch 1 | batch 2 | batch 4 | batch 8 |' in page
    assert '| a | fp32 | off | 2.0 | 3.1 | – | – |' in page


def test_pictures_are_written_where_there_is_something_to_draw(tmp_path):
    sweep = [
        made(side, 'text', point=dict(classes=n), seconds={'embeddings': [n / 10, n / 9]})
        for side in 'ab'
        for n in (10, 1000)
    ]
    groups = dict(operators=dict(groups={'attention': 1.0, 'other': 2.0}))
    files = draw_sweep(sweep, 'classes', tmp_path)
    files += draw_operators([made('a', 'profile_train', info=groups)], tmp_path)
    names = ['sweep_classes.png', 'sweep_classes.svg', 'operators.png', 'operators.svg']
    assert [file.name for file in files] == names
    assert all(file.stat().st_size > 5000 for file in files)
    assert draw_sweep(sweep, 'image-size', tmp_path) == draw_operators(sweep, tmp_path) == []
