"""Run conversions in several processes; what is finished is not made again."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2

from infoclip_mmseg.datasets.prepare.label_files import Advance, PrepareError
from infoclip_mmseg.utils.files import first_few

SHOWN = 10
"""Problems that an error shows in full."""


@dataclass(frozen=True)
class Task:
    """One conversion.

    Attributes:
        outputs: The files that it makes, each in one step.
        function: Makes them; raises ValueError for bad input, PrepareError to stop everything.
    """

    outputs: tuple[Path, ...]
    function: Callable[[], None]

    def is_done(self) -> bool:
        """Whether all outputs are there."""
        return all(path.is_file() for path in self.outputs)


def run_tasks(tasks: Sequence[Task], workers: int, advance: Advance) -> None:
    """Run the tasks that are not done.

    Args:
        tasks: All conversions of a data set.
        workers: Processes; 1 runs them in this one.
        advance: Told of each task that ended.

    Raises:
        PrepareError: Some input was bad (the others were converted), or the disk is full.
    """
    pending = [task for task in tasks if not task.is_done()]
    advance(len(tasks) - len(pending))
    problems = []
    for problem in map_parallel(_attempt, pending, workers):
        advance(1)
        if problem:
            problems.append(problem)
    if problems:
        lines = [f'  {line}' for line in sorted(problems)]
        raise PrepareError(
            f'{len(problems)} of {len(tasks)} could not be converted:\n'
            + first_few(lines, SHOWN, '\n', '\n  and {} more')
            + '\nThe others are done. Mend these and start the same command again.'
        )


def map_parallel(
    function: Callable[[Any], Any], items: Sequence[Any], workers: int
) -> Iterator[Any]:
    """Results of a function, in the items' order, over processes or in this one.

    Args:
        function: A function of a module.
        items: Its arguments.
        workers: Processes; 1 for none.

    Yields:
        The results.

    Raises:
        PrepareError: A process was killed.
    """
    if workers <= 1 or len(items) < 2:
        yield from map(function, items)
        return
    chunk = max(1, min(16, len(items) // (4 * workers)))
    with _one_opencv_thread(), ProcessPoolExecutor(workers, initializer=_start_worker) as pool:
        try:
            yield from pool.map(function, items, chunksize=chunk)
        except BrokenProcessPool as error:
            raise PrepareError(
                'a process was killed, probably for want of memory. Start the same command again '
                f'with fewer --workers (now {workers}): it goes on from here.'
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


@contextmanager
def _one_opencv_thread() -> Iterator[None]:
    """Stop OpenCV's threads: a process that is forked beside them can wait for ever."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def _attempt(task: Task) -> str | None:
    """Run one task; bad input gives its message."""
    try:
        task.function()
    except ValueError as error:
        return str(error)
    return None


def _start_worker() -> None:
    """Ctrl-C is the parent's to answer."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
