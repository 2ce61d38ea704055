"""The callback of a run: add our address to the request."""

from __future__ import annotations

from typing import Any

from airflow.sdk.log import mask_secret

from airflow_provider_browseract.exceptions import InputError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs.callback_url import address, new_token
from airflow_provider_browseract.runs.options import RunOptions
from airflow_provider_browseract.runs.request import RunRequest
from airflow_provider_browseract.runs.steps import Log


def with_callback(request: RunRequest, ti: Any, hook: BrowserActHook, options: RunOptions, log: Log) -> RunRequest:
    """Return a request with our callback address, or the same one if the run is polled.

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
    if options.has_own_callback:
        log.info("This task polls, because it has its own callback_url or status_change_callback_url.")
        return request
    token = new_token()
    mask_secret(token)
    of = {"conn_id": hook.browseract_conn_id, "api_base_url": settings.base_url}
    return request.with_callback(address(settings.webhook_base_url, ti.id, token, **of), token)
