"""Errors of a start: which of them a retry can fix, and what happens to the run of an earlier try."""

from __future__ import annotations

from typing import NoReturn

from airflow_provider_browseract.api.arguments import InputError
from airflow_provider_browseract.api.errors import (
    AuthenticationError,
    BrowserActError,
    InsufficientCreditsError,
    RunStartUnknownError,
    UnknownRefusalError,
)
from airflow_provider_browseract.compat import AirflowFailException, AirflowNotFoundException
from airflow_provider_browseract.hooks.connection import no_connection
from airflow_provider_browseract.runs.ledger import STATE_KEY, Entry, LedgerError
from airflow_provider_browseract.runs.orphans import OrphanError
from airflow_provider_browseract.runs.outcome import RunLostError
from airflow_provider_browseract.worker.owned_run import OwnedRun
from airflow_provider_browseract.worker.tries import Tries


def fail_to_start(error: Exception, run: OwnedRun, tries: Tries, entry: Entry | None) -> NoReturn:
    """Raise an error that Airflow retries or does not retry, and that states what happens to the run of an earlier try.

    :param error: why there is no run to wait for.
    :param entry: what an earlier try has stored, if anything.
    """
    if isinstance(error, LedgerError):
        raise AirflowFailException(
            f"The state that an earlier try stored about its run cannot be used: {str(error).rstrip('.')}. Nothing "
            "was started or stopped.\nMake sure that no run is running. Then delete the key "
            f"{STATE_KEY} from the task state of this task instance, or set durable=False."
        ) from None
    message, final = _verdict(error, run, tries, entry)
    if (task_id := run.task_id) is not None:
        earlier = f"{message}\nBrowserAct task {task_id} of an earlier try: "
        left = None if final else run.leave_to_next_try(RunLostError(earlier))
        message = f"{earlier}{run.describe(left or run.stop_if('cancel_on_kill', task_id))}"
        if not final:
            raise RunLostError(message) from None
    elif final and entry is not None and entry.task_id is None:
        message = f"{message}\nAn earlier try may have started a run. {RunStartUnknownError.remedy}"
    if final:
        raise AirflowFailException(message) from None
    raise error


def _verdict(error: Exception, run: OwnedRun, tries: Tries, entry: Entry | None) -> tuple[str, bool]:
    """Return the message for an error, and whether retries are useless."""
    message = str(error)
    if isinstance(error, AirflowNotFoundException):
        # Airflow also raises this if its database or a secrets backend does not respond.
        return no_connection(run.hook.browseract_conn_id), entry is None
    if isinstance(error, InputError | OrphanError):
        return message, True
    if isinstance(error, RunStartUnknownError):
        # The next try knows the time of this start, and looks for the run again.
        return message, not tries.remembered
    if isinstance(error, InsufficientCreditsError):
        # Someone may add credits before the next try. Until then, a start costs nothing.
        return message, False
    if isinstance(error, UnknownRefusalError) and run.task_id is None:
        # Nobody knows what the code means, so a later try must not send the start once more.
        return message, bool(error.code or error.trace_id)
    if isinstance(error, BrowserActError):
        # A response of a gateway, a firewall or a maintenance page has no BrowserAct code, and is temporary.
        # An earlier run stays valuable whatever error the API returns.
        return message, not error.temporary and error.code is not None and entry is None
    if run.start_under_way and not tries.remembered:
        return f"{type(error).__name__}: {message.rstrip('.')}.\n{RunStartUnknownError.remedy}", True
    return message, False


def connection_may_change(error: Exception) -> bool:
    """Return whether a start failed because of the connection, and a change of the connection can fix that."""
    if isinstance(error, AuthenticationError):
        return error.code is not None
    return isinstance(error, AirflowNotFoundException)


def why_not_connected(error: Exception, conn_id: str) -> str:
    """Return why a start failed because of the connection, as a sentence for the log."""
    return error.brief if isinstance(error, BrowserActError) else no_connection(conn_id)


def timed_out_during_start(run: OwnedRun) -> AirflowFailException:
    """Return the error of a start that ``execution_timeout`` has interrupted, if no later try could look its run up."""
    return AirflowFailException(
        f"execution_timeout expired during the start of {run.source}. It is not known whether BrowserAct started a "
        f"run.\n{RunStartUnknownError.remedy}"
    )


def report_unknown_start(run: OwnedRun, tries: Tries) -> None:
    """Log that a start has failed which may have started a run, if one has."""
    if not run.start_under_way:
        return
    another = tries.another(RunStartUnknownError(""))
    run.log.error(
        "It is not known whether BrowserAct started a run. A run may be running and using credits. %s",
        "The next try looks for it." if another else RunStartUnknownError.remedy,
    )
    run.start_under_way = False
