"""Check the arguments of a run before it is started and costs credits."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk.log import mask_secret

from airflow_provider_browseract.api.fields import one_line
from airflow_provider_browseract.api.models import ApiVersion, InputParameter, SourceInfo
from airflow_provider_browseract.api.versions import SOURCES, SourceKind
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
from airflow_provider_browseract.runs.callback_url import address, new_token
from airflow_provider_browseract.runs.hints import RUN_BY, did_you_mean
from airflow_provider_browseract.runs.options import RunOptions
from airflow_provider_browseract.runs.request import ID_ARGUMENTS, RunRequest, Source, secret_parts, without_secrets
from airflow_provider_browseract.worker.own_run import OwnRun

if TYPE_CHECKING:
    from airflow_provider_browseract.hooks.browseract import BrowserActHook
    from airflow_provider_browseract.runs.log import Log


NAME_LENGTH = 100
"""Characters of the name of a workflow, bot or template that are shown."""


def mask_secrets(inputs: Any, *callback_urls: Any) -> bool:
    """Mask secret inputs, and the paths of the user's callback addresses, in the log and in Airflow's UI.

    :returns: whether there are secret inputs.
    """
    found: set[str] = set()
    # The checks of the arguments report whatever fails here.
    with tolerate_errors():
        without_secrets(inputs, is_secret, found)
    secret_inputs = bool(found)
    for url in callback_urls:
        found |= secret_parts(url)
    if found:
        mask_secret([*sorted(found)])
    return secret_inputs


def check_before_start(
    check_inputs: Callable[[RunRequest], RunRequest],
    run: OwnRun,
    options: RunOptions,
    request: RunRequest,
) -> RunRequest:
    """Check what takes requests to other services: the store and the inputs. Return the request to send.

    :param check_inputs: compares the inputs with what BrowserAct declares, and returns the request to send."""
    hook, log = run.hook, run.log
    check_for_start(hook.settings)
    run.unconverted = False
    if options.durable and not AIRFLOW_V_3_3_PLUS:
        log.warning("durable=True has no effect: before 3.3, Airflow keeps no state of a run for the next try.")
    if options.output_path is not None:
        from airflow_provider_browseract.worker.conclude import open_store

        open_store(options.output_path, hook.settings, log).folder.check("No run was started.")
    if not options.validate_inputs:
        return request
    try:
        return check_inputs(request)
    except BrowserActError as error:
        if _would_fail_the_start(error):
            raise
        log.warning("The inputs were not checked: %s", error.brief)
        run.unconverted = request.source.api_version is ApiVersion.V3
        return request


def _would_fail_the_start(error: BrowserActError) -> bool:
    """Return whether the start would fail in the same way, or would reach something that is not BrowserAct."""
    # Without a connection, the start would fail too, after another `retry_budget` seconds.
    elsewhere = isinstance(error, UnexpectedResponseError) and error.unusable is None
    return elsewhere or isinstance(error, NotFoundError | AuthenticationError | ConnectionFailedError)


def end_dry_run(run: OwnRun, request: RunRequest) -> NoReturn:
    """Log the request that would start the run, and skip the task."""
    run.log.info(
        "Dry run: nothing is started. The request would be %s %s%s with %s",
        request.call.method,
        run.hook.settings.base_url,
        request.call.path,
        json.dumps(request.shown(is_secret), ensure_ascii=False),
    )
    raise AirflowSkipException(f"Dry run: no run was started. It would have been a run of {run.source}.")


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
    url = address(settings.webhook_base_url, ti.id, token, **of)
    return replace(request, callback_url=url, callback_token=token)


# Compare the inputs with what BrowserAct declares


def check_names(request: RunRequest, hook: BrowserActHook, log: Log) -> RunRequest:
    """Compare the names of inputs with those that the workflow or template declares (``get-workflow``).

    :returns: the request with the name of its source.
    :raises InputError: a name is not declared, or a required input is missing.
    """
    request, read = _read_source(request, hook)
    if read.input_parameters:
        compare_names(request.inputs, read.input_parameters, str(request.source))
    elif request.inputs:
        log.warning("The inputs were not checked: BrowserAct lists none for %s.", request.source)
    return request


def compare_names(given: Collection[str], declared: Sequence[InputParameter], what: str) -> None:
    """Compare the names of inputs with the declared ones.

    :param what: the workflow or template, for the message.
    :raises InputError: a name is not declared, or a required input is missing.
    """
    required = {each.name: each.default_enabled is False for each in declared}
    wrong = [f"has the unknown name {name!r}{did_you_mean(name, required)}" for name in given if name not in required]
    wrong += [f"lacks the required name {name!r}" for name in required if required[name] and name not in given]
    if wrong:
        inputs = ", ".join(f"{name} (required)" if required[name] else name for name in required)
        raise InputError(f"input_parameters {' and '.join(wrong)}. The inputs of {what} are: {inputs}.")


def conform_input(request: RunRequest, hook: BrowserActHook, log: Log) -> RunRequest:
    """Compare the input of a bot with its schema (``query-bot``, ``query-template``), and return the request to send.

    :raises InputError: the input is not what the schema asks for.
    """
    from airflow_provider_browseract.runs.bot_input import SchemaUnusableError, conform

    request, read = _read_source(request, hook)
    source = request.source
    if read.input_schema is None:
        log.warning("The inputs were not checked: BrowserAct has no schema for %s.", source)
        return request
    try:
        found = conform(request.inputs, read.input_schema, str(source))
    except SchemaUnusableError as error:
        log.warning("The inputs were not checked: the schema of %s cannot be used: %s.", source, error)
        return request
    if found.converted:
        log.info("Converted to the types that %s declares: %s.", source, ", ".join(found.converted))
    if found.undeclared:
        names = ", ".join(found.undeclared)
        log.warning("The schema of %s does not declare these names in input: %s.", source, names)
    return replace(request, inputs=found.input)


def _read_source(request: RunRequest, hook: BrowserActHook) -> tuple[RunRequest, SourceInfo]:
    """Read the declaration of what is run, and return the request with its name."""
    source = request.source
    try:
        read: SourceInfo = hook.client.send(SOURCES[source.kind].read(source.id))
    except NotFoundError as error:
        if other := _kind_of(source, hook):
            operator = RUN_BY[ID_ARGUMENTS[other]]
            error.remedy = f"It is the id of a {other.value.replace('_', ' ')}, which {operator} runs. {error.remedy}"
        raise
    return replace(request, source_name=one_line(read.name, NAME_LENGTH)), read


def _kind_of(source: Source, hook: BrowserActHook) -> SourceKind | None:
    """Return the other kind of source that an id is of, if it is one."""
    # The same id can be a template of both versions.
    kinds = sorted(SourceKind, key=lambda kind: SOURCES[kind].api_version is not source.api_version)
    # The first error is reported, whatever happens here.
    with suppress(BrowserActError):
        for kind in kinds:
            if kind is not source.kind:
                with suppress(NotFoundError):
                    hook.client.send(SOURCES[kind].read(source.id))
                    return kind
    return None
