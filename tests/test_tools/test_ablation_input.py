"""tools/ablation.py: wrong files and options end it with one error."""

from __future__ import annotations

from pathlib import Path

import pytest
from stand_ins import calls, edit


@pytest.mark.parametrize(
    ('old', 'new', 'message'),
    [
        ("name='zero'", "name='base'", "'base' and 'base' would share the folder 'base'"),
        ("name='zero'", 'nom=1', "runs[2] has unknown keys ['nom']"),
        ("name='zero'", "name='?'", "runs[2] needs a name with a letter or digit, got '?'"),
        ("config='ours.py'", "config='no.py'", "config of 'ours, better': 'no.py' does not exist"),
        ("config='ours.py', ", '', "run 'ours, better' needs config"),
        ('dict(slope=13)', '13', "cfg_options of 'ours, better' must be a dict, got 13"),
        ('dict(slope=13)', "{'row.a.b': 1}", "run 'ours, better': options {'row.a.b': 1} do not"),
        (', train=False', '', "run 'zero' has a checkpoint, which is for runs with train=False"),
        ("'given.pth'", "'no.pth'", "checkpoint of run 'zero': 'no.pth' does not exist"),
        ('[0, 1, 2]', '[0, 0]', 'seeds must be different integers from 0, got [0, 0]'),
        ("['mIoU']", "'mIoU'", "figures must be a list of names of metrics, got 'mIoU'"),
        ("baseline = 'base'", "baseline = 'bass'", "baseline is 'bass'; expected the name"),
        ('baseline', 'baselin', "abl.py has unknown keys ['baselin']"),
        ('runs = [', '_runs = [', 'runs must be a list of one dict or more, got None'),
    ],
)
def test_a_wrong_ablation_file_is_one_error_before_any_work(ablation, capsys, old, new, message):
    edit('abl.py', old, new)
    assert ablation() == 2
    error = capsys.readouterr().err
    assert ': error: ' in error and message in error
    assert calls() == [] and not Path('work_dirs').exists()


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (['--runs', 'bass'], "there is no ['bass']; expected some of ['base', 'ours, better'"),
        (['--jobs', '0'], 'got --jobs 0'),
        (['--redo', '--only-collect'], 'not both --redo and --only-collect'),
        (['--cfg-options', 'train_dataloader=None'], 'base.py has no train_dataloader'),
        (['--cfg-options', 'test_dataloader=None'], "test 'joint': base.py has no test_dataloader"),
        (
            ['--cfg-options', 'train_dataloader.dataset.data_root=no'],
            'base, seed 0: data set not found',
        ),
    ],
)
def test_wrong_options_are_one_error_before_any_work(ablation, capsys, options, message):
    edit('abl.py', "{'test_dataloader.scale': 2}", 'dict()')
    assert ablation(*options) == 2
    assert message in capsys.readouterr().err
    assert calls() == []
