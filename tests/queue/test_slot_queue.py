from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest

from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.queue.queueing import QueueWait
from airflow_provider_browseract.queue.slot_queue import HOLD_FACTOR, SlotQueue
from airflow_provider_browseract.runs import timings
from tests.helpers.cases import cases

from .queue_model import World, wait_of

PROBE, HOLD, BLIND = timings.SLOT_PROBE_PAUSE, timings.START_DELAY, timings.BLIND_START_PAUSE
NEVER = 1e6
SEEDS = pytest.mark.parametrize("seed", range(5))


def runs(number: int, first: int = 0) -> frozenset[str]:
    return frozenset(str(first + each) for each in range(number))


def in_order(number: int, **fields: Any) -> dict[str, QueueWait]:
    """Return the waits of so many task instances, "0" and so on, in the order of their places."""
    return {str(each): wait_of(float(each), **fields) for each in range(number)}


def queue_of(waits: dict[str, QueueWait], slots: int = 0, probe_at: float = NEVER) -> SlotQueue:
    """Return a queue that knows how many slots the plan has, and when it tries whether there are more."""
    queue = SlotQueue()
    for key, wait in waits.items():
        queue.join(key, wait, 0.0, "dag")
    queue.slots, queue._probe_at = slots, probe_at
    return queue


def look(queue: SlotQueue, at: float, active: int | frozenset[str] | None, *woken: str) -> None:
    queue.count(runs(active) if isinstance(active, int) else active, at)
    assert queue.wake(at) == [*woken]


def test_higher_priority_weight_goes_first_then_the_earlier_dag_run_then_the_map_index_then_the_earlier_try():
    def with_(wait: QueueWait, **changes: Any) -> QueueWait:
        return replace(wait, queued=replace(wait.queued, **changes))

    waits = {
        "new": wait_of(30.0),
        "later": with_(wait_of(10.0), map_index=1, began=20.0),
        "old": with_(wait_of(10.0), map_index=1),
        "first": with_(wait_of(10.0), map_index=0, began=20.0),
        "urgent": wait_of(40.0, priority=5),
    }
    assert queue_of(waits).order(0.0) == ["urgent", "first", "old", "later", "new"]


OTHERS = [(1, 5), (4, runs(4, 9), "0"), (8, runs(5, 9)), (9, runs(4, 9), "1")]


@cases(
    ("one for each free slot", in_order(5), 10, [(1, 8, "0", "1"), (1, 8)]),
    # The run of "0" is there, and another one has ended.
    ("slot is taken until the run is counted", in_order(2), 10, [(1, 9, "0"), (4, 9), (7, runs(9, 1), "1")]),
    ("slot of one that never starts", in_order(2), 10, [(1, 9, "0"), (HOLD, 9), (1 + HOLD, 9, "1")]),
    ("no runs are counted", in_order(3), 10, [(1, None), (PROBE, None, "0"), (PROBE + BLIND, None, "1")]),
    ("first count without any run", in_order(2), 0, [(1, 0), (PROBE, 0, "0")]),
    ("more runs than slots are known", in_order(1), 2, [(1, 5), (4, 4, "0")]),
    # "0" shows that there is one more, so the next one is tried at once.
    ("probe that is accepted", in_order(3), 5, [(PROBE, 5, "0"), (PROBE + 4, 6, "1"), (PROBE + 5, 6)]),
    ("probe beside a free slot", in_order(3), 5, [(PROBE, 4, "0", "1"), (PROBE + 4, 5)]),
    ("runs of others", in_order(2), 5, OTHERS),
)
def test_task_is_woken_only_for_a_slot_that_is_free(waits, slots, looks):
    queue = queue_of(waits, slots, PROBE)
    for each in looks:
        look(queue, *each)


class TestRefusals:
    def test_refused_probes_follow_each_other_ever_more_slowly(self):
        queue, at, probes = queue_of(in_order(1), 5, PROBE), 0.0, list[float]()
        while len(probes) < 5:
            at += 1.0
            queue.count(runs(5), at)
            if queue.wake(at):
                probes.append(at)
                queue.join("0", wait_of(refusals=len(probes) + 1), at)
        pauses = [later - earlier for earlier, later in pairwise(probes)]
        assert pauses == [2 * PROBE, 4 * PROBE, timings.LONGEST_SLOT_PROBE_PAUSE, timings.LONGEST_SLOT_PROBE_PAUSE]

    def test_refusal_although_a_slot_seemed_free_means_one_slot_less(self):
        queue = queue_of(in_order(1), 5)
        look(queue, 1.0, 3, "0")
        queue.join("0", wait_of(refusals=2), 5.0)
        assert queue.slots == 4
        look(queue, 6.0, 4)

    @cases(("active runs", 5, 3), ("none", 1, 0))
    def test_there_are_never_fewer_slots_than_active_runs_and_never_less_than_one(self, slots, active):
        queue = queue_of(in_order(9), slots)
        for at in range(1, 400, 20):
            queue.count(runs(active), float(at))
            for key in queue.wake(float(at)):
                queue.join(key, wait_of(refusals=2), at + 5.0)
        assert queue.slots == max(active, 1)

    def test_source_that_alone_is_refused_waits_while_others_go_first(self):
        queue = queue_of({"alone": wait_of(source="alone"), **in_order(3, source="other")}, 5)
        look(queue, 1.0, 4, "alone")
        queue.join("alone", wait_of(source="alone", refusals=2), 5.0)
        assert queue.slots == 5
        look(queue, 6.0, 3, "0", "1")
        look(queue, 5.0 + 2 * timings.FIRST_SLOT_PAUSE, runs(4, 9), "alone")

    def test_probe_that_is_refused_while_runs_cannot_be_counted_delays_no_later_one(self):
        queue = queue_of(in_order(1), 5, PROBE)
        look(queue, PROBE, None, "0")
        queue.join("0", wait_of(refusals=2), PROBE + 5)
        look(queue, PROBE + BLIND, None, "0")


