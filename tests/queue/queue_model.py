"""A model of many task instances that want slots: events in simulated time, with the decisions of the real queue.

Airflow, BrowserAct and the requests between them are modeled. Who is woken is decided by ``SlotQueue``, one for each
triggerer, as in a real Airflow.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from airflow_provider_browseract.api.models import ApiVersion
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
    dag_id: str = "dag"
    source: str = "workflow"
    api_version: ApiVersion = ApiVersion.V2
    state: str = "new"
    wait: QueueWait | None = None
    queued: Queued | None = None
    queue: SlotQueue | None = None


@dataclass
class World:
    """An Airflow, and a BrowserAct account.

    :param plan: how many runs the account allows at once.
    :param start_takes: seconds from the resumption of a task instance to its start: the least and the most.
    :param shown_after: seconds after which a new run is counted.
    :param starts_per_minute: how many starts BrowserAct accepts within a minute; it refuses others with HTTP 429.
    :param shared_runs: whether each version of the API lists the runs of all versions, and not only its own.
    :param one_at_a_time: workflows of which BrowserAct accepts one run at a time.
    """

    plan: int
    triggerers: int = 1
    start_takes: tuple[float, float] = (1.5, 3.5)
    shown_after: float = 0.0
    starts_per_minute: int | None = None
    shared_runs: bool = False
    one_at_a_time: frozenset[str] = frozenset()
    seed: int = 1
    now: float = 0.0
    started: list[tuple[float, TI]] = field(default_factory=list)
    refused: list[tuple[float, TI]] = field(default_factory=list)
    paused: set[str] = field(default_factory=set)
    """The DAGs whose task instances Airflow does not begin: they are paused, or their pool is full."""
    active: list[TI] = field(default_factory=list)
    longest_unused: float = 0.0
    """Longest time for which a slot was free although a task instance could use it."""
    unused: float = 0.0
    """Seconds for which slots were free although task instances could use them, each slot separately."""

    def __post_init__(self) -> None:
        self.chance = random.Random(self.seed)
        self.tis: list[TI] = []
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = itertools.count()
        self._queues: dict[int, SlotQueue] = {}
        self._looks: dict[int, tuple[float, int]] = {}
        self._unused_since: float | None = None

    def submit(
        self, number: int, *, duration: float | tuple[float, float] = 30.0, within: float = 5.0, **of: Any
    ) -> list[TI]:
        lengths = duration if isinstance(duration, tuple) else (duration, duration)
        numbers = range(len(self.tis), len(self.tis) + number)
        made = [TI(str(each), self.chance.uniform(*lengths), **of) for each in numbers]
        for ti in made:
            self._after(self.chance.uniform(0.0, within), partial(self._start, ti))
        self.tis += made
        return made

    def play(self, seconds: float = 1e6) -> World:
        end = self.now + seconds
        while self._events and self._events[0][0] <= end and any(ti.state != "over" for ti in self.tis):
            at, _, happen = heapq.heappop(self._events)
            self._measure(at)
            self.now = at
            happen()
        self.now = self.now if all(ti.state == "over" for ti in self.tis) else end
        return self

    def let_begin(self, dag_id: str) -> None:
        """Let the task instances of a DAG begin again. Those that were resumed in the meantime begin at once."""
        self.paused.discard(dag_id)
        for ti in self.tis:
            if ti.dag_id == dag_id and ti.state == "scheduled":
                self._begin(ti)

    def places(self, of: list[TI]) -> list[int]:
        """Return the places of task instances among all starts; the first is 1."""
        return [place for place, (_, ti) in enumerate(self.started, 1) if ti in of]

    @property
    def makespan(self) -> float:
        return max(at + ti.duration for at, ti in self.started)

    def refusals_after_the_first(self) -> int:
        """Return how many starts were refused apart from the first start of each task instance."""
        return len(self.refused) - len({ti for _, ti in self.refused})

    def _after(self, seconds: float, happen: Callable[[], None]) -> None:
        heapq.heappush(self._events, (self.now + seconds, next(self._number), happen))

    def _measure(self, until: float) -> None:
        could = sum(ti.state in ("deferred", "scheduled") and ti.dag_id not in self.paused for ti in self.tis)
        free = min(could, self.plan - len(self.active))
        self.unused += max(0, free) * (until - self.now)
        if free <= 0:
            self._unused_since = None
            return
        if self._unused_since is None:
            self._unused_since = self.now
        self.longest_unused = max(self.longest_unused, until - self._unused_since)

    def _begin(self, ti: TI) -> None:
        if ti.dag_id not in self.paused:
            self._after(self.chance.uniform(*self.start_takes), lambda: self._start(ti))

    def _start(self, ti: TI) -> None:
        if ti.state == "over":
            return
        lately = sum(self.now - at < 60.0 for at, _ in self.started)
        limited = self.starts_per_minute is not None and lately >= self.starts_per_minute
        busy = ti.source in self.one_at_a_time and any(other.source == ti.source for other in self.active)
        if not limited and not busy and len(self.active) < self.plan:
            ti.state = "running"
            self.active.append(ti)
            self.started.append((self.now, ti))
            self._after(ti.duration, lambda: self._end(ti))
            return
        self.refused.append((self.now, ti))
        before = ti.queued or Queued(self.now, self.now)
        ti.queued = before.refused()
        pause = pause_after(ti.queued.refusals, self.chance.random) if limited else 0.0
        pause = max(pause, timings.QUEUE_RACE_GRACE)
        ti.wait = QueueWait(ti.queued, 1e9, ti.source, "k", self.now + pause, ti.api_version)
        ti.state = "deferred"
        triggerer = self.chance.randrange(self.triggerers)
        self._after(self.chance.uniform(0.5, 1.5) + pause, lambda: self._join(ti, triggerer))

    def _join(self, ti: TI, triggerer: int) -> None:
        if ti.state != "deferred" or ti.wait is None:
            return
        queue = ti.queue = self._queues.setdefault(triggerer, SlotQueue(self.chance.random))
        queue.join(ti.name, ti.wait, self.now, ti.dag_id)
        if self._looks.get(id(queue), (float("inf"), 0))[0] == float("inf"):
            self._count_in(queue, timings.SLOT_COUNT_PAUSE)

    def _end(self, ti: TI) -> None:
        self.active.remove(ti)
        ti.state = "over"

    def _count_in(self, queue: SlotQueue, seconds: float) -> None:
        """Look at a queue in some seconds, unless that happens earlier."""
        due, number = self._looks.get(id(queue), (float("inf"), 0))
        if due <= self.now + seconds:
            return
        self._looks[id(queue)] = self.now + seconds, number + 1
        self._after(seconds, lambda: self._look(queue, number + 1))

    def _look(self, queue: SlotQueue, number: int) -> None:
        if self._looks[id(queue)][1] != number:
            return
        self._looks[id(queue)] = float("inf"), number
        if not queue.waiting:
            return
        listed = self._listed(queue.versions)
        shown = frozenset(ti.name for ti in listed if self.now - self._started_at(ti) >= self.shown_after)
        queue.count(shown, self.now)
        for name in queue.wake(self.now):
            for ti in self.tis:
                if ti.name == name and ti.state == "deferred":
                    ti.state = "scheduled"
                    self._begin(ti)
        self._count_in(queue, timings.SLOT_COUNT_INTERVAL)

    def _listed(self, versions: frozenset[ApiVersion]) -> list[TI]:
        return [ti for ti in self.active if self.shared_runs or ti.api_version in versions]

    def _started_at(self, ti: TI) -> float:
        return next(at for at, each in reversed(self.started) if each is ti)
