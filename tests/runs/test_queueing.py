"""The queue for slots: who is woken when, and what is learned about the plan."""

from __future__ import annotations

import random
from dataclasses import dataclass, field, replace
from types import SimpleNamespace

import pytest

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.queueing import (
    PAUSE_SPREAD,
    Active,
    Queued,
    QueueWait,
    SlotQueue,
    count_active,
    pause_after,
)

READY = timings.CORE_RACE_GRACE
"""Seconds after which a task instance that has just deferred may be woken."""


def wait_of(
    since: float = 0.0, *, priority: int = 1, refusals: int = 1, active: int | None = 10, **fields
) -> QueueWait:
    return QueueWait(Queued(since, since, refusals, priority), until=1e9, active=active, **fields)


def runs(number: int, first: int = 0) -> Active:
    """Return active runs with consecutive ids."""
    return Active(number, frozenset(str(first + each) for each in range(number)))


class TestCount:
    @staticmethod
    def play(pages):
        steps = count_active()
        call = next(steps)
        try:
            for page in pages:
                assert isinstance(call, Call)
                call = steps.send(page)
        except StopIteration as stop:
            return stop.value
        raise AssertionError("more pages are wanted")

    def test_created_running_and_paused_runs_are_counted(self):
        pages = [
            SimpleNamespace(
                total_count=number, items=[SimpleNamespace(id=f"{status}-{each}") for each in range(number)]
            )
            for status, number in enumerate((1, 2, 0, 1))
        ]
        found = self.play(pages)
        assert found == Active(4, frozenset({"0-0", "1-0", "1-1", "3-0"}))

    def test_missing_total_means_that_the_number_is_unknown(self):
        assert self.play([SimpleNamespace(total_count=None, items=[])]) is None


class TestThePauseAfterARefusal:
    def test_pause_after_refused_starts_grows_up_to_a_limit(self):
        pauses = [pause_after(refusals, lambda: 0.0) for refusals in range(1, 20)]
        assert pauses[0] == timings.FIRST_SLOT_PAUSE
        assert pauses == sorted(pauses)
        assert pauses[-1] == timings.LONGEST_SLOT_PAUSE

    def test_pause_after_a_refused_start_has_random_jitter(self):
        assert pause_after(1, lambda: 1.0) == timings.FIRST_SLOT_PAUSE * (1 + PAUSE_SPREAD)


class TestOrder:
    def test_higher_priority_weight_goes_first_then_the_longest_wait(self):
        queue = SlotQueue()
        queue.join("late", wait_of(30.0), 0.0)
        queue.join("early", wait_of(10.0), 0.0)
        queue.join("urgent", wait_of(40.0, priority=5), 0.0)
        assert queue.order() == ["urgent", "early", "late"]

    def test_refused_task_returns_to_its_place(self):
        queue = SlotQueue()
        queue.join("a", wait_of(10.0), 0.0)
        queue.join("b", wait_of(20.0), 0.0)
        queue.count(runs(9), READY)
        assert queue.wake(READY) == ["a"]
        queue.join("a", wait_of(10.0, refusals=2), READY + 1)
        assert queue.order() == ["a", "b"]


class TestWake:
    def test_one_task_is_woken_for_each_free_slot(self):
        queue = SlotQueue()
        for number in range(5):
            queue.join(str(number), wait_of(float(number)), 0.0)
        queue.count(runs(8), READY)
        assert queue.wake(READY) == ["0", "1"]
        assert queue.wake(READY) == []

    def test_task_is_not_woken_within_the_grace_after_its_deferral(self):
        queue = SlotQueue()
        queue.join("a", wait_of(), 0.0)
        queue.count(runs(9), READY - 1)
        assert queue.wake(READY - 1) == []
        assert queue.wake(READY) == ["a"]

    def test_slot_of_a_woken_task_is_taken_until_its_run_is_counted(self):
        queue = SlotQueue()
        queue.join("a", wait_of(1.0), 0.0)
        queue.join("b", wait_of(2.0), 0.0)
        queue.count(runs(9), READY)
        assert queue.wake(READY) == ["a"]
        queue.count(runs(9), READY + 3)
        assert queue.wake(READY + 3) == []
        # The run of "a" is there, and another one has ended.
        queue.count(runs(9, first=1), READY + 6)
        assert queue.wake(READY + 6) == ["b"]

    def test_slot_of_a_woken_task_that_never_starts_is_passed_on(self):
        queue = SlotQueue()
        queue.join("a", wait_of(1.0), 0.0)
        queue.join("b", wait_of(2.0), 0.0)
        queue.count(runs(9), READY)
        assert queue.wake(READY) == ["a"]
        later = READY + timings.START_DELAY
        queue.count(runs(9), later)
        assert queue.wake(later) == ["b"]

    def test_nothing_is_woken_while_runs_cannot_be_counted(self):
        queue = SlotQueue()
        queue.join("a", wait_of(), 0.0)
        queue.count(None, READY)
        assert queue.wake(READY) == []

    def test_wait_that_is_not_about_slots_ends_after_its_pause(self):
        queue = SlotQueue()
        queue.join("a", wait_of(pause=77.0), 0.0)
        queue.count(runs(0), 76.0)
        assert queue.wake(76.0) == []
        assert queue.wake(77.0) == ["a"]


