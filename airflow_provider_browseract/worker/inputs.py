"""Compare the arguments of a run with what BrowserAct declares, before the run is started and costs credits."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_browseract.api.calls import CODES, NOT_PUBLISHED
from airflow_provider_browseract.api.models import InputParameter, SourceInfo, one_line
from airflow_provider_browseract.api.versions import APIS, SOURCES, SourceKind
from airflow_provider_browseract.exceptions import BrowserActError, InputError
from airflow_provider_browseract.runs.hints import did_you_mean
from airflow_provider_browseract.runs.request import RunRequest, with_names_as_keys

if TYPE_CHECKING:
    from airflow_provider_browseract.hooks.browseract import BrowserActHook
    from airflow_provider_browseract.runs.steps import Log

NAME_LENGTH = 100
"""Characters of the name of a workflow, bot or template that are shown."""


def check_names(request: RunRequest, given: Any, hook: BrowserActHook, log: Log) -> RunRequest:
    """Compare the names of inputs with those that the workflow or template declares (``get-workflow``).

    :param given: the inputs before they became texts.
    :returns: the request with the name of its source.
    :raises InputError: a name is not declared, or a required input is missing.
    """
    if as_text := sent_as_text(given):
        # A list looks like one run for each element to somebody who has meant expand.
        log.info(
            "Sent as one JSON text, because inputs are texts: %s. To start a run for each element, use expand.", as_text
        )
    request, read = _read_source(request, hook)
    if read.input_parameters:
        compare_names(request.inputs, read.input_parameters, str(request.source))
    elif request.inputs:
        log.warning("The inputs were not checked: BrowserAct lists none for %s.", request.source)
    return request


def sent_as_text(given: Any) -> str:
    """Return which values of ``input_parameters`` are lists or dicts, and so are sent as JSON text."""
    named = with_names_as_keys(given)
    kinds = {}
    for name, value in named.items() if isinstance(named, Mapping) else ():
        if isinstance(value, Mapping | Sequence) and not isinstance(value, str | bytes):
            kinds[name] = "dict" if isinstance(value, Mapping) else "list"
    return ", ".join(f"input_parameters[{name!r}] (a {kind})" for name, kind in kinds.items())


def compare_names(given: Collection[str], declared: Sequence[InputParameter], what: str) -> None:
    """Compare the names of inputs with the declared ones.

    :param what: the workflow or template, for the message.
    :raises InputError: a name is not declared, or a required input is missing.
    """
    required = {each.name: each.default_enabled is False for each in declared}
    unknown = [f"{name!r}{did_you_mean(name, required)}" for name in given if name not in required]
    missing = [repr(name) for name in required if required[name] and name not in given]
    wrong = [
        f"{verb} name{'s' if len(names) > 1 else ''} {', '.join(names)}"
        for verb, names in (("has the unknown", unknown), ("lacks the required", missing))
        if names
    ]
    if wrong:
        inputs = ", ".join(f"{name} (required)" if required[name] else name for name in required)
        raise InputError(f"input_parameters {' and '.join(wrong)}. The inputs of {what} are: {inputs}.")


def conform_input(request: RunRequest, hook: BrowserActHook, log: Log, *, again: bool) -> RunRequest:
    """Compare the input of a bot with its schema (``query-bot``, ``query-template``), and return the request to send.

    :param again: this was logged before the wait for a slot.
    :raises InputError: the input is not what the schema asks for.
    """
    from airflow_provider_browseract.runs.schemas import SchemaUnusableError, conform

    request, read = _read_source(request, hook)
    source = request.source
    if source.kind is SourceKind.BOT and read.published_at is None and read.input_schema is None:
        kind, remedy = CODES[NOT_PUBLISHED]
        raise kind(f"The {source} is not published", code=NOT_PUBLISHED, remedy=remedy)
    if read.input_schema is None:
        log.warning("The inputs were not checked: BrowserAct has no schema for %s.", source)
        return request
    try:
        found = conform(request.inputs, read.input_schema, str(source))
    except SchemaUnusableError as error:
        log.warning("The inputs were not checked: the schema of %s cannot be used: %s.", source, error)
        return request
    if found.converted and not again:
        log.info("Converted to the types that %s declares: %s.", source, ", ".join(found.converted))
    if found.undeclared and not again:
        names = ", ".join(found.undeclared)
        log.warning("The schema of %s does not declare these names in input: %s.", source, names)
    return replace(request, inputs=found.input)


def _read_source(request: RunRequest, hook: BrowserActHook) -> tuple[RunRequest, SourceInfo]:
    """Read the declaration of what is run, and return the request with its name."""
    read: SourceInfo = hook.client.send(SOURCES[request.source.kind].read(request.source.id))
    return replace(request, source_name=one_line(read.name, NAME_LENGTH)), read


def check_region(request: RunRequest, hook: BrowserActHook, log: Log) -> None:
    """Look the proxy region up in the list of regions.

    :raises InputError: BrowserAct does not have it.
    """
    if request.region is None:
        return
    try:
        listed = hook.client.send(APIS[request.source.api_version].list_regions())
    except BrowserActError as error:
        log.warning("The region was not checked: %s", error.brief)
        return
    regions = {each.code: each.name for each in listed}
    if regions and request.region not in regions:
        known = ", ".join(f"{code} ({name})" if name else code for code, name in regions.items())
        raise InputError(f"region is {request.region!r}, which BrowserAct does not have. Use one of: {known}.")
