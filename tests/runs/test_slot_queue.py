from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.queueing import Active, QueueWait, versions_to_count
from airflow_provider_browseract.runs.slot_queue import PROBE_GROWTH, STARTS_PER_PROBE, SlotQueue
from tests.cases import cases

from .queue_model import World, wait_of

WORKFLOWS = versions_to_count(ApiVersion.V2)
ALL_RUNS = versions_to_count(ApiVersion.V3)
READY = timings.QUEUE_RACE_GRACE

PROBE = timings.LONGEST_SLOT_PROBE_PAUSE
FOLLOW, BLIND = timings.FOLLOW_DELAY, timings.SLOT_PROBE_PAUSE
REFUSED_WITH_429 = {"1": wait_of(2.0, pause=30.0), "0": wait_of(1.0, pause=20.0), "slot": wait_of(0.0)}
SEEDS = pytest.mark.parametrize("seed", range(5))


def runs(number: int, first: int = 0) -> Active:
    return Active(number, frozenset(str(first + each) for each in range(number)))


def queue_of(waits: dict[str, QueueWait]) -> SlotQueue:
    queue = SlotQueue()
    for key, wait in waits.items():
        queue.join(key, wait, 0.0)
    return queue


def in_order(number: int, **fields: Any) -> dict[str, QueueWait]:
    """Return the waits of so many task instances, "0" and so on, in the order of their places."""
    return {str(each): wait_of(float(each), **fields) for each in range(number)}


def look(queue: SlotQueue, at: float, active: int | Active | None, *woken: str) -> None:
    queue.count(runs(active) if isinstance(active, int) else active, at)
    assert queue.wake(at) == [*woken]


def test_higher_priority_weight_goes_first_then_the_earlier_dag_run_then_the_earlier_try():
    later = replace(wait_of(10.0), queued=replace(wait_of(10.0).queued, began=20.0))
    queue = queue_of({"new": wait_of(30.0), "later": later, "old": wait_of(10.0), "urgent": wait_of(40.0, priority=5)})
    assert queue.order() == ["urgent", "old", "later", "new"]


@cases(
    {
        "one for each free slot": (in_order(5), [(READY, 8, "0", "1"), (READY, 8)]),
        "not within the grace after the deferral": (in_order(1), [(READY - 1, 9), (READY, 9, "0")]),
        # The run of "0" is there, and another one has ended.
        "slot is taken until the run is counted": (
            in_order(2),
            [(READY, 9, "0"), (READY + 3, 9), (READY + 6, runs(9, first=1), "1")],
        ),
        "slot of one that never starts": (in_order(2), [(READY, 9, "0"), (READY + timings.START_DELAY, 9, "1")]),
        "runs cannot be counted": (in_order(1), [(READY, None)]),
        "accepted starts without counts": (
            in_order(9),
            [(BLIND, None, "0"), (BLIND + FOLLOW, None, "1", "2"), (BLIND + 2 * FOLLOW, None, "3", "4", "5")],
        ),
        "in order after a 429": (REFUSED_WITH_429, [(29.0, 3), (30.0, 3, "slot"), (30.0 + FOLLOW, 4, "0", "1")]),
        "pause of a wait that is not about slots": (in_order(1, pause=77.0), [(76.0, 0), (77.0, 0, "0")]),
        "probe that takes the slot of a run that ended": (
            in_order(2, active=5),
            [(PROBE, 5, "0"), (PROBE + timings.START_DELAY, runs(5, first=1))],
        ),
    },
)
def test_task_is_woken_only_for_a_slot_that_is_free(waits, looks):
    queue = queue_of(waits)
    for each in looks:
        look(queue, *each)


