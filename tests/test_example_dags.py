"""Each example, as it stands, run to its end against the emulator."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.usefixtures("airflow_database")


@pytest.fixture
def run(run_dag, browseract_emulator):
    """Run an example against workflows that take less than the grace."""
    from airflow.models import Pool

    from airflow_provider_browseract.emulator import LOG_IN, ORDERS, SEARCH

    Pool.create_or_update_pool("browseract", slots=5, description="", include_deferred=True)
    for workflow in (LOG_IN, ORDERS, SEARCH):
        browseract_emulator.emulator.set_workflow(workflow.id, duration=0.2)
    return run_dag


def test_the_search_hands_its_output_to_a_task(run, browseract_emulator):
    result = run("example_browseract_search")
    assert result.state == "success"
    assert len(result.xcom("search")) == 3
    assert result.xcom("cheapest") == min(result.xcom("search"), key=lambda row: row["price"])


def test_two_runs_reuse_the_profile_of_the_log_in(run, browseract_emulator):
    result = run("example_browseract_profile")
    assert result.state == "success"
    profile = result.xcom("log_in", "profile_id")
    tasks = browseract_emulator.emulator.tasks
    assert [task.profile_id for task in tasks] == [profile, profile, profile]
    assert result.xcom("orders") == result.xcom("orders_again")
    assert {order["customer"] for order in result.xcom("orders")} == {"ada"}


def test_each_keyword_has_a_run_of_its_own(run, browseract_emulator):
    result = run("example_browseract_keywords")
    assert result.state == "success"
    assert len(browseract_emulator.emulator.tasks) == 3
    assert len(result.xcom("titles")) == 6
