from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.runs import queueing, timings
from airflow_provider_browseract.runs.queueing import Active, Candidate, count_active, hand_over_order
from tests.cases import cases
from tests.steps import Played

from .queue_model import wait_of

BOTH = frozenset({ApiVersion.V3, ApiVersion.V2})


def page(ids, limit):
    return SimpleNamespace(total_count=len(ids), items=[SimpleNamespace(id=each) for each in ids[:limit]])


def count(account, versions=frozenset({ApiVersion.V2})) -> tuple[Active | None, list[str]]:
    played = Played(account).play(count_active(versions))
    return played.over, played.names


@pytest.mark.parametrize(
    ("by_status", "ids"),
    [({"created": "a", "running": "bc", "paused": "d"}, "abcd"), ({"created": "ab", "running": "bc"}, "abc")],
    ids=["each status", "status that changes during the count"],
)
def test_created_running_and_paused_runs_are_counted_once(by_status, ids):
    found, sent = count(lambda call: page(by_status.get(call.params["status"], ""), call.params["limit"]))
    assert found == Active(len(ids), frozenset(ids))
    assert sent == ["list-tasks"] * 4


@pytest.mark.parametrize("version", ["list-tasks", "page-runs"])
def test_missing_total_of_one_version_means_that_the_number_is_unknown(version):
    unknown = SimpleNamespace(total_count=None, items=[])
    assert count(lambda call: unknown if call.name == version else page("", 1), BOTH)[0] is None


@pytest.mark.parametrize("shared", [True, False], ids=["each version lists all runs", "each lists only its own"])
# In a list, there are at most 100.
@pytest.mark.parametrize(("workflows", "bots"), [(0, 0), (7, 0), (0, 7), (5, 5), (150, 20), (20, 150)])
@pytest.mark.parametrize("oldest_first", [True, False])
def test_each_run_of_a_workflow_or_bot_is_counted_once(workflows, bots, shared, oldest_first):
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

    found, sent = count(answer, BOTH)
    assert found is not None
    assert found.number == workflows + bots
    assert sent == ["list-tasks"] * 4 + ["page-runs"] * 4


def test_pause_after_refused_starts_grows_up_to_a_limit_and_has_random_jitter():
    pauses = [queueing.pause_after(refusals, lambda: 0.0) for refusals in range(1, 20)]
    assert pauses[0] == timings.FIRST_SLOT_PAUSE
    assert pauses == sorted(pauses)
    assert pauses[-1] == timings.LONGEST_SLOT_PAUSE
    assert queueing.pause_after(1, lambda: 1.0) == timings.FIRST_SLOT_PAUSE * (1 + queueing.PAUSE_SPREAD)


def candidate(since: float, conn_id: str = "conn", dag_id: str = "d", age: float = 60.0, **wait: Any) -> Candidate:
    return Candidate(wait_of(since, **wait), conn_id, dag_id, age)


def refused_before(other: Candidate, active: int = 4, age: float = 10.0, **wait: Any) -> dict[str, Candidate]:
    """Return two task instances whose workflow was refused several times, before one that waits for something else."""
    of_one = {"age": age, "source": "alone", "refusals": 3, "active": active, **wait}
    return {"a": candidate(0.0, **of_one), "b": candidate(1.0, **of_one), "c": other}


V3: dict[str, Any] = {"api_version": ApiVersion.V3}
OTHER, OTHER_BOT = candidate(2.0, age=10.0, source="other"), candidate(2.0, age=10.0, source="other", **V3)
OLD, SECOND, NEW = candidate(1.0), candidate(0.0, "second"), candidate(2.0, key_digest="k")
LAST = candidate(3.0, age=10.0)
ONE_OF_A_DAG = {"a": candidate(1.0, dag_id="late"), "b": candidate(2.0)}
SAME_KEY = {
    "a": candidate(2.0, key_digest="k"),
    "b": candidate(1.0, "second", key_digest="k"),
    "c": candidate(0.0, "third", key_digest="another"),
}


@cases(
    ("candidates", "how", "order"),
    {
        "connections with the same key share one queue": (SAME_KEY, {}, "ba"),
        "wait of an older version": ({"a": OLD, "b": SECOND}, {}, "a"),
        "run of an older version": ({"a": OLD, "b": SECOND, "c": NEW}, {"key_digest": None}, "ac"),
        "DAG that does not start": (ONE_OF_A_DAG, {"late": ["late"]}, "ba"),
        "DAG that starts": (ONE_OF_A_DAG, {}, "ab"),
        "refused although slots are free": (refused_before(OTHER), {}, "cab"),
        # As after a forged callback.
        "refused at a full plan": (refused_before(OTHER, active=10), {}, "abc"),
        "refused long ago": (refused_before(OTHER, age=timings.LONGEST_SLOT_PAUSE + 1), {}, "abc"),
        # The refusals counted no bots.
        "refused while a bot waits": (refused_before(OTHER_BOT), {}, "abc"),
        "bot refused although slots are free": ({**refused_before(OTHER_BOT, **V3), "d": LAST}, {}, "cdab"),
        "too many requests": ({"a": candidate(1.0, age=20.0, pause=15.0), "b": candidate(0.0)}, {}, ""),
    },
)
def test_slot_of_an_ended_run_is_offered_in_order_to_those_that_can_use_it(candidates, how, order):
    found = hand_over_order(candidates, "conn", how.get("key_digest", "k"), how.get("late", ()))
    assert "".join(found) == order