class TestHandOver:
    def test_slot_that_is_free_in_one_count_only_is_left_to_the_api_server(self):
        queue = SlotQueue()
        queue.join("a", wait_of(handed_over=True), 0.0)
        queue.count(runs(9), READY)
        assert queue.wake(READY) == []
        queue.count(runs(9), READY + 5)
        assert queue.wake(READY + 5) == ["a"]

    def test_task_resumed_by_the_api_server_holds_a_slot_until_its_run_is_counted(self):
        queue = SlotQueue()
        queue.join("a", wait_of(1.0, handed_over=True), 0.0)
        queue.join("b", wait_of(2.0, handed_over=True), 0.0)
        queue.leave("a", READY)
        for at in (READY + 1, READY + 6):
            queue.count(runs(9), at)
            assert queue.wake(at) == []


class TestCapacity:
    def test_largest_number_of_active_runs_is_the_capacity(self):
        queue = SlotQueue()
        queue.join("a", wait_of(1.0, active=9), 0.0)
        queue.join("b", wait_of(2.0, active=10), 0.0)
        queue.join("c", wait_of(3.0, active=8), 0.0)
        assert queue.capacity == 10
        queue.count(runs(12), 1.0)
        assert queue.capacity == 12

    def test_two_unexpected_refusals_in_a_row_shrink_the_capacity(self):
        queue = SlotQueue()
        for number in range(3):
            queue.join(str(number), wait_of(float(number)), 0.0)
        queue.count(runs(5), READY)
        assert queue.wake(READY) == ["0", "1", "2"]
        queue.join("0", wait_of(0.0, refusals=2, active=5), READY + 1)
        assert queue.capacity == 10
        queue.join("1", wait_of(1.0, refusals=2, active=5), READY + 1)
        assert queue.capacity == 5

    def test_one_unexpected_refusal_lets_others_go_first(self):
        queue = SlotQueue()
        queue.join("standard browser", wait_of(0.0), 0.0)
        queue.join("other", wait_of(1.0), 0.0)
        queue.count(runs(9), READY)
        assert queue.wake(READY) == ["standard browser"]
        queue.join("standard browser", wait_of(0.0, refusals=2, active=9), READY + 1)
        queue.count(runs(9), READY + 2)
        assert queue.wake(READY + 2) == ["other"]

    def test_probe_finds_a_larger_plan(self):
        queue = SlotQueue()
        for number in range(3):
            queue.join(str(number), wait_of(float(number), active=5), 0.0)
        queue.count(runs(5), READY)
        assert queue.wake(READY) == []
        at = timings.SLOT_PROBE_PAUSE
        queue.count(runs(5), at)
        assert queue.wake(at) == ["0"]
        # It was accepted: there may be more slots, so the next one follows at once.
        queue.count(runs(6), at + 3)
        assert queue.wake(at + 3) == ["1"]
        # It was refused, so the next probe has to wait longer than the first.
        queue.join("1", wait_of(1.0, refusals=2, active=6), at + 4)
        assert queue.capacity == 6
        later = at + 4 + timings.SLOT_PROBE_PAUSE
        queue.count(runs(6), later)
        assert queue.wake(later) == []

    def test_refusals_without_active_runs_are_probed_with_growing_pauses(self):
        queue, at = SlotQueue(), 0.0
        probes: list[float] = []
        queue.join("a", wait_of(active=0), at)
        while len(probes) < 6:
            at += 1.0
            queue.count(runs(0), at)
            if queue.wake(at):
                probes.append(at)
                queue.join("a", wait_of(active=0, refusals=len(probes) + 1), at)
        pauses = [later - earlier for earlier, later in zip([0.0, *probes], probes, strict=False)]
        assert pauses[0] == timings.FIRST_SLOT_PAUSE
        assert pauses == sorted(pauses)
        assert pauses[-1] <= timings.LONGEST_SLOT_PROBE_PAUSE

    def test_knowledge_of_the_plan_is_forgotten_when_nothing_waits(self):
        queue = SlotQueue()
        queue.join("a", wait_of(active=10), 0.0)
        queue.leave("a", 1.0)
        later = 1.0 + timings.START_DELAY
        queue.join("b", wait_of(active=3), later)
        assert queue.capacity == 3


