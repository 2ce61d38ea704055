"""Who is woken for a free slot, among the task instances that wait in one triggerer, and what their starts show.

The number of slots of the plan is learned: counts of the active runs raise it, refused starts lower it, and from time
to time, a start shows whether there are more.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import NamedTuple

from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.queue.queueing import QueueWait, pause_after
from airflow_provider_browseract.runs import timings

HOLD_FACTOR = 1.5
"""How much longer a woken task instance holds a slot than the slowest start has taken."""


class Waiting(NamedTuple):
    """A task instance in the queue, and its DAG."""

    wait: QueueWait
    dag_id: str


class Woken(NamedTuple):
    """A task instance that was woken, and whose run no count has shown yet.

    :param is_probe: it was woken although no slot seemed to be free.
    """

    at: float
    source: str
    dag_id: str
    is_probe: bool


class SlotQueue:
    """The task instances that wait in one triggerer for a slot of one API key.

    All moments are in seconds of any clock that only moves forward.

    :param chance: returns a random number from 0 to 1.
    """

    def __init__(self, chance: Callable[[], float] = random.random) -> None:
        self._chance = chance
        self.waiting: dict[str, Waiting] = {}
        self.slots = 1
        """How many slots the plan has, as far as is known."""
        self.versions = frozenset[ApiVersion]()
        """The versions of the API whose active runs are counted: of all that wait, or have waited since nothing did."""
        self.active: frozenset[str] | None = None
        """The ids of the active runs; None if they could not be counted."""
        self._starting: dict[str, Woken] = {}
        self._hold = timings.START_DELAY
        self._refused: dict[str, tuple[int, float]] = {}
        """How often a source was refused in a row although a slot was free, and until when others go first."""
        self._probe_pause, self._probe_at = timings.SLOT_PROBE_PAUSE, 0.0

    def join(self, key: str, wait: QueueWait, now: float, dag_id: str = "") -> None:
        """Add a task instance. If it was woken, its start was refused.

        :param key: the task instance, the same for all its waits.
        """
        if not self.waiting and not self._starting:
            self.versions, self._hold = frozenset(), timings.START_DELAY
            self._refused.clear()
        if not wait.versions <= self.versions:
            # The runs of another version that is counted now are not new.
            self.versions, self.active = self.versions | wait.versions, None
        self.waiting[key] = Waiting(wait, dag_id)
        woken = self._starting.pop(key, None)
        if woken is None:
            return
        self._learn_duration(now - woken.at - timings.QUEUE_RACE_GRACE)
        if woken.is_probe:
            if self.active is not None:
                self._probe_pause = min(2 * self._probe_pause, timings.LONGEST_SLOT_PROBE_PAUSE)
                self._probe_at = now + self._probe_pause
            return
        times = self._refused.get(woken.source, (0, 0.0))[0] + 1
        self._refused[woken.source] = times, now + pause_after(times, self._chance)
        # While others may start, only runs of this source are limited.
        if not any(self._may_start(each, now) for each in self.waiting.values()):
            self.slots = max(self.slots - 1, len(self.active or ()), 1)

    def free(self, key: str) -> None:
        """Free the slot of a task instance that was woken, and does not start."""
        self._starting.pop(key, None)

    def remove(self, key: str) -> None:
        """Remove a task instance whose wait is over."""
        self.waiting.pop(key, None)

    def count(self, active: frozenset[str] | None, now: float) -> None:
        """Take the ids of the active runs in :attr:`versions`; None if they could not be counted."""
        if active is None:
            self._probe_at = min(self._probe_at, now + timings.BLIND_START_PAUSE)
        else:
            for _ in active - (active if self.active is None else self.active):
                self._take_new_run(now)
            self.slots = max(self.slots, len(active))
        self.active = active

    def wake(self, now: float) -> list[str]:
        """Remove the task instances that should try their start now, and return them in the order of their places."""
        starting = self._starting.items()
        self._starting = {key: woken for key, woken in starting if now - woken.at < timings.START_FORGOTTEN}
        order = self.order(now)
        ready = [key for key in order if self._may_start(self.waiting[key], now)] or order
        holding = [woken for woken in self._starting.values() if self._holds(woken, now)]
        free = 0
        if self.active is not None:
            # A probe holds no slot. Otherwise a waiting task instance would not get that of a run that ends meanwhile.
            free = max(0, self.slots - len(self.active) - sum(not woken.is_probe for woken in holding))
        probes = int(now >= self._probe_at and (self.active is None or not any(woken.is_probe for woken in holding)))
        if probes and len(ready) > free:
            self._probe_at = now + (timings.BLIND_START_PAUSE if self.active is None else self._probe_pause)
        woken = ready[: free + probes]
        for number, key in enumerate(woken):
            wait, dag_id = self.waiting.pop(key)
            self._starting[key] = Woken(now, wait.source, dag_id, number >= free)
        return woken

    def order(self, now: float) -> list[str]:
        """Return the task instances in the order of their places; last, those of DAGs whose woken ones do not start."""
        late = {woken.dag_id for woken in self._starting.values() if not self._holds(woken, now)}
        places = {key: (each.dag_id in late, each.wait.queued.place) for key, each in self.waiting.items()}
        return sorted(places, key=places.__getitem__)

    def _may_start(self, each: Waiting, now: float) -> bool:
        return self._refused.get(each.wait.source, (0, 0.0))[1] <= now

    def _holds(self, woken: Woken, now: float) -> bool:
        return now - woken.at < self._hold

    def _take_new_run(self, now: float) -> None:
        """Match a run that is new in a count with a woken task instance, if there is one."""
        if not self._starting:
            return
        # One that holds no slot any more has probably not started.
        order = {key: (not self._holds(each, now), each.is_probe, each.at) for key, each in self._starting.items()}
        woken = self._starting.pop(min(order, key=order.__getitem__))
        self._learn_duration(now - woken.at)
        self._refused.pop(woken.source, None)
        if woken.is_probe:
            # The plan has more slots, so the next one is tried at once.
            self.slots, self._probe_pause, self._probe_at = self.slots + 1, timings.SLOT_PROBE_PAUSE, now

    def _learn_duration(self, took: float) -> None:
        """Learn how long a start takes. One that took much longer had to wait, for example for its DAG."""
        if took < timings.LONGEST_START:
            self._hold = max(self._hold, min(timings.LONGEST_START, HOLD_FACTOR * took))