class TestWake:
    def test_start_of_a_paused_dag_teaches_nothing_about_other_starts(self):
        queue = SlotQueue()
        queue.join("paused", wait_of(), 0.0, "paused")
        look(queue, 9.0, 9, "paused")
        queue.join("paused", wait_of(refusals=2), 500.0, "paused")
        queue.remove("paused")
        for key in ("first", "second"):
            queue.join(key, wait_of(), 4000.0, "other")
        look(queue, 4010.0, 9, "first")
        look(queue, 4010.0 + timings.START_DELAY, 9, "second")

    def test_end_of_a_run_wakes_the_next_task_while_runs_cannot_be_counted(self):
        queue = queue_of(in_order(2))
        queue.count(None, READY)
        queue.run_ended()
        assert queue.wake(READY) == ["0"]
        assert queue.wake(READY) == []

    def test_new_tasks_that_are_refused_with_429_do_not_delay_the_queue(self):
        queue = queue_of({"first": wait_of(0.0, pause=15.0)})
        for at in (3.0, 6.0, 9.0, 12.0):
            queue.join(f"new {at}", wait_of(at, pause=15.0), at)
            assert not queue.wants_count(at)
            look(queue, at, 3)
        look(queue, 15.0, 3, "first")

    def test_ends_of_runs_during_the_pause_after_a_429_wake_only_one_task_after_it(self):
        queue = queue_of({"first": wait_of(active=None, pause=60.0)})
        queue.count(None, 1.0)
        for number in range(20):
            queue.run_ended()
            queue.join(f"later {number}", wait_of(number + 1.0, active=None), 2.0)
        for second in range(4, 60):
            look(queue, float(second), None)
        look(queue, 60.0, None, "first")


class TestCapacity:
    def test_largest_number_of_active_runs_is_the_capacity_until_nothing_waits(self):
        queue = queue_of({"a": wait_of(1.0, active=9), "b": wait_of(2.0, active=10), "c": wait_of(3.0, active=8)})
        assert queue.capacity == 10
        queue.count(runs(12), 1.0)
        assert queue.capacity == 12
        for key in "abc":
            queue.remove(key)
        queue.join("d", wait_of(active=3), 1.0 + timings.START_DELAY)
        assert queue.capacity == 3

    def test_first_refusal_of_a_new_try_is_not_unexpected(self):
        queue = queue_of(in_order(2))
        for at in (1.0, 2.0, 3.0):
            # It is cleared while it waits.
            queue.remove("0")
            queue.join("0", wait_of(at, refusals=1, active=3), at + 0.5)
        assert queue.capacity == 10
        assert queue.next_count(3.5) <= READY

    def test_first_refusal_after_a_wait_for_the_budget_counts_for_the_probe(self):
        queue = queue_of({"first": wait_of(refusals=0, active=None)})
        queue.count(runs(0), READY)
        probed_at = READY + BLIND
        assert queue.wake(probed_at) == ["first"]
        queue.join("first", wait_of(refusals=1, active=0), probed_at + 1)
        look(queue, probed_at + BLIND + 2, 0)
        look(queue, probed_at + PROBE_GROWTH * BLIND + 2, 0, "first")

    def test_probe_is_allowed_after_many_starts(self):
        queue = queue_of(in_order(STARTS_PER_PROBE + 1))
        for number in range(STARTS_PER_PROBE - 1):
            look(queue, READY + 3.0 * number, runs(9, first=number), str(number))
        # There is one slot, and the second one of them is the probe.
        last = STARTS_PER_PROBE - 1
        look(queue, READY + 3.0 * last, runs(9, first=last), str(last), str(last + 1))

    def test_run_that_something_else_started_does_not_make_a_probe_succeed(self):
        queue = queue_of(in_order(1))
        look(queue, PROBE, 10, "0")
        queue.count(runs(10, first=1), PROBE + 3)
        queue.join("0", wait_of(0.0, refusals=2), PROBE + 4)
        queue.count(runs(10, first=1), PROBE + 2 * timings.START_DELAY)
        assert queue.capacity == 10

    def test_probe_that_comes_back_late_is_recognized(self):
        queue = queue_of(in_order(1))
        look(queue, PROBE, 10, "0")
        # Its pod took that long.
        queue.join("0", wait_of(0.0, refusals=2), PROBE + 25)
        look(queue, PROBE + 25 + READY, 10)
        # The next one holds its slot longer than that.
        assert queue._hold == pytest.approx(37.5)

    def test_refusals_without_active_runs_are_probed_with_growing_pauses(self):
        queue, at = queue_of({"a": wait_of(active=0)}), 0.0
        probes: list[float] = []
        while len(probes) < 6:
            at += 1.0
            queue.count(runs(0), at)
            if queue.wake(at):
                probes.append(at)
                queue.join("a", wait_of(active=0, refusals=len(probes) + 1), at)
        pauses = [later - earlier for earlier, later in zip([0.0, *probes], probes, strict=False)]
        assert pauses[0] == timings.FIRST_SLOT_PAUSE
        assert pauses == sorted(pauses)
        assert pauses[-1] <= PROBE


