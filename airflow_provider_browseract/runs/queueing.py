"""Waiting for room: BrowserAct takes only so many runs at once, and queues none itself."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.errors import BrowserActError
from airflow_provider_browseract.api.models import Page, Task, TaskStatus
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.steps import Sleep

GROWTH = 1.5
"""By how much a pause is longer than the one before."""

SPREAD = 0.5
"""Part of a pause by which it is spread, so that tasks refused together do not come back together."""

_HOLD_A_SLOT = (TaskStatus.CREATED, TaskStatus.RUNNING)


def pause_after(refusals: int, chance: Callable[[], float]) -> float:
    """Give the seconds to wait before a start is tried again.

    :param refusals: how often it was refused.
    :param chance: gives a random number from 0 to 1.
    """
    pause = min(timings.LONGEST_SLOT_PAUSE, timings.FIRST_SLOT_PAUSE * GROWTH ** min(refusals - 1, 10))
    return pause * (1 + SPREAD * chance())


@dataclass
class Slots:
    """What the tasks that wait in one process know together about the runs of an account.

    A slot that gets free is seen by all of them, and must wake one only.
    """

    going: int | None = None
    capacity: int = 0
    counted_at: float = float("-inf")
    counting: bool = False
    woken: deque[float] = field(default_factory=deque)

    def is_fresh(self, now: float) -> bool:
        """Say whether the count is new enough."""
        return now - self.counted_at < timings.SLOT_COUNT_LIFETIME

    def count(self, going: int | None, now: float) -> None:
        """Keep a new count."""
        self.going, self.counted_at = going, now

    def take(self, capacity: int, now: float) -> bool:
        """Take a free slot for one task, if there is one.

        :param capacity: how many runs went on when this task found none. Another may have ended just then, so the
            largest such number is the plan's.
        :param now: the moment, in seconds.
        """
        self.capacity = max(self.capacity, capacity)
        while self.woken and now - self.woken[0] >= timings.START_DELAY:
            self.woken.popleft()
        if self.going is None or self.going + len(self.woken) >= self.capacity:
            return False
        self.woken.append(now)
        return True


SlotSteps: TypeAlias = Generator["Sleep | calls.Call[Page[Task]]", Any, None]


def wait_for_slot(
    slots: Slots,
    *,
    capacity: int | None,
    pause: float,
    until: float,
    clock: Callable[[], float],
    chance: Callable[[], float],
) -> SlotSteps:
    """Wait until there seems to be room for one more run, or the time is over.

    :param slots: what is known in this process.
    :param capacity: how many runs went on when there was no room; None if that is not known. Where nothing can be
        counted, one pause is all.
    :param pause: seconds to the first look, and about so many between two.
    :param until: moment at which the wait ends in any case.
    :param clock: gives the moment, in seconds since the epoch.
    :param chance: gives a random number from 0 to 1.
    """
    looks_at = clock() + pause
    until = min(until, clock() + timings.LONGEST_SLOT_WAIT)
    while True:
        yield Sleep(max(0.0, min(looks_at, until) - clock()))
        if clock() >= until or capacity is None:
            return
        looks_at = clock() + timings.FIRST_SLOT_PAUSE * (1 - SPREAD * chance())
        if slots.counting:
            continue
        if not slots.is_fresh(clock()):
            slots.counting = True
            try:
                slots.count((yield from count_going()), clock())
            except BrowserActError:
                # A start would fare no better.
                continue
            finally:
                slots.counting = False
        if slots.going is None or slots.take(capacity, clock()):
            return


def count_going() -> Generator[calls.Call[Page[Task]], Any, int | None]:
    """Count the runs of the account that go on; None if BrowserAct does not tell."""
    going = 0
    for status in _HOLD_A_SLOT:
        page: Page[Task] = yield calls.list_tasks(status=status, limit=1)
        if page.total_count is None:
            return None
        going += page.total_count
    return going
