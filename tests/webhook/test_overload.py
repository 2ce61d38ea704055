"""Who gets a turn when many requests wait, and that no turn is lost."""

from __future__ import annotations

import asyncio
import random
from contextlib import suppress

import pytest

from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.webhook.overload import BusyError, NewestFirst
from airflow_provider_browseract.webhook.receiver import LOOKUP_THREADS, MAX_WAITING_REQUESTS
from tests.world import Clock


class Turns:
    """Requests that want one of the turns of a queue, and the order in which they got one."""

    def __init__(self, waiting: int = 10) -> None:
        self.queue = NewestFirst(1, waiting)
        self.had: list[str] = []

    async def want(self, name: str) -> None:
        """Take a turn, and release it at once."""
        async with self.queue.turn():
            self.had.append(name)

    async def waiting(self, *names: str) -> list[asyncio.Task[None]]:
        """Start requests one after the other, and return their tasks once all of them wait."""
        tasks = []
        for name in names:
            tasks.append(asyncio.create_task(self.want(name)))
            await asyncio.sleep(0)
        return tasks


async def test_newest_waiting_request_gets_the_next_turn_and_the_oldest_is_sent_away_when_too_many_wait():
    turns = Turns(waiting=3)
    async with turns.queue.turn():
        first, *others = await turns.waiting("first", "second", "third", "fourth")
        with pytest.raises(BusyError):
            await first
    await asyncio.gather(*others)
    assert turns.had == ["fourth", "third", "second"]


async def test_request_cancelled_while_it_waits_takes_no_turn():
    turns = Turns()
    async with turns.queue.turn():
        first, second = await turns.waiting("first", "second")
        second.cancel()
        await asyncio.wait([second])
        assert second.cancelled()
    await first
    assert turns.had == ["first"]


async def test_request_cancelled_just_as_it_gets_its_turn_passes_it_on():
    turns = Turns()
    async with turns.queue.turn():
        first, second = await turns.waiting("first", "second")
    # It was given the turn when the block ended, and has not run since.
    second.cancel()
    await asyncio.wait([second])
    assert second.cancelled()
    await asyncio.wait_for(first, 10)
    await asyncio.wait_for(turns.want("next"), 10)
    assert turns.had == ["first", "next"]


async def test_turn_is_given_back_after_an_error():
    turns = Turns()
    with pytest.raises(RuntimeError, match="broken"):
        async with turns.queue.turn():
            raise RuntimeError("broken")
    await asyncio.wait_for(turns.want("next"), 10)
    assert turns.had == ["next"]


async def test_request_that_has_waited_too_long_is_sent_away_and_leaves_the_queue(monkeypatch):
    monkeypatch.setattr(timings, "LONGEST_CALLBACK_WAIT", 0.05)
    turns = Turns()
    async with turns.queue.turn():
        [first] = await turns.waiting("first")
        with pytest.raises(BusyError):
            await asyncio.wait_for(first, 10)
    await asyncio.wait_for(turns.want("next"), 10)
    assert turns.had == ["next"]


ATTEMPTS = 3
PATIENCE = 30.0
"""BrowserAct sends a callback so often if each response is 5xx, and once if there is no response in so many seconds."""

CAPACITY = 200
"""How many requests a second can be looked up."""


async def flood(forged: int, seconds: float) -> float:
    """Return the share of genuine callbacks that are lost while so many forged ones arrive each second."""
    chance = random.Random(0)
    queue = NewestFirst(LOOKUP_THREADS, MAX_WAITING_REQUESTS)
    loop = asyncio.get_running_loop()
    under_way: set[asyncio.Task[None]] = set()
    lost: list[bool] = []

    async def handle() -> None:
        async with queue.turn():
            await asyncio.sleep(chance.expovariate(CAPACITY / LOOKUP_THREADS))

    async def forge() -> None:
        with suppress(BusyError):
            await handle()

    async def send() -> None:
        for _ in range(ATTEMPTS):
            sent = loop.time()
            try:
                await handle()
                refused = False
            except BusyError:
                refused = True
            if not refused or loop.time() - sent > PATIENCE:
                break
            await asyncio.sleep(1)
        lost.append(refused or loop.time() - sent > PATIENCE)

    end = loop.time() + seconds
    while loop.time() < end:
        task = asyncio.create_task(send() if chance.random() < 0.02 else forge())
        under_way.add(task)
        task.add_done_callback(under_way.discard)
        await asyncio.sleep(chance.expovariate(forged))
    await asyncio.gather(*under_way)
    return sum(lost) / len(lost)


def simulated(forged: int, seconds: float = 150.0) -> float:
    loop = Clock().loop()
    try:
        return loop.run_until_complete(flood(forged, seconds))
    finally:
        loop.close()


@pytest.mark.parametrize("forged", [220, 250])
def test_flood_just_above_capacity_loses_at_most_one_percent_of_genuine_callbacks(forged):
    assert simulated(forged) <= 0.01


def test_without_the_age_limit_the_same_flood_loses_many_genuine_callbacks(monkeypatch):
    monkeypatch.setattr(timings, "LONGEST_CALLBACK_WAIT", 1e6)
    assert simulated(250) > 0.1
