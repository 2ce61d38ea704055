"""The queue for slots: what a wait stores, how runs are counted, and who is offered the slot of an ended run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.queueing import (
    PAUSE_SPREAD,
    Active,
    Candidate,
    count_active,
    hand_over_order,
    pause_after,
)

from .queue_model import wait_of


class TestCount:
    @staticmethod
    def play(pages):
        steps = count_active([ApiVersion.V2])
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


class TestOrderOfHandOvers:
    """To whom the API server offers the slot of a run of connection ``conn`` with the key ``k``."""

    @staticmethod
    def order(late=(), key_digest="k", **candidates):
        made = {
            name: Candidate(wait_of(**fields), conn_id, dag_id, age)
            for name, (conn_id, dag_id, age, fields) in candidates.items()
        }
        return hand_over_order(made, "conn", key_digest, late)

    def test_connections_with_the_same_key_share_one_queue(self):
        a = ("conn", "d", 60.0, {"since": 2.0, "key_digest": "k"})
        b = ("second", "d", 60.0, {"since": 1.0, "key_digest": "k"})
        other = ("third", "d", 60.0, {"since": 0.0, "key_digest": "another"})
        assert self.order(a=a, b=b, other=other) == ["b", "a"]

    def test_wait_or_run_of_an_older_version_shares_the_queue_of_its_connection(self):
        old, second = ("conn", "d", 60.0, {"since": 1.0}), ("second", "d", 60.0, {"since": 0.0})
        assert self.order(old=old, second=second) == ["old"]
        new = ("conn", "d", 60.0, {"since": 2.0, "key_digest": "k"})
        assert self.order(key_digest=None, old=old, second=second, new=new) == ["old", "new"]

    def test_dag_that_does_not_start_goes_last(self):
        late, other = ("conn", "late", 60.0, {"since": 1.0}), ("conn", "other", 60.0, {"since": 2.0})
        assert self.order(late=["late"], a=late, b=other) == ["b", "a"]
        assert self.order(a=late, b=other) == ["a", "b"]

    @pytest.mark.parametrize(
        ("active", "age", "first"),
        [(4, 10.0, "other"), (10, 10.0, "alone"), (4, timings.LONGEST_SLOT_PAUSE + 1, "alone")],
        ids=["although slots are free", "at a full plan, as after a forged callback", "long ago"],
    )
    def test_only_recent_refusals_of_one_workflow_although_slots_are_free_push_it_back(self, active, age, first):
        refused = {"source": "alone", "refusals": 3, "active": active}
        found = self.order(
            a=("conn", "d", age, {"since": 0.0, **refused}),
            b=("conn", "d", age, {"since": 1.0, **refused}),
            c=("conn", "d", 300.0, {"since": 2.0, "source": "other"}),
        )
        assert found[0] == ("c" if first == "other" else "a")

    def test_nothing_is_handed_over_while_browseract_receives_too_many_requests(self):
        limited = ("conn", "d", 20.0, {"since": 1.0, "pause": 15.0})
        assert self.order(a=limited, b=("conn", "d", 60.0, {"since": 0.0})) == []
