"""tools/ablation.py and the processes that it starts: cores, GPUs, ends by force."""

from __future__ import annotations

import fcntl
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from stand_ins import edit

from infoclip_mmseg.experiments import processes
from infoclip_mmseg.experiments.ablation import worker

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def started(place):
    """tools/ablation.py as a process that is in the middle of a long training."""
    (place / 'tools/ablation.py').write_text((ROOT / 'tools/ablation.py').read_text())
    edit('base.py', 'max_iters=4', 'max_iters=200')
    edit('base.py', 'row, slope', 'pause = 0.2\nrow, slope')
    command = [sys.executable, 'tools/ablation.py', 'abl.py', '--runs', 'base', '--seeds', '0']
    env = {**os.environ, 'PYTHONPATH': str(ROOT)}
    with open('out.txt', 'w') as out:
        process = subprocess.Popen(command, env=env, stdout=out, stderr=out)
    note = Path('work_dirs/abl/base/seed0/train/last_checkpoint')
    deadline = time.monotonic() + 60
    while not note.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    yield process
    process.kill()


def is_locked() -> bool:
    with open('work_dirs/abl/.lock', 'w') as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            return True
    return False


def test_a_terminated_program_ends_what_it_started(started):
    assert is_locked()
    started.terminate()
    assert started.wait(20) == 130
    assert 'stopped; start it again to go on' in Path('out.txt').read_text()
    assert not is_locked()


def test_the_training_of_a_killed_program_keeps_others_out(started, ablation, capsys):
    started.kill()
    started.wait(20)
    assert ablation('--runs', 'base', '--seeds', '0') == 2
    assert 'or a training that one left behind' in capsys.readouterr().err
    os.kill(int(Path('pid.txt').read_text()), signal.SIGKILL)
    for _ in range(100):
        if not is_locked():
            break
        time.sleep(0.1)
    assert not is_locked()


def test_jobs_share_cores_and_gpus(monkeypatch):
    monkeypatch.delenv('OMP_NUM_THREADS', raising=False)
    monkeypatch.setattr(processes, 'count_cores', lambda: 16)
    alone = worker.Workplace(Path('t'), devices=['0', '1'])
    assert alone.environment(0)['OMP_NUM_THREADS'] == '16'
    assert alone.environment(0).get('CUDA_VISIBLE_DEVICES') == os.environ.get(
        'CUDA_VISIBLE_DEVICES'
    )
    assert alone.command('test', [Path('c.py'), Path('a.pth')], Path('w')) == [
        *(sys.executable, 't/test.py', 'c.py', 'a.pth', '--work-dir', 'w')
    ]
    pair = worker.Workplace(Path('t'), jobs=2, gpus=2, devices=['4', '5', '6', '7'])
    environments = [pair.environment(slot) for slot in (0, 1)]
    assert [env['CUDA_VISIBLE_DEVICES'] for env in environments] == ['4,5', '6,7']
    assert environments[0]['OMP_NUM_THREADS'] == '4'
    assert all(int(env['PORT']) > 1023 for env in environments)
    assert pair.command('test', [Path('c.py'), Path('a.pth')], Path('w')) == [
        *('t/dist_test.sh', 'c.py', 'a.pth', '2', '--work-dir', 'w')
    ]


def test_once_all_are_stopped_programs_end_and_none_goes_on(tmp_path):
    place = worker.Workplace(tmp_path)
    threading.Timer(1.0, place.stopped.set).start()
    start = time.monotonic()
    for _ in range(2):
        with pytest.raises(processes.ProgramError, match='stopped'):
            place.run(['sleep', '60'], tmp_path / 'log')
    assert time.monotonic() - start < 30