class TestStarts:
    def test_slow_start_that_is_refused_lets_the_next_ones_hold_their_slots_longer(self):
        queue = queue_of(in_order(2), 1)
        look(queue, 1.0, 0, "0")
        queue.join("0", wait_of(refusals=2), 21.0 + timings.QUEUE_RACE_GRACE)
        look(queue, 60.0, 0, "0")
        look(queue, 59.0 + HOLD_FACTOR * 20, 0)
        look(queue, 60.0 + HOLD_FACTOR * 20, 0, "1")

    def test_start_that_takes_longer_than_the_longest_teaches_nothing(self):
        queue = queue_of(in_order(2), 1)
        look(queue, 1.0, 0, "0")
        queue.join("0", wait_of(refusals=2), 1.0 + timings.LONGEST_START + timings.QUEUE_RACE_GRACE)
        look(queue, 200.0, 0, "0")
        look(queue, 200.0 + HOLD, 0, "1")

    def test_dag_whose_woken_task_does_not_start_goes_last_until_that_is_forgotten(self):
        queue = queue_of(in_order(2), 1)
        for number in (7, 8, 9):
            queue.join(str(number), wait_of(float(number)), 0.0, "other")
        look(queue, 1.0, 0, "0")
        look(queue, 1.0 + HOLD, 0, "7")
        assert queue.order(2.0 + HOLD) == ["8", "9", "1"]
        queue.free("7")
        look(queue, 1.0 + timings.START_FORGOTTEN, 0, "1")

    def test_new_run_counts_first_as_that_of_a_task_that_still_holds_a_slot(self):
        queue = queue_of(in_order(3), 1)
        look(queue, 1.0, 0, "0")
        look(queue, 1.0 + HOLD, 0, "1")
        look(queue, 5.0 + HOLD, 1)
        assert [*queue._starting] == ["0"]

    def test_woken_task_that_does_not_start_frees_its_slot(self):
        queue = queue_of(in_order(2), 1)
        look(queue, 1.0, 0, "0")
        queue.free("0")
        look(queue, 2.0, 0, "1")


def test_runs_of_bots_are_not_new_when_they_are_counted_for_the_first_time():
    queue = queue_of(in_order(1), 2)
    look(queue, 1.0, 1, "0")
    queue.join("bot", wait_of(api_version=ApiVersion.V3), 2.0)
    assert queue.versions == {ApiVersion.V2, ApiVersion.V3}
    look(queue, 3.0, runs(1) | {"of a bot"})
    assert "0" in queue._starting


def played(number: int, plan: int, duration: float = 30.0, **world: Any) -> World:
    made = World(plan, **world)
    made.submit(number, duration=duration)
    made.play()
    assert len(made.started) == number
    return made


class TestManyRuns:
    @SEEDS
    @cases(("counted at once", 0.0), ("counted late", 4.0))
    def test_few_starts_are_refused_after_the_first_wave_and_few_overtake(self, seed, shown_after):
        world = played(200, 10, 20.0, shown_after=shown_after, seed=seed)
        waited = list(dict.fromkeys(ti for _, ti in world.refused))
        assert world.refusals_after_the_first() <= 0.05 * len(waited)
        places = [place for place, (_, ti) in enumerate(world.started) if ti in waited]
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
        assert len(world.refused) - refused <= 4
        world.plan = 12
        world.play(700)
        started = len(world.started)
        world.play(200)
        # Ten waves of twelve runs, with some time between them.
        assert len(world.started) - started >= 0.75 * 10 * 12


@SEEDS
def test_200_starts_with_30_a_minute_neither_stampede_nor_starve(seed):
    world = played(200, 100, starts_per_minute=30, seed=seed)
    first_wave = 10.0
    tried = sorted(at for at, _ in world.started + world.refused if at > first_wave)
    # Those of a wave may end, and leave their slots, at the same moment.
    assert max(sum(at <= other < at + 5.0 for other in tried) for at in tried) <= 30
    # The first 30 start at once, and the others need 6 minutes at least.
    assert world.makespan <= 1.8 * 360 + 30
    assert world.refusals_after_the_first() <= 110
