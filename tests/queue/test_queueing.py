from types import SimpleNamespace

import pytest

from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.queue import queueing
from airflow_provider_browseract.queue.queueing import active_runs
from airflow_provider_browseract.runs import timings
from tests.helpers.steps import carry_out

BOTH = frozenset({ApiVersion.V3, ApiVersion.V2})


def page(ids, limit):
    return SimpleNamespace(items=[SimpleNamespace(id=each) for each in ids[:limit]])


def count(account, versions=frozenset({ApiVersion.V2})) -> tuple[frozenset[str], list[str]]:
    sent: list[str] = []

    def answer(call):
        sent.append(call.name)
        return account(call)

    return carry_out(active_runs(versions), answer), sent


def test_created_running_and_paused_runs_are_counted_once():
    # The status of one run changes during the count.
    by_status = {"created": "ab", "running": "bc", "paused": "d"}
    found, sent = count(lambda call: page(by_status.get(call.params["status"], ""), call.params["limit"]))
    assert found == frozenset("abcd")
    assert sent == ["list-tasks"] * 4


@pytest.mark.parametrize("shared", [True, False], ids=["each version lists all runs", "each lists only its own"])
@pytest.mark.parametrize(("workflows", "bots"), [(0, 0), (7, 0), (0, 7), (5, 5), (80, 20)])
def test_each_run_of_a_workflow_or_bot_is_counted_once(workflows, bots, shared):
    own = {
        "list-tasks": [f"workflow {number}" for number in range(workflows)],
        "page-runs": [f"bot {number}" for number in range(bots)],
    }
    everything = own["list-tasks"] + own["page-runs"]

    def answer(call):
        listed = (everything if shared else own[call.name]) if call.params["status"] == "running" else []
        return page(listed, call.params["limit"])

    found, sent = count(answer, BOTH)
    assert len(found) == workflows + bots
    assert sent == ["list-tasks"] * 4 + ["page-runs"] * 4


def test_pause_after_refused_starts_grows_up_to_a_limit_and_has_random_jitter():
    pauses = [queueing.pause_after(refusals, lambda: 0.0) for refusals in range(1, 20)]
    assert pauses[0] == timings.FIRST_SLOT_PAUSE
    assert pauses == sorted(pauses)
    assert pauses[-1] == timings.LONGEST_SLOT_PAUSE
    assert queueing.pause_after(1, lambda: 1.0) == timings.FIRST_SLOT_PAUSE * (1 + queueing.PAUSE_SPREAD)
