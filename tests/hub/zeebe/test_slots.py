"""Places for running jobs."""

from __future__ import annotations

import asyncio

from hub.zeebe.slots import Slots


async def test_no_more_than_the_size_get_a_place():
    slots = Slots(2)
    assert await slots.take()
    assert await slots.take()
    third = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    assert not third.done()
    assert slots.running == 2
    slots.give()
    assert await third
    assert slots.running == 2


async def test_places_go_to_the_longest_waiting():
    slots = Slots(1)
    await slots.take()
    order: list[int] = []

    async def wait(number: int) -> None:
        await slots.take()
        order.append(number)
        slots.give()

    waiting = [asyncio.create_task(wait(number)) for number in range(5)]
    await asyncio.sleep(0)
    slots.give()
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2, 3, 4]
    assert slots.free == 1


async def test_closing_tells_those_who_wait_and_those_who_come():
    slots = Slots(1)
    await slots.take()
    waiting = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    slots.close()
    assert not await waiting
    assert not await slots.take()
    assert not await slots.opening()
    slots.give()
    assert slots.free == 1


async def test_somebody_cancelled_while_waiting_loses_no_place():
    slots = Slots(1)
    await slots.take()
    waiting = asyncio.create_task(slots.take())
    await asyncio.sleep(0)
    slots.give()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert slots.free == 1


async def test_waiting_for_an_opening_keeps_nothing():
    slots = Slots(1)
    await slots.take()
    waiting = asyncio.create_task(slots.opening())
    await asyncio.sleep(0)
    slots.give()
    assert await waiting
    assert slots.free == 1
