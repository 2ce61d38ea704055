"""What can be run, and how that differs: a workflow of the account, or an official template."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from airflow_provider_browseract.api.arguments import InputError, read_flag, read_id
from airflow_provider_browseract.api.errors import BrowserActError
from airflow_provider_browseract.api.versions import SOURCES, SourceKind
from airflow_provider_browseract.runs.request import RunRequest, Source, check_names, read_run, read_template_run

if TYPE_CHECKING:
    from airflow_provider_browseract.api.exchange import Call
    from airflow_provider_browseract.api.models import Task
    from airflow_provider_browseract.hooks.browseract import BrowserActHook
    from airflow_provider_browseract.loops import Log
    from airflow_provider_browseract.runs.starting import StartedRun


class RunKind(Protocol):
    """What is run, with the arguments that only this kind of run has, after rendering."""

    @property
    def source(self) -> Source:
        """The workflow or template."""

    def request(self, hook: BrowserActHook, **common: Any) -> RunRequest:
        """Check the arguments, and return the request.

        :param common: the user's callback addresses.
        :raises InputError: an argument cannot be used.
        """

    def check_inputs(self, request: RunRequest, hook: BrowserActHook, log: Log) -> RunRequest:
        """Check what only the API knows, and return the request to send.

        :raises InputError: an input or another argument is not what the API declares.
        """

    def profile_of(self, started: StartedRun, task: Task | None) -> str | None:
        """Return the browser profile that later runs can use; None for a kind of run without profiles.

        :param task: the run as the API returned it; None if it was not read.
        """


@dataclass(frozen=True)
class WorkflowRun:
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
            try:
                read_id("profile_id", self.profile_id)
            except InputError:
                raise InputError(
                    f"profile_id is {self.profile_id!r}, because the task that it comes from saved no profile. Set "
                    "save_browser_data=True in that task, or remove profile_id here."
                ) from None
        return read_run(
            self.workflow_id,
            self.input_parameters,
            save_browser_data=self.save_browser_data,
            profile_id=self.profile_id,
            api_base_url=hook.settings.client.base_url,
            **common,
        )

    def check_inputs(self, request: RunRequest, hook: BrowserActHook, log: Log) -> RunRequest:
        """Compare the names of the inputs with those of the workflow (``get-workflow``)."""
        return _check_names(request, hook, log)

    def profile_of(self, started: StartedRun, task: Task | None) -> str:
        """Return the saved profile or, without one, the profile that the run started with; an empty string for neither.

        If the XCom were missing, Airflow would fail the task that reads it, with an error that names neither the
        profile nor save_browser_data.
        """
        # Not every response to a start names the profile.
        saved = started.entry.profile_id or (task.profile_id if task and self.save_browser_data else None)
        return saved or str(self.profile_id or "").strip()


@dataclass(frozen=True)
class TemplateRun:
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
            api_base_url=hook.settings.client.base_url,
            **common,
        )

    def check_inputs(self, request: RunRequest, hook: BrowserActHook, log: Log) -> RunRequest:
        """Compare the names of the inputs with those of the template, and check the region (``get-region-list``)."""
        checked = _check_names(request, hook, log)
        if request.region is not None:
            _check_region(request.region, hook, log)
        return checked

    def profile_of(self, started: StartedRun, task: Task | None) -> None:
        """Runs of templates have no profiles."""


def _check_names(request: RunRequest, hook: BrowserActHook, log: Log) -> RunRequest:
    source = request.source
    reading: Call[Any] = SOURCES[source.kind].read(source.id)
    declared = hook.client.send(reading).input_parameters
    if declared:
        check_names(request.inputs, declared, str(source))
    elif request.inputs:
        log.warning("The names of the inputs were not checked: BrowserAct lists none for %s.", source)
    return request


def _check_region(region: str, hook: BrowserActHook, log: Log) -> None:
    try:
        regions = {region.code: region.name for region in hook.get_region_list()}
    except BrowserActError as error:
        log.warning("The region was not checked: %s", error.brief)
        return
    if regions and region not in regions:
        known = ", ".join(f"{code} ({name})" if name else code for code, name in regions.items())
        raise InputError(f"region is {region!r}, which BrowserAct does not have. Use one of: {known}.")
