"""Read a run in a worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from airflow_provider_browseract.compat import AirflowNotFoundException
from airflow_provider_browseract.exceptions import BrowserActError
from airflow_provider_browseract.hooks.connection import unreadable
from airflow_provider_browseract.loops import send_all
from airflow_provider_browseract.runs.wait import poll_run

if TYPE_CHECKING:
    from airflow_provider_browseract.api.models import ApiVersion, Task
    from airflow_provider_browseract.hooks.browseract import BrowserActHook


def look(hook: BrowserActHook, task_id: str, api_version: ApiVersion | None) -> Task | BrowserActError:
    """Read a run (:func:`poll_run`); return the error if that fails, also if Airflow does not find the connection.

    :raises InputError: the connection or the id cannot be used.
    """
    try:
        return send_all(poll_run(task_id, api_version), hook.client)
    except BrowserActError as error:
        return error
    except AirflowNotFoundException as error:
        return unreadable(hook.browseract_conn_id, error)
