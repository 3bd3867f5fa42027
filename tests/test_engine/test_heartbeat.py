"""The watch that ends a distributed job whose rank is gone."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from infoclip_mmseg.engine.heartbeat import Heartbeat, Silence, is_connection_error

ROOT = Path(__file__).resolve().parents[2]
CASES = ('none', 'SIGKILL:1', 'SIGSTOP:2', 'SIGSTOP:0')


def test_a_rank_is_gone_after_so_many_equal_beats():
    silence = Silence(checks=2)
    assert silence.look({1: b'1', 2: b'1'}) == []
    assert silence.look({1: b'1', 2: b'2'}) == []
    assert silence.look({1: b'1', 2: b'3'}) == [1]
    assert silence.look({1: b'2', 2: b'3'}) == []


def test_one_rank_needs_no_watch():
    with Heartbeat() as heartbeat:
        assert heartbeat._store is None


@pytest.mark.parametrize(
    ('error', 'expected'),
    [
        (RuntimeError('[third_party/gloo/pair.cc:1] Connection closed by peer [::1]:3'), True),
        (RuntimeError('mat1 and mat2 shapes cannot be multiplied'), False),
        (ValueError('Connection closed by peer'), False),
    ],
)
def test_errors_of_a_lost_connection(error, expected):
    assert is_connection_error(error) is expected


def free_ports(count: int) -> list[str]:
    probes = [socket.create_server(('127.0.0.1', 0)) for _ in range(count)]
    ports = [str(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp('heartbeat')
    worker = Path(__file__).with_name('heartbeat_worker.py')
    command = [sys.executable, worker, path, ','.join(free_ports(len(CASES))), *CASES]
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)}
    run = subprocess.run(command, env=env, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr
    return path


@pytest.mark.parametrize('case', CASES)
def test_the_others_end_and_say_who_is_gone(folder, case):
    status, seconds = json.loads((folder / f'{case}.json').read_text())
    outputs = {rank: (folder / f'{case}.{rank}.txt').read_text() for rank in range(3)}
    if case == 'none':
        assert status == {'0': 0, '1': 0, '2': 0}
        assert not any(outputs.values())
        return
    victim = int(case[-1])
    assert len(status) == 2 and seconds < 60
    for rank, value in status.items():
        assert value == 1
        assert f'rank {victim} of 3 gave no sign of life for 2 s' in outputs[int(rank)]
        assert '--resume' in outputs[int(rank)]
