"""Check the arguments of a run before it is started and costs credits."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

from airflow.sdk.log import mask_secret

from airflow_provider_browseract.api.calls import NOT_PUBLISHED
from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.compat import AIRFLOW_V_3_3_PLUS, AirflowSkipException, is_secret
from airflow_provider_browseract.exceptions import (
    AuthenticationError,
    BrowserActError,
    ConnectionFailedError,
    NotFoundError,
    UnexpectedResponseError,
)
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.connection import check_for_start
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.runs.addresses import read_output_path
from airflow_provider_browseract.runs.hints import check_rendered
from airflow_provider_browseract.runs.request import RunRequest, secret_parts, without_secrets
from airflow_provider_browseract.runs.steps import Log
from airflow_provider_browseract.worker.conclusion import open_store
from airflow_provider_browseract.worker.kinds import RunKind
from airflow_provider_browseract.worker.run import Run

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath


class Operator(Protocol):
    """What an execution uses of its operator, beside the attributes that :class:`RunOptions` reads."""

    callback_url: str | None
    status_change_callback_url: str | None
    output_path: str | ObjectStoragePath | None
    outlets: Any
    priority_weight: int
    max_credits: int | None
    durable: bool
    cancel_on_kill: bool
    _dry: bool
    given: dict[str, Any]
    """The templated arguments before rendering."""

    @property
    def hook(self) -> BrowserActHook: ...
    @property
    def log(self) -> Log: ...
    @property
    def kind(self) -> RunKind: ...
    @property
    def defer(self) -> Callable[..., Any]: ...
    def prepare(self, context: Context) -> None: ...
    def hide_secrets(self) -> bool: ...


def mask_secrets(operator: Operator, inputs: Any) -> bool:
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


def read_request(operator: Operator, context: Context) -> tuple[RunRequest, bool]:
    """Check the rendered arguments, which needs no other service.

    :returns: the request, and whether it has secret inputs.
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
    request = operator.kind.request(
        operator.hook,
        callback_url=operator.callback_url,
        status_change_callback_url=operator.status_change_callback_url,
    )
    # A value can also be a lazy sequence, which only the request has read.
    return request, mask_secrets(operator, request.inputs)


def check_before_start(
    operator: Operator, run: Run, request: RunRequest, *, validate_inputs: bool, again: bool = False
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
        if (store := open_store(operator.output_path, hook, log)) is not None:
            store.folder.check("No run was started.")
    if not validate_inputs:
        return request
    try:
        return operator.kind.check_inputs(request, hook, log, again=again)
    # The start would fail too, or go to something else than BrowserAct. Without a connection, it would be tried for as
    # long again.
    except (NotFoundError, AuthenticationError, ConnectionFailedError):
        raise
    except BrowserActError as error:
        if error.code == NOT_PUBLISHED or (isinstance(error, UnexpectedResponseError) and error.not_processed):
            raise
        log.warning("The inputs were not checked: %s", error.brief)
        run.unconverted = request.source.api_version is ApiVersion.V3
        return request


def end_dry_run(operator: Operator, request: RunRequest) -> NoReturn:
    """Log the request that would start the run, and skip the task."""
    operator.log.info(
        "Dry run: nothing is started. The request would be %s %s%s with %s",
        request.call.method,
        operator.hook.settings.base_url,
        request.call.path,
        json.dumps(request.shown(is_secret), ensure_ascii=False),
    )
    raise AirflowSkipException(f"Dry run: no run of {operator.kind.source} was started.")