class TestBothVersions:
    def test_all_runs_are_counted_from_the_first_bot_on_until_nothing_waits_any_more(self):
        queue = queue_of({"workflow": wait_of(active=12)})
        assert (queue.versions, queue.capacity) == (WORKFLOWS, 12)
        queue.count(runs(3), READY)
        queue.join("bot", wait_of(active=10, api_version=ApiVersion.V3), READY)
        # The three runs were counted without the others.
        assert (queue.versions, queue.capacity, queue.active) == (ALL_RUNS, 10, None)
        assert queue.wake(READY) == []
        look(queue, READY + 1, 9, "workflow")
        queue.free("workflow")
        # A number without the runs of bots changes nothing.
        queue.join("workflow", wait_of(active=11), READY + 2)
        assert queue.capacity == 10
        queue.remove("bot")
        assert queue.versions == ALL_RUNS
        queue.remove("workflow")
        queue.join("workflow", wait_of(active=4), READY + 3)
        assert (queue.versions, queue.capacity) == (WORKFLOWS, 4)

    def test_bot_refused_with_429_forgets_what_refusals_of_workflows_have_shown(self):
        queue = queue_of({"workflow": wait_of(active=4)})
        queue.join("bot", wait_of(1.0, active=None, pause=60.0, api_version=ApiVersion.V3), 0.0)
        # Nobody knows whether the plan has more than nine slots.
        look(queue, 60.0, 9, "workflow")


def played(number: int, plan: int, duration: float | tuple[float, float] = 30.0, **world: Any) -> World:
    made = World(plan, **world)
    made.submit(number, duration=duration)
    made.play()
    assert len(made.started) == number
    return made


class TestManyRuns:
    @SEEDS
    @cases("shown_after", {"counted at once": 0.0, "counted late": 4.0})
    def test_few_starts_are_refused_after_the_first_wave_and_few_overtake(self, seed, shown_after):
        world = played(200, 10, 20.0, shown_after=shown_after, seed=seed)
        waited = list(dict.fromkeys(ti for _, ti in world.refused))
        assert world.refusals_after_the_first() <= 0.05 * len(waited)
        places = world.places(waited)
        assert max(abs(place - expected) for place, expected in zip(places, sorted(places), strict=True)) <= world.plan
        # Twenty waves, of which each lasts at most a quarter longer than the runs.
        assert world.makespan <= 20 * 20.0 * 1.25 + 20

    def test_queue_follows_a_plan_that_shrinks_and_grows(self):
        world = World(10)
        world.submit(900, duration=20.0)
        world.play(100)
        world.plan = 4
        world.play(300)
        refused = len(world.refused)
        world.play(300)
        # Only a probe from time to time.
        assert len(world.refused) - refused <= 3
        world.plan = 12
        world.play(700)
        started = len(world.started)
        world.play(200)
        # Ten waves of twelve runs, with some time between them.
        assert len(world.started) - started >= 0.75 * 10 * 12

    def test_no_slot_is_unused_for_half_a_minute_while_something_waits(self):
        assert played(150, 5, (5.0, 60.0), seed=2).longest_unused < 30

    def test_workflow_that_runs_one_at_a_time_leaves_the_other_slots_to_others(self):
        world = World(5, one_at_a_time=frozenset({"alone"}), seed=3)
        alone = world.submit(20, duration=(20.0, 40.0), source="alone")
        world.play(10)
        others = world.submit(200, duration=(20.0, 40.0), source="other")
        world.play(900)
        # With one slot for the others less, four slots would allow 120.
        assert len(world.places(others)) >= 85
        assert len(world.places(alone)) >= 10

    @SEEDS
    @cases("shared_runs", {"each version lists all runs": True, "each lists only its own": False})
    @cases("pause", {"all at once": 0.0, "bots join later": 50.0})
    def test_40_bots_and_40_workflows_share_the_slots_of_a_plan(self, seed, shared_runs, pause):
        world = World(10, shared_runs=shared_runs, seed=seed)
        world.submit(40, duration=20.0)
        world.play(pause)
        world.submit(40, duration=20.0, dag_id="bots", source="bot", api_version=ApiVersion.V3)
        world.play()
        assert len(world.started) == 80
        assert world.makespan <= 1.25 * 80 / 10 * 20.0
        assert world.refusals_after_the_first() <= 4

    @SEEDS
    def test_workflows_follow_a_plan_that_shrinks_after_bots_have_waited(self, seed):
        def refused(bots: ApiVersion) -> int:
            world = World(10, seed=seed)
            world.submit(30, duration=20.0, dag_id="bots", source="bot", api_version=bots, within=2.0)
            world.submit(400, duration=20.0, within=20.0)
            world.play(100)
            world.plan = 5
            return world.play(400).refusals_after_the_first()

        assert refused(ApiVersion.V3) <= refused(ApiVersion.V2) + 5