@dataclass
class Account:
    """A BrowserAct account with a queue in front of it, simulated in steps of a tenth of a second.

    :param plan: how many runs it allows at once.
    :param shown_after: seconds after which a new run is counted.
    """

    plan: int
    duration: float = 20.0
    shown_after: float = 0.0
    start_takes: float = 1.5
    queue: SlotQueue = field(default_factory=SlotQueue)
    now: float = 0.0
    active: dict[str, float] = field(default_factory=dict)
    started: list[tuple[float, str]] = field(default_factory=list)
    refused: list[tuple[float, str]] = field(default_factory=list)
    queued: dict[str, Queued] = field(default_factory=dict)
    starting: dict[str, float] = field(default_factory=dict)
    idle: float = 0.0
    _next_count: float = 0.0

    def submit(self, names, chance) -> None:
        for name in names:
            self.queued[name] = Queued(self.now, self.now)
            self.starting[name] = self.now + chance.uniform(0.0, 5.0)

    def play(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self.now < end:
            self.now = round(self.now + 0.1, 1)
            self.active = {name: at for name, at in self.active.items() if self.now - at < self.duration}
            for name in [name for name, at in self.starting.items() if at <= self.now]:
                del self.starting[name]
                self._start(name)
            if self.now >= self._next_count:
                self._look()
            if self.queue.waiting and len(self.active) < self.plan:
                self.idle = round(self.idle + 0.1, 1)

    def _start(self, name: str) -> None:
        if len(self.active) < self.plan:
            self.active[name] = self.now
            self.started.append((self.now, name))
            return
        self.refused.append((self.now, name))
        before = self.queued[name]
        self.queued[name] = replace(before, since=before.since if before.refusals else self.now).refused()
        self.queue.join(name, QueueWait(self.queued[name], 1e9, active=len(self.active)), self.now)

    def _look(self) -> None:
        shown = frozenset(name for name, at in self.active.items() if self.now - at >= self.shown_after)
        self.queue.count(Active(len(shown), shown), self.now)
        for name in self.queue.wake(self.now):
            self.starting[name] = self.now + self.start_takes
        self._next_count = self.now + max(timings.SLOT_COUNT_PAUSE, self.queue.next_look(self.now))


class TestManyRuns:
    @pytest.mark.parametrize("seed", range(5))
    @pytest.mark.parametrize("shown_after", [0.0, 4.0], ids=["counted at once", "counted late"])
    def test_few_starts_are_refused_after_the_first_wave_and_few_overtake(self, seed, shown_after):
        account = Account(plan=10, shown_after=shown_after)
        names = [f"run {number}" for number in range(200)]
        account.submit(names, random.Random(seed))
        account.play(900)
        assert sorted(name for _, name in account.started) == sorted(names)
        first: dict[str, float] = {}
        for at, name in account.refused:
            first.setdefault(name, at)
        later = len(account.refused) - len(first)
        assert later <= 0.05 * len(first)
        order = sorted(first, key=first.__getitem__)
        started = [name for _, name in account.started if name in first]
        overtaking = [abs(started.index(name) - place) for place, name in enumerate(order)]
        assert max(overtaking) <= account.plan
        # Twenty waves, of which each lasts at most a quarter longer than the runs.
        assert max(at for at, _ in account.started) <= 19 * account.duration * 1.25 + 20

    def test_queue_follows_a_plan_that_shrinks_and_grows(self):
        account = Account(plan=10)
        account.submit([f"run {number}" for number in range(600)], random.Random(1))
        account.play(100)
        account.plan = 4
        account.play(300)
        refused = len(account.refused)
        account.play(300)
        # Only a probe from time to time.
        assert len(account.refused) - refused <= 3
        account.plan = 12
        account.play(300)
        started = len(account.started)
        account.play(200)
        # Ten waves of twelve runs, with some time between them.
        assert len(account.started) - started >= 0.8 * 10 * 12

    def test_no_slot_is_unused_for_a_minute_while_something_waits(self):
        account = Account(plan=5)
        account.submit([f"run {number}" for number in range(100)], random.Random(2))
        for _ in range(30):
            account.idle = 0.0
            account.play(60)
            if account.queue.waiting:
                assert account.idle < 60
