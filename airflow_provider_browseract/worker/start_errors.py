"""Errors of a start: which of them a retry can fix, and what happens to the run of an earlier try."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

from airflow_provider_browseract.compat import AirflowFailException, AirflowNotFoundException, AirflowTaskTimeout
from airflow_provider_browseract.exceptions import (
    AuthenticationError,
    BrowserActError,
    InputError,
    InsufficientCreditsError,
    InvalidRequestError,
    RunLostError,
    RunStartUnknownError,
    UnknownRefusalError,
)
from airflow_provider_browseract.hooks.connection import no_connection
from airflow_provider_browseract.runs.cap import CapUsedUpError
from airflow_provider_browseract.runs.ledger import LedgerError, UnknownRunError
from airflow_provider_browseract.runs.orphans import OrphanError
from airflow_provider_browseract.worker.owned_run import OwnedRun
from airflow_provider_browseract.worker.tries import STATE_KEY, Tries


@contextmanager
def failing_to_start(run: OwnedRun, tries: Tries) -> Iterator[None]:
    """Start the run in this context. If that fails, state what happens to the run of an earlier try."""
    try:
        yield
    except Exception as error:  # noqa: BLE001 - it is raised again
        _fail_to_start(error, run, tries)
    except AirflowTaskTimeout:
        if tries.remembered or not run.start_under_way:
            raise
        # No later try can look the run up.
        raise AirflowFailException(
            f"execution_timeout expired during the start of {run.source}. It is not known whether BrowserAct started "
            f"a run.\n{RunStartUnknownError.remedy}"
        ) from None
    finally:
        if run.start_under_way:
            another = tries.another(RunStartUnknownError(""))
            run.log.error(
                "It is not known whether BrowserAct started a run. A run may be running and using credits. %s",
                "The next try looks for it." if another else RunStartUnknownError.remedy,
            )
            run.start_under_way = False


def _fail_to_start(error: Exception, run: OwnedRun, tries: Tries) -> NoReturn:
    """Raise an error that Airflow retries or not, and that states what happens to the run of an earlier try."""
    if isinstance(error, LedgerError):
        raise AirflowFailException(
            f"The state that an earlier try stored about its run cannot be used: {str(error).rstrip('.')}. Nothing "
            "was started or stopped.\nMake sure that no run is running. Then delete the key "
            f"{STATE_KEY} from the task state of this task instance, or set durable=False."
        ) from None
    if isinstance(error, UnknownRunError):
        raise AirflowFailException(str(error)) from None
    message, final = _verdict(error, run, tries)
    entry = tries.earlier
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
    if isinstance(error, AirflowNotFoundException):
        raise AirflowNotFoundException(message) from None
    raise error


def _verdict(error: Exception, run: OwnedRun, tries: Tries) -> tuple[str, bool]:
    """Return the message for an error, and whether retries are useless."""
    message = str(error)
    if isinstance(error, AirflowNotFoundException):
        # Airflow also raises this if its database or a secrets backend does not respond.
        return no_connection(run.hook.browseract_conn_id), False
    if isinstance(error, InputError | OrphanError | CapUsedUpError):
        return message, True
    if isinstance(error, RunStartUnknownError):
        # The next try knows the time of this start, and looks for the run again.
        return message, not tries.remembered
    if isinstance(error, InsufficientCreditsError | AuthenticationError):
        # Someone may add credits or replace the key before the next try. Until then, a start costs nothing.
        return message, False
    if isinstance(error, UnknownRefusalError) and run.task_id is None:
        # Nobody knows what the code means, so a later try must not send the start once more.
        return message, bool(error.code or error.trace_id)
    if isinstance(error, BrowserActError):
        # A response of a gateway, a firewall or a maintenance page has no BrowserAct code, and is temporary.
        # An earlier run stays valuable whatever error the API returns.
        if run.unconverted and isinstance(error, InvalidRequestError):
            return message, False
        return message, not error.temporary and error.code is not None and tries.earlier is None
    if run.start_under_way and not tries.remembered:
        return f"{type(error).__name__}: {message.rstrip('.')}.\n{RunStartUnknownError.remedy}", True
    return message, False
