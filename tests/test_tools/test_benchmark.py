"""tools/benchmark.py at toy size."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
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
def benchmark(tool, tmp_path, monkeypatch, toy_cfg):
    """The program in a folder with toy.py and slow.py: ``benchmark(*options)`` gives its status."""
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
    found = [outcome for outcome in content['outcomes'] if outcome['side'] == label]
    return found[0]['spread'][section]['median']


@pytest.mark.slow
def test_two_configs_are_compared_and_the_slower_one_is_slower(benchmark):
    options = ('--parts', 'head', '--repeats', '2', '--rounds', '1', '--warmup', '0')
    assert benchmark('--compare', 'slow.py', *options, '--out', 'out') == 0
    content = report('out')
    assert median(content, 1, 'view') > median(content, 0, 'view') + 0.3
    assert set(HEADER) <= content['header'].keys()
    assert all(content['header'].values())
    assert 'torch' in content['header']['packages'] and content['header']['threads'] == '1'
    outcome = content['outcomes'][0]
    assert outcome['memory']['peak_rss'] > 10**8 and outcome['info']['threads'] == 1
    assert len(outcome['seconds']['view']) == 2
    page = Path('out/benchmark.md').read_text(encoding='utf-8')
    assert 'slow / toy' in page and '| decode head | view |' in page


@pytest.mark.slow
def test_a_sweep_gives_tables_and_pictures(benchmark):
    options = ('--parts', 'inference', '--repeats', '1', '--out', 'out')
    assert benchmark('--sweep', 'classes', '50', '3', *options) == 0
    outcomes = report('out')['outcomes']
    assert [outcome['sweep'] for outcome in outcomes] == [['classes', 3], ['classes', 50]]
    assert all(outcome['status'] == 'measured' for outcome in outcomes)
    assert Path('out/sweep_classes.png').stat().st_size > 5000
    assert Path('out/sweep_classes.svg').is_file()
    page = Path('out/benchmark.md').read_text(encoding='utf-8')
    assert '![sweep_classes.png]' in page and 'text cached, classes 50 |' in page


@pytest.mark.slow
@pytest.mark.skipif(shutil.which('git') is None, reason='needs git')
def test_two_commits_are_compared(tmp_path, benchmark):
    clone = tmp_path / 'clone'
    for folder in ('infoclip_mmseg', 'tools'):
        ignore = shutil.ignore_patterns('__pycache__')
        shutil.copytree(ROOT / folder, clone / folder, ignore=ignore)
    shutil.copy(tmp_path / 'toy.py', clone / 'toy.py')
    git = ['git', '-C', str(clone), '-c', 'user.name=t', '-c', 'user.email=t@t']
    # In the first commit the head is slow, and there is no benchmark yet.
    head, timing = (
        clone / 'infoclip_mmseg/models/decode_heads/cat_seg.py',
        clone / 'infoclip_mmseg/timing',
    )
    text = head.read_text(encoding='utf-8')
    line = '        self._check(features, text)\n'
    assert line in text
    head.write_text(text.replace(line, f'{line}        __import__("time").sleep(0.5)\n'))
    shutil.move(timing, tmp_path / 'timing')
    for command in (['init', '-q'], ['add', '.'], ['commit', '-qm', 'slow']):
        subprocess.run([*git, *command], check=True)
    head.write_text(text, encoding='utf-8')
    shutil.move(tmp_path / 'timing', timing)
    for command in (['add', '.'], ['commit', '-qm', 'fast']):
        subprocess.run([*git, *command], check=True)
    options = ['--parts', 'head', '--repeats', '1', '--rounds', '1', '--num-classes', '5']
    command = [sys.executable, 'tools/benchmark.py', 'toy.py', '--compare-commit', 'HEAD~1']
    subprocess.run([*command, *options, '--out', 'out'], cwd=clone, env=os.environ, check=True)
    content = report(str(clone / 'out'))
    assert median(content, 1, 'view') > median(content, 0, 'view') + 0.3
    assert content['sides'][0]['label'] != content['sides'][1]['label']
    listed = subprocess.run([*git, 'worktree', 'list'], capture_output=True, text=True, check=True)
    assert len(listed.stdout.splitlines()) == 1


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
        (('--device', 'abacus'), "'abacus' is unknown"),
    ],
)
def test_bad_input_is_refused_before_any_work(benchmark, capsys, options, message):
    assert benchmark(*options) == 2
    assert message in capsys.readouterr().err
    assert not Path('work_dirs').exists()


def test_a_config_that_can_not_be_used_ends_the_run(benchmark, tool, monkeypatch, capsys):
    def refuse(jobs, report):
        raise tool.BenchmarkError('no model of type OpenVocabSegmentor')

    monkeypatch.setattr(tool, 'run_jobs', refuse)
    assert benchmark('--parts', 'image') == 2
    assert 'no model of type OpenVocabSegmentor' in capsys.readouterr().err


def test_what_was_measured_is_written_when_the_run_is_stopped(benchmark, tool, monkeypatch, capsys):
    def stop(jobs, report):
        yield tool.Outcome('toy', 'default', 'head', seconds={'view': [1.0]})
        raise KeyboardInterrupt

    monkeypatch.setattr(tool, 'run_jobs', stop)
    assert benchmark('--parts', 'head', '--out', 'out') == 130
    assert report('out')['outcomes'][0]['seconds'] == {'view': [1.0]}
    assert 'stopped' in capsys.readouterr().err


def test_the_memory_guide_keeps_what_was_measured_before_a_stop(benchmark, tool, monkeypatch):
    def measure(job):
        if job.setting.cfg_options['model.decode_head.with_cp']:
            raise KeyboardInterrupt
        memory = dict(start_rss=10**9, peak_rss=10**9 * (1 + job.setting.batch_size))
        return tool.Outcome(job.side.label, 'default', 'memory', memory=memory, info={'trained': 0})

    monkeypatch.setattr(tool, 'run_job', measure)
    options = ('--parts', 'memory', '--memory-batches', '1', '99', '--max-memory', '20')
    assert benchmark(*options, '--out', 'out') == 130
    cells = report('out')['memory_guide']
    assert [(cell['batch_size'], cell['measured']) for cell in cells] == [(1, True), (99, False)]
    assert '| toy | fp32 | off | 2.0 | *100.0* |' in Path('out/benchmark.md').read_text()
