"""The queue for slots: what a wait stores, how runs are counted, and who is offered the slot of an ended run."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.queueing import (
    MAX_LISTED,
    PAUSE_SPREAD,
    Active,
    Candidate,
    count_active,
    hand_over_order,
    pause_after,
)
from tests.cases import cases

from .queue_model import wait_of

BOTH = {ApiVersion.V3, ApiVersion.V2}


def page(ids, limit):
    return SimpleNamespace(total_count=len(ids), items=[SimpleNamespace(id=each) for each in ids[:limit]])


def account(ids_by_status):
    """Return an account whose active runs have these ids."""
    return lambda call: page(ids_by_status.get(call.params["status"], ""), call.params["limit"])


class TestCount:
    @staticmethod
    def play(account, versions=frozenset({ApiVersion.V2})) -> tuple[Active | None, list[str]]:
        """Return the count, and the names of its calls in order."""
        steps, found, sent = count_active(versions), None, []
        try:
            while True:
                call = steps.send(found)
                sent.append(call.name)
                found = account(call)
        except StopIteration as stop:
            return stop.value, sent

    def test_created_running_and_paused_runs_are_counted(self):
        found, sent = self.play(account({"created": "a", "running": "bc", "paused": "d"}))
        assert found == Active(4, frozenset("abcd"))
        assert sent == ["list-tasks"] * 4

    def test_run_whose_status_changes_during_the_count_is_counted_once(self):
        assert self.play(account({"created": "ab", "running": "bc"}))[0] == Active(3, frozenset("abc"))

    def test_missing_total_means_that_the_number_is_unknown(self):
        assert self.play(lambda call: SimpleNamespace(total_count=None, items=[]))[0] is None

    @pytest.mark.parametrize("shared", [True, False], ids=["each version lists all runs", "each lists only its own"])
    @cases(
        ("workflows", "bots"),
        {
            "no run": (0, 0),
            "only workflows": (7, 0),
            "only bots": (0, 7),
            "both": (5, 5),
            "more workflows than are listed": (150, 20),
            "more bots than are listed": (20, 150),
        },
    )
    @pytest.mark.parametrize("oldest_first", [True, False])
    def test_each_run_of_a_workflow_or_bot_is_counted_once(self, workflows, bots, shared, oldest_first):
        own = {
            "list-tasks": [f"workflow {number}" for number in range(workflows)],
            "page-runs": [f"bot {number}" for number in range(bots)],
        }
        everything = own["list-tasks"] + own["page-runs"]

        def answer(call):
            listed = (everything if shared else own[call.name]) if call.params["status"] == "running" else []
            # Nothing is documented about the order.
            in_order = listed[::-1] if oldest_first and call.name == "page-runs" else listed
            return page(in_order, call.params["limit"])

        found, sent = self.play(answer, BOTH)
        assert found is not None
        assert found.number == workflows + bots
        assert sent == ["list-tasks"] * 4 + ["page-runs"] * 4

    def test_missing_total_of_one_version_means_that_the_number_is_unknown(self):
        found, _ = self.play(
            lambda call: page("", MAX_LISTED) if call.name == "list-tasks" else SimpleNamespace(total_count=None), BOTH
        )
        assert found is None


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

    @pytest.mark.parametrize("bot_waits", [True, False])
    def test_refusals_that_counted_no_bots_push_nothing_back_while_a_bot_waits(self, bot_waits):
        refused = {"source": "alone", "refusals": 3, "active": 4}
        found = self.order(
            a=("conn", "d", 10.0, {"since": 0.0, **refused}),
            b=("conn", "d", 10.0, {"since": 1.0, **refused}),
            c=("conn", "d", 10.0, {"since": 2.0, "source": "other", "api_version": ApiVersion(f"v{2 + bot_waits}")}),
        )
        assert found[0] == ("a" if bot_waits else "c")

    def test_refusals_of_one_bot_although_slots_are_free_push_it_back(self):
        refused = {"source": "alone", "refusals": 3, "active": 4, "api_version": ApiVersion.V3}
        found = self.order(
            a=("conn", "d", 10.0, {"since": 0.0, **refused}),
            b=("conn", "d", 10.0, {"since": 1.0, **refused}),
            c=("conn", "d", 10.0, {"since": 2.0, "source": "other", "api_version": ApiVersion.V3}),
            d=("conn", "d", 10.0, {"since": 3.0, "source": "workflow"}),
        )
        assert found == ["c", "d", "a", "b"]

    def test_nothing_is_handed_over_while_browseract_receives_too_many_requests(self):
        limited = ("conn", "d", 20.0, {"since": 1.0, "pause": 15.0})
        assert self.order(a=limited, b=("conn", "d", 60.0, {"since": 0.0})) == []
