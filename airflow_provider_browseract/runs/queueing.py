"""The queue for slots: BrowserAct accepts a limited number of concurrent runs, and does not queue further ones.

A task instance whose start is refused joins the queue of its connection. When a slot becomes free, one task instance
is woken: the one with the highest priority, and of these the one that has waited longest. It tries its start again,
because only BrowserAct decides. If the start is refused again, the task instance returns to its place.

This module decides and does no I/O. ``triggers/dispatcher.py`` counts runs and wakes task instances in the triggerer,
and ``webhook/resume.py`` hands over the slot of a run whose callback has arrived.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, TypeAlias

from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.models import Page, Task, TaskStatus
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.stored import Count, Moment, Seconds

PAUSE_GROWTH = 1.5
"""Factor by which each pause is longer than the previous one."""

PAUSE_SPREAD = 0.5
"""Fraction of a pause that is random, so that tasks that were refused together do not try again together."""

PROBE_GROWTH = 2.0
"""Factor by which the pause before the next probe grows each time a probe is refused."""

STARTS_PER_PROBE = 40
"""How many starts from the queue allow one probe. So probes add at most 2.5 % of refused starts."""

MAX_UNEXPECTED_REFUSALS = 2
"""How many starts may be refused although there seemed to be a free slot. After that, the plan has fewer slots than
expected or, if only one workflow is refused while others wait, only this workflow has to wait."""

LONGEST_HOLD = 120.0
"""Maximum seconds for which a woken task instance holds a slot, however long starts take."""

HOLD_FACTOR = 1.5
"""How much longer a woken task instance holds a slot than the slowest start that was refused has taken."""

LONGEST_RETURN = 600.0
"""Seconds within which a woken task instance whose start is refused is recognized."""

NOTICE_DELAY = 5.0
"""Seconds within which a triggerer notices that the API server has resumed a task instance."""

OLD_COUNT = 30.0
"""Seconds after which a count is not compared with the next one."""

MAX_LISTED = 100
"""How many active runs are listed for each status. Any further ones are counted, but not recognized as new."""

_HOLD_A_SLOT = (TaskStatus.CREATED, TaskStatus.RUNNING, TaskStatus.PAUSING, TaskStatus.PAUSED)


class Place(NamedTuple):
    """The place of a task instance in the queue; the lowest is first.

    :param rank: the negative ``priority_weight`` of the Airflow task.
    :param since: since when the task instance has waited, in seconds since the epoch.
    """

    rank: int
    since: float


@dataclass(frozen=True)
class Queued:
    """How long a task instance has been in the queue.

    :param since: when the task instance first tried to start, in seconds since the epoch. Later tries keep it, and so
        their place.
    :param began: when this try began, from which ``queue_timeout`` counts.
    :param refusals: how often BrowserAct has refused the start in this try.
    :param priority: the ``priority_weight`` of the Airflow task.
    """

    since: Moment
    began: Moment
    refusals: Count = 0
    priority: int = 1

    @property
    def place(self) -> Place:
        """Where the task instance stands in the queue."""
        return Place(-self.priority, self.since)

    def refused(self) -> Queued:
        """Return the same after another refusal."""
        return replace(self, refusals=self.refusals + 1)


@dataclass(frozen=True)
class QueueWait:
    """A wait for a slot, as the trigger stores it.

    :param queued: how long the task instance has been in the queue.
    :param until: when the wait ends in any case, in seconds since the epoch.
    :param source: the workflow or template. BrowserAct may refuse only its runs, as with a Standard Browser.
    :param active: how many runs were active right after the refusal; None if that is not known.
    :param pause: seconds after which the start is tried again, whatever the count shows, because the refusal was not
        about the number of runs; None to wait for a slot.
    :param handed_over: callbacks are set up, so the API server hands over the slot of a run that has ended.
    """

    queued: Queued
    until: Moment
    source: str = ""
    active: Count | None = None
    pause: Seconds | None = None
    handed_over: bool = False


@dataclass(frozen=True)
class Active:
    """The active runs of an account.

    :param number: how many there are.
    :param ids: the ids of the newest ones.
    """

    number: int
    ids: frozenset[str]


CountSteps: TypeAlias = Generator["calls.Call[Page[Task]]", Any, "Active | None"]


def count_active() -> CountSteps:
    """Count the active runs of the account; None if BrowserAct does not return their number."""
    number, listed, ids = 0, 0, set()
    for status in _HOLD_A_SLOT:
        page: Page[Task] = yield calls.list_tasks(status=status, limit=MAX_LISTED)
        if page.total_count is None:
            return None
        number += page.total_count
        listed += len(page.items)
        ids |= {task.id for task in page.items}
    # A run whose status changes in between is listed twice.
    return Active(len(ids) if listed == number else number, frozenset(ids))


def pause_after(refusals: int, chance: Callable[[], float]) -> float:
    """Return the seconds to wait before a start is tried again without knowledge of slots.

    :param refusals: how often it was refused.
    :param chance: returns a random number from 0 to 1.
    """
    pause = min(timings.LONGEST_SLOT_PAUSE, timings.FIRST_SLOT_PAUSE * PAUSE_GROWTH ** min(refusals - 1, 10))
    return pause * (1 + PAUSE_SPREAD * chance())


@dataclass(frozen=True)
class _Waiting:
    """A task instance in the queue, and from when on it may be woken."""

    wait: QueueWait
    ready_at: float


@dataclass(frozen=True)
class _Woken:
    """A task instance that was woken, to recognize it if its start is refused.

    :param at: when it was woken.
    :param source: its workflow or template.
    :param probe: whether it was woken although no slot seemed to be free.
    """

    at: float
    source: str
    probe: bool = False


class SlotQueue:
    """The task instances that wait in one triggerer for a slot of one connection.

    All moments are in seconds of any clock that only moves forward.
    """

    def __init__(self) -> None:
        self.waiting: dict[str, _Waiting] = {}
        self._order: list[str] | None = None
        self.capacity: int | None = None
        """How many slots the plan has, as far as refusals and counts show; None if that is not known."""
        self.active: Active | None = None
        self._woken: dict[str, _Woken] = {}
        self._starting: dict[str, float] = {}
        """When each task instance was woken whose run no count has shown yet. It holds a slot."""
        self._hold = timings.START_DELAY
        self._unexplained: list[float] = []
        """When counts have shown new runs that no woken task instance explains."""
        self._refused: Counter[str] = Counter()
        """How often starts of a source were refused in a row although there seemed to be a free slot."""
        self._blocked: dict[str, float] = {}
        """Until when the task instances of a source are not woken, because only this source is refused."""
        self._probe_pause = timings.SLOT_PROBE_PAUSE
        self._probed_at = 0.0
        self._probe_known_at = 0.0
        """Latest moment at which the result of the last probe is known."""
        self._started = 0
        """How many task instances were woken for a free slot since the last probe."""
        self._counted_at = float("-inf")
        self._free_before = 0

    def join(self, key: str, wait: QueueWait, now: float) -> None:
        """Add a task instance, and learn from its refusal.

        :param key: the task instance, the same for all its waits.
        :param wait: its wait.
        :param now: the current moment.
        """
        self._expire(now)
        if not self.waiting and not self._starting:
            # Nothing has watched the slots since the queue was empty.
            self.capacity = self.active = None
            self._refused.clear()
            self._probe_pause = timings.FIRST_SLOT_PAUSE if wait.active == 0 else timings.SLOT_PROBE_PAUSE
            self._probed_at, self._probe_known_at, self._started = now, now, 0
        self._starting.pop(key, None)
        woken = self._woken.pop(key, None)
        # The first refusal of a try says nothing about an earlier try that was woken.
        again = woken if wait.queued.refusals > 1 and wait.pause is None else None
        if again is not None:
            self._hold = max(self._hold, min(LONGEST_HOLD, HOLD_FACTOR * (now - again.at)))
        if again is not None and again.probe:
            self._delay_probe(now)
        elif again is not None:
            self._learn_from_unexpected_refusal(wait, now)
        elif wait.active is not None and wait.pause is None:
            self.capacity = max(self.capacity or 0, wait.active)
        self.waiting[key] = _Waiting(wait, now + max(timings.CORE_RACE_GRACE, wait.pause or 0.0))
        self._order = None

    def leave(self, key: str, now: float) -> None:
        """Remove a task instance that something else has resumed: probably a hand-over, so it is about to start."""
        left = self._remove(key)
        if left is None:
            return
        self._woken[key] = _Woken(now, left.wait.source)
        self._started += 1
        recent = [at for at in self._unexplained if now - at < NOTICE_DELAY]
        if recent:
            # Its run was counted before this triggerer noticed that it was resumed.
            self._unexplained = recent[1:]
        else:
            self._starting[key] = now

    def give_up(self, key: str) -> None:
        """Remove a task instance whose wait is over. Nothing happens if it was woken."""
        self._remove(key)

    def count(self, active: Active | None, now: float) -> None:
        """Take a new count of the active runs; None if they could not be counted."""
        self._expire(now)
        # A count from long ago says nothing about a slot that is free in two counts in a row.
        self._free_before = self._free() if now - self._counted_at < OLD_COUNT else 0
        before, self.active = self.active, active
        if active is None:
            return
        self._counted_at = now
        for _ in active.ids - (before.ids if before else active.ids):
            if self._starting:
                started = min(self._starting, key=self._starting.__getitem__)
                del self._starting[started]
                if started in self._woken:
                    self._refused.pop(self._woken[started].source, None)
            else:
                self._unexplained.append(now)
        if self.capacity is not None and active.number > self.capacity:
            self._expect_more_slots(now)
        # Without a count at a refusal, the plan counts as full now.
        self.capacity = max(self.capacity or 0, active.number)

    def wake(self, now: float) -> list[str]:
        """Remove the task instances that should try their start now, and return them in the order of their places."""
        ready = [key for key in self.order() if self.waiting[key].ready_at <= now]
        for_slot = [
            key
            for key in ready
            if self.waiting[key].wait.pause is None and self._blocked.get(self.waiting[key].wait.source, now) <= now
        ]
        usable = self._free()
        if self._handed_over:
            # A slot that is free in one count only is probably being handed over.
            usable = min(usable, self._free_before)
        woken = for_slot[: max(0, usable)]
        self._started += len(woken)
        # If it is accepted, counts may show more active runs than before.
        probes = for_slot[len(woken) :][:1] if self._free() <= len(woken) and self._may_probe(now) else []
        if probes:
            self._probed_at, self._probe_known_at, self._started = now, now + self._hold, 0
        woken += probes
        woken += [key for key in ready if self.waiting[key].wait.pause is not None]
        for key in woken:
            self._woken[key] = _Woken(now, self.waiting[key].wait.source, key in probes)
            self._remove(key)
            self._starting[key] = now
        return woken

    def order(self) -> list[str]:
        """Return the task instances in the order of their places."""
        # Sorted once for each change: after a restart of the triggerer, perhaps 1,000 task instances need their places.
        if self._order is None:
            self._order = sorted(self.waiting, key=lambda key: self.waiting[key].wait.queued.place)
        return self._order

    def next_look(self, now: float) -> float:
        """Return the seconds until the queue should be processed again."""
        soonest = min((each.ready_at for each in self.waiting.values()), default=now)
        if soonest > now:
            # A task instance that joins in the meantime is not ready before the grace is over.
            return min(soonest - now, timings.CORE_RACE_GRACE)
        if self._handed_over:
            return timings.HANDED_OVER_COUNT_INTERVAL
        return timings.SLOT_COUNT_INTERVAL

    def wants_count(self, now: float) -> bool:
        """Return whether a task instance could use a free slot now."""
        return any(each.ready_at <= now and each.wait.pause is None for each in self.waiting.values())

    @property
    def _handed_over(self) -> bool:
        """Whether the API server hands slots over."""
        return any(each.wait.handed_over for each in self.waiting.values())

    def _remove(self, key: str) -> _Waiting | None:
        self._order = None
        return self.waiting.pop(key, None)

    def _learn_from_unexpected_refusal(self, wait: QueueWait, now: float) -> None:
        """Learn from a start that was refused although a slot seemed to be free."""
        self._refused[wait.source] += 1
        if sum(self._refused.values()) < MAX_UNEXPECTED_REFUSALS:
            return
        others_wait = any(each.wait.source != wait.source for each in self.waiting.values())
        if len(self._refused) == 1 and others_wait:
            pause = pause_after(self._refused[wait.source] - 1, lambda: 0.0)
            self._blocked[wait.source] = now + pause
        elif wait.active is not None:
            self.capacity = wait.active
            self._refused.clear()
            self._delay_probe(now)

    def _may_probe(self, now: float) -> bool:
        """Return whether a start should show whether the plan has more slots than expected."""
        if self.active is None or not self.capacity:
            # No count shows whether there are slots.
            pause = self._probe_pause
        elif self._started >= STARTS_PER_PROBE:
            pause = timings.SLOT_PROBE_PAUSE
        else:
            pause = timings.LONGEST_SLOT_PROBE_PAUSE
        return now >= max(self._probe_known_at, self._probed_at + pause)

    def _expect_more_slots(self, now: float) -> None:
        """Let a probe follow at once: the plan has more slots than expected, so there may be even more."""
        self._probe_pause = timings.SLOT_PROBE_PAUSE
        self._probed_at, self._probe_known_at, self._started = float("-inf"), now, STARTS_PER_PROBE

    def _delay_probe(self, now: float) -> None:
        self._probe_pause = min(self._probe_pause * PROBE_GROWTH, timings.LONGEST_SLOT_PROBE_PAUSE)
        self._probed_at = now

    def _expire(self, now: float) -> None:
        """Forget what is too old: woken task instances whose run should have been counted, and new runs of others."""
        for key, at in list(self._starting.items()):
            if now - at >= self._hold:
                del self._starting[key]
        for key, woken in list(self._woken.items()):
            if now - woken.at >= LONGEST_RETURN:
                del self._woken[key]
        self._unexplained = [at for at in self._unexplained if now - at < NOTICE_DELAY]

    def _free(self) -> int:
        """Return how many slots are free, as far as is known."""
        if self.active is None or self.capacity is None:
            return 0
        return self.capacity - self.active.number - len(self._starting)
