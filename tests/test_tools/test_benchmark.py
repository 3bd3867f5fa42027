"""tools/benchmark.py at toy size."""

from __future__ import annotations

import importlib.util
import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from mmengine.config import Config

ROOT = Path(__file__).resolve().parents[2]
SLOW = """
import time

from mmseg.registry import MODELS

from infoclip_mmseg.models import CATSegHead


@MODELS.register_module()
class SlowHead(CATSegHead):
    def forward(self, features, text):
        time.sleep(0.5)
        return super().forward(features, text)
"""
HEADER = (
    *('date', 'command', 'side 1', 'device', 'CPU', 'memory', 'load before', 'system', 'Python'),
    *('packages', 'threads', 'allocator', 'dtype', 'input', 'calls'),
)


@pytest.fixture(scope='module')
def tool():
    path = list(sys.path)
    spec = importlib.util.spec_from_file_location('tool_benchmark', ROOT / 'tools/benchmark.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.fixture
def measure(tool, tmp_path, monkeypatch, toy_cfg):
    """The program in a folder with toy.py and slow.py: ``measure(*options)`` gives its status."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path))
    config = dict(model=toy_cfg(True), optim_wrapper=dict(optimizer=dict(type='AdamW', lr=1e-3)))
    Config(config).dump('toy.py')
    (tmp_path / 'slow_head.py').write_text(SLOW)
    slow = dict(_base_='./toy.py', model=dict(decode_head=dict(type='SlowHead')))
    slow['custom_imports'] = dict(imports=['slow_head'], allow_failed_imports=False)
    Path('slow.py').write_text('\n'.join(f'{key} = {value!r}' for key, value in slow.items()))

    def run(*options: str) -> int:
        try:
            return tool.main(['toy.py', *options, '--num-classes', '5', '--threads', '1'])
        except SystemExit as stopped:
            return stopped.code

    return run


def report(folder: str) -> dict:
    return json.loads(Path(folder, 'benchmark.json').read_text(encoding='utf-8'))


def median(content: dict, side: int, section: str) -> float:
    label = content['sides'][side]['label']
    rows = [row for row in content['spread'] if (row['side'], row['section']) == (label, section)]
    return rows[0]['50%']


@pytest.mark.slow
def test_two_configs_are_compared_and_the_slower_one_is_slower(measure):
    options = ('--parts', 'head', '--repeats', '2', '--rounds', '1', '--warmup', '0')
    assert measure('--compare', 'slow.py', *options, '--out', 'out') == 0
    content = report('out')
    assert median(content, 1, 'view') > median(content, 0, 'view') + 0.3
    assert set(HEADER) <= content['header'].keys()
    assert all(content['header'].values())
    assert 'PyTorch' in content['header']['packages'] and content['header']['threads'] == '1'
    first = content['measurements'][0]
    assert first['memory']['peak_rss'] > 10**8 and first['info']['threads'] == 1
    assert len(first['seconds']['view']) == 2
    page = Path('out/benchmark.md').read_text(encoding='utf-8')
    assert '| decode head | view | slow |' in page
    assert 'timing.worker' in Path('out/measurements.log').read_text()


@pytest.mark.slow
def test_a_sweep_gives_tables_and_pictures(measure):
    options = ('--parts', 'inference', '--repeats', '1', '--out', 'out')
    assert measure('--sweep', 'classes', '50', '3', *options) == 0
    made = report('out')['measurements']
    assert [one['point'] for one in made] == [{'classes': 3}, {'classes': 50}]
    assert all(one['status'] == 'measured' for one in made)
    assert Path('out/sweep_classes.png').stat().st_size > 5000
    assert Path('out/sweep_classes.svg').is_file()
    page = Path('out/benchmark.md').read_text(encoding='utf-8')
    assert '![sweep_classes.png]' in page and 'text cached, classes 50 |' in page


@pytest.mark.slow
def test_another_checkout_is_measured_without_this_one(tmp_path, measure):
    tree = tmp_path / 'before'
    ignore = shutil.ignore_patterns('__pycache__', 'experiments')  # there was none of it
    shutil.copytree(ROOT / 'infoclip_mmseg', tree / 'infoclip_mmseg', ignore=ignore)
    head = tree / 'infoclip_mmseg/models/decode_heads/cat_seg.py'
    text = head.read_text(encoding='utf-8')
    line = '        self._check(features, text)\n'
    assert line in text
    slow = '        import sys, time\n        time.sleep(0.5)\n'
    slow += "        assert 'infoclip_mmseg.experiments' not in sys.modules\n"
    head.write_text(text.replace(line, line + slow), encoding='utf-8')
    options = ('--parts', 'head', '--repeats', '1', '--rounds', '1', '--warmup', '0')
    assert measure('--compare-tree', str(tree), *options, '--out', 'out') == 0
    content = report('out')
    assert median(content, 1, 'view') > median(content, 0, 'view') + 0.3
    assert [side['label'] for side in content['sides']] == ['toy', 'toy in before']
    assert [side['tree'] for side in content['sides']] == [str(ROOT), str(tree)]


@pytest.mark.slow
def test_memory_that_does_not_fit_stays_empty(measure, tool, monkeypatch):
    monkeypatch.setattr(tool.runs, 'RECOMPUTED', {'all': (True, True)})
    options = ('--parts', 'memory', '--memory-batches', '1', '4096', '--max-memory', '4')
    status = measure(*options, '--out', 'out')
    page = Path('out/benchmark.md').read_text(encoding='utf-8')
    assert status == 0, page
    rows = [line.split(' | ') for line in page.splitlines() if line.startswith('| toy |')]
    assert [row[1:3] for row in rows] == [
        ['fp32', 'all'],
        ['bf16', 'all'],
    ]
    assert all(float(row[3]) > 0.3 and row[4] == '– |' for row in rows)
    assert 'does not fit in memory' in page


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        (('--compare', 'nowhere.py'), "config 'nowhere.py' does not exist"),
        (('--sweep', 'colours', '1'), '--sweep takes one of classes, image-size'),
        (('--sweep', 'classes', '1', 'x'), 'got classes 1 x'),
        (('--sweep', 'classes', '10', '--parts', 'memory'), 'a table of its own'),
        (('--repeats', '0'), '--repeats: expected a positive number'),
        (('--sweep', 'classes', '100000000'), 'number of classes must be 1 to'),
        (('--device', 'cuda:77'), "'cuda:77' can not be used"),
        (('--device', 'abacus'), "'abacus' can not be used"),
        (('--compare-tree', '.'), '`git worktree add . REV`'),
        (('--memory-batches', '0'), '--memory-batches: expected'),
    ],
)
def test_bad_input_is_refused_before_any_work(measure, capsys, options, message):
    assert measure(*options) == 2
    assert message in capsys.readouterr().err
    assert not Path('work_dirs').exists()


def test_a_config_that_can_not_be_used_ends_the_run(measure, tool, monkeypatch, capsys):
    def refuse(planned, log, start):
        raise tool.TimingError('no model of type OpenVocabSegmentor')

    monkeypatch.setattr(tool.runs, 'run_all', refuse)
    assert measure('--parts', 'image') == 2
    assert 'no model of type OpenVocabSegmentor' in capsys.readouterr().err


def test_what_was_measured_is_written_when_the_run_is_stopped(measure, tool, monkeypatch, capsys):
    def stop(planned, log, start):
        start(planned[0])
        yield replace(planned[0], status='measured', seconds={'view': [1.0]})
        start(planned[1])
        raise KeyboardInterrupt

    monkeypatch.setattr(tool.runs, 'run_all', stop)
    assert measure('--parts', 'head', 'image', '--out', 'out') == 130
    assert report('out')['measurements'][0]['seconds'] == {'view': [1.0]}
    shown = capsys.readouterr()
    assert 'stopped' in shown.err
    assert 'head, toy, default allocator: 1 s' in shown.out
    assert 'now: image, toy, default allocator' in shown.out


def test_a_failed_part_shows_its_last_words_and_the_others_are_measured(
    measure, tool, monkeypatch, capsys
):
    monkeypatch.setattr(tool.runs, 'START', 'raise SystemExit("no more paper")')
    assert measure('--parts', 'head', '--out', 'out') == 1
    assert 'no more paper' in Path('out/benchmark.md').read_text(encoding='utf-8')
    assert 'head, toy, default allocator: failed: exit code 1' in capsys.readouterr().out
