"""A model of many task instances that want slots: events in simulated time, with the decisions of the real queue.

Airflow, BrowserAct and the requests between them are modeled. Who is woken is decided by ``SlotQueue``.
"""

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from airflow_provider_browseract.queue.queueing import Queued, QueueWait, pause_after
from airflow_provider_browseract.queue.slot_queue import SlotQueue
from airflow_provider_browseract.runs import timings


def wait_of(
    since: float = 0.0, *, priority: int = 1, refusals: int = 1, source: str = "workflow", **fields: Any
) -> QueueWait:
    return QueueWait(Queued(since, since, refusals, priority), 1e9, source, "k", 0.0, **fields)


@dataclass(eq=False)
class TI:
    """A task instance, which wants one run. All of them have the same API key."""

    name: str
    duration: float
    queued: Queued | None = None
    started_at: float = 0.0


@dataclass
class World:
    """An Airflow, and a BrowserAct account.

    :param plan: how many runs the account allows at once.
    :param shown_after: seconds after which a new run is counted.
    :param starts_per_minute: how many starts BrowserAct accepts within a minute; it refuses others with HTTP 429.
    """

    plan: int
    shown_after: float = 0.0
    starts_per_minute: int | None = None
    seed: int = 1
    now: float = 0.0
    started: list[tuple[float, TI]] = field(default_factory=list)
    refused: list[tuple[float, TI]] = field(default_factory=list)
    active: list[TI] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.tis: list[TI] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._queue = SlotQueue(self.chance.random)
        self._looks = False

    def submit(self, number: int, duration: float) -> None:
        numbers = range(len(self.tis), len(self.tis) + number)
        made = [TI(str(each), duration) for each in numbers]
        for ti in made:
            self._after(self.chance.uniform(0.0, 5.0), partial(self._start, ti))
        self.tis += made

    def play(self, seconds: float = 1e6) -> None:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end:
            self.now, _, happen = heapq.heappop(self._events)
            happen()
        self.now = end

    @property
    def makespan(self) -> float:
        return max(at + ti.duration for at, ti in self.started)

    def refusals_after_the_first(self) -> int:
        """Return how many starts were refused apart from the first start of each task instance."""
        return len(self.refused) - len({ti for _, ti in self.refused})

    def _after(self, seconds: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._number), happen))

    def _start(self, ti: TI) -> None:
        lately = sum(self.now - at < 60.0 for at, _ in self.started)
        limited = self.starts_per_minute is not None and lately >= self.starts_per_minute
        if not limited and len(self.active) < self.plan:
            ti.started_at = self.now
            self.active.append(ti)
            self.started.append((self.now, ti))
            self._after(ti.duration, partial(self.active.remove, ti))
            return
        self.refused.append((self.now, ti))
        before = ti.queued or Queued(self.now, self.now)
        ti.queued = before.refused()
        pause = pause_after(ti.queued.refusals, self.chance.random) if limited else 0.0
        pause = max(pause, timings.QUEUE_RACE_GRACE)
        wait = QueueWait(ti.queued, 1e9, "workflow", "k", self.now + pause)
        self._after(self.chance.uniform(0.5, 1.5) + pause, partial(self._join, ti, wait))

    def _join(self, ti: TI, wait: QueueWait) -> None:
        self._queue.join(ti.name, wait, self.now)
        if not self._looks:
            self._looks = True
            self._after(timings.SLOT_COUNT_PAUSE, self._look)

    def _look(self) -> None:
        """Count the active runs and wake task instances, again and again while any wait."""
        self._looks = bool(self._queue.waiting)
        if not self._looks:
            return
        shown = frozenset(ti.name for ti in self.active if self.now - ti.started_at >= self.shown_after)
        self._queue.count(shown, self.now)
        for name in self._queue.wake(self.now):
            # A task instance has its number as its name.
            self._after(self.chance.uniform(1.5, 3.5), partial(self._start, self.tis[int(name)]))
        self._after(timings.SLOT_COUNT_INTERVAL, self._look)
