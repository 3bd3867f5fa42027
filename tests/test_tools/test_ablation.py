"""tools/ablation.py with stand-ins for the programs that it starts, and once with the real ones."""

from __future__ import annotations

import csv
import fcntl
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from stand_ins import CONFIG, calls, edit, table
from test_train_and_test import write_config


def test_all_is_run_once_and_tabulated(ablation):
    assert ablation('--jobs', '2') == 0
    started = calls()
    trained = [f'train {row} {seed} False' for row in ('base', 'ours') for seed in range(3)]
    assert [line for line in started if line.startswith('train')] == trained
    assert len(started) == 6 + 2 * 7
    rows = table()
    assert (rows['base', 'joint']['mean'], rows['base', 'joint']['std']) == ('11.0', '1.0')
    assert rows['ours, better', 'joint']['difference'] == '3.0'
    assert rows['ours, better', 'joint']['in_favour'] == '3'
    assert rows['zero', 'double']['mean'] == '23.0'
    assert rows['zero', 'double']['in_favour'] == '2'
    work = Path('work_dirs/abl')
    assert '| ours, better | +3.00 ± 0.00 (3/3) |' in (work / 'table.md').read_text()
    assert len(list(csv.DictReader((work / 'results.csv').open()))) == 14
    training = list(csv.DictReader((work / 'training.csv').open()))
    assert [row['loss'] for row in training[:3]] == ['2.5', '3.5', '4.5']
    assert training[0]['grad_norm_clip'] == '0.5' and 'lr' not in training[0]
    assert all(Image.open(work / name).width > 300 for name in ('table.png', 'curves.png'))
    result = json.loads((work / 'ours-better/seed1/result.json').read_text())
    assert result['train']['finished'] and result['train']['seconds'] > 0
    assert result['tests']['double']['metrics'] == dict(mIoU=28.0)

    assert ablation() == 0
    assert calls() == []


def test_a_new_seed_or_test_runs_only_what_is_missing(ablation):
    assert ablation('--runs', 'base', '--seeds', '0') == 0
    calls()
    edit('abl.py', "tests = [dict(name='joint')", "tests = [dict(name='third'), dict(name='joint')")
    assert ablation('--runs', 'base', '--seeds', '0', '1') == 0
    assert calls() == [
        *['test base 0 False', *['test base 1 False'] * 3, 'train base 1 False'],
    ]


def test_a_test_can_bring_its_own_config_for_the_model_of_the_run(ablation):
    Path('other.py').write_text(CONFIG.format(row='other', slope=0).replace('=1)', '=3)'))
    edit('abl.py', 'seeds = [0, 1, 2]', 'seeds = [0]')
    edit('abl.py', "dict(name='joint')", "dict(name='joint', config='other.py')")
    edit('base.py', "type='M'", "type='M', depth=3")
    assert ablation('--runs', 'base') == 0
    assert table()['base', 'joint']['mean'] == '30.0'
    config = Path('work_dirs/abl/base/seed0/tests/joint_config.py').read_text()
    assert "model = dict(depth=3, type='M')" in config
    assert 'train_dataloader' not in config and "row = 'other'" in config


def test_a_failed_run_leaves_the_others_and_is_resumed(ablation, capsys):
    edit('ours.py', 'row, slope', 'die_at = 2\nrow, slope')
    assert ablation('--seeds', '0', '--runs', 'base', 'ours, better') == 1
    out = capsys.readouterr().out
    assert 'ours, better, seed 0: FAILED: training: exit code 1, last lines of ' in out
    assert '    out of memory' in out
    assert '| ours, better | – |' in Path('work_dirs/abl/table.md').read_text()
    assert table()['base', 'joint']['mean'] == '10.0'
    calls()
    assert ablation('--seeds', '0', '--runs', 'base', 'ours, better') == 0
    assert [line for line in calls() if line.startswith('train')] == ['train ours 0 True']
    assert table()['ours, better', 'joint']['mean'] == '13.0'
    training = Path('work_dirs/abl/ours-better/seed0/train')
    assert len(list(training.glob('*/vis_data/scalars.json'))) == 2


def test_a_failed_test_leaves_the_other_tests(ablation, capsys):
    edit('base.py', 'row, slope', "broken_test = 'joint'\nrow, slope")
    assert ablation('--runs', 'base', '--seeds', '0') == 1
    assert "base, seed 0: FAILED: test 'joint': exit code 1" in capsys.readouterr().out
    rows = table()
    assert (rows['base', 'joint']['mean'], rows['base', 'double']['mean']) == ('', '20.0')


