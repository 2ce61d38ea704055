"""Read a run, and fail without a retry where none can help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from airflow_provider_browseract.compat import AirflowFailException, AirflowNotFoundException
from airflow_provider_browseract.exceptions import BrowserActError, InputError
from airflow_provider_browseract.hooks.connection import no_connection, unreadable
from airflow_provider_browseract.loops import send_all
from airflow_provider_browseract.runs.log import Log
from airflow_provider_browseract.runs.wait import poll_run

if TYPE_CHECKING:
    from airflow_provider_browseract.api.models import ApiVersion, Task
    from airflow_provider_browseract.hooks.browseract import BrowserActHook


def look(hook: BrowserActHook, task_id: str, api_version: ApiVersion | None, log: Log) -> Task | BrowserActError:
    """Read a run (:func:`poll_run`); return the error if that fails, also if Airflow does not find the connection.

    :raises InputError: the connection or the id cannot be used.
    """
    try:
        return send_all(poll_run(task_id, api_version), hook.client)
    except BrowserActError as error:
        return error
    except AirflowNotFoundException as error:
        return unreadable(hook.browseract_conn_id, error)


@contextmanager
def no_retry_on_bad_arguments(conn_id: str) -> Iterator[None]:
    """Fail the task instance without retries if an argument is wrong or the connection does not exist."""
    try:
        yield
    except InputError as error:
        raise AirflowFailException(str(error)) from None
    except AirflowNotFoundException:
        raise AirflowFailException(no_connection(conn_id)) from None
