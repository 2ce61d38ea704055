"""Which errors no retry can cure."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_provider_browseract.compat import AirflowFailException, AirflowNotFoundException
from airflow_provider_browseract.exceptions import (
    AuthenticationError,
    BrowserActError,
    ConnectionFieldError,
    InputError,
    InsufficientCreditsError,
    InvalidRequestError,
    RunStartUnknownError,
    UnknownRefusalError,
)
from airflow_provider_browseract.hooks.connection import no_connection
from airflow_provider_browseract.spending.cap import CapUsedUpError

if TYPE_CHECKING:
    from airflow_provider_browseract.worker.own_run import OwnRun


@contextmanager
def no_retry_on_bad_arguments(conn_id: str) -> Iterator[None]:
    """Fail the task instance without retries if an argument is wrong or the connection does not exist."""
    try:
        yield
    except InputError as error:
        raise AirflowFailException(str(error)) from None
    except AirflowNotFoundException:
        raise AirflowFailException(no_connection(conn_id)) from None


def is_final(error: Exception, run: OwnRun, *, begun: bool) -> bool:
    """Return whether no retry can help after a failed start.

    :param begun: an earlier try has stored a start or a run.
    """
    if isinstance(error, ConnectionFieldError) and begun:
        # Someone may correct the field while the run of an earlier try is waited for.
        return False
    if isinstance(error, InputError | CapUsedUpError | AirflowFailException):
        return True
    if isinstance(error, RunStartUnknownError):
        # The next try knows the time of this start, and looks for the run again.
        return not run.ledger.is_kept
    if isinstance(error, BrowserActError):
        return _is_final_refusal(error, run, begun=begun)
    # Airflow also does not find a connection if its database or a secrets backend does not respond.
    unknown = run.starting or run.start_unknown
    return unknown and not run.ledger.is_kept and not isinstance(error, AirflowNotFoundException)


def _is_final_refusal(error: BrowserActError, run: OwnRun, *, begun: bool) -> bool:
    if isinstance(error, InsufficientCreditsError | AuthenticationError):
        # Someone may add credits or replace the key before the next try. Until then, a start costs nothing.
        return False
    if isinstance(error, UnknownRefusalError) and run.task_id is None:
        # Nobody knows what the code means, so a later try must not send the start once more.
        return bool(error.code or error.trace_id)
    # A response of a gateway, a firewall or a maintenance page has no BrowserAct code, and is temporary. An earlier run
    # stays valuable whatever error the API returns.
    if error.temporary or error.code is None or begun:
        return False
    return not (run.unconverted and isinstance(error, InvalidRequestError))
