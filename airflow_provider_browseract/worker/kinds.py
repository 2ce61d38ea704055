"""What can be run, and how that differs: a workflow or a bot of the account, or an official template."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_browseract.api.arguments import is_missing, read_flag, read_id
from airflow_provider_browseract.api.calls import CODES, NOT_PUBLISHED
from airflow_provider_browseract.api.models import one_line
from airflow_provider_browseract.api.versions import APIS, SOURCES, SourceKind
from airflow_provider_browseract.exceptions import BrowserActError, InputError
from airflow_provider_browseract.runs.outputs import LARGEST_PARSED, TOO_LARGE_TO_PARSE
from airflow_provider_browseract.runs.request import (
    RunRequest,
    Source,
    check_names,
    json_texts_line,
    read_bot_run,
    read_bot_template_run,
    read_run,
    read_template_run,
)
from airflow_provider_browseract.runs.schemas import SchemaUnusableError, conform, mismatch

if TYPE_CHECKING:
    from airflow_provider_browseract.api.models import Task
    from airflow_provider_browseract.hooks.browseract import BrowserActHook
    from airflow_provider_browseract.runs.steps import Log
    from airflow_provider_browseract.worker.start import Started


NAME_LENGTH = 100
"""Characters of the name of a workflow, bot or template that are shown."""


class RunKind(Protocol):
    """What is run, with the arguments that only this kind of run has, after rendering."""

    @property
    def source(self) -> Source:
        """The workflow, bot or template."""

    def request(self, hook: BrowserActHook, **common: Any) -> RunRequest:
        """Check the arguments, and return the request.

        :param common: the user's callback addresses.
        :raises InputError: an argument cannot be used.
        """

    def check_inputs(self, request: RunRequest, hook: BrowserActHook, log: Log, *, again: bool) -> RunRequest:
        """Check what only the API knows, and return the request to send.

        :param again: this was checked before the wait for a slot, so only what changes the request is repeated.
        :raises InputError: an input or another argument is not what the API declares.
        """

    def check_output(self, task: Task, hook: BrowserActHook, log: Log) -> str | None:
        """Return why the output of a finished run is not what the API declares, as a sentence; None if it may be."""
        return None

    def profile_of(self, started: Started, task: Task | None) -> str | None:
        """Return the browser profile that later runs can use; None for a kind of run without profiles.

        :param task: the run as the API returned it; None if it was not read.
        """
        return None


@dataclass(frozen=True)
class WorkflowRun(RunKind):
    """A run of a workflow.

    :param profile_given: whether the DAG has set a profile, which may have been rendered to nothing.
    """

    workflow_id: Any
    input_parameters: Any = field(repr=False)
    save_browser_data: bool
    profile_id: Any
    profile_given: bool

    @property
    def source(self) -> Source:
        """The workflow."""
        return Source(SourceKind.WORKFLOW, str(self.workflow_id))

    def request(self, hook: BrowserActHook, **common: Any) -> RunRequest:
        """Check workflow, inputs and profile."""
        read_flag("save_browser_data", self.save_browser_data)
        if self.profile_given:
            if is_missing(self.profile_id):
                raise InputError(
                    f"profile_id is {self.profile_id!r}. If it comes from a task, that task saved no profile: set "
                    "save_browser_data=True there. Otherwise remove profile_id here."
                )
            read_id("profile_id", self.profile_id)
        return read_run(
            self.workflow_id,
            self.input_parameters,
            save_browser_data=self.save_browser_data,
            profile_id=self.profile_id,
            api_base_url=hook.settings.base_url,
            **common,
        )

    def check_inputs(self, request: RunRequest, hook: BrowserActHook, log: Log, *, again: bool) -> RunRequest:
        """Compare the names of the inputs with those of the workflow (``get-workflow``)."""
        return request if again else _check_names(request, self.input_parameters, hook, log)

    def profile_of(self, started: Started, task: Task | None) -> str:
        """Return the saved profile or, without one, the profile that the run started with; an empty string for neither.

        If the XCom were missing, Airflow would fail the task that reads it, with an error that names neither the
        profile nor save_browser_data.
        """
        # Not every response to a start names the profile.
        saved = started.entry.profile_id or (task.profile_id if task and self.save_browser_data else None)
        return saved or str(self.profile_id or "").strip()


@dataclass(frozen=True)
class TemplateRun(RunKind):
    """A run of an official template."""

    workflow_template_id: Any
    input_parameters: Any = field(repr=False)
    region: Any

    @property
    def source(self) -> Source:
        """The template."""
        return Source(SourceKind.TEMPLATE, str(self.workflow_template_id))

    def request(self, hook: BrowserActHook, **common: Any) -> RunRequest:
        """Check template, region and inputs."""
        return read_template_run(
            self.workflow_template_id,
            self.input_parameters,
            region=self.region,
            api_base_url=hook.settings.base_url,
            **common,
        )

    def check_inputs(self, request: RunRequest, hook: BrowserActHook, log: Log, *, again: bool) -> RunRequest:
        """Compare the names of the inputs with those of the template, and check the region (``get-region-list``)."""
        if again:
            return request
        checked = _check_names(request, self.input_parameters, hook, log)
        _check_region(request, hook, log)
        return checked


@dataclass(frozen=True)
class BotRun(RunKind):
    """A run of a bot."""

    bot_id: Any
    input: Any = field(repr=False)
    validate_output: bool
    wait_for_completion: bool

    @property
    def source(self) -> Source:
        """The bot."""
        return Source(SourceKind.BOT, str(self.bot_id))

    def check_constants(self) -> None:
        """Check what is no template."""
        if read_flag("validate_output", self.validate_output) and not self.wait_for_completion:
            raise InputError(
                "validate_output needs wait_for_completion=True: the output of a run is available only at its end."
            )

    def request(self, hook: BrowserActHook, **common: Any) -> RunRequest:
        """Check bot and input."""
        self.check_constants()
        return read_bot_run(self.bot_id, self.input, api_base_url=hook.settings.base_url, **common)

    def check_inputs(self, request: RunRequest, hook: BrowserActHook, log: Log, *, again: bool) -> RunRequest:
        """Compare the input with the schema of the bot (``query-bot``), and convert what is only of the wrong type."""
        return _conformed(request, hook, log, again=again)

    def check_output(self, task: Task, hook: BrowserActHook, log: Log) -> str | None:
        """Compare the output with the output schema of the bot (``query-bot``), if the user wants that."""
        if not self.validate_output:
            return None
        source = Source(SourceKind.BOT, task.bot_id or self.source.id)
        text, is_json = (task.output.string, task.output.is_json) if task.output else (None, None)
        try:
            schema = hook.client.send(SOURCES[source.kind].read(source.id)).output_schema
            if schema is None:
                why = f"BrowserAct has no output schema for {source}"
            elif text is not None and len(text) > LARGEST_PARSED:
                why = TOO_LARGE_TO_PARSE
            else:
                return mismatch(json.loads(text) if text is not None and is_json else text, schema)
        except BrowserActError as error:
            why = error.brief
        except (InputError, SchemaUnusableError) as error:
            why = f"the output schema of {source} cannot be used: {error}"
        log.warning("The output was not checked: %s.", why.rstrip("."))
        return None


@dataclass(frozen=True)
class BotTemplateRun(RunKind):
    """A run of an official template as a bot."""

    template_id: Any
    input: Any = field(repr=False)
    region: Any

    @property
    def source(self) -> Source:
        """The template."""
        return Source(SourceKind.BOT_TEMPLATE, str(self.template_id))

    def request(self, hook: BrowserActHook, **common: Any) -> RunRequest:
        """Check template, region and input."""
        base_url = hook.settings.base_url
        return read_bot_template_run(self.template_id, self.input, region=self.region, api_base_url=base_url, **common)

    def check_inputs(self, request: RunRequest, hook: BrowserActHook, log: Log, *, again: bool) -> RunRequest:
        """Do as for a bot (``query-template``), and check the region (``list-regions``)."""
        checked = _conformed(request, hook, log, again=again)
        if not again:
            _check_region(request, hook, log)
        return checked


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