def test_a_changed_config_is_an_error_until_it_is_to_be_redone(ablation, capsys):
    options = ('--runs', 'base', '--seeds', '0')
    assert ablation(*options) == 0
    calls()
    edit('base.py', '10', '20')
    for extra in ([], ['--only-collect']):
        assert ablation(*options, *extra) == 2
        error = capsys.readouterr().err
        assert 'changed since these were run:\n  base, seed 0: training (or model)' in error
        assert '--redo' in error
    assert calls() == []
    assert ablation(*options, '--redo') == 0
    assert [line for line in calls() if line.startswith('train')] == ['train base 0 False']
    assert table()['base', 'joint']['mean'] == '20.0'
    assert Path('work_dirs/abl/base/seed0.old1/train/iter_4.pth').exists()


def test_a_changed_test_is_redone_without_training(ablation, capsys):
    options = ('--runs', 'base', '--seeds', '0')
    assert ablation(*options) == 0
    calls()
    edit('abl.py', "scale': 2", "scale': 5")
    assert ablation(*options) == 2
    assert '\n  base, seed 0: double\n' in capsys.readouterr().err
    assert ablation(*options, '--redo') == 0
    assert calls() == ['test base 0 False']
    assert table()['base', 'double']['mean'] == '50.0'


def test_changed_runs_that_are_not_selected_are_left_out(ablation, capsys):
    assert ablation('--seeds', '0') == 0
    edit('ours.py', 'test_dataloader = dict(scale=1)', 'test_dataloader = dict(scale=7)')
    assert ablation('--seeds', '0', '--runs', 'base') == 1
    assert 'ours, better, seed 0: joint left out, its config changed' in capsys.readouterr().err
    assert table()['ours, better', 'joint']['mean'] == ''
    assert table()['base', 'joint']['mean'] == '10.0'


def test_options_for_every_run(ablation):
    assert ablation('--seeds', '5', '--work-dir', 'w', '--cfg-options', 'slope=1') == 0
    rows = table('w')
    assert rows['base', 'joint']['mean'] == rows['ours, better', 'joint']['mean'] == '6.0'
    assert rows['zero', 'joint']['mean'] == '11.5'


def test_collecting_runs_nothing_and_keeps_gaps(ablation):
    assert ablation('--only-collect') == 0
    assert calls() == []
    assert table()['base', 'joint']['mean'] == ''


def test_a_figure_that_no_test_gives_is_named(ablation, capsys):
    edit('abl.py', "['mIoU']", "['mIoU', 'harmonic']")
    assert ablation('--runs', 'zero') == 1
    error = capsys.readouterr().err
    assert "zero, test 'joint' gave no 'harmonic' but mIoU; set its test_evaluator" in error


def test_a_folder_in_use_is_left_alone(ablation, capsys):
    Path('work_dirs/abl').mkdir(parents=True)
    with open('work_dirs/abl/.lock', 'w') as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert ablation('--runs', 'zero') == 2
    assert 'work_dirs/abl is in use' in capsys.readouterr().err


@pytest.mark.slow
def test_the_real_programs_train_and_evaluate(ablation_tool, tmp_path, ade_root, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('OMP_NUM_THREADS', '1')
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    write_config(tmp_path, ade_root)
    (tmp_path / 'abl.py').write_text("""
_metric = dict(type='SeenUnseenIoUMetric', seen=['wall', 'sky', 'tree'], absent='skip')
runs = [
    dict(name='InfoCLIP', config='infoclip_tiny.py', cfg_options={'train_cfg.max_iters': 2}),
    dict(name='zero-shot', config='infoclip_tiny.py', train=False),
]
tests = [dict(name='joint', cfg_options=dict(test_evaluator=_metric))]
baseline = 'zero-shot'
""")
    assert ablation_tool.main(['abl.py', '--jobs', '2']) == 0
    rows = table()
    assert all(float(row['mean']) >= 0 for row in rows.values()) and len(rows) == 2
    work = tmp_path / 'work_dirs/abl'
    results = list(csv.DictReader((work / 'results.csv').open()))
    assert {row['figure'] for row in results} == {'seen_mIoU', 'unseen_mIoU', 'harmonic'}
    training = next(csv.DictReader((work / 'training.csv').read_text().splitlines()))
    assert float(training['loss_mi']) and float(training['grad_norm_lpam']) > 0
    weights = torch.load(work / 'zero-shot/untrained/untrained.pth', weights_only=True)
    assert 'backbone.clip.logit_scale' in weights['state_dict']
