"""Requests that ask for the same words go through the model together."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

RunBatch = Callable[[Hashable, Sequence[Any]], Sequence[Any]]


class OverloadError(RuntimeError):
    """The queue is full; ``retry_after`` is a guess in seconds of when it has room."""

    def __init__(self, retry_after: int) -> None:
        super().__init__(f'too many images are waiting; try again in {retry_after} s')
        self.retry_after = retry_after


@dataclass
class _Job:
    key: Hashable
    item: Any
    done: asyncio.Future[Any] = field(repr=False)


class Batcher:
    """A queue in front of a function that takes several items at once, one call at a time.

    The oldest item is next; with it go those behind it that have its key, in their order. Items
    whose caller has left give up their place. All methods are for one event loop.

    Args:
        run: Function (key, items) -> results, called in a thread of its own. What it raises goes to
            every caller of the batch.
        max_batch: Items of a call.
        max_queue: Items that may wait; beyond it :meth:`submit` raises :class:`OverloadError`.
        max_wait: Seconds that a batch that is not full waits for more.
    """

    def __init__(
        self, run: RunBatch, max_batch: int = 8, max_queue: int = 64, max_wait: float = 0.01
    ) -> None:
        for name, value in (('max_batch', max_batch), ('max_queue', max_queue)):
            if value < 1:
                raise ValueError(f'{name} must be 1 or more, got {value}')
        self.run, self.max_batch, self.max_queue, self.max_wait = (
            run,
            max_batch,
            max_queue,
            max_wait,
        )
        self.waiting: deque[_Job] = deque()
        self.seconds = 1.0  # of an item, smoothed
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix='model')
        self._arrived = asyncio.Event()
        self._worker: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begin to work."""
        self._worker = asyncio.create_task(self._work())

    async def stop(self) -> None:
        """Finish what waits, then end."""
        while self.waiting:
            await asyncio.sleep(0.01)
        if self._worker is not None:
            self._worker.cancel()
        await asyncio.to_thread(self._thread.shutdown)

    async def submit(self, key: Hashable, items: Sequence[Any]) -> list[Any]:
        """Results of items, in their order.

        Raises:
            OverloadError: There is no room for all of them; none is taken.
        """
        if len(self.waiting) + len(items) > self.max_queue:
            raise OverloadError(max(1, round(len(self.waiting) * self.seconds)))
        loop = asyncio.get_running_loop()
        jobs = [_Job(key, item, loop.create_future()) for item in items]
        self.waiting.extend(jobs)
        self._arrived.set()
        try:
            return list(await asyncio.gather(*(job.done for job in jobs)))
        finally:
            for job in jobs:
                job.done.cancel()
            self._forget_the_left()

    def _forget_the_left(self) -> None:
        self.waiting = deque(job for job in self.waiting if not job.done.done())

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            batch = self._take()
            if not batch:
                self._arrived.clear()
                await self._arrived.wait()
                if self.max_wait:
                    await asyncio.sleep(self.max_wait)
                continue
            began = time.monotonic()
            items = [job.item for job in batch]
            try:
                results = await loop.run_in_executor(self._thread, self.run, batch[0].key, items)
            except Exception as error:
                for job in batch:
                    if not job.done.done():
                        job.done.set_exception(error)
            else:
                for job, result in zip(batch, results, strict=True):
                    if not job.done.done():
                        job.done.set_result(result)
            self.seconds += 0.2 * ((time.monotonic() - began) / len(batch) - self.seconds)

    def _take(self) -> list[_Job]:
        """Remove the next batch from the queue."""
        self._forget_the_left()
        batch = [job for job in self.waiting if job.key == self.waiting[0].key][: self.max_batch]
        taken = set(map(id, batch))
        self.waiting = deque(job for job in self.waiting if id(job) not in taken)
        return batch
