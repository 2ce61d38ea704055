"""What happens to a run when Airflow kills its task: by the task instance's state, its next try and the settings."""

import pytest

from airflow_provider_browseract.exceptions import RunCanceledError, RunLostError
from tests.stories.player import KINDS, WAYS, Try

STATES = {
    "running": "continues",  # the worker is shut down, or its host disappears
    "up_for_retry": "continues",
    "queued": "continues",
    "scheduled": "continues",
    None: "continues",
    "failed": "is over",  # somebody has marked it
    "success": "is over",
    "skipped": "is over",
    "removed": "is over",
    "restarting": "is over",  # somebody has cleared it
}
"""The states of a task instance that is killed, and whether it continues with another try."""

KEPT, STOPPED = (RunLostError, "running"), (RunCanceledError, "canceled")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("retries", [3, 0])
@pytest.mark.parametrize("durable", [True, False], ids=["durable", "not durable"])
@pytest.mark.parametrize("cancel_on_kill", [True, False], ids=["cancel_on_kill", "no cancel_on_kill"])
@pytest.mark.parametrize("state", STATES)
def test_run_stops_unless_a_retry_or_the_author_keeps_it(state, cancel_on_kill, durable, retries, way, kind, player):
    reattached = STATES[state] == "continues" and durable and retries > 0
    error, status = KEPT if reattached or not cancel_on_kill else STOPPED
    found = player(kind, way)
    found.ti.max_tries = retries
    args = {"durable": durable, "cancel_on_kill": cancel_on_kill}
    found.play(Try(error, killed="read", state=state, args=args, runs=status))
    # Its id is known.
    assert "a run may be running" not in found.log
