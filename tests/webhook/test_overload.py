"""Who gets a turn when many requests wait, and that no turn is lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from airflow_provider_browseract.webhook.overload import BusyError, NewestFirst


class Turns:
    """Requests that want a turn, and the order in which they got one."""

    def __init__(self, queue: NewestFirst) -> None:
        self.queue = queue
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


@asynccontextmanager
async def taken(queue: NewestFirst) -> AsyncIterator[Turns]:
    """Hold the only turn for the length of a ``with`` block."""
    async with queue.turn():
        yield Turns(queue)


async def test_newest_waiting_request_gets_the_next_turn():
    async with taken(NewestFirst(1, 10)) as turns:
        tasks = await turns.waiting("first", "second", "third")
    await asyncio.gather(*tasks)
    assert turns.had == ["third", "second", "first"]


async def test_oldest_waiting_request_is_sent_away_when_too_many_wait():
    async with taken(NewestFirst(1, 2)) as turns:
        first, *others = await turns.waiting("first", "second", "third")
        with pytest.raises(BusyError):
            await first
    await asyncio.gather(*others)
    assert turns.had == ["third", "second"]


async def test_request_cancelled_while_it_waits_takes_no_turn():
    async with taken(NewestFirst(1, 10)) as turns:
        first, second = await turns.waiting("first", "second")
        second.cancel()
        await asyncio.wait([second])
        assert second.cancelled()
    await first
    assert turns.had == ["first"]


async def test_request_cancelled_just_as_it_gets_its_turn_passes_it_on():
    queue = NewestFirst(1, 10)
    async with taken(queue) as turns:
        first, second = await turns.waiting("first", "second")
    # It was given the turn when the block ended, and has not run since.
    second.cancel()
    await asyncio.wait([second])
    assert second.cancelled()
    await asyncio.wait_for(first, 10)
    await asyncio.wait_for(turns.want("next"), 10)
    assert turns.had == ["first", "next"]


async def test_turn_is_given_back_after_an_error():
    queue = NewestFirst(1, 10)
    with pytest.raises(RuntimeError, match="broken"):
        async with queue.turn():
            raise RuntimeError("broken")
    turns = Turns(queue)
    await asyncio.wait_for(turns.want("next"), 10)
    assert turns.had == ["next"]
