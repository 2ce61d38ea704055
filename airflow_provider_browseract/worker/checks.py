"""Check the arguments of a run before it is started and costs credits."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk.log import mask_secret

from airflow_provider_browseract.api.calls import NOT_PUBLISHED
from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.compat import AIRFLOW_V_3_3_PLUS, AirflowSkipException, is_secret
from airflow_provider_browseract.exceptions import (
    AuthenticationError,
    BrowserActError,
    ConnectionFailedError,
    InputError,
    NotFoundError,
    UnexpectedResponseError,
)
from airflow_provider_browseract.hooks.connection import check_for_start
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.runs.addresses import read_output_path
from airflow_provider_browseract.runs.callback_url import address, new_token
from airflow_provider_browseract.runs.hints import check_rendered
from airflow_provider_browseract.runs.options import RunOptions
from airflow_provider_browseract.runs.request import RunRequest, secret_parts, without_secrets
from airflow_provider_browseract.worker.inputs import check_region
from airflow_provider_browseract.worker.run import Run

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_browseract.hooks.browseract import BrowserActHook
    from airflow_provider_browseract.operators.base import RunOperator
    from airflow_provider_browseract.runs.steps import Log


def mask_secrets(operator: RunOperator, inputs: Any) -> bool:
    """Mask secret inputs, and the paths of the user's callback addresses, in the log and in Airflow's UI.

    :returns: whether there are secret inputs.
    """
    found: set[str] = set()
    # The checks of the arguments report whatever fails here.
    with tolerate_errors():
        without_secrets(inputs, is_secret, found)
    secret_inputs = bool(found)
    for url in (operator.callback_url, operator.status_change_callback_url):
        found |= secret_parts(url)
    if found:
        mask_secret([*sorted(found)])
    return secret_inputs


def read_request(operator: RunOperator, context: Context) -> RunRequest:
    """Check the rendered arguments, which needs no other service, and return the request.

    From then on, the hook knows whether the run has secret inputs.

    :raises InputError: an argument cannot be used.
    """
    operator.prepare(context)
    # From now on, this process knows the inputs, and masks the secret ones.
    operator.hook.hiding = replace(operator.hook.hiding, texts=False)
    operator.hide_secrets()
    for name, given in operator.given.items():
        rendered = getattr(operator, name)
        if isinstance(given, list | tuple) and isinstance(rendered, Mapping):
            rendered = [{"name": key, "value": value} for key, value in rendered.items()]
        check_rendered(name, given, rendered)
    if operator.output_path is not None:
        read_output_path(operator.output_path)
    request = operator.request()
    # A value can also be a lazy sequence, which only the request has read.
    operator.hook.hiding = replace(operator.hook.hiding, secret_inputs=mask_secrets(operator, request.inputs))
    return request


def check_before_start(
    operator: RunOperator, run: Run, request: RunRequest, *, validate_inputs: bool, again: bool = False
) -> RunRequest:
    """Check what takes requests to other services: the store and the inputs. Return the request to send.

    :param again: this was checked before the wait for a slot.
    """
    hook, log = operator.hook, operator.log
    check_for_start(hook.settings)
    run.unconverted = False
    if not again:
        if operator.durable is True and not AIRFLOW_V_3_3_PLUS:
            log.warning("durable=True has no effect: before 3.3, Airflow keeps no state of a run for the next try.")
        if operator.output_path is not None:
            from airflow_provider_browseract.worker.conclude import open_store

            open_store(operator).folder.check("No run was started.")
    if not validate_inputs:
        return request
    try:
        request = operator.check_inputs(request, again=again)
        if not again:
            check_region(request, hook, log)
        return request
    # The start would fail in the same way, or would reach something that is not BrowserAct. A failed connection would
    # also be retried for as long again.
    except (NotFoundError, AuthenticationError, ConnectionFailedError):
        raise
    except BrowserActError as error:
        if error.code == NOT_PUBLISHED or (isinstance(error, UnexpectedResponseError) and error.not_processed):
            raise
        log.warning("The inputs were not checked: %s", error.brief)
        run.unconverted = request.source.api_version is ApiVersion.V3
        return request


def end_dry_run(operator: RunOperator, request: RunRequest) -> NoReturn:
    """Log the request that would start the run, and skip the task."""
    operator.log.info(
        "Dry run: nothing is started. The request would be %s %s%s with %s",
        request.call.method,
        operator.hook.settings.base_url,
        request.call.path,
        json.dumps(request.shown(is_secret), ensure_ascii=False),
    )
    raise AirflowSkipException(f"Dry run: no run was started. It would have been a run of {operator.source}.")


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
