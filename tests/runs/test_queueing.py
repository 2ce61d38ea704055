from __future__ import annotations

from types import SimpleNamespace

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.errors import ServerError
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.queueing import PAUSE_SPREAD, Queued, QueueWait, Slots, pause_after, wait_for_slot
from airflow_provider_browseract.runs.steps import Sleep


class Clock:
    """A clock that the pauses move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def play(clock, slots, active, *, capacity=10, pause=timings.FIRST_SLOT_PAUSE, until=10_000.0):
    """Run the steps against an account; return the moment at which the wait ended and the number of calls.

    :param active: the active runs, by the moment; an error to raise, or None for an account without a count.
    """
    wait = QueueWait(Queued(1000.0), capacity, pause, until)
    steps = wait_for_slot(slots, wait, clock, lambda: 0.5)
    calls = 0
    try:
        step = next(steps)
        while True:
            if isinstance(step, Sleep):
                clock.now += step.seconds
                step = steps.send(None)
                continue
            assert isinstance(step, Call)
            calls += 1
            found = active(clock.now)
            if isinstance(found, Exception):
                step = steps.throw(found)
            else:
                # Two requests, one for each status that holds a slot.
                share = None if found is None else found if calls % 2 else 0
                step = steps.send(SimpleNamespace(total_count=share))
    except StopIteration:
        return clock.now - 1000.0, calls


class TestThePauseAfterARefusal:
    def test_pause_after_refused_starts_grows_up_to_a_limit(self):
        pauses = [pause_after(refusals, lambda: 0.0) for refusals in range(1, 20)]
        assert pauses[0] == timings.FIRST_SLOT_PAUSE
        assert pauses == sorted(pauses)
        assert pauses[-1] == timings.LONGEST_SLOT_PAUSE

    def test_pause_after_a_refused_start_has_random_jitter(self):
        assert pause_after(1, lambda: 1.0) == timings.FIRST_SLOT_PAUSE * (1 + PAUSE_SPREAD)


class TestWaitForSlot:
    def test_slot_wait_ends_when_fewer_runs_than_slots_keep_running(self):
        took, _ = play(Clock(), Slots(), lambda now: 10 if now < 1040 else 9)
        assert 40 <= took <= 40 + timings.FIRST_SLOT_PAUSE

    def test_slot_wait_does_not_poll_before_its_pause_is_over(self):
        took, calls = play(Clock(), Slots(), lambda now: 0, pause=33.0)
        assert (took, calls) == (33.0, 2)

    def test_slot_wait_ends_at_its_deadline(self):
        took, _ = play(Clock(), Slots(), lambda now: 10, until=1060.0)
        assert took == 60

    def test_slot_wait_ends_after_a_limit_even_when_no_slot_is_free(self):
        assert play(Clock(), Slots(), lambda now: 10)[0] == timings.LONGEST_SLOT_WAIT

    def test_slot_wait_ends_after_its_pause_when_runs_cannot_be_counted(self):
        assert play(Clock(), Slots(), lambda now: None)[0] == timings.FIRST_SLOT_PAUSE

    def test_slot_wait_continues_while_the_api_fails(self):
        took, _ = play(Clock(), Slots(), lambda now: ServerError("x") if now < 1040 else 9)
        assert 40 <= took <= 40 + timings.FIRST_SLOT_PAUSE

    def test_slot_wait_ends_after_its_pause_when_the_capacity_is_unknown(self):
        assert play(Clock(), Slots(), lambda now: 0, capacity=None) == (timings.FIRST_SLOT_PAUSE, 0)


class TestTasksWaitingTogether:
    def test_tasks_waiting_for_a_slot_share_one_count_of_runs(self):
        clock, slots = Clock(), Slots()
        slots.count(9, clock.now + timings.FIRST_SLOT_PAUSE)
        took, calls = play(clock, slots, lambda now: 9)
        assert (took, calls) == (timings.FIRST_SLOT_PAUSE, 0)

    def test_only_one_waiting_task_counts_runs_at_a_time(self):
        clock, slots = Clock(), Slots()
        wait = QueueWait(Queued(1000.0), capacity=10, pause=0.0, until=9e9)
        waiting = [wait_for_slot(slots, wait, clock, lambda: 0.5) for _ in range(3)]
        for steps in waiting:
            assert isinstance(next(steps), Sleep)
        assert isinstance(waiting[0].send(None), Call)
        assert isinstance(waiting[1].send(None), Sleep)
        waiting[0].close()
        assert isinstance(waiting[2].send(None), Call)

    def test_one_waiting_task_is_woken_for_each_free_slot(self):
        slots = Slots()
        slots.count(8, 0.0)
        assert [slots.take(10, 0.0) for _ in range(4)] == [True, True, False, False]

    def test_slot_taken_for_a_woken_task_is_free_again_if_its_run_is_not_counted_meanwhile(self):
        slots = Slots()
        slots.count(9, 0.0)
        assert slots.take(10, 0.0)
        assert not slots.take(10, timings.START_DELAY - 1)
        assert slots.take(10, timings.START_DELAY)

    def test_largest_capacity_seen_by_any_waiting_task_is_used(self):
        slots = Slots()
        slots.count(9, 0.0)
        assert not slots.take(9, 0.0)
        assert slots.take(10, 0.0)
        assert not slots.take(9, timings.START_DELAY - 1)
        assert slots.take(9, timings.START_DELAY)

    def test_shared_count_of_runs_expires_after_a_while(self):
        slots = Slots()
        assert not slots.is_fresh(0.0)
        slots.count(3, 0.0)
        assert slots.is_fresh(timings.SLOT_COUNT_LIFETIME / 2)
        assert not slots.is_fresh(timings.SLOT_COUNT_LIFETIME)
