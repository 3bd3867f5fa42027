"""Programs started as processes: log, exit, environment."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import pytest

from infoclip_mmseg.experiments import processes
from infoclip_mmseg.experiments.processes import (
    ProgramError,
    count_cores,
    free_port,
    gpu_names,
    program_environment,
    run_program,
)


def run(code: str, log: Path, **options) -> None:
    run_program([sys.executable, '-c', code], log, dict(os.environ), **options)


def test_output_is_added_to_the_log(tmp_path):
    log = tmp_path / 'new/log'
    for code in ('print("one")', 'import sys; print("two", file=sys.stderr)'):
        run(code, log)
    lines = log.read_text().splitlines()
    assert [line for line in lines if not line.startswith('$ ')] == ['one', 'two']
    assert lines[0] == f'$ {sys.executable} -c print("one")'


def test_a_failure_shows_the_end_of_the_log(tmp_path):
    with pytest.raises(ProgramError, match='exit code 3, last lines of .*log:') as error:
        run('import sys; print(*range(90), sep="\\n"); sys.exit(3)', tmp_path / 'log')
    assert str(error.value).splitlines()[1:] == [f'    {n}' for n in range(78, 90)]


def test_one_looks_on_while_it_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(processes, 'POLL_SECONDS', 0.05)
    calls: list[None] = []
    run('import time; time.sleep(0.5)', tmp_path / 'log', watch=lambda: calls.append(None))
    assert len(calls) > 1


def test_an_error_of_the_one_that_looks_on_ends_it(tmp_path):
    def refuse() -> None:
        raise ProgramError('stopped')

    start = time.monotonic()
    with pytest.raises(ProgramError, match='stopped'):
        run('import time; time.sleep(60)', tmp_path / 'log', watch=refuse)
    assert time.monotonic() - start < 30


def test_descriptors_are_inherited(tmp_path):
    with (tmp_path / 'file').open('w') as file:
        code = f'import os; os.write({file.fileno()}, b"here")'
        with pytest.raises(ProgramError, match='Bad file descriptor'):
            run(code, tmp_path / 'log')
        run(code, tmp_path / 'log', inherit=[file.fileno()])
    assert (tmp_path / 'file').read_text() == 'here'


def test_environment(monkeypatch):
    monkeypatch.setattr(processes, 'count_cores', lambda: 9)
    monkeypatch.setenv('PYTHONPATH', 'before')
    for name in ('OMP_NUM_THREADS', 'CUDA_VISIBLE_DEVICES'):
        monkeypatch.delenv(name, raising=False)
    plain = program_environment(Path('/tree'))
    assert plain['PYTHONPATH'] == '/tree:before' and plain['PYTHON'] == sys.executable
    assert 'OMP_NUM_THREADS' not in plain and 'CUDA_VISIBLE_DEVICES' not in plain
    shared = program_environment(sharers=2, gpus=['3', '5'])
    assert (shared['OMP_NUM_THREADS'], shared['CUDA_VISIBLE_DEVICES']) == ('4', '3,5')
    assert program_environment(sharers=20)['OMP_NUM_THREADS'] == '1'
    monkeypatch.setenv('OMP_NUM_THREADS', '7')
    assert program_environment(sharers=2)['OMP_NUM_THREADS'] == '7'


def test_cores_gpus_and_ports(monkeypatch):
    assert 1 <= count_cores() <= os.cpu_count()
    assert free_port() > 1023
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', 'GPU-a,2')
    assert gpu_names() == ['GPU-a', '2']
    monkeypatch.setenv('CUDA_VISIBLE_DEVICES', '')
    assert gpu_names() == []
