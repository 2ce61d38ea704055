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
    STARTS_PER_PROBE,
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


def queue_of(waits: dict[str, QueueWait]) -> SlotQueue:
    """Return a queue that these task instances have just joined."""
    queue = SlotQueue()
    for key, wait in waits.items():
        queue.join(key, wait, 0.0)
    return queue


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
        queue = queue_of({"late": wait_of(30.0), "early": wait_of(10.0), "urgent": wait_of(40.0, priority=5)})
        assert queue.order() == ["urgent", "early", "late"]

    def test_refused_task_returns_to_its_place(self):
        queue = queue_of({"a": wait_of(10.0), "b": wait_of(20.0)})
        queue.count(runs(9), READY)
        assert queue.wake(READY) == ["a"]
        queue.join("a", wait_of(10.0, refusals=2), READY + 1)
        assert queue.order() == ["a", "b"]


class TestWake:
    def test_one_task_is_woken_for_each_free_slot(self):
        queue = queue_of({str(number): wait_of(float(number)) for number in range(5)})
        queue.count(runs(8), READY)
        assert queue.wake(READY) == ["0", "1"]
        assert queue.wake(READY) == []

    def test_task_is_not_woken_within_the_grace_after_its_deferral(self):
        queue = queue_of({"a": wait_of()})
        queue.count(runs(9), READY - 1)
        assert queue.wake(READY - 1) == []
        assert queue.wake(READY) == ["a"]

    def test_slot_of_a_woken_task_is_taken_until_its_run_is_counted(self):
        queue = queue_of({"a": wait_of(1.0), "b": wait_of(2.0)})
        queue.count(runs(9), READY)
        assert queue.wake(READY) == ["a"]
        queue.count(runs(9), READY + 3)
        assert queue.wake(READY + 3) == []
        # The run of "a" is there, and another one has ended.
        queue.count(runs(9, first=1), READY + 6)
        assert queue.wake(READY + 6) == ["b"]

    def test_slot_of_a_woken_task_that_never_starts_is_passed_on(self):
        queue = queue_of({"a": wait_of(1.0), "b": wait_of(2.0)})
        queue.count(runs(9), READY)
        assert queue.wake(READY) == ["a"]
        later = READY + timings.START_DELAY
        queue.count(runs(9), later)
        assert queue.wake(later) == ["b"]

    def test_nothing_is_woken_while_runs_cannot_be_counted(self):
        queue = queue_of({"a": wait_of()})
        queue.count(None, READY)
        assert queue.wake(READY) == []

    def test_wait_that_is_not_about_slots_ends_after_its_pause(self):
        queue = queue_of({"a": wait_of(pause=77.0)})
        queue.count(runs(0), 76.0)
        assert queue.wake(76.0) == []
        assert queue.wake(77.0) == ["a"]


class TestHandOver:
    def test_slot_that_is_free_in_one_count_only_is_left_to_the_api_server(self):
        queue = queue_of({"a": wait_of(handed_over=True)})
        queue.count(runs(9), READY)
        assert queue.wake(READY) == []
        queue.count(runs(9), READY + 5)
        assert queue.wake(READY + 5) == ["a"]

    def test_task_resumed_by_the_api_server_holds_a_slot_until_its_run_is_counted(self):
        queue = queue_of({"a": wait_of(1.0, handed_over=True), "b": wait_of(2.0, handed_over=True)})
        queue.leave("a", READY)
        for at in (READY + 1, READY + 6):
            queue.count(runs(9), at)
            assert queue.wake(at) == []

    def test_run_that_was_counted_before_its_hand_over_was_noticed_holds_no_second_slot(self):
        queue = queue_of({"a": wait_of(1.0, handed_over=True), "b": wait_of(2.0, handed_over=True)})
        queue.count(runs(10), READY)
        # The run of "a" replaces one that has ended.
        queue.count(runs(10, first=1), READY + 1)
        queue.leave("a", READY + 2)
        for at in (READY + 6, READY + 11):
            queue.count(runs(9, first=1), at)
        assert queue.wake(READY + 11) == ["b"]

    def test_wait_that_is_given_up_holds_no_slot(self):
        queue = queue_of({"a": wait_of(1.0), "b": wait_of(2.0)})
        queue.give_up("a")
        queue.count(runs(9), READY)
        assert queue.wake(READY) == ["b"]

    def test_count_from_long_ago_does_not_confirm_a_free_slot(self):
        queue = queue_of({"a": wait_of(handed_over=True)})
        queue.count(runs(9), 1.0)
        queue.count(runs(9), 61.0)
        assert queue.wake(61.0) == []