class TestDagThatDoesNotStart:
    """Its task instances are first in the queue, and the others have to get the slots."""

    @staticmethod
    def queued(seed: int, **world) -> World:
        made = World(1, seed=seed, **world)
        made.submit(1, dag_id="first", within=0.1)
        made.play(1)
        made.submit(7, dag_id="stuck", within=1.0)
        made.play(3)
        made.submit(20, dag_id="other", within=3.0)
        return made.play(10)

    @SEEDS
    def test_slot_is_unused_for_at_most_15_seconds_and_nobody_is_lost(self, seed):
        world = self.queued(seed)
        world.paused.add("stuck")
        world.play(3000)
        # All but the seven.
        assert len(world.started) == 21
        assert world.longest_unused <= 15
        # Every change of the slot takes some seconds.
        assert world.unused <= 20 * 7
        assert world.refusals_after_the_first() <= 3
        world.let_begin("stuck")
        world.play(3000)
        assert len(world.started) == 28

    def test_dag_that_starts_again_returns_to_its_place(self):
        world = self.queued(1)
        world.paused.add("stuck")
        world.play(120)
        started = len(world.started)
        world.let_begin("stuck")
        world.play()
        dags = [ti.dag_id for _, ti in world.started[started : started + 10]]
        # Some of the others may be starting.
        assert dags.count("stuck") == 7

    @SEEDS
    def test_slow_starts_of_two_dags_are_not_refused_again_and_again(self, seed):
        world = World(5, start_takes=(20.0, 40.0), seed=seed)
        world.submit(50, dag_id="a")
        world.submit(50, dag_id="b")
        world.play()
        assert len(world.started) == 100
        assert world.refusals_after_the_first() <= 15


@SEEDS
@pytest.mark.parametrize("triggerers", [1, 2])
def test_those_that_queued_early_are_among_the_first_of_110(seed, triggerers):
    world = World(5, triggerers=triggerers, seed=seed)
    world.submit(5, dag_id="a", within=0.1)
    world.play(1)
    early = world.submit(10, dag_id="b", within=2.0)
    world.play(3)
    world.submit(95, dag_id="a", within=3.0)
    world.play()
    assert len(world.started) == 110
    # Two triggerers do not know each other's queues, and wake two for one slot.
    assert max(world.places(early)) <= (30 if triggerers == 1 else 40)


@SEEDS
@pytest.mark.parametrize("ends_seen", [True, False])
def test_200_on_5_slots_take_at_most_half_as_long_again_without_counts(seed, ends_seen):
    without = played(200, 5, seed=seed, counts=False, ends_seen=ends_seen)
    assert without.makespan <= 1.5 * played(200, 5, seed=seed).makespan
    assert without.refusals_after_the_first() <= 80


@SEEDS
def test_200_starts_with_30_a_minute_neither_stampede_nor_starve(seed):
    world = played(200, 100, starts_per_minute=30, seed=seed)
    first_wave = 10.0
    tried = sorted(at for at, _ in world.started + world.refused if at > first_wave)
    assert max(sum(at <= other < at + 5.0 for other in tried) for at in tried) <= 20
    # The first 30 start at once, and the others need 6 minutes at least.
    assert world.makespan <= 1.8 * 360 + 30
    assert world.refusals_after_the_first() <= 110
