"""The operators: running workflows and official templates of BrowserAct, stopping and resuming their tasks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseOperator

from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.errors import BrowserActError, TaskEndedError, TaskNotPausedError
from airflow_provider_browseract.api.models import TaskStatus
from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.hooks.browseract import BrowserActHook, no_retry_on_bad_arguments
from airflow_provider_browseract.operators.run import RunOperator
from airflow_provider_browseract.runs.arguments import InputError, read_flag, read_id, read_ids
from airflow_provider_browseract.runs.outcome import RunError
from airflow_provider_browseract.runs.request import RunRequest, Source, SourceKind, read_run, read_template_run

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_browseract.api.models import InputParameter, Task
    from airflow_provider_browseract.runs.starting import StartedRun

__all__ = ["ResumeTaskOperator", "RunTemplateOperator", "RunWorkflowOperator", "StopTaskOperator"]


class RunWorkflowOperator(RunOperator):
    """Runs a BrowserAct workflow, waits for its end, and returns its output (``run-task``).

    Besides the XComs of every run it pushes ``profile_id``: the browser profile that a later run can start with, or an
    empty text if there is none. ``task.output["profile_id"]`` hands it on.

    :param workflow_id: the workflow to run, as the BrowserAct dashboard shows it.
    :param save_browser_data: keep cookies and logins of this run; its ``profile_id`` XCom then names them.
    :param profile_id: browser profile of an earlier run to start with. A value that turns out to be empty is an
        error, since the run would not be logged in.
    :param kwargs: the arguments of :class:`~airflow_provider_browseract.operators.run.RunOperator`.
    """

    template_fields: Sequence[str] = ("workflow_id", "profile_id", *RunOperator.template_fields)

    def __init__(
        self, *, workflow_id: str, save_browser_data: bool = False, profile_id: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.workflow_id = workflow_id
        self.save_browser_data = save_browser_data
        self.profile_id = profile_id
        # Rendering may turn a profile into nothing; only here can it be told that one was asked for.
        self._profile_wanted = profile_id is not None
        self._take_arguments()

    @property
    def source(self) -> Source:
        """The workflow."""
        return Source(SourceKind.WORKFLOW, str(self.workflow_id))

    def read_request(self) -> RunRequest:
        """Check workflow, inputs and profile."""
        if self._profile_wanted:
            self.profile_id = self._read_profile_id()
        return read_run(
            self.workflow_id,
            self.input_parameters,
            save_browser_data=self.save_browser_data,
            profile_id=self.profile_id,
            callback_url=self.callback_url,
            status_change_callback_url=self.status_change_callback_url,
            api_base_url=self.hook.settings.client.base_url,
        )

    def read_declared(self) -> Sequence[InputParameter]:
        """Read the workflow's inputs (``get-workflow``)."""
        return self.hook.get_workflow(self.workflow_id).input_parameters

    def profile_of(self, started: StartedRun, task: Task | None) -> str | None:
        """Return the profile that was saved or, if none was, the one that the run started with; empty if there is none.

        A missing XCom would be an error of Airflow's, in the task that asks for it, which names neither the profile
        nor save_browser_data.
        """
        if started.entry.profile_id:
            return started.entry.profile_id
        # Not every response to a start names the profile.
        return (task.profile_id if task and self.save_browser_data else None) or self.profile_id or ""

    def _check_constants(self) -> None:
        super()._check_constants()
        read_flag("save_browser_data", self.save_browser_data)

    def _read_profile_id(self) -> str:
        try:
            return read_id("profile_id", self.profile_id)
        except InputError:
            raise InputError(
                f"profile_id is {self.profile_id!r}. The task that it comes from saved no profile: give it "
                "save_browser_data=True, or leave profile_id out here."
            ) from None


