"""Operators that run BrowserAct workflows and official templates, and stop and resume BrowserAct tasks."""

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
from airflow_provider_browseract.runs.arguments import (
    InputError,
    naming_similar_arguments,
    read_flag,
    read_id,
    read_ids,
)
from airflow_provider_browseract.runs.outcome import RunError
from airflow_provider_browseract.runs.request import RunRequest, Source, SourceKind, read_run, read_template_run

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_browseract.api.models import InputParameter, Task
    from airflow_provider_browseract.runs.starting import StartedRun

__all__ = ["ResumeTaskOperator", "RunTemplateOperator", "RunWorkflowOperator", "StopTaskOperator"]


class RunWorkflowOperator(RunOperator):
    """Run a BrowserAct workflow, wait for its end, and return its output (``run-task``).

    The task pushes ``task_id`` (the BrowserAct task) and ``profile_id`` (the browser profile that a later run can start
    with, or an empty string) as XComs, right after the start. Pass a profile on with ``task.output["profile_id"]``.

    This list describes each argument briefly. :class:`~airflow_provider_browseract.operators.run.RunOperator` defines
    all but the first three, and has their units, values, consequences and errors. Durations are seconds or a
    ``timedelta``.

    :param workflow_id: id of the workflow to run, as the BrowserAct dashboard shows it. Templated.
    :param save_browser_data: save the cookies and logins of this run in a browser profile. Its id is the XCom
        ``profile_id``. Default: ``False``.
    :param profile_id: browser profile of an earlier run to start with. If the value renders to nothing, the task fails,
        because the run would not be logged in. Default: no profile. Templated.
    :param input_parameters: inputs: a dict, or the API's list of ``{"name": ..., "value": ...}``. Templated.
    :param callback_url: your own URL that BrowserAct calls when the run ends. Templated.
    :param status_change_callback_url: your own URL that BrowserAct calls at each change of status. Templated.
    :param output_format: how to read the output: ``"auto"`` (default), ``"json"``, ``"csv"`` or ``"text"``.
    :param output_path: folder in object storage for output and files. Default: return the output itself. Templated.
    :param validate_inputs: compare the names of the inputs with the declared ones before the start. Default: ``True``.
    :param dry_run: check everything, log the request, start nothing, and end as skipped. Default: ``False``.
    :param browseract_conn_id: id of the Airflow connection. Default: ``browseract_default``. Templated.
    :param wait_for_completion: wait for the end. ``False`` returns the id after the start. Default: ``True``.
    :param deferrable: wait in the triggerer, without a worker. Default: ``[operators] default_deferrable``.
    :param webhook: resume when BrowserAct calls back. Default: if the connection has a ``webhook_base_url``.
    :param poll_interval: time between two polls. Default: 10 s, growing to 120 s while a callback is expected.
    :param timeout: time that the run may take; after that it is stopped and the task fails. Default: 7 hours.
    :param start_timeout: time that the run may stay ``created``. Default: only ``timeout`` applies.
    :param queue_timeout: time to wait for a slot. Default: the value of ``timeout``.
    :param reattach: let a later try continue with the run of an earlier one (Airflow 3.3). Default: ``True``.
    :param on_orphan: what to do if it cannot be determined which run a lost start created: ``"fail"`` (default),
        ``"adopt"`` or ``"start"``.
    :param on_paused: what to do at a pause: ``"wait"`` (default), ``"fail"``, ``"resume"`` or ``"ask"``.
    :param on_paused_timeout: time to wait for the answer to ``"ask"``. Default: as long as the run may take.
    :param on_paused_default: what to do without an answer: ``"stop"`` (default) or ``"resume"``.
    :param on_paused_callback: notifiers or functions that are called when the run pauses. Default: none.
    :param show_live_view: show the address of the live view in log, XComs, buttons and Required Actions. Default:
        ``True``.
    :param cancel_on_kill: stop the run when the task is ended and no later try continues with it. Default: ``True``.
    :param cancel_on_timeout: stop the run when its time is over or its status cannot be read. Default: ``True``.
    :param kwargs: the arguments of Airflow's ``BaseOperator``.
    :returns: the output of the run; with files or ``output_path``, a dict that describes them.
    """

    template_fields: Sequence[str] = ("workflow_id", "profile_id", *RunOperator.template_fields)

    def __init__(
        self, *, workflow_id: str, save_browser_data: bool = False, profile_id: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.workflow_id = workflow_id
        self.save_browser_data = save_browser_data
        self.profile_id = profile_id
        # Rendering may replace a given profile with None. Only here is it known that a profile was given.
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
        """Return the saved profile or, without one, the profile that the run started with; an empty string for neither.

        If the XCom were missing, Airflow would fail the task that reads it, with an error that names neither the
        profile nor save_browser_data.
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
                f"profile_id is {self.profile_id!r}, because the task that it comes from saved no profile. Set "
                "save_browser_data=True in that task, or remove profile_id here."
            ) from None


class RunTemplateOperator(RunOperator):
    """Run an official BrowserAct template, wait for its end, and return its output (``run-task-by-template``).

    Runs of templates have no browser profiles. To use a profile, copy the template to a workflow of your account in
    the BrowserAct dashboard, and run that workflow with :class:`RunWorkflowOperator`.

    :param workflow_template_id: id of the template to run, as ``BrowserActHook.iter_official_workflow_templates`` lists
        it.
    :param region: code of the proxy region, as ``BrowserActHook.get_region_list`` lists it. Default: ``US``, the
        default of the API.
    :param kwargs: the arguments of :class:`RunWorkflowOperator`, from ``input_parameters`` on.
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
        """Read the template's inputs (``get-official-workflow-template``), and check the region."""
        template = self.hook.get_official_workflow_template(self.workflow_template_id)
        if self.region is not None:
            self._check_region(read_id("region", self.region))
        return template.input_parameters

    def _check_region(self, region: str) -> None:
        try:
            regions = {region.code: region.name for region in self.hook.get_region_list()}
        except BrowserActError as error:
            self.log.warning("The region was not checked: %s", error.brief)
            return
        if regions and region not in regions:
            known = ", ".join(f"{code} ({name})" if name else code for code, name in regions.items())
            raise InputError(f"region is {region!r}, which BrowserAct does not have. Use one of: {known}.")


class TaskOperator(BaseOperator):
    """Act on one or several BrowserAct tasks. If one of them fails, the others are still processed.

    :param browseract_task_id: id of the BrowserAct task, or a list of ids.
    :param browseract_conn_id: id of the Airflow connection. Default: ``browseract_default``.
    :returns: the outcome for each task, by its id.
    :raises AirflowFailException: an argument is wrong, or the action can never succeed for one of the tasks.
    :raises RunError: the action failed for some of the tasks, and may succeed later. Airflow's retries apply; repeating
        the action does not affect the other tasks.
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
        with naming_similar_arguments(type(self), kwargs):
            super().__init__(**kwargs)
        self.browseract_task_id = browseract_task_id
        self.browseract_conn_id = browseract_conn_id

    @cached_property
    def hook(self) -> BrowserActHook:
        """The hook for the operator's connection."""
        return BrowserActHook(self.browseract_conn_id)

    @abstractmethod
    def act(self, browseract_task_id: str) -> str:
        """Act on one task, and return the outcome as a word.

        :raises BrowserActError: the action failed.
        :raises InputError: the action can never succeed.
        :raises RunError: the action is not possible yet.
        """

    def execute(self, context: Context) -> dict[str, str]:
        """Act on each task, and return the outcomes."""
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
            message = "\n".join(f"BrowserAct task {task_id}: {error}" for task_id, error in failed.items())
            raise (RunError if any(map(_may_pass, failed.values())) else AirflowFailException)(message)
        return done


class StopTaskOperator(TaskOperator):
    """Stop BrowserAct tasks, wherever they were started (``stop-task``).

    The outcome of a task is ``stopped``, or ``ended`` if it had already ended. For arguments and errors, see
    :class:`TaskOperator`.
    """

    def act(self, browseract_task_id: str) -> str:
        """Stop the task, unless it has already ended."""
        try:
            self.hook.client.send(calls.stop_task(browseract_task_id))
        except TaskEndedError:
            return "ended"
        return "stopped"


class ResumeTaskOperator(TaskOperator):
    """Resume paused BrowserAct tasks (``resume-task``).

    The outcome of a task is ``resumed``, or its status if it is not paused any more. Resuming a task that has ended
    is an error. For arguments and errors, see :class:`TaskOperator`.
    """

    def act(self, browseract_task_id: str) -> str:
        """Resume the task, if it is paused."""
        try:
            self.hook.resume_task(browseract_task_id)
        except TaskNotPausedError:
            status = self.hook.get_task_status(browseract_task_id)
            if status.ended:
                raise InputError(
                    f"it has ended as {status} and cannot be resumed. Remove its id from browseract_task_id."
                ) from None
            if status is TaskStatus.PAUSING:
                raise RunError(
                    "it is about to pause and cannot be resumed yet. Set retries, so that a later try resumes it."
                ) from None
            return str(status)
        return "resumed"


def _may_pass(error: Exception) -> bool:
    return isinstance(error, RunError) or (isinstance(error, BrowserActError) and error.temporary)