class TestCapacity:
    def test_largest_number_of_active_runs_is_the_capacity(self):
        queue = queue_of({"a": wait_of(1.0, active=9), "b": wait_of(2.0, active=10), "c": wait_of(3.0, active=8)})
        assert queue.capacity == 10
        queue.count(runs(12), 1.0)
        assert queue.capacity == 12

    def test_two_unexpected_refusals_in_a_row_shrink_the_capacity(self):
        queue = queue_of({str(number): wait_of(float(number)) for number in range(3)})
        queue.count(runs(5), READY)
        assert queue.wake(READY) == ["0", "1", "2"]
        queue.join("0", wait_of(0.0, refusals=2, active=5), READY + 1)
        assert queue.capacity == 10
        queue.join("1", wait_of(1.0, refusals=2, active=5), READY + 1)
        assert queue.capacity == 5

    def test_workflow_that_alone_is_refused_lets_others_go_first(self):
        alone, at = wait_of(0.0, source="one at a time"), READY
        queue = queue_of({"standard browser": alone, "other": wait_of(1.0, source="other")})
        for refusals in (2, 3):
            queue.count(runs(9), at)
            assert queue.wake(at) == ["standard browser"]
            queue.join("standard browser", wait_of(0.0, source="one at a time", refusals=refusals, active=9), at + 1)
            at += 1 + READY
        queue.count(runs(9), at)
        assert queue.wake(at) == ["other"]
        assert queue.capacity == 10

    def test_first_refusal_of_a_new_try_is_not_unexpected(self):
        queue = queue_of({"a": wait_of(0.0), "b": wait_of(1.0)})
        for at in (1.0, 2.0, 3.0):
            # It is cleared while it waits.
            queue.leave("a", at)
            queue.join("a", wait_of(at, refusals=1, active=3), at + 0.5)
        assert queue.capacity == 10
        assert queue.next_look(3.5) <= READY

    def test_probe_finds_a_larger_plan(self):
        queue = queue_of({str(number): wait_of(float(number), active=5) for number in range(3)})
        queue.count(runs(5), READY)
        assert queue.wake(READY) == []
        at = timings.LONGEST_SLOT_PROBE_PAUSE
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

    def test_probe_that_takes_the_slot_of_a_run_that_ended_in_between_has_found_no_slot(self):
        queue = queue_of({"a": wait_of(1.0, active=5), "b": wait_of(2.0, active=5)})
        at = timings.LONGEST_SLOT_PROBE_PAUSE
        queue.count(runs(5), at)
        assert queue.wake(at) == ["a"]
        queue.count(runs(5, first=1), at + timings.START_DELAY)
        assert queue.capacity == 5
        assert queue.wake(at + timings.START_DELAY) == []

    def test_probe_is_allowed_after_many_starts(self):
        queue = queue_of({str(number): wait_of(float(number)) for number in range(STARTS_PER_PROBE + 1)})
        woken = []
        for number in range(STARTS_PER_PROBE):
            at = READY + 3.0 * number
            queue.count(runs(9, first=number), at)
            woken.append(queue.wake(at))
        assert woken[:-1] == [[str(number)] for number in range(STARTS_PER_PROBE - 1)]
        # There is one slot, and the second one of them is the probe.
        assert woken[-1] == [str(STARTS_PER_PROBE - 1), str(STARTS_PER_PROBE)]

    def test_run_that_something_else_started_does_not_make_a_probe_succeed(self):
        queue = queue_of({"a": wait_of(1.0)})
        at = timings.LONGEST_SLOT_PROBE_PAUSE
        queue.count(runs(10), at)
        assert queue.wake(at) == ["a"]
        queue.count(runs(10, first=1), at + 3)
        queue.join("a", wait_of(1.0, refusals=2), at + 4)
        queue.count(runs(10, first=1), at + 2 * timings.START_DELAY)
        assert queue.capacity == 10

    def test_probe_that_comes_back_late_is_recognized(self):
        queue = queue_of({"a": wait_of(1.0)})
        at = timings.LONGEST_SLOT_PROBE_PAUSE
        queue.count(runs(10), at)
        assert queue.wake(at) == ["a"]
        # Its pod took that long.
        queue.join("a", wait_of(1.0, refusals=2), at + 25)
        queue.count(runs(10), at + 25 + READY)
        assert queue.wake(at + 25 + READY) == []
        # The next one holds its slot longer than that.
        assert queue._hold == pytest.approx(37.5)

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
        queue = queue_of({"a": wait_of(active=10)})
        queue.leave("a", 1.0)
        later = 1.0 + timings.START_DELAY
        queue.join("b", wait_of(active=3), later)
        assert queue.capacity == 3


