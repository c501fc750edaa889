"""The bell: as many waiting claims are woken as there may be work for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from service.routes.bell import GRANTED, RUNG, Bell


class Waiting:
    """Claims of workers 0, 1, 2 ... that wait at one bell; `woken` is who was woken, in order."""

    def __init__(self, count: int) -> None:
        self.bell, self.woken = Bell(), list[int]()
        self.bell.loop = asyncio.get_running_loop()
        self.tasks = [asyncio.create_task(self._wait(n)) for n in range(count)]

    async def _wait(self, worker_id: int) -> None:
        await self.bell.wait(worker_id, 60)
        self.woken.append(worker_id)

    async def after(self, act: Callable[[], None] = lambda: None) -> list[int]:
        """Who is woken by what is done."""
        self.woken.clear()
        act()
        for _ in range(5):  # passes of the loop: one to ring, one to wake, one to note it
            await asyncio.sleep(0)
        return list(self.woken)


def in_loop(test: Callable[[Waiting], Awaitable[None]], count: int = 20) -> None:
    async def run() -> None:
        waiting = Waiting(count)
        assert await waiting.after() == []
        try:
            await test(waiting)
        finally:
            for task in waiting.tasks:
                task.cancel()

    asyncio.run(run())


def test_a_ring_wakes_a_few_and_the_longest_first() -> None:
    async def test(waiting: Waiting) -> None:
        assert await waiting.after(waiting.bell.ring) == list(range(RUNG))
        assert await waiting.after(waiting.bell.ring) == list(range(RUNG, 2 * RUNG))

    in_loop(test)


def test_each_grant_wakes_more_until_all_are_served() -> None:
    async def test(waiting: Waiting) -> None:
        woken = await waiting.after(waiting.bell.ring)
        served = []
        while woken:
            worker = woken.pop(0)
            served.append(worker)
            woken += await waiting.after(lambda worker=worker: waiting.bell.granted(worker))
        assert served == list(range(20))

    in_loop(test)


def test_a_caller_that_is_gone_hands_its_call_on() -> None:
    async def test(waiting: Waiting) -> None:
        await waiting.after(waiting.bell.ring)
        assert await waiting.after(waiting.bell.pass_on) == [RUNG]

    in_loop(test)


def test_another_call_of_the_same_worker_is_answered_with_it() -> None:
    async def test(waiting: Waiting) -> None:
        assert await waiting.after(lambda: waiting.bell.answered(17)) == [17]
        assert await waiting.after(lambda: waiting.bell.granted(15)) == [15, *range(GRANTED)]

    in_loop(test)


def test_at_the_end_everybody_is_woken() -> None:
    async def test(waiting: Waiting) -> None:
        waiting.bell.closing = True
        assert await waiting.after(waiting.bell.ring) == list(range(20))

    in_loop(test)


def test_a_wait_ends_by_itself_and_is_forgotten() -> None:
    async def run() -> None:
        bell = Bell()
        bell.loop = asyncio.get_running_loop()
        await bell.wait(1, 0.001)
        late = asyncio.create_task(bell.wait(2, 60))
        await asyncio.sleep(0)
        bell.pass_on()  # not lost on the one that has gone
        await asyncio.wait_for(late, 5)

    asyncio.run(run())


def test_a_ring_before_and_after_the_server_does_nothing() -> None:
    bell = Bell()
    bell.ring()

    async def run() -> None:
        bell.loop = asyncio.get_running_loop()

    asyncio.run(run())
    bell.ring()
