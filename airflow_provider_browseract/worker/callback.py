"""The callback of a run: add our address to the request, and store how to recognize the callback."""

from __future__ import annotations

from typing import Any

from airflow.sdk.log import mask_secret

from airflow_provider_browseract.exceptions import InputError, NoCallbackError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow.showing import show_wait
from airflow_provider_browseract.loops import Log
from airflow_provider_browseract.runs.callback_url import TaskInstanceKey, address, new_token
from airflow_provider_browseract.runs.options import RunOptions
from airflow_provider_browseract.runs.request import RunRequest


def with_callback(request: RunRequest, ti: Any, hook: BrowserActHook, options: RunOptions, log: Log) -> RunRequest:
    """Return a request with our callback address in addition to the user's, or the same one if the run is polled.

    :param hook: the hook, whose connection has the public address of the API server.
    :raises InputError: ``webhook=True``, but a callback is not possible.
    """
    if options.webhook is False or not options.waits_deferred:
        return request
    settings = hook.settings
    if settings.webhook_base_url is None:
        if options.webhook:
            raise InputError(
                f"webhook=True needs webhook_base_url in the extra of connection {hook.browseract_conn_id!r}: the "
                "public address of the Airflow API server."
            )
        return request
    key = TaskInstanceKey(ti.dag_id, ti.run_id, ti.task_id, -1 if ti.map_index is None else ti.map_index)
    token = new_token()
    try:
        if request.callback_url and request.status_change_callback_url:
            raise NoCallbackError(
                "callback_url and status_change_callback_url are both set, so there is no place for the callback "
                "address that resumes this task"
            )
        url = address(
            settings.webhook_base_url,
            key,
            token,
            conn_id=hook.browseract_conn_id,
            api_base_url=settings.base_url,
        )
    except NoCallbackError as error:
        if options.webhook:
            raise InputError(f"{error}. Change that, or remove webhook=True to let the task poll.") from None
        log.info("%s. This task polls.", error)
        return request
    return request.with_callback(url, token)


def register(request: RunRequest, ti: Any, log: Log) -> bool:
    """Store how to recognize the callback of a run before the run is started.

    The callback may arrive even before the response to the start.

    :returns: whether the run can be started with its callback.
    """
    if request.callback_token is None:
        return True
    mask_secret(request.callback_token)
    if show_wait(ti, request.callback_token_sha256, {"waits_for": "callback"}, log):
        return True
    log.warning("This task polls, because no callback can resume it without the XCom 'wait'.")
    return False
