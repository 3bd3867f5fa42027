from __future__ import annotations

import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from infoclip_mmseg.experiments.processes import ROOT
from infoclip_mmseg.experiments.timing import runs
from infoclip_mmseg.experiments.timing.bench import Setting, TimingError
from infoclip_mmseg.experiments.timing.runs import Measurement, environment, plan, run_all
from infoclip_mmseg.experiments.timing.sides import Side, describe_commit, make_sides

BASE = Setting('', '', cfg_options={'model.input_size': 48})
SIDES = [Side('a', 'a.py', '.', '1'), Side('b', 'b.py', '.', '1')]


def test_sides_go_in_turn():
    order = [(one.part, one.side) for one in plan(SIDES, BASE, ['train', 'head'], rounds=2)]
    assert order == [
        *(('train', 'a'), ('train', 'b'), ('train_plain', 'a'), ('train_plain', 'b')) * 2,
        *(('head', 'a'), ('head', 'b')) * 2,
    ]


def test_sweeps_vary_one_field_of_every_side_and_allocator():
    planned = plan(SIDES, BASE, sweeps={'classes': [10, 100]}, allocators=('default', 'kept'))
    inference = [one for one in planned if one.part == 'inference']
    assert [one.setting.num_classes for one in inference] == [10] * 4 + [100] * 4
    assert {one.allocator for one in inference} == {'default', 'kept'}
    assert inference[0].point == {'classes': 10}


def test_memory_varies_precision_recomputation_and_batch():
    planned = plan(SIDES[:1], BASE, ['memory'], rounds=2, memory_batches=(2, 1))
    rows = [tuple(one.point.values()) for one in planned]
    assert rows == [
        (dtype, where, batch)
        for dtype in ('fp32', 'bf16')
        for where in ('off', 'head, selective', 'head', 'all, selective', 'all')
        for batch in (1, 2)
    ]
    setting = planned[-1].setting
    assert (setting.dtype, setting.batch_size, setting.repeats) == ('bf16', 2, 1)
    options = setting.cfg_options
    assert options['model.backbone.with_cp'] is options['model.decode_head.with_cp'] is True
    assert options['model.input_size'] == 48


@pytest.fixture
def run_until(monkeypatch, tmp_path):
    """Run a plan on a machine on which only a part fits; gives what ran and all outcomes."""

    def run(planned: list[Measurement], fits) -> tuple[list[Measurement], list[Measurement]]:
        ran = []

        def measure(one: Measurement, log: Path) -> Measurement:
            ran.append(one)
            if fits(one.setting):
                return replace(one, status='measured')
            return replace(one, status='skipped', reason='does not fit in memory: 9 GB')

        monkeypatch.setattr(runs, 'run', measure)
        return ran, list(run_all(planned, tmp_path / 'log', lambda one: None))

    return run


def test_larger_values_are_skipped_after_one_that_did_not_fit(run_until):
    planned = plan(SIDES[:1], BASE, ['text'], sweeps={'classes': [10, 100, 1000]})
    ran, made = run_until(planned, lambda setting: setting.num_classes < 100)
    assert [one.setting.num_classes for one in ran] == [10, 100]
    assert made[2].reason == '100 did not fit in memory'


def test_a_row_of_memory_ends_where_it_does_not_fit_and_others_go_on(run_until):
    planned = plan(SIDES[:1], BASE, ['memory'], memory_batches=(1, 2, 4, 8))
    ran, made = run_until(planned, lambda s: s.batch_size < (2 if s.dtype == 'fp32' else 8))
    assert len(made) == 5 * 8 and len(ran) == 5 * 2 + 5 * 4
    assert [one.status for one in made[:4]] == ['measured', *['skipped'] * 3]


def test_a_process_that_ends_for_want_of_memory_is_no_failure(monkeypatch, tmp_path):
    def last_words(text: str) -> Measurement:
        monkeypatch.setattr(runs, 'START', f'raise SystemExit("{text}")')
        one = Measurement('a', str(tmp_path), 'default', Setting('train', 'c'))
        return runs.run(one, tmp_path / f'{len(text)}.log')

    died = last_words('terminate called after throwing an instance of std::bad_alloc')
    assert died.status == 'skipped' and 'does not fit in memory' in died.reason
    assert last_words('no more paper').status == 'failed'


def test_environment_sets_allocator_and_threads(monkeypatch):
    monkeypatch.setenv('MALLOC_ARENA_MAX', '1')
    monkeypatch.setenv('OMP_NUM_THREADS', '7')
    one = Measurement('a', '/tree', 'default', Setting('train', 'c'))
    env = environment(one)
    assert env['OMP_NUM_THREADS'] == '7' and env['PYTHONPATH'].startswith('/tree')
    assert not any(name.startswith('MALLOC_') for name in env)
    kept = environment(replace(one, allocator='kept', setting=Setting('train', 'c', threads=2)))
    assert int(kept['MALLOC_MMAP_THRESHOLD_']) > 1 << 35 < int(kept['MALLOC_TRIM_THRESHOLD_'])
    assert kept['MALLOC_TOP_PAD_'] == str(256 << 20)
    assert kept['OMP_NUM_THREADS'] == kept['MKL_NUM_THREADS'] == '2'


def test_another_tree_is_measured_with_its_own_config(tmp_path):
    other = tmp_path / 'before'
    (other / 'infoclip_mmseg').mkdir(parents=True)
    config = 'configs/infoclip_vitb16_coco-stuff.py'
    with pytest.raises(TimingError, match=r"before/configs/\S+' does not exist"):
        make_sides(str(ROOT / config), tree=str(other))
    (other / 'configs').mkdir()
    shutil.copy(ROOT / config, other / config)
    first, second = make_sides(str(ROOT / config), tree=str(other))
    assert (first.tree, second.tree) == (str(ROOT), str(other))
    assert second.config == str(other / config)
    assert second.label == 'infoclip_vitb16_coco-stuff in before'
    with pytest.raises(TimingError, match='git worktree add'):
        make_sides(str(ROOT / config), tree=str(tmp_path))


@pytest.mark.skipif(shutil.which('git') is None, reason='needs git')
def test_commits_are_named_and_changes_too(tmp_path):
    (tmp_path / 'file').write_text('one')
    git = ['git', '-C', str(tmp_path), '-c', 'user.name=t', '-c', 'user.email=t@t']
    for words in (['init', '-q'], ['add', '.'], ['commit', '-qm', 'one']):
        subprocess.run([*git, *words], check=True)
    commit = describe_commit(tmp_path)
    assert len(commit) >= 7 and not commit.endswith('-dirty')
    (tmp_path / 'file').write_text('two')
    assert describe_commit(tmp_path) == f'{commit}-dirty'
    assert describe_commit(tmp_path / 'nowhere') == 'unknown (no git clone)'
