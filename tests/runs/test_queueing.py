from __future__ import annotations

from types import SimpleNamespace

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.errors import ServerError
from airflow_provider_browseract.runs.queueing import (
    FIRST_PAUSE,
    FRESH,
    LONGEST_LOOK,
    LONGEST_PAUSE,
    ON_THEIR_WAY,
    SPREAD,
    Slots,
    pause_after,
    wait_for_slot,
)
from airflow_provider_browseract.runs.waiting import Sleep


class Clock:
    """A clock that the pauses move."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def play(clock, slots, going, *, capacity=10, pause=FIRST_PAUSE, until=10_000.0):
    """Run the steps against an account; give the moment at which the wait ended and the number of calls.

    :param going: runs that go on, by the moment; an error to raise, or None for an account that does not tell.
    """
    steps = wait_for_slot(slots, capacity=capacity, pause=pause, until=until, clock=clock, chance=lambda: 0.5)
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
            found = going(clock.now)
            if isinstance(found, Exception):
                step = steps.throw(found)
            else:
                # Two questions, one for each status that holds a slot.
                share = None if found is None else found if calls % 2 else 0
                step = steps.send(SimpleNamespace(total_count=share))
    except StopIteration:
        return clock.now - 1000.0, calls


class TestThePauseAfterARefusal:
    def test_grows_up_to_a_limit(self):
        pauses = [pause_after(refusals, lambda: 0.0) for refusals in range(1, 20)]
        assert pauses[0] == FIRST_PAUSE
        assert pauses == sorted(pauses)
        assert pauses[-1] == LONGEST_PAUSE

    def test_is_spread(self):
        assert pause_after(1, lambda: 1.0) == FIRST_PAUSE * (1 + SPREAD)


class TestAWaitForRoom:
    def test_ends_when_fewer_runs_go_on_than_there_is_room_for(self):
        took, _ = play(Clock(), Slots(), lambda now: 10 if now < 1040 else 9)
        assert 40 <= took <= 40 + FIRST_PAUSE

    def test_does_not_look_before_its_pause(self):
        took, calls = play(Clock(), Slots(), lambda now: 0, pause=33.0)
        assert (took, calls) == (33.0, 2)

    def test_ends_with_its_time(self):
        took, _ = play(Clock(), Slots(), lambda now: 10, until=1060.0)
        assert took == 60

    def test_ends_after_a_while_though_the_count_shows_no_room(self):
        assert play(Clock(), Slots(), lambda now: 10)[0] == LONGEST_LOOK

    def test_ends_after_its_pause_where_nothing_can_be_counted(self):
        assert play(Clock(), Slots(), lambda now: None)[0] == FIRST_PAUSE

    def test_goes_on_while_the_api_fails_since_a_start_would_fail_too(self):
        took, _ = play(Clock(), Slots(), lambda now: ServerError("x") if now < 1040 else 9)
        assert 40 <= took <= 40 + FIRST_PAUSE

    def test_ends_after_its_pause_where_the_room_is_not_known(self):
        assert play(Clock(), Slots(), lambda now: 0, capacity=None) == (FIRST_PAUSE, 0)


class TestTasksThatWaitTogether:
    def test_count_once_for_all_of_them(self):
        clock, slots = Clock(), Slots()
        slots.count(9, clock.now + FIRST_PAUSE)
        took, calls = play(clock, slots, lambda now: 9)
        assert (took, calls) == (FIRST_PAUSE, 0)

    def test_count_once_also_while_the_answer_is_not_there_yet(self):
        clock, slots = Clock(), Slots()
        waiting = [
            wait_for_slot(slots, capacity=10, pause=0.0, until=9e9, clock=clock, chance=lambda: 0.5) for _ in range(3)
        ]
        for steps in waiting:
            assert isinstance(next(steps), Sleep)
        assert isinstance(waiting[0].send(None), Call)
        assert isinstance(waiting[1].send(None), Sleep)
        waiting[0].close()
        assert isinstance(waiting[2].send(None), Call)

    def test_are_woken_one_for_each_free_slot(self):
        slots = Slots()
        slots.count(8, 0.0)
        assert [slots.take(10, 0.0) for _ in range(4)] == [True, True, False, False]

    def test_take_a_slot_again_once_the_one_that_was_woken_shows_in_the_count_or_never_came(self):
        slots = Slots()
        slots.count(9, 0.0)
        assert slots.take(10, 0.0)
        assert not slots.take(10, ON_THEIR_WAY - 1)
        assert slots.take(10, ON_THEIR_WAY)

    def test_believe_the_largest_number_of_runs_that_any_of_them_has_seen(self):
        slots = Slots()
        slots.count(9, 0.0)
        assert not slots.take(9, 0.0)
        assert slots.take(10, 0.0)
        assert not slots.take(9, ON_THEIR_WAY - 1)
        assert slots.take(9, ON_THEIR_WAY)

    def test_count_anew_when_the_count_is_old(self):
        slots = Slots()
        assert not slots.is_fresh(0.0)
        slots.count(3, 0.0)
        assert slots.is_fresh(FRESH / 2)
        assert not slots.is_fresh(FRESH)
