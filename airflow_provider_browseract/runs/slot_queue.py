"""Who is woken for a free slot, among the task instances that wait in one triggerer, and what their starts teach."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.queueing import MAX_UNEXPECTED_REFUSALS, Active, QueueWait, pause_after

PROBE_GROWTH = 2.0
"""Factor by which the pause before the next probe grows each time a probe is refused."""

STARTS_PER_PROBE = 40
"""How many starts from the queue allow one probe. So probes add at most 2.5 % of refused starts."""

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


@dataclass(frozen=True)
class _Waiting:
    """A task instance in the queue, its DAG, and from when on it may be woken."""

    wait: QueueWait
    dag_id: str
    ready_at: float


@dataclass(frozen=True)
class _Woken:
    """A task instance that was woken, to recognize it if its start is refused.

    :param began: when its try began.
    :param probe: whether it was woken although no slot seemed to be free.
    """

    at: float
    source: str
    dag_id: str
    began: float
    probe: bool = False


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


@dataclass
class _Probes:
    """When a start is tried next although no slot seems to be free, because the plan may have more.

    :param last: when the last probe was tried.
    :param known: latest moment at which its result is known.
    :param starts: how many task instances were woken for a free slot since then.
    """

    pause: float
    last: float
    known: float
    starts: int = 0

    def delay(self, now: float) -> None:
        """Let a longer pause follow, because a start was refused."""
        self.pause, self.last = min(self.pause * PROBE_GROWTH, timings.LONGEST_SLOT_PROBE_PAUSE), now


@dataclass
class _Group:
    """The task instances that were woken together to find out how many starts are accepted, until that is known.

    :param size: how many are woken together next.
    """

    size: int = 1
    keys: set[str] = field(default_factory=set)
    accepted: int = 0
    refused: int = 0


class SlotQueue:
    """The task instances that wait in one triggerer for a slot of one API key.

    All moments are in seconds of any clock that only moves forward.
    """

    def __init__(self) -> None:
        self.waiting: dict[str, _Waiting] = {}
        self._order: list[str] | None = None
        self._woken: dict[str, _Woken] = {}
        self._starting: dict[str, _Woken] = {}
        """The woken task instances whose runs no count has shown yet. They hold slots."""
        self._group = _Group()
        self._forget(0.0)

    def _forget(self, now: float, active: int | None = None) -> None:
        """Forget what was learned, because nothing has watched the slots since the queue was empty.

        :param active: how many runs are active, as far as is known.
        """
        self.capacity: int | None = None
        """How many slots the plan has, as far as refusals and counts show; None if that is not known."""
        self.versions = frozenset[ApiVersion]()
        """The versions of the API whose active runs are counted: those of all that wait or have waited since then."""
        self.active: Active | None = None
        self._hold = timings.START_DELAY
        self._start_takes = 0.0
        """Seconds that a woken task instance takes to start its run, as far as is known."""
        self._late: dict[str, _Late] = {}
        """The DAGs whose task instances have to let others go first."""
        self._refused: Counter[str] = Counter()
        """How often starts of a source were refused in a row although there seemed to be a free slot."""
        self._blocked: dict[str, float] = {}
        """Until when the task instances of a source are not woken, because only this source is refused."""
        self._blind = False
        """Whether the last count has failed."""
        self._ended = 0
        """How many runs have ended, and left free slots, since then."""
        self._limited_until: float | None = None
        """Until when no start is tried because of HTTP 429; None if there was none lately."""
        self._full_at_refusal = False
        """Whether a refusal has shown how many slots the plan has."""
        self._group.size = 1
        self._probes = _Probes(timings.FIRST_SLOT_PAUSE if active == 0 else timings.SLOT_PROBE_PAUSE, now, now)

    def join(self, key: str, wait: QueueWait, now: float, dag_id: str = "") -> None:
        """Add a task instance, and learn from its refusal.

        :param key: the task instance, the same for all its waits.
        """
        self._expire(now)
        if not self.waiting and not self._starting:
            self._forget(now, wait.active)
        self._count_also(wait.versions)
        self._starting.pop(key, None)
        woken = self._woken.pop(key, None)
        # A refusal says nothing about an earlier try that was woken.
        again = woken if woken is not None and abs(woken.began - wait.queued.began) < 0.001 else None
        if again is not None:
            took = now - again.at
            if took < LONGEST_HOLD:
                self._hold = max(self._hold, min(LONGEST_HOLD, HOLD_FACTOR * took))
            self._learn_duration(took)
            self._late.pop(again.dag_id, None)
        probe = again is not None and again.probe
        if key in self._group.keys:
            self._group.keys.remove(key)
            self._group.refused += 1
            self._settle(now)
        elif probe:
            self._group.size = 1
            self._probes.delay(now)
        if wait.pause is not None:
            # Otherwise a steady stream of new tasks that are refused would delay the queue forever.
            if self._limited_until is None or again is not None:
                self._limited_until = max(self._limited_until or 0.0, now + wait.pause)
        elif again is not None and not probe and self._is_unexpected(wait):
            self._learn_from_unexpected_refusal(wait, now)
        elif (active := wait.active_in(self.versions)) is not None and not probe:
            self.capacity = max(self.capacity or 0, active)
            self._full_at_refusal = True
        self.waiting[key] = _Waiting(wait, dag_id, now + max(timings.QUEUE_RACE_GRACE, wait.pause or 0.0))
        self._order = None

    def _count_also(self, versions: frozenset[ApiVersion]) -> None:
        """Let the runs of these versions be counted too, and forget the numbers without them."""
        if not versions <= self.versions:
            self.versions |= versions
            self.capacity, self.active, self._full_at_refusal = None, None, False

    def free(self, key: str) -> None:
        """Free the slot of a task instance that was woken, and does not start."""
        self._group.keys.discard(key)
        self._starting.pop(key, None)
        self._woken.pop(key, None)

    def remove(self, key: str) -> None:
        """Remove a task instance whose wait is over."""
        self._order = None
        self.waiting.pop(key, None)

    def run_ended(self) -> None:
        """Note that a trigger has seen the end of a run. Without counts, nothing else shows its free slot."""
        if self._blind and self._limited_until is None:
            self._ended += 1

    def count(self, active: Active | None, now: float) -> None:
        """Take a new count of the active runs; None if they could not be counted."""
        self._expire(now)
        before, self.active, self._blind = self.active, active, active is None
        if active is None:
            return
        self._ended = 0
        for _ in active.ids - (before.ids if before else active.ids):
            self._take_new_run(now)
        for woken in self._starting.values():
            times, since = self._late.get(woken.dag_id, _Late(0, float("-inf")))
            if now - woken.at >= self._patience and woken.at > since:
                self._late[woken.dag_id] = _Late(times + 1, now)
        if self.capacity is not None and active.number > self.capacity:
            # There may be even more, so a probe follows at once.
            self._probes = _Probes(timings.SLOT_PROBE_PAUSE, float("-inf"), now, STARTS_PER_PROBE)
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
        self._probes.starts += len(woken)
        left = [key for key in ready if key not in woken]
        probes = left[: self._number_of_probes(left, len(woken), now)]
        if probes:
            self._probes = _Probes(self._probes.pause, now, now + self._hold)
        if self._blind or self._limited_until is not None:
            self._group.keys.update(probes if self._blind else woken + probes)
        woken += probes
        for key in woken:
            each = self.waiting[key]
            self._woken[key] = self._starting[key] = _Woken(
                now, each.wait.source, each.dag_id, each.wait.queued.began, key in probes
            )
            self.remove(key)
        return woken

    def order(self) -> list[str]:
        """Return the task instances in the order of their places."""
        # Sorted once for each change: after a restart of the triggerer, perhaps 1,000 task instances need their places.
        if self._order is None:
            self._order = sorted(self.waiting, key=lambda key: self.waiting[key].wait.queued.place)
        return self._order

    def next_count(self, now: float) -> float:
        """Return the seconds until the next count is due."""
        soonest = min((each.ready_at for each in self.waiting.values()), default=now)
        if soonest > now:
            # A task instance that joins in the meantime is not ready before the grace is over.
            return min(soonest - now, timings.QUEUE_RACE_GRACE)
        # Then a woken task instance no longer holds a slot against other DAGs.
        follow = (each.at + self._patience - now for each in self._starting.values())
        return min([timings.SLOT_COUNT_INTERVAL, *(each for each in follow if each > 0)])

    def wants_count(self, now: float) -> bool:
        """Return whether a task instance could use a free slot now."""
        return not self._is_limited(now) and any(each.ready_at <= now for each in self.waiting.values())

    @property
    def _patience(self) -> float:
        """Seconds within which a woken task instance has usually started its run or was refused."""
        return max(timings.FOLLOW_DELAY, min(self._hold, HOLD_FACTOR * self._start_takes))

    def _for_free_slots(self, ready: list[str], now: float) -> list[str]:
        """Return those of the task instances for which there is a free slot."""
        if self._blind:
            # After HTTP 429, only probes follow: first one, then two and so on.
            woken = [] if self._limited_until is not None else ready[: self._ended]
            self._ended -= len(woken)
            return woken
        most = len(ready)
        if self._limited_until is not None:
            most = self._group.size if self._full_at_refusal and not self._group.keys else 0
        free = {dag_id: self._free_for(dag_id, now) for dag_id in {self.waiting[key].dag_id for key in ready}}
        woken = []
        for key in ready:
            if len(woken) < min(most, free[self.waiting[key].dag_id]):
                woken.append(key)
        return woken

    def _free_for(self, dag_id: str, now: float) -> int:
        """Return how many slots are free for the task instances of a DAG, as far as is known."""
        return self._unused() - self._held(dag_id, now)

    def _unused(self) -> int:
        """Return how many slots no run uses, as far as is known."""
        return 0 if self.active is None or self.capacity is None else self.capacity - self.active.number

    def _held(self, dag_id: str, now: float) -> int:
        """Return how many slots woken task instances hold against those of a DAG: soon only those of the same DAG."""
        # A probe holds none. Otherwise it would only take the slot of a run that ends at that time, and find nothing.
        holding = [each for each in self._starting.values() if not each.probe]
        return sum(each.dag_id == dag_id or now - each.at < self._patience for each in holding)

    def _take_new_run(self, now: float) -> None:
        """Explain a run that is new in a count with a woken task instance, if there is one."""
        if not self._starting:
            return
        patience = self._patience
        # Late ones probably have not started.
        key = min(self._starting, key=lambda key: (now - self._starting[key].at >= patience, self._starting[key].at))
        started = self._starting.pop(key)
        if now - started.at < 2 * patience:
            self._learn_duration(now - started.at)
        self._late.pop(started.dag_id, None)
        self._refused.pop(started.source, None)

    def _learn_duration(self, took: float) -> None:
        """Learn how long a start takes. A slow start counts at once, and fast ones little by little."""
        if took < LONGEST_LEARNED:
            self._start_takes = max(took, self._start_takes + LEARNING_RATE * (took - self._start_takes))

    def _is_unexpected(self, wait: QueueWait) -> bool:
        """Return whether a woken task instance was refused although there was a free slot, as far as is known."""
        active = wait.active_in(self.versions)
        return active is None or self.capacity is None or active < self.capacity

    def _learn_from_unexpected_refusal(self, wait: QueueWait, now: float) -> None:
        """Learn from a start that was refused although a slot seemed to be free."""
        self._refused[wait.source] += 1
        if sum(self._refused.values()) < MAX_UNEXPECTED_REFUSALS:
            return
        active = wait.active_in(self.versions)
        if active is None and self.active is not None:
            # Otherwise refused workflows would never teach a queue in which bots wait that the plan has become smaller.
            active = self.active.number
        others_wait = any(each.wait.source != wait.source for each in self.waiting.values())
        if len(self._refused) == 1 and others_wait:
            pause = pause_after(self._refused[wait.source] - 1, lambda: 0.0)
            self._blocked[wait.source] = now + pause
        elif active is not None:
            self.capacity = active
            self._refused.clear()
            self._probes.delay(now)

    def _number_of_probes(self, left: list[str], woken: int, now: float) -> int:
        """Return how many starts should show whether more are accepted than expected."""
        if self._blind:
            due = now >= self._probes.last + self._probes.pause
            return self._group.size if due and not self._group.keys else 0
        if self._limited_until is not None:
            return 0 if self._full_at_refusal or self._group.keys else self._group.size
        if not left or self._free_for(self.waiting[left[0]].dag_id, now) > woken:
            return 0
        if not self.capacity:
            pause = self._probes.pause
        elif self._probes.starts >= STARTS_PER_PROBE:
            pause = timings.SLOT_PROBE_PAUSE
        else:
            pause = timings.LONGEST_SLOT_PROBE_PAUSE
        return int(now >= max(self._probes.known, self._probes.last + pause))

    def _settle(self, now: float) -> None:
        """Decide how many starts are tried together next, once the results of the last ones are known."""
        group = self._group
        for key in list(group.keys):
            if key not in self._woken or now - self._woken[key].at >= self._patience:
                group.keys.remove(key)
                group.accepted += 1
        if group.keys or not group.accepted + group.refused:
            return
        self._group = _Group(max(1, group.accepted if group.refused else group.accepted + 1))
        if group.refused == 0:
            self._probes.pause, self._probes.last = timings.SLOT_PROBE_PAUSE, float("-inf")
        elif group.accepted:
            self._probes.pause, self._probes.last = timings.FIRST_SLOT_PAUSE, now
        else:
            self._probes.delay(now)

    def _expire(self, now: float) -> None:
        """Forget what is too old, such as woken task instances whose run should have been counted."""
        self._settle(now)
        self._starting = {key: woken for key, woken in self._starting.items() if now - woken.at < self._hold}
        self._woken = {key: woken for key, woken in self._woken.items() if now - woken.at < LONGEST_RETURN}
        if self._limited_until is not None and now - self._limited_until >= timings.LONGEST_SLOT_PAUSE:
            self._limited_until = None

    def _is_limited(self, now: float) -> bool:
        return self._limited_until is not None and now < self._limited_until