class RunTemplateOperator(RunOperator):
    """Runs an official template of BrowserAct, waits for its end, and returns its output (``run-task-by-template``).

    Templates have no browser profiles. To use one, copy the template into a workflow of your own in the BrowserAct
    dashboard and run that with :class:`RunWorkflowOperator`.

    :param workflow_template_id: the template to run, as ``BrowserActHook.iter_official_workflow_templates`` lists it.
    :param region: code of the proxy region, as ``BrowserActHook.get_region_list`` lists it. Default: ``US``, the API's.
    :param kwargs: the arguments of :class:`~airflow_provider_browseract.operators.run.RunOperator`.
    """

    template_fields: Sequence[str] = ("workflow_template_id", "region", *RunOperator.template_fields)

    def __init__(self, *, workflow_template_id: str, region: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.workflow_template_id = workflow_template_id
        self.region = region
        self._take_arguments()

    @property
    def source(self) -> Source:
        """The template."""
        return Source(SourceKind.TEMPLATE, str(self.workflow_template_id))

    def read_request(self) -> RunRequest:
        """Check template, region and inputs."""
        return read_template_run(
            self.workflow_template_id,
            self.input_parameters,
            region=self.region,
            callback_url=self.callback_url,
            status_change_callback_url=self.status_change_callback_url,
            api_base_url=self.hook.settings.client.base_url,
        )

    def read_declared(self) -> Sequence[InputParameter]:
        """Read the template's inputs (``get-official-workflow-template``); the region has to be one of the API's."""
        template = self.hook.get_official_workflow_template(self.workflow_template_id)
        if self.region is not None:
            self._check_region(read_id("region", self.region))
        return template.input_parameters

    def _check_region(self, region: str) -> None:
        try:
            regions = {region.code: region.name for region in self.hook.get_region_list()}
        except BrowserActError as error:
            self.log.warning("The region was not checked: %s", error)
            return
        if regions and region not in regions:
            known = ", ".join(f"{code} ({name})" if name else code for code, name in regions.items())
            raise InputError(f"region is {region!r}. BrowserAct has: {known}.")


class TaskOperator(BaseOperator):
    """Does something with BrowserAct tasks, each for itself: one that fails keeps none of the others from its turn.

    :param browseract_task_id: the BrowserAct task, or several.
    :param browseract_conn_id: id of the Airflow connection.
    :returns: what became of each, by its id.
    :raises AirflowFailException: an argument is wrong, or a task cannot be acted on, now or later.
    :raises RunError: it failed for some of them for a reason that may pass. Airflow's retries apply, and do no harm to
        the others.
    """

    template_fields: Sequence[str] = ("browseract_task_id", "browseract_conn_id")
    ui_color = "#e6f0ff"

    def __init__(
        self,
        *,
        browseract_task_id: str | Sequence[str],
        browseract_conn_id: str = BrowserActHook.default_conn_name,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.browseract_task_id = browseract_task_id
        self.browseract_conn_id = browseract_conn_id

    @cached_property
    def hook(self) -> BrowserActHook:
        """The hook for the operator's connection."""
        return BrowserActHook(self.browseract_conn_id)

    @abstractmethod
    def act(self, browseract_task_id: str) -> str:
        """Do it with one task, and say in a word what became of it.

        :raises BrowserActError: it cannot be done.
        :raises InputError: it can never be done.
        :raises RunError: it cannot be done yet.
        """

    def execute(self, context: Context) -> dict[str, str]:
        """Do it with each."""
        done: dict[str, str] = {}
        failed: dict[str, Exception] = {}
        with no_retry_on_bad_arguments(self.browseract_conn_id):
            for task_id in read_ids("browseract_task_id", self.browseract_task_id):
                try:
                    done[task_id] = self.act(task_id)
                    self.log.info("BrowserAct task %s: %s", task_id, done[task_id])
                except (BrowserActError, InputError, RunError) as error:
                    failed[task_id] = error
        if failed:
            said = "\n".join(f"BrowserAct task {task_id}: {error}" for task_id, error in failed.items())
            raise (RunError if any(map(_may_pass, failed.values())) else AirflowFailException)(said)
        return done


class StopTaskOperator(TaskOperator):
    """Stops BrowserAct tasks, wherever they were started (``stop-task``); see :class:`TaskOperator`.

    Of each task it says ``stopped``, or ``ended`` if it had ended before.
    """

    def act(self, browseract_task_id: str) -> str:
        """Stop it, unless it has ended."""
        try:
            self.hook.client.send(calls.stop_task(browseract_task_id))
        except TaskEndedError:
            return "ended"
        return "stopped"


class ResumeTaskOperator(TaskOperator):
    """Lets paused BrowserAct tasks go on (``resume-task``); see :class:`TaskOperator`.

    Of each task it says ``resumed``, or its status if it goes on already. One that has ended is an error.
    """

    def act(self, browseract_task_id: str) -> str:
        """Resume it, if it is paused."""
        try:
            self.hook.resume_task(browseract_task_id)
        except TaskNotPausedError:
            status = self.hook.get_task_status(browseract_task_id)
            if status.ended:
                raise InputError(f"it has ended as {status}, and cannot be resumed.") from None
            if status is TaskStatus.PAUSING:
                raise RunError("it is about to pause, and cannot be resumed yet.") from None
            return str(status)
        return "resumed"


def _may_pass(error: Exception) -> bool:
    return isinstance(error, RunError) or (isinstance(error, BrowserActError) and error.temporary)
