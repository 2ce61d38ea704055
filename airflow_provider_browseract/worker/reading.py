"""Read a run, and fail without a retry where none can help."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from airflow_provider_browseract.api.models import ApiVersion, Task
from airflow_provider_browseract.compat import AirflowFailException, AirflowNotFoundException
from airflow_provider_browseract.exceptions import BrowserActError, InputError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.connection import no_connection, unreadable
from airflow_provider_browseract.loops import Log, run_steps
from airflow_provider_browseract.runs.resuming import Decision, WaitEvent, after_deferral
from airflow_provider_browseract.runs.waiting import poll_run


def get_run(hook: BrowserActHook, task_id: str, api_version: ApiVersion | None) -> Task:
    """Read a task; see :func:`poll_run`."""
    return run_steps(poll_run(task_id, api_version), hook.client, hook.log)


def get_task_or_error(hook: BrowserActHook, task_id: str, api_version: ApiVersion | None) -> Task | BrowserActError:
    """Read a task as :func:`get_run`; return the error if that fails, also if Airflow does not find the connection.

    :raises InputError: the connection or the id cannot be used.
    """
    try:
        return get_run(hook, task_id, api_version)
    except BrowserActError as error:
        return error
    except AirflowNotFoundException as error:
        return unreadable(hook.browseract_conn_id, error)


def decide_after_deferral(hook: BrowserActHook, event: WaitEvent, log: Log) -> tuple[Decision, Task | BrowserActError]:
    """Read a run after a deferral, and decide what to do next.

    :returns: the decision, and what was read.
    """
    seen = get_task_or_error(hook, event.wait.browseract_task_id, event.wait.api_version)
    decision, lines = after_deferral(event, seen, time.time())
    for line in lines:
        log.log(line.level, "%s", line.text)
    return decision, seen


@contextmanager
def no_retry_on_bad_arguments(conn_id: str) -> Iterator[None]:
    """Fail the task instance without retries if an argument is wrong or the connection does not exist."""
    try:
        yield
    except InputError as error:
        raise AirflowFailException(str(error)) from None
    except AirflowNotFoundException:
        raise AirflowFailException(no_connection(conn_id)) from None
