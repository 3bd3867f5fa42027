"""Programs in processes of their own, and the parts of the machine that they share."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parents[2]
"""The tree that this package belongs to."""
POLL_SECONDS = 1.0
TAIL_LINES = 12


class ProgramError(RuntimeError):
    """A program failed; the message holds the last lines of its log."""


def run_program(
    command: Sequence[str | Path],
    log: Path,
    env: dict[str, str],
    inherit: Sequence[int] = (),
    watch: Callable[[], None] = lambda: None,
) -> None:
    """Run a program to its end; its command line and output are added to a log.

    The descriptors ``inherit`` stay open in it. ``watch`` is called about every second while it
    runs; an error that it raises ends the program.

    Raises:
        ProgramError: It ended with another exit code than 0.
    """
    words = [str(word) for word in command]
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open('ab') as output:
        output.write(f'$ {" ".join(words)}\n'.encode())
        output.flush()
        process = subprocess.Popen(
            words,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            pass_fds=inherit,
        )
    try:
        while process.poll() is None:
            watch()
            with suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
    finally:
        process.terminate()
        process.wait()
    if process.returncode != 0:
        lines = log.read_text(encoding='utf-8', errors='replace').splitlines()[-TAIL_LINES:]
        text = '\n'.join(f'    {line}' for line in lines)
        raise ProgramError(f'exit code {process.returncode}, last lines of {log}:\n{text}')


def program_environment(
    root: Path = ROOT, sharers: int | None = None, gpus: Sequence[str] = ()
) -> dict[str, str]:
    """This process's environment, changed for a program: PYTHON, PYTHONPATH and a free PORT.

    Python imports the package of the tree ``root`` before any other. The number of processes that
    share the cores gives OMP_NUM_THREADS where it is not set; names of GPUs CUDA_VISIBLE_DEVICES.
    """
    env = {**os.environ, 'PYTHON': sys.executable, 'PORT': str(free_port())}
    env['PYTHONPATH'] = os.pathsep.join(filter(None, [str(root), env.get('PYTHONPATH')]))
    if sharers is not None:
        env.setdefault('OMP_NUM_THREADS', str(max(1, count_cores() // sharers)))
    if gpus:
        env['CUDA_VISIBLE_DEVICES'] = ','.join(gpus)
    return env


def count_cores() -> int:
    """Processor cores that this process may use."""
    if hasattr(os, 'sched_getaffinity'):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def gpu_names() -> list[str]:
    """GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if visible is not None:
        return [name for name in visible.split(',') if name]
    return [str(index) for index in range(torch.cuda.device_count())]


def free_port() -> int:
    """A TCP port of this machine that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return int(probe.getsockname()[1])
