"""Wait for a slot: BrowserAct accepts only a limited number of concurrent runs, and does not queue further ones."""

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
from airflow_provider_browseract.runs.stored import Count, Moment, Seconds

PAUSE_GROWTH = 1.5
"""Factor by which each pause is longer than the previous one."""

PAUSE_SPREAD = 0.5
"""Fraction of a pause that is random, so that tasks that were refused together do not try again together."""

_HOLD_A_SLOT = (TaskStatus.CREATED, TaskStatus.RUNNING)


def pause_after(refusals: int, chance: Callable[[], float]) -> float:
    """Return the seconds to wait before a start is tried again.

    :param refusals: how often it was refused.
    :param chance: returns a random number from 0 to 1.
    """
    pause = min(timings.LONGEST_SLOT_PAUSE, timings.FIRST_SLOT_PAUSE * PAUSE_GROWTH ** min(refusals - 1, 10))
    return pause * (1 + PAUSE_SPREAD * chance())


@dataclass
class Slots:
    """The active runs of an account, as known to all task instances that wait in one process.

    All of them see a slot that becomes free, but it must wake only one of them.
    """

    active: int | None = None
    capacity: int = 0
    counted_at: float = float("-inf")
    counting: bool = False
    woken: deque[float] = field(default_factory=deque)

    def is_fresh(self, now: float) -> bool:
        """Return whether the count is new enough."""
        return now - self.counted_at < timings.SLOT_COUNT_LIFETIME

    def count(self, active: int | None, now: float) -> None:
        """Store a new count."""
        self.active, self.counted_at = active, now

    def take(self, capacity: int, now: float) -> bool:
        """Take a free slot for one task instance, if there is one.

        :param capacity: how many runs were active when this task instance found no slot. Another run may have ended
            at that moment, so the largest such number is the limit of the plan.
        :param now: the current time, in seconds.
        """
        self.capacity = max(self.capacity, capacity)
        while self.woken and now - self.woken[0] >= timings.START_DELAY:
            self.woken.popleft()
        if self.active is None or self.active + len(self.woken) >= self.capacity:
            return False
        self.woken.append(now)
        return True


@dataclass(frozen=True)
class Queued:
    """How long a task instance has been in the queue for a slot.

    :param since: moment of the first refusal, in seconds since the epoch.
    :param refusals: how often BrowserAct refused the start.
    """

    since: Moment
    refusals: Count = 0


@dataclass(frozen=True)
class QueueWait:
    """A wait for a slot, as the trigger stores it.

    :param queued: how long the task instance has been in the queue.
    :param capacity: how many runs were active when there was no slot; None if that is not known. In that case, the wait
        ends after one pause.
    :param pause: seconds before the first count.
    :param until: when the wait ends in any case, in seconds since the epoch.
    """

    queued: Queued
    capacity: Count | None
    pause: Seconds
    until: Moment


SlotSteps: TypeAlias = Generator["Sleep | calls.Call[Page[Task]]", Any, None]


def wait_for_slot(slots: Slots, wait: QueueWait, clock: Callable[[], float], chance: Callable[[], float]) -> SlotSteps:
    """Wait until there seems to be a free slot, or the time is over.

    :param slots: the active runs as known in this process.
    :param wait: the wait.
    :param clock: returns the current time, in seconds since the epoch.
    :param chance: returns a random number from 0 to 1.
    """
    look_at = clock() + wait.pause
    until = min(wait.until, clock() + timings.LONGEST_SLOT_WAIT)
    while True:
        yield Sleep(max(0.0, min(look_at, until) - clock()))
        if clock() >= until or wait.capacity is None:
            return
        look_at = clock() + timings.FIRST_SLOT_PAUSE * (1 - PAUSE_SPREAD * chance())
        if slots.counting:
            continue
        if not slots.is_fresh(clock()):
            slots.counting = True
            try:
                slots.count((yield from count_active()), clock())
            except BrowserActError:
                # A start would probably fail too.
                continue
            finally:
                slots.counting = False
        if slots.active is None or slots.take(wait.capacity, clock()):
            return


def count_active() -> Generator[calls.Call[Page[Task]], Any, int | None]:
    """Return the number of active runs of the account; None if BrowserAct does not return it."""
    active = 0
    for status in _HOLD_A_SLOT:
        page: Page[Task] = yield calls.list_tasks(status=status, limit=1)
        if page.total_count is None:
            return None
        active += page.total_count
    return active
