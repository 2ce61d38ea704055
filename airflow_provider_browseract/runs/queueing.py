"""The queue for slots: BrowserAct accepts a limited number of concurrent runs, and does not queue further ones.

A task instance whose start is refused joins the queue of its API key. When a slot becomes free, one task instance is
woken: the one with the highest priority, and of these the one that has waited longest. It tries its start again,
because only BrowserAct decides. If the start is refused again, the task instance returns to its place.

This module decides and does no I/O. ``triggers/dispatcher.py`` counts runs and wakes task instances in the triggerer,
and ``webhook/resume.py`` hands over the slot of a run whose callback has arrived.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Generator, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import product
from typing import Any, NamedTuple, TypeAlias, TypeVar

from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.models import ApiVersion, Page, Task, TaskStatus
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.stored import Count, Moment, Seconds, Text

K = TypeVar("K")

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

LONGEST_LEARNED = 60.0
"""A start that took longer teaches nothing about other starts: its DAG was probably paused, or its pool full."""

LEARNING_RATE = 0.1
"""Weight of a fast start in the duration that is expected of the next one. A slow start counts at once."""

LONGEST_RETURN = 600.0
"""Seconds within which a woken task instance whose start is refused is recognized."""

NOTICE_DELAY = 5.0
"""Seconds within which a triggerer notices that the API server has resumed a task instance."""

OLD_COUNT = 30.0
"""Seconds after which a count is not compared with the next one."""

MAX_LISTED = 100
"""How many active runs are listed for each status. Any further ones are counted, but not recognized as new."""

_HOLD_A_SLOT = (TaskStatus.CREATED, TaskStatus.RUNNING, TaskStatus.PAUSING, TaskStatus.PAUSED)


@dataclass(frozen=True)
class Queued:
    """How long a task instance has been in the queue.

    :param since: when the task instance first tried to start, in seconds since the epoch. Later tries keep it, and so
        their place.
    :param began: when this try began, from which ``queue_timeout`` counts.
    :param refusals: how often BrowserAct has refused the start in this try.
    """

    since: Moment
    began: Moment
    refusals: Count = 0
    priority: int = 1

    @property
    def place(self) -> tuple[int, float]:
        """Where the task instance stands in the queue; the lowest place is first."""
        return -self.priority, self.since

    def refused(self) -> Queued:
        """Return the same after another refusal."""
        return replace(self, refusals=self.refusals + 1)


@dataclass(frozen=True)
class QueueWait:
    """A wait for a slot, as the trigger stores it.

    :param until: when the wait ends in any case, in seconds since the epoch.
    :param source: the workflow or template. BrowserAct may refuse only its runs, as with a Standard Browser.
    :param active: how many runs were active right after the refusal; None if that is not known.
    :param pause: seconds after which the start is tried again, whatever the count shows, because the refusal was not
        about the number of runs; None to wait for a slot.
    :param handed_over: callbacks are set up, so the API server hands over the slot of a run that has ended.
    :param key_digest: digest of the API key. All connections with the same key share one queue. None if an older
        version has stored the wait, which then shares only the queue of its connection.
    :param api_version: version of the API that runs the source. The active runs of this version are counted.
    """

    queued: Queued
    until: Moment
    source: str = ""
    active: Count | None = None
    pause: Seconds | None = None
    handed_over: bool = False
    key_digest: Text | None = None
    api_version: ApiVersion = ApiVersion.V2


class Candidate(NamedTuple):
    """A task instance that the slot of an ended run may be handed over to.

    :param age: for how many seconds it has been deferred.
    """

    wait: QueueWait
    conn_id: str
    dag_id: str
    age: float


def hand_over_order(
    candidates: Mapping[K, Candidate], conn_id: str, key_digest: str | None, late_dags: Collection[str]
) -> list[K]:
    """Return those that may have the slot of an ended run, in the order in which it is offered to them.

    :param key_digest: digest of the API key of the run; None if that is not known.
    :param late_dags: DAGs of which a task instance was resumed and does not start, for example because its pool is
        full. Others go first.
    """
    queue = {
        key: each
        for key, each in candidates.items()
        if each.conn_id == conn_id or (key_digest is not None and each.wait.key_digest == key_digest)
    }
    if any(each.wait.pause and each.age < each.wait.pause + timings.LONGEST_SLOT_PAUSE for each in queue.values()):
        # BrowserAct has received too many requests. The triggerer finds out how many starts may follow.
        return []
    # Several recent refusals while the plan was not full are about one workflow, so the others go first.
    full = max((each.wait.active or 0 for each in queue.values()), default=0)
    refused = Counter(
        each.wait.source
        for each in queue.values()
        if each.wait.queued.refusals > 1
        and each.age < timings.LONGEST_SLOT_PAUSE
        and each.wait.active is not None
        and each.wait.active < full
    )

    def order(key: K) -> tuple[bool, bool, tuple[int, float]]:
        _, _, dag_id, _ = each = queue[key]
        return dag_id in late_dags, refused[each.wait.source] >= MAX_UNEXPECTED_REFUSALS, each.wait.queued.place

    return sorted(queue, key=order)


@dataclass(frozen=True)
class Active:
    """The active runs of an account.

    :param ids: the ids of the newest ones.
    """

    number: int
    ids: frozenset[str]


CountSteps: TypeAlias = Generator["Call[Page[Task]]", Any, "Active | None"]


def count_active(versions: Iterable[ApiVersion]) -> CountSteps:
    """Count the active runs of the account in versions of the API; None if BrowserAct does not return their number."""
    number, listed, ids = 0, 0, set()
    for api_version, status in product(versions, _HOLD_A_SLOT):
        page: Page[Task] = yield APIS[api_version].list_tasks(status=status, limit=MAX_LISTED)
        if page.total_count is None:
            return None
        number += page.total_count
        listed += len(page.items)
        ids |= {task.id for task in page.items}
    # A run whose status changes in between is listed twice.
    return Active(len(ids) if listed == number else number, frozenset(ids))


def pause_after(refusals: int, chance: Callable[[], float]) -> float:
    """Return the seconds to wait before a start is tried again without knowledge of slots.

    :param chance: returns a random number from 0 to 1.
    """
    pause = min(timings.LONGEST_SLOT_PAUSE, timings.FIRST_SLOT_PAUSE * PAUSE_GROWTH ** min(refusals - 1, 10))
    return pause * (1 + PAUSE_SPREAD * chance())


@dataclass(frozen=True)
class _Waiting:
    """A task instance in the queue, its DAG, and from when on it may be woken."""

    wait: QueueWait
    dag_id: str
    ready_at: float


@dataclass(frozen=True)
class _Woken:
    """A task instance that was woken, to recognize it if its start is refused.

    :param probe: whether it was woken although no slot seemed to be free.
    :param handed: whether something else has resumed it.
    """

    at: float
    source: str
    dag_id: str
    probe: bool = False
    handed: bool = False


class _Late(NamedTuple):
    """A DAG of which a woken task instance does not start, for example because the DAG is paused.

    :param times: how often that was seen in a row.
    :param since: when it was seen last.
    """

    times: int
    since: float

    def is_over(self, now: float) -> bool:
        """Return whether the task instances of the DAG are woken in their order again."""
        pause = min(timings.LONGEST_SLOT_PROBE_PAUSE, timings.START_DELAY * 2.0 ** min(self.times - 1, 10))
        return now - self.since >= pause


class SlotQueue:
    """The task instances that wait in one triggerer for a slot of one API key.

    All moments are in seconds of any clock that only moves forward.
    """

    def __init__(self) -> None:
        self.waiting: dict[str, _Waiting] = {}
        self._order: list[str] | None = None
        self.capacity: int | None = None
        """How many slots the plan has, as far as refusals and counts show; None if that is not known."""
        self.active: Active | None = None
        self._woken: dict[str, _Woken] = {}
        self._starting: dict[str, _Woken] = {}
        """The woken task instances whose runs no count has shown yet. They hold slots."""
        self._hold = timings.START_DELAY
        self._start_takes = 0.0
        """Seconds that a woken task instance takes to start its run, as far as is known."""
        self._late: dict[str, _Late] = {}
        """The DAGs whose task instances have to let others go first."""
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
        self._before: tuple[int, list[_Woken]] = (0, [])
        """How many slots no run used at the count before the last one, and the woken task instances at that time."""
        self._blind = False
        """Whether the last count has failed."""
        self._ended = 0
        """How many runs have ended, and left free slots, since then."""
        self._limited_until: float | None = None
        """Until when no start is tried because of HTTP 429; None if there was none lately."""
        self._full_at_refusal = False
        """Whether a refusal has shown how many slots the plan has."""
        self._group: set[str] = set()
        """The task instances that were woken together to find out how many starts are accepted, until that is known."""
        self._group_size = 1
        """How many are woken together next."""
        self._group_accepted = self._group_refused = 0

    def join(self, key: str, wait: QueueWait, now: float, dag_id: str = "") -> None:
        """Add a task instance, and learn from its refusal.

        :param key: the task instance, the same for all its waits.
        """
        self._expire(now)
        if not self.waiting and not self._starting:
            self._forget(wait, now)
        self._starting.pop(key, None)
        woken = self._woken.pop(key, None)
        # The first refusal of a try says nothing about an earlier try that was woken.
        again = woken if wait.queued.refusals > 1 else None
        if again is not None:
            took = now - again.at
            if took < LONGEST_HOLD:
                self._hold = max(self._hold, min(LONGEST_HOLD, HOLD_FACTOR * took))
            self._learn_duration(took)
            self._late.pop(again.dag_id, None)
        if key in self._group:
            self._group.remove(key)
            self._group_refused += 1
            self._settle(now)
        elif again is not None and again.probe:
            self._group_size = 1
            self._delay_probe(now)
        if wait.pause is not None:
            # Otherwise a steady stream of new tasks that are refused would delay the queue forever.
            if self._limited_until is None or again is not None:
                self._limited_until = max(self._limited_until or 0.0, now + wait.pause)
        elif again is not None and not again.probe and self._is_unexpected(wait, again):
            self._learn_from_unexpected_refusal(wait, now)
        elif wait.active is not None and not (again is not None and again.probe):
            self.capacity = max(self.capacity or 0, wait.active)
            self._full_at_refusal = True
        self.waiting[key] = _Waiting(wait, dag_id, now + max(timings.CORE_RACE_GRACE, wait.pause or 0.0))
        self._order = None

    def leave(self, key: str, now: float) -> None:
        """Remove a task instance that something else has resumed: probably a hand-over, so it is about to start."""
        left = self.remove(key)
        if left is None:
            return
        self._woken[key] = woken = _Woken(now, left.wait.source, left.dag_id, handed=True)
        self._started += 1
        recent = [at for at in self._unexplained if now - at < NOTICE_DELAY]
        if recent:
            # Its run was counted before this triggerer noticed that it was resumed.
            self._unexplained = recent[1:]
        else:
            self._starting[key] = woken

    def free(self, key: str) -> None:
        """Free the slot of a task instance that has left and is not about to start, because someone has marked it."""
        self._starting.pop(key, None)
        self._woken.pop(key, None)

    def remove(self, key: str) -> _Waiting | None:
        """Remove a task instance whose wait is over, and return its entry; None if it was woken."""
        self._order = None
        return self.waiting.pop(key, None)

    def run_ended(self) -> None:
        """Note that a trigger has seen the end of a run. Without counts, nothing else shows its free slot."""
        if self._blind and self._limited_until is None:
            self._ended += 1

    def count(self, active: Active | None, now: float) -> None:
        """Take a new count of the active runs; None if they could not be counted."""
        self._expire(now)
        # A count from long ago says nothing about a slot that is free in two counts in a row.
        recent = now - self._counted_at < OLD_COUNT
        self._before = (self._unused(), list(self._starting.values())) if recent else (0, [])
        before, self.active, self._blind = self.active, active, active is None
        if active is None:
            return
        self._counted_at, self._ended = now, 0
        for _ in active.ids - (before.ids if before else active.ids):
            self._take_new_run(now)
        for woken in self._starting.values():
            times, since = self._late.get(woken.dag_id, _Late(0, float("-inf")))
            if now - woken.at >= self._patience and woken.at > since:
                self._late[woken.dag_id] = _Late(times + 1, now)
        if self.capacity is not None and active.number > self.capacity:
            self._expect_more_slots(now)
        # Without a count at a refusal, the plan counts as full now.
        self.capacity = max(self.capacity or 0, active.number)

    def wake(self, now: float) -> list[str]:
        """Remove the task instances that should try their start now, and return them in the order of their places."""
        self._expire(now)
        if self._is_limited(now):
            return []
        ready = [
            key
            for key in self.order()
            if self.waiting[key].ready_at <= now and self._blocked.get(self.waiting[key].wait.source, now) <= now
        ]
        late = {dag_id for dag_id, late in self._late.items() if not late.is_over(now)}
        ready.sort(key=lambda key: self.waiting[key].dag_id in late)
        woken = self._for_free_slots(ready, now)
        self._started += len(woken)
        left = [key for key in ready if key not in woken]
        probes = left[: self._probes(left, len(woken), now)]
        if probes:
            self._probed_at, self._probe_known_at, self._started = now, now + self._hold, 0
        if self._blind or self._limited_until is not None:
            self._group.update(probes if self._blind else woken + probes)
        woken += probes
        for key in woken:
            each = self.waiting[key]
            self._woken[key] = self._starting[key] = _Woken(now, each.wait.source, each.dag_id, key in probes)
            self.remove(key)
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
        interval = timings.HANDED_OVER_COUNT_INTERVAL if self._handed_over else timings.SLOT_COUNT_INTERVAL
        # Then a woken task instance no longer holds a slot against other DAGs.
        follow = (each.at + self._patience - now for each in self._starting.values())
        return min([interval, *(each for each in follow if each > 0)])

    def wants_count(self, now: float) -> bool:
        """Return whether a task instance could use a free slot now."""
        return not self._is_limited(now) and any(each.ready_at <= now for each in self.waiting.values())

    @property
    def _handed_over(self) -> bool:
        """Whether the API server hands slots over."""
        return any(each.wait.handed_over for each in self.waiting.values())

    @property
    def _patience(self) -> float:
        """Seconds within which a woken task instance has usually started its run or was refused."""
        return max(timings.FOLLOW_DELAY, min(self._hold, HOLD_FACTOR * self._start_takes))

    def _forget(self, wait: QueueWait, now: float) -> None:
        """Forget what was learned, because nothing has watched the slots since the queue was empty."""
        self.capacity = self.active = self._limited_until = None
        self._refused.clear()
        self._late.clear()
        self._blocked.clear()
        self._probe_pause = timings.FIRST_SLOT_PAUSE if wait.active == 0 else timings.SLOT_PROBE_PAUSE
        self._probed_at, self._probe_known_at, self._started = now, now, 0
        self._hold, self._start_takes, self._ended, self._group_size = timings.START_DELAY, 0.0, 0, 1
        self._blind = self._full_at_refusal = False

    def _for_free_slots(self, ready: list[str], now: float) -> list[str]:
        """Return those of the task instances for which there is a free slot."""
        if self._blind:
            # After HTTP 429, only probes follow: first one, then two and so on.
            woken = [] if self._limited_until is not None else ready[: self._ended]
            self._ended -= len(woken)
            return woken
        most = len(ready)
        if self._limited_until is not None:
            most = self._group_size if self._full_at_refusal and not self._group else 0
        free = {dag_id: self._free_for(dag_id, now) for dag_id in {self.waiting[key].dag_id for key in ready}}
        woken = []
        for key in ready:
            if len(woken) < min(most, free[self.waiting[key].dag_id]):
                woken.append(key)
        return woken

    def _free_for(self, dag_id: str, now: float) -> int:
        """Return how many slots are free for the task instances of a DAG, as far as is known."""
        free = self._unused() - self._held(self._starting.values(), dag_id, now)
        if self._handed_over:
            # A slot that is free in one count only is probably being handed over.
            unused, starting = self._before
            free = min(free, unused - self._held(starting, dag_id, now))
        return free

    def _unused(self) -> int:
        """Return how many slots no run uses, as far as is known."""
        return 0 if self.active is None or self.capacity is None else self.capacity - self.active.number

    def _held(self, starting: Iterable[_Woken], dag_id: str, now: float) -> int:
        """Return how many slots woken task instances hold against those of a DAG: soon only those of the same DAG."""
        # A probe holds none. Otherwise it would only take the slot of a run that ends at that time, and find nothing.
        return sum(not each.probe and (each.dag_id == dag_id or now - each.at < self._patience) for each in starting)

    def _take_new_run(self, now: float) -> None:
        """Explain a run that is new in a count with a woken task instance, if there is one."""
        if not self._starting:
            self._unexplained.append(now)
            return
        patience = self._patience
        # Late ones probably have not started.
        key = min(self._starting, key=lambda key: (now - self._starting[key].at >= patience, self._starting[key].at))
        started = self._starting.pop(key)
        if now - started.at < 2 * patience:
            self._learn_duration(now - started.at)
        self._late.pop(started.dag_id, None)
        if key in self._woken:
            self._refused.pop(started.source, None)

    def _learn_duration(self, took: float) -> None:
        """Learn how long a start takes. A slow start counts at once, and fast ones little by little."""
        if took < LONGEST_LEARNED:
            self._start_takes = max(took, self._start_takes + LEARNING_RATE * (took - self._start_takes))

    def _is_unexpected(self, wait: QueueWait, woken: _Woken) -> bool:
        """Return whether a woken task instance was refused although there was a free slot, as far as is known.

        With the token of a callback, a stranger can have a slot handed over that is not free.
        """
        if wait.active is None or self.capacity is None:
            return not woken.handed
        return wait.active < self.capacity

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

    def _probes(self, left: list[str], woken: int, now: float) -> int:
        """Return how many starts should show whether more are accepted than expected."""
        if self._blind:
            due = now >= self._probed_at + self._probe_pause
            return self._group_size if due and not self._group else 0
        if self._limited_until is not None:
            return 0 if self._full_at_refusal or self._group else self._group_size
        if not left or self._unused() - self._held(self._starting.values(), self.waiting[left[0]].dag_id, now) > woken:
            return 0
        if not self.capacity:
            pause = self._probe_pause
        elif self._started >= STARTS_PER_PROBE:
            pause = timings.SLOT_PROBE_PAUSE
        else:
            pause = timings.LONGEST_SLOT_PROBE_PAUSE
        return int(now >= max(self._probe_known_at, self._probed_at + pause))

    def _expect_more_slots(self, now: float) -> None:
        """Let a probe follow at once: the plan has more slots than expected, so there may be even more."""
        self._probe_pause = timings.SLOT_PROBE_PAUSE
        self._probed_at, self._probe_known_at, self._started = float("-inf"), now, STARTS_PER_PROBE

    def _delay_probe(self, now: float) -> None:
        self._probe_pause = min(self._probe_pause * PROBE_GROWTH, timings.LONGEST_SLOT_PROBE_PAUSE)
        self._probed_at = now

    def _settle(self, now: float) -> None:
        """Decide how many starts are tried together next, once the results of the last ones are known."""
        for key in list(self._group):
            if key not in self._woken or now - self._woken[key].at >= self._patience:
                self._group.remove(key)
                self._group_accepted += 1
        if self._group or not self._group_accepted + self._group_refused:
            return
        if self._group_refused == 0:
            self._group_size = self._group_accepted + 1
            self._probe_pause, self._probed_at = timings.SLOT_PROBE_PAUSE, float("-inf")
        else:
            self._group_size = max(1, self._group_accepted)
            if self._group_accepted:
                self._probe_pause, self._probed_at = timings.FIRST_SLOT_PAUSE, now
            else:
                self._delay_probe(now)
        self._group_accepted = self._group_refused = 0

    def _expire(self, now: float) -> None:
        """Forget what is too old, such as woken task instances whose run should have been counted."""
        self._settle(now)
        self._starting = {key: woken for key, woken in self._starting.items() if now - woken.at < self._hold}
        self._woken = {key: woken for key, woken in self._woken.items() if now - woken.at < LONGEST_RETURN}
        self._unexplained = [at for at in self._unexplained if now - at < NOTICE_DELAY]
        if self._limited_until is not None and now - self._limited_until >= timings.LONGEST_SLOT_PAUSE:
            self._limited_until = None

    def _is_limited(self, now: float) -> bool:
        return self._limited_until is not None and now < self._limited_until
