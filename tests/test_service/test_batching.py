from __future__ import annotations

import asyncio
import threading
import time

import pytest

from infoclip_mmseg.service.batching import Batcher, OverloadError


def serve(scenario, run, **options):
    async def main():
        batcher = Batcher(run, **options)
        await batcher.start()
        try:
            return await scenario(batcher)
        finally:
            await batcher.stop()

    return asyncio.run(main())


def test_equal_words_go_together_in_order():
    calls = []

    def run(key, items):
        calls.append((key, list(items)))
        time.sleep(0.02)
        return [(key, item) for item in items]

    async def scenario(batcher):
        asked = [(number % 3, number) for number in range(30)]
        return await asyncio.gather(*(batcher.submit(key, [n]) for key, n in asked))

    results = serve(scenario, run, max_batch=4, max_wait=0.05)
    assert results == [[(number % 3, number)] for number in range(30)]
    assert all(len(items) <= 4 and items == sorted(items) for _, items in calls)
    assert len(calls) < 12 and all({n % 3 for n in items} == {key} for key, items in calls)


def test_a_full_queue_takes_none():
    async def scenario(batcher):
        first = asyncio.create_task(batcher.submit('a', [1, 2, 3]))
        await asyncio.sleep(0)
        with pytest.raises(OverloadError, match='try again in') as caught:
            await batcher.submit('a', [4, 5])
        assert caught.value.retry_after >= 1
        return await first

    assert serve(scenario, lambda key, items: list(items), max_queue=4, max_wait=0.1) == [1, 2, 3]


def test_an_error_goes_to_its_callers_only():
    def run(key, items):
        if key == 'bad':
            raise ValueError('no such word')
        return list(items)

    async def scenario(batcher):
        asked = (batcher.submit(key, [1]) for key in ('good', 'bad', 'good'))
        return await asyncio.gather(*asked, return_exceptions=True)

    first, second, third = serve(scenario, run)
    assert first == third == [1] and isinstance(second, ValueError)


def test_who_leaves_is_not_computed_for():
    seen = []

    def run(key, items):
        time.sleep(0.05)
        seen.extend(items)
        return list(items)

    async def scenario(batcher):
        slow = asyncio.create_task(batcher.submit('a', [1]))
        await asyncio.sleep(0.03)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(batcher.submit('b', [2]), 0.001)
        await slow
        return await batcher.submit('b', [3])

    assert serve(scenario, run, max_wait=0) == [3]
    assert seen == [1, 3]


def test_who_leaves_gives_up_the_place_while_the_model_is_busy():
    go = threading.Event()

    async def scenario(batcher):
        first = asyncio.create_task(batcher.submit('a', [0]))
        await asyncio.sleep(0.05)  # which the model has begun
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(batcher.submit('a', [1, 2]), 0.05)
        last = asyncio.create_task(batcher.submit('a', [3, 4]))
        await asyncio.sleep(0.05)
        assert len(batcher.waiting) == 2
        go.set()
        return await first, await last

    def run(key, items):
        assert go.wait(10)
        return items

    assert serve(scenario, run, max_queue=2) == ([0], [3, 4])


def test_what_waits_is_finished_at_the_end():
    async def main():
        batcher = Batcher(lambda key, items: list(items), max_batch=1, max_wait=0)
        await batcher.start()
        asked = asyncio.gather(*(batcher.submit('a', [n]) for n in range(5)))
        await asyncio.sleep(0)
        await batcher.stop()
        return await asked

    assert asyncio.run(main()) == [[n] for n in range(5)]


def test_bad_options():
    with pytest.raises(ValueError, match='max_queue must be 1 or more, got 0'):
        Batcher(lambda key, items: items, max_queue=0)