@dataclass
class Account:
    """A BrowserAct account with a queue in front of it, simulated in steps of a tenth of a second.

    :param plan: how many runs it allows at once.
    :param duration: the shortest and the longest duration of a run, in seconds.
    :param one_at_a_time: runs of a workflow with a Standard Browser, of which one is accepted at a time.
    :param shown_after: seconds after which a new run is counted.
    """

    plan: int
    duration: tuple[float, float] = (20.0, 20.0)
    one_at_a_time: frozenset[str] = frozenset()
    shown_after: float = 0.0
    start_takes: float = 1.5
    queue: SlotQueue = field(default_factory=SlotQueue)
    now: float = 0.0
    active: dict[str, float] = field(default_factory=dict)
    started: list[tuple[float, str]] = field(default_factory=list)
    refused: list[tuple[float, str]] = field(default_factory=list)
    ends: dict[str, float] = field(default_factory=dict)
    queued: dict[str, Queued] = field(default_factory=dict)
    starting: dict[str, float] = field(default_factory=dict)
    idle: float = 0.0
    longest_idle: float = 0.0
    _next_count: float = 0.0
    _chance: random.Random = field(default_factory=lambda: random.Random(7))

    def submit(self, names, chance) -> None:
        for name in names:
            self.queued[name] = Queued(self.now, self.now)
            self.starting[name] = self.now + chance.uniform(0.0, 5.0)

    def play(self, seconds: float) -> None:
        """Let time pass."""
        end = self.now + seconds
        while self.now < end:
            self.now = round(self.now + 0.1, 1)
            self.active = {name: at for name, at in self.active.items() if self.now < self.ends[name]}
            for name in [name for name, at in self.starting.items() if at <= self.now]:
                del self.starting[name]
                self._start(name)
            if self.now >= self._next_count:
                self._look()
            unused = any(self._accepts(name) for name in self.queue.waiting)
            self.idle = self.idle + 0.1 if unused else 0.0
            self.longest_idle = max(self.longest_idle, self.idle)

    def _accepts(self, name: str) -> bool:
        alone = name in self.one_at_a_time and not self.one_at_a_time.isdisjoint(self.active)
        return len(self.active) < self.plan and not alone

    def _start(self, name: str) -> None:
        if self._accepts(name):
            self.active[name] = self.now
            self.ends[name] = self.now + self._chance.uniform(*self.duration)
            self.started.append((self.now, name))
            return
        self.refused.append((self.now, name))
        before = self.queued[name]
        self.queued[name] = replace(before, since=before.since if before.refusals else self.now).refused()
        source = "one at a time" if name in self.one_at_a_time else "other"
        wait = QueueWait(self.queued[name], 1e9, source=source, active=len(self.active))
        self.queue.join(name, wait, self.now)

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
        assert max(at for at, _ in account.started) <= 19 * account.duration[1] * 1.25 + 20

    def test_queue_follows_a_plan_that_shrinks_and_grows(self):
        account = Account(plan=10)
        account.submit([f"run {number}" for number in range(900)], random.Random(1))
        account.play(100)
        account.plan = 4
        account.play(300)
        refused = len(account.refused)
        account.play(300)
        # Only a probe from time to time.
        assert len(account.refused) - refused <= 3
        account.plan = 12
        account.play(700)
        started = len(account.started)
        account.play(200)
        # Ten waves of twelve runs, with some time between them.
        assert len(account.started) - started >= 0.8 * 10 * 12

    def test_no_slot_is_unused_for_a_minute_while_something_waits(self):
        account = Account(plan=5, duration=(5.0, 60.0))
        account.submit([f"run {number}" for number in range(150)], random.Random(2))
        account.play(1500)
        assert account.queue.waiting == {}
        assert account.longest_idle < 30

    def test_workflow_that_runs_one_at_a_time_leaves_the_other_slots_to_others(self):
        alone = [f"alone {number}" for number in range(20)]
        account = Account(plan=5, duration=(20.0, 40.0), one_at_a_time=frozenset(alone))
        account.submit(alone, random.Random(3))
        account.play(10)
        account.submit([f"other {number}" for number in range(200)], random.Random(4))
        account.play(900)
        others = sum(name.startswith("other") for _, name in account.started)
        # With one slot for the others less, four slots would allow 120.
        assert others >= 85
        assert sum(name.startswith("alone") for _, name in account.started) >= 10
        assert account.longest_idle < 60
