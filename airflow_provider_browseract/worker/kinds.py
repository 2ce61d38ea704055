"""What can be run, and how that differs: a workflow or a bot of the account, or an official template."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from airflow_provider_browseract.api.arguments import is_missing, read_flag, read_id
from airflow_provider_browseract.api.calls import CODES, NOT_PUBLISHED
from airflow_provider_browseract.api.models import ApiVersion, one_line
from airflow_provider_browseract.api.versions import APIS, SOURCES, SourceKind
from airflow_provider_browseract.exceptions import BrowserActError, InputError
from airflow_provider_browseract.runs.request import (
    RunRequest,
    Source,
    check_names,
    json_texts_line,
    read_request,
)

if TYPE_CHECKING:
    from airflow_provider_browseract.api.models import Task
    from airflow_provider_browseract.hooks.browseract import BrowserActHook
    from airflow_provider_browseract.runs.steps import Log
    from airflow_provider_browseract.worker.start import Started


NAME_LENGTH = 100
"""Characters of the name of a workflow, bot or template that are shown."""


@dataclass(frozen=True)
class RunKind:
    """What is run, with the arguments that only some kinds of runs have, after rendering.

    :param inputs: ``input_parameters`` or ``input``.
    :param profile_given: whether the DAG has set a profile, which may have been rendered to nothing.
    """

    kind: SourceKind
    source_id: Any
    inputs: Any = field(repr=False)
    region: Any = None
    save_browser_data: bool = False
    profile_id: Any = None
    profile_given: bool = False

    @property
    def source(self) -> Source:
        """The workflow, bot or template."""
        return Source(self.kind, str(self.source_id))

    def request(self, hook: BrowserActHook, **callbacks: Any) -> RunRequest:
        """Check the arguments, and return the request.

        :param callbacks: the user's callback addresses.
        :raises InputError: an argument cannot be used.
        """
        read_flag("save_browser_data", self.save_browser_data)
        if self.profile_given and is_missing(self.profile_id):
            raise InputError(
                f"profile_id is {self.profile_id!r}. If it comes from a task, that task saved no profile: set "
                "save_browser_data=True there. Otherwise remove profile_id here."
            )
        if self.profile_given:
            read_id("profile_id", self.profile_id)
        return read_request(
            self.kind,
            self.source_id,
            self.inputs,
            save_browser_data=self.save_browser_data,
            profile_id=self.profile_id,
            region=self.region,
            api_base_url=hook.settings.base_url,
            **callbacks,
        )

    def check_inputs(self, request: RunRequest, hook: BrowserActHook, log: Log, *, again: bool) -> RunRequest:
        """Check what only the API knows, and return the request to send.

        The names of inputs are compared with those of the workflow or template (``get-workflow``), the input of a bot
        with its schema (``query-bot``, ``query-template``), and the region with the list of regions.

        :param again: this was checked before the wait for a slot, so only what changes the request is repeated.
        :raises InputError: an input or another argument is not what the API declares.
        """
        if request.source.api_version is ApiVersion.V3:
            request = _conformed(request, hook, log, again=again)
        elif not again:
            request = _check_names(request, self.inputs, hook, log)
        if not again:
            _check_region(request, hook, log)
        return request

    def profile_of(self, started: Started, task: Task | None) -> str | None:
        """Return the saved profile or, without one, the profile that the run started with; an empty string for neither.

        If the XCom were missing, Airflow would fail the task that reads it, with an error that names neither the
        profile nor save_browser_data.

        :param task: the run as the API returned it; None if it was not read.
        :returns: None for a kind of run without profiles.
        """
        if self.kind is not SourceKind.WORKFLOW:
            return None
        # Not every response to a start names the profile.
        saved = started.entry.profile_id or (task.profile_id if task and self.save_browser_data else None)
        return saved or str(self.profile_id or "").strip()


def _check_names(request: RunRequest, given: Any, hook: BrowserActHook, log: Log) -> RunRequest:
    """Compare the names of the inputs with the declared ones, and return the request with the name of its source.

    :param given: the inputs before they became texts.
    """
    if line := json_texts_line(given):
        log.info("%s", line)
    source = request.source
    read = hook.client.send(SOURCES[source.kind].read(source.id))
    declared = read.input_parameters
    if declared:
        check_names(request.inputs, declared, str(source))
    elif request.inputs:
        log.warning("The inputs were not checked: BrowserAct lists none for %s.", source)
    return replace(request, source_name=one_line(read.name, NAME_LENGTH))


def _conformed(request: RunRequest, hook: BrowserActHook, log: Log, *, again: bool) -> RunRequest:
    """Compare the input of a bot with its schema, and return the request to send."""
    from airflow_provider_browseract.runs.schemas import SchemaUnusableError, conform

    source = request.source
    read = hook.client.send(SOURCES[source.kind].read(source.id))
    if source.kind is SourceKind.BOT and read.published_at is None and read.input_schema is None:
        kind, remedy = CODES[NOT_PUBLISHED]
        raise kind(f"The {source} is not published", code=NOT_PUBLISHED, remedy=remedy)
    request = replace(request, source_name=one_line(read.name, NAME_LENGTH))
    if read.input_schema is None:
        log.warning("The inputs were not checked: BrowserAct has no schema for %s.", source)
        return request
    try:
        found = conform(request.inputs, read.input_schema, str(source))
    except SchemaUnusableError as error:
        log.warning("The inputs were not checked: the schema of %s cannot be used: %s.", source, error)
        return request
    if not again:
        if found.converted:
            log.info("Converted to the types that %s declares: %s.", source, ", ".join(found.converted))
        if found.undeclared:
            names = ", ".join(found.undeclared)
            log.warning("The schema of %s does not declare these names in input: %s.", source, names)
    return replace(request, inputs=found.input)


def _check_region(request: RunRequest, hook: BrowserActHook, log: Log) -> None:
    region = request.region
    if region is None:
        return
    try:
        listed = hook.client.send(APIS[request.source.api_version].list_regions())
    except BrowserActError as error:
        log.warning("The region was not checked: %s", error.brief)
        return
    regions = {each.code: each.name for each in listed}
    if regions and region not in regions:
        known = ", ".join(f"{code} ({name})" if name else code for code, name in regions.items())
        raise InputError(f"region is {region!r}, which BrowserAct does not have. Use one of: {known}.")
