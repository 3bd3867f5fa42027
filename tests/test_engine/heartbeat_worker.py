"""Three ranks in a watch, in turn: ``python heartbeat_worker.py FOLDER PORT CASE...``.

A case is 'none', or SIGNAL:RANK with a signal that one rank sends itself; each rank's status goes
to FOLDER/CASE.json and its output to FOLDER/CASE.RANK.txt.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

from torch import distributed

from infoclip_mmseg.engine.heartbeat import Heartbeat

RANKS = 3
SECONDS = 2


def run_rank(rank: int, victim: int, number: int) -> None:
    distributed.init_process_group('gloo', rank=rank, world_size=RANKS)
    with Heartbeat(SECONDS):
        if rank == victim:
            os.kill(os.getpid(), number)
        if victim >= 0:
            threading.Event().wait(300)  # as a collective operation that does not come back
        time.sleep(2 * SECONDS)


def run_case(folder: Path, port: int, case: str) -> None:
    name, _, victim = case.partition(':')
    number = 0 if name == 'none' else getattr(signal, name)
    os.environ.update(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    pids = []
    for rank in range(RANKS):
        pids.append(os.fork())
        if pids[-1] == 0:
            output = os.open(folder / f'{case}.{rank}.txt', os.O_CREAT | os.O_WRONLY)
            os.dup2(output, 1)
            os.dup2(output, 2)
            run_rank(rank, int(victim or -1), number)
            sys.stdout.flush()
            os._exit(0)
    status: dict[int, int] = {}
    start = time.monotonic()
    for rank, pid in enumerate(pids):
        if rank == int(victim or -1):
            continue
        status[rank] = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    seconds = time.monotonic() - start
    if victim:
        os.kill(pids[int(victim)], signal.SIGKILL)
        os.waitpid(pids[int(victim)], 0)
    (folder / f'{case}.json').write_text(json.dumps([status, seconds]))


if __name__ == '__main__':
    for offset, one in enumerate(sys.argv[3:]):
        run_case(Path(sys.argv[1]), int(sys.argv[2].split(',')[offset]), one)
