"""Run conversions in several processes; what is finished is not made again."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, NamedTuple

import cv2

from infoclip_mmseg.datasets.prepare.label_files import PrepareError, Update
from infoclip_mmseg.utils.files import first_few

SHOWN = 10
"""Problems that an error shows in full."""


class Task(NamedTuple):
    """One conversion: the files that it makes, each in one step, and what makes them.

    The function raises ValueError for bad input, PrepareError to stop everything.
    """

    outputs: tuple[Path, ...]
    function: Callable[[], None]

    def is_done(self) -> bool:
        """Whether all outputs are there."""
        return all(path.is_file() for path in self.outputs)


def run_tasks(tasks: Sequence[Task], workers: int, update: Update) -> None:
    """Run the tasks that are not done; with one worker in this process.

    Raises:
        PrepareError: Some input was bad (the others were converted), or the disk is full.
    """
    pending = [task for task in tasks if not task.is_done()]
    update(advance=len(tasks) - len(pending))
    problems = []
    for problem in map_parallel(_attempt, pending, workers):
        update(advance=1)
        problems += [f'  {problem}'] if problem else []
    if problems:
        raise PrepareError(
            f'{len(problems)} of {len(tasks)} could not be converted:\n'
            + first_few(sorted(problems), SHOWN, '\n', '\n  and {} more')
            + '\nThe others are done. Mend these and start the same command again.'
        )


def map_parallel(
    function: Callable[[Any], Any], items: Sequence[Any], workers: int
) -> Iterator[Any]:
    """Results of a module's function, in the items' order, over processes; with one in this one.

    A process that was killed is a PrepareError.
    """
    if workers <= 1 or len(items) < 2:
        yield from map(function, items)
        return
    chunk = max(1, min(16, len(items) // (4 * workers)))
    threads = cv2.getNumThreads()
    cv2.setNumThreads(1)  # a process that is forked beside OpenCV's threads can wait for ever
    try:
        answer = (signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
        with ProcessPoolExecutor(workers, initializer=signal.signal, initargs=answer) as pool:
            try:
                yield from pool.map(function, items, chunksize=chunk)
            finally:
                pool.shutdown(cancel_futures=True)
    except BrokenProcessPool as error:
        raise PrepareError(
            'a process was killed, probably for want of memory. Start the same command again '
            f'with fewer --workers (now {workers}): it goes on from here.'
        ) from error
    finally:
        cv2.setNumThreads(threads)


def _attempt(task: Task) -> str | None:
    """Run one task; bad input gives its message."""
    try:
        task.function()
    except (ValueError, OSError) as error:
        return str(error)
    return None
