"""Why a try is killed, or a task instance has ended, as Airflow reports it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

from airflow_provider_browseract.compat import AIRFLOW_V_3_4_PLUS, DELETED, FINAL_STATES, task_instance_state
from airflow_provider_browseract.exceptions import RunLostError
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.worker.fate import Fate, Waiter

if TYPE_CHECKING:
    from airflow_provider_browseract.runs.log import Log
    from airflow_provider_browseract.worker.ledger import Ledger

REPLACED_BY = "Airflow considered this try dead and started another one"
CLEARED = "the Airflow task was cleared"

BY_A_PERSON = {
    "restarting": CLEARED,
    DELETED: "the task instance was deleted in Airflow",
    **dict.fromkeys(FINAL_STATES, "the Airflow task was set to a final state"),
}
"""What happened, by the state of a task instance that only a person can have caused while its try is running."""

REPLACED, REATTACHED = "replaced", "reattached"
"""Returned instead of a state if Airflow has started another try: which cannot find the run, or which can."""

NO_LATER_TRY = "no later try can reattach to the run (see retries, retry_policy and durable)"


def why_ended(ledger: Ledger) -> str | None:
    """Return how a person has ended the task instance after its deferral; None if the run is waited for."""
    state = task_instance_state(ledger.ti)
    # Airflow 3.4 deletes what was stored for a task that a person clears. Before 3.4, the next try finds the run.
    cleared = AIRFLOW_V_3_4_PLUS and state != "up_for_retry" and ledger.is_of_another_try()
    return BY_A_PERSON.get(state or "", CLEARED if cleared else None)


def why_killed(
    ledger: Ledger, log: Log, left_to: Callable[[Waiter], Fate], *, handed_over: bool, unstored: str | None
) -> tuple[str, Waiter | None, bool]:
    """Ask Airflow why this try is killed, and decide without its response if there is none.

    When a person marks or clears a task instance, Airflow first changes its state and then kills its process. If
    the state has not changed, something else ended the process: an evicted pod, a drained node, a stopped worker.

    :param left_to: returns the fate of the run if something waits for it.
    :param handed_over: the triggerer waits for the run, if Airflow has accepted the deferral.
    :param unstored: the run, if a later try cannot find it in the stored state.
    :returns: the reason as a clause; what waits for the run, if something does; whether a person ended the try.
    """
    another = ledger.another_try(RunLostError("The run keeps running."))
    waits = Waiter.IF_DEFERRED if handed_over else Waiter.IF_NEXT_TRY if another else None
    read = partial(_state_of, ledger, handed_over=handed_over, unstored=unstored)
    state = _ask_for_state(read, log, left_to(waits) if waits else None)
    if state in BY_A_PERSON:
        return BY_A_PERSON[state], None, True
    if state == "deferred":
        # After Airflow has accepted the deferral, the process still runs for a moment.
        return "the Airflow task has deferred", Waiter.TRIGGERER, False
    if state in (REPLACED, REATTACHED):
        return REPLACED_BY, Waiter.NEXT_TRY if state == REATTACHED else None, False
    reason = "SIGTERM ended the process; nobody had marked or cleared the task"
    if state is None:
        reason = "the Airflow task was killed; Airflow did not report why"
    elif waits is Waiter.IF_NEXT_TRY:
        waits = Waiter.NEXT_TRY
    return (reason, waits, False) if waits else (f"{reason}; {NO_LATER_TRY}", None, False)


def _state_of(ledger: Ledger, *, handed_over: bool, unstored: str | None) -> str | None:
    """Return the state of the task instance, or that another try has replaced this one."""
    state = task_instance_state(ledger.ti)
    # If this process has not deferred, another try has.
    if state in BY_A_PERSON or (state == "deferred" and handed_over):
        return state
    # Another try has another id. Airflow then no longer shows the state to this try.
    if not ledger.is_of_another_try():
        return state or ""
    # The other try may have found the run in the list of tasks.
    return REATTACHED if unstored in (None, ledger.own_xcom("task_id")) else REPLACED


def _ask_for_state(read: Callable[[], str | None], log: Log, left: Fate | None) -> str | None:
    """Return the state of the task instance; None if Airflow does not respond.

    The request may have to wait for the one that the kill has interrupted, or for an API server that is slow. If
    nothing would wait for the run, it is stopped whatever the state is, so it is not worth a long wait.

    :param left: the fate of the run if something waits for it.
    """
    limit = timings.KILL_LIMIT if left else timings.KILL_LIMIT / 2
    until = time.monotonic() + (timings.KILL_PATIENCE if left else limit)
    found, asking = ask_airflow(read, until)
    asking.join(limit)
    if not found and left:
        log.warning(
            "Killed. Airflow has not reported yet whether a person has ended the task. %s If no line below reports "
            "something else, this applies.",
            left.text,
        )
        asking.join(until - time.monotonic())
    return found[0] if found else None


def ask_airflow(read: Callable[[], str | None], until: float) -> tuple[list[str | None], threading.Thread]:
    """Ask Airflow in a thread, again if that fails, and return the list that receives the response."""
    found: list[str | None] = []

    def ask() -> None:
        while time.monotonic() < until:
            # The next request may succeed.
            with tolerate_errors():
                found.append(read())
                return
            time.sleep(timings.KILL_ASK_PAUSE)

    asking = threading.Thread(target=ask, name="browseract-reason-of-kill", daemon=True)
    asking.start()
    return found, asking
