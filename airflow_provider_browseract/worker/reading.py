"""Read a run, and fail without a retry where none can help."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_browseract.api.arguments import InputError
from airflow_provider_browseract.api.errors import BrowserActError, ResponseTooLargeError
from airflow_provider_browseract.api.models import Task
from airflow_provider_browseract.compat import AirflowFailException, AirflowNotFoundException
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.connection import no_connection, unreadable


def get_run(hook: BrowserActHook, task_id: str) -> Task:
    """Read a task, or only its status if the task is too large to be read."""
    try:
        return hook.get_task(task_id)
    except ResponseTooLargeError as error:
        return Task(task_id, hook.get_task_status(task_id), unread=error.message)


def get_task_or_error(hook: BrowserActHook, task_id: str) -> Task | BrowserActError:
    """Read a task as :func:`get_run`; return the error if that fails, also if Airflow does not find the connection.

    :raises InputError: the connection or the id cannot be used.
    """
    try:
        return get_run(hook, task_id)
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
