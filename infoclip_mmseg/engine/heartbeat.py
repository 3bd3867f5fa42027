"""Ends a distributed job within seconds when one of its ranks is gone.

A rank that dies (killed for memory, lost machine) leaves the others in a collective operation. Gloo
notices a closed connection at once, but NCCL waits for its timeout of many minutes, and so does
everything where a machine vanishes without closing its connections. A thread of each rank therefore
gives a sign of life to the store that the job was started with, whatever its main thread waits for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import sys
import threading
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType

from mmengine.dist import barrier, get_rank, get_world_size
from mmengine.logging import print_log
from torch import distributed

SECONDS = 30.0
"""How long a rank may be silent before it counts as gone."""
CHECKS = 6
"""Checks in that time."""
ADVICE = (
    'The job ends here. See the messages of that rank and of its machine (out of memory?); then '
    'start the same command with --resume to go on from the last checkpoint.'
)
# What gloo and the TCP store say where a peer has gone; NCCL's errors have a class of their own.
_CONNECTION_ERRORS = ('connection closed by peer', 'connection reset', 'broken pipe', 'gloo')


class Silence:
    """Which ranks have not counted on for how many checks.

    Checks are counted and not seconds, so that a job that is suspended as a whole and woken up
    again is not mistaken for one that has lost a rank.
    """

    def __init__(self, checks: int = CHECKS) -> None:
        self.checks = checks
        self._last: dict[int, bytes | None] = {}
        self._missed: dict[int, int] = {}

    def look(self, beats: Mapping[int, bytes | None]) -> list[int]:
        """Take note of each rank's last beat; return the ranks that count as gone."""
        for rank, beat in beats.items():
            same = rank in self._last and beat == self._last[rank]
            self._missed[rank] = self._missed.get(rank, 0) + 1 if same else 0
            self._last[rank] = beat
        return sorted(rank for rank, missed in self._missed.items() if missed >= self.checks)


class Heartbeat:
    """Context in which the ranks of a job watch one another; does nothing with one rank.

    Rank 0 watches all; the others watch it, and hear from it who is gone. The process in which that
    is found out writes one error line and ends with status 1, without a chance for ``finally``: its
    main thread may never come back from the operation it is in.

    Args:
        seconds: How long a rank may be silent; 0 or None turns the watch off.
    """

    def __init__(self, seconds: float | None = SECONDS) -> None:
        self.seconds = seconds or 0.0
        self.rank = 0
        self._stop = threading.Event()
        self._store: distributed.Store | None = None
        self._answers = 0
        self._gone: list[int] = []

    def __enter__(self) -> Heartbeat:
        if get_world_size() > 1 and self.seconds > 0:
            self.rank = get_rank()
            self._store = open_store(self.rank, self.seconds)
            for target in (self._talk, self._watch):
                threading.Thread(target=target, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._store is not None and kind is None:
            barrier()  # the watch goes on for as long as any rank works
        self._stop.set()
        if self._store is not None and kind is None:
            self._leave(self._store)

    def _leave(self, store: distributed.Store) -> None:
        """Rank 0, which may hold the store, leaves last."""
        with contextlib.suppress(RuntimeError):
            if self.rank:
                store.set(f'left/{self.rank}', '1')
            else:
                store.wait([f'left/{rank}' for rank in range(1, get_world_size())])

    def _talk(self) -> None:
        """Exchange signs of life. A call may never come back where the store's machine is gone."""
        silence = Silence()
        while not self._stop.wait(self.seconds / CHECKS):
            try:
                self._gone = self._exchange(silence)
            except RuntimeError:
                self._gone = [0]  # the store went with rank 0's machine
            self._answers += 1

    def _watch(self) -> None:
        store_silence = Silence(CHECKS + 1)
        while not self._stop.wait(self.seconds / CHECKS):
            gone = self._gone or store_silence.look({0: str(self._answers).encode()})
            # At the end of a run rank 0 may leave just before this rank is told to stop.
            if gone and not self._stop.wait(self.seconds / CHECKS):
                self._end(gone)

    def _exchange(self, silence: Silence) -> list[int]:
        """Give a sign of life and ask for the others'."""
        store = self._store
        assert store is not None
        store.set(f'beat/{self.rank}', str(self._answers + 1))
        if self.rank:
            told = [int(rank) for rank in store.get('gone').split(b',') if rank]
            return told or silence.look({0: store.get('beat/0')})
        others = range(1, get_world_size())
        gone = silence.look({rank: store.get(f'beat/{rank}') for rank in others})
        store.set('gone', ','.join(map(str, gone)))
        return gone

    def _end(self, gone: list[int]) -> None:
        names = ', '.join(map(str, gone))
        text = f'rank {names} of {get_world_size()} gave no sign of life for {self.seconds:g} s'
        host = socket.gethostname()
        print_log(
            f'{text} (seen by rank {self.rank} on {host}). {ADVICE}',
            logger='current',
            level=logging.ERROR,
        )
        if self.rank == 0:  # let the others hear of it: the store may go with this process
            threading.Event().wait(2 * self.seconds / CHECKS)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(1)


def open_store(rank: int, seconds: float) -> distributed.Store:
    """An own connection to the store that the job was started with; all ranks must call it.

    The connection that PyTorch has to it is not used: it is blocked while NCCL starts.
    """
    address = os.environ['MASTER_ADDR'], int(os.environ['MASTER_PORT'])
    timeout = timedelta(seconds=seconds)
    tcp = distributed.TCPStore(*address, is_master=False, timeout=timeout, wait_for_workers=False)
    # torchrun keeps the store when it starts the ranks again.
    attempt = os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')
    store = distributed.PrefixStore(f'infoclip_mmseg/{attempt}', tcp)
    if rank == 0:
        store.set('gone', '')
        for other in range(get_world_size()):
            store.set(f'beat/{other}', '0')
    barrier()
    return store


def is_connection_error(error: BaseException) -> bool:
    """Whether an error says that another rank can't be reached any more."""
    kind = getattr(distributed, 'DistError', distributed.DistBackendError)
    if isinstance(error, kind):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in text for part in _CONNECTION_ERRORS)
