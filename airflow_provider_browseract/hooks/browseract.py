"""The hook: call BrowserAct's API with an Airflow connection."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypeVar

from airflow_provider_browseract.api import v2, v3
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.models import (
    ApiVersion,
    BotType,
    CreatedTask,
    Region,
    SourceInfo,
    Task,
    TaskState,
    TaskStatus,
)
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.exceptions import (
    BrowserActError,
    InputError,
    RunStartUnknownError,
    TaskEndedError,
    TaskNotFoundError,
)
from airflow_provider_browseract.hooks.connected import ConnectedHook
from airflow_provider_browseract.hooks.connection import STANDARD_FIELDS, check_for_start, form_widgets
from airflow_provider_browseract.runs import timings

if TYPE_CHECKING:
    from airflow_provider_browseract.spending.spend import Spend
else:
    # Agents read the annotations of the methods, so each name in them has a value. This module takes long to import.
    Spend = Any

T = TypeVar("T")


class BrowserActHook(ConnectedHook):
    """Call BrowserAct with an Airflow connection of type ``browseract``. Each endpoint has a method, which blocks.

    The hook reads the connection at the first call, and again after BrowserAct has refused the API key. If it then has
    another key, the call is sent again, unless it starts a run. Every method raises a subclass of
    :class:`~airflow_provider_browseract.exceptions.BrowserActError` if the call fails, and
    :class:`~airflow_provider_browseract.exceptions.InputError` if an argument or the connection cannot be used.

    The methods ``run_...`` start a run. They check all arguments before they send anything, return the id of the task,
    and do not wait for a free slot
    (:class:`~airflow_provider_browseract.exceptions.ConcurrencyLimitError`) or for the end of the run. They raise
    :class:`~airflow_provider_browseract.exceptions.RunStartUnknownError` if the call may have started a run, but the
    response was lost or cannot be used, and :class:`~airflow_provider_browseract.exceptions.InputError` while Airflow
    reads a DAG file: code at the top of a file would start, and bill, a run each time.

    A method that takes the id of a task looks for the task among the runs of workflows (version 2 of the API) and then,
    if BrowserAct does not know it there, among the runs of bots (version 3). If there is no such task, all but
    :meth:`stop_task` raise :class:`~airflow_provider_browseract.exceptions.TaskNotFoundError`.

    The methods ``iter_...`` read each page of a list when it is needed.

    :param browseract_conn_id: id of the Airflow connection.
    """

    # Newer versions of Airflow read the form from the provider info. Airflow 3.1 calls these methods, and finds them
    # only in the class that the provider info names, not in its parents.
    get_connection_form_widgets = staticmethod(form_widgets)
    get_ui_field_behaviour = staticmethod(STANDARD_FIELDS.copy)

    def __init__(self, browseract_conn_id: str = ConnectedHook.default_conn_name) -> None:
        super().__init__(browseract_conn_id)
        self._of_bots: set[str] = set()

    def run_task(
        self,
        workflow_id: str,
        input_parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        save_browser_data: bool = False,
        profile_id: str | None = None,
        callback_url: str | None = None,
        status_change_callback_url: str | None = None,
    ) -> CreatedTask:
        """Start a run of a workflow (``run-task``).

        :param workflow_id: the workflow to run.
        :param input_parameters: the inputs, as a dict or as the API's list of name/value pairs.
        :param save_browser_data: save cookies and logins of the run in a profile. The result then contains its id.
        :param profile_id: profile of an earlier run to start with.
        :param callback_url: public address that BrowserAct calls once, when the task ends.
        :param status_change_callback_url: public address that BrowserAct calls at each change of the status.
        """
        browser = {"save_browser_data": save_browser_data, "profile_id": profile_id}
        callbacks = {"callback_url": callback_url, "status_change_callback_url": status_change_callback_url}
        return self._start(SourceKind.WORKFLOW, workflow_id, input_parameters, **browser, **callbacks)

    def run_task_by_template(
        self,
        workflow_template_id: str,
        input_parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        region: str | None = None,
        callback_url: str | None = None,
        status_change_callback_url: str | None = None,
    ) -> CreatedTask:
        """Start a run of an official template (``run-task-by-template``). Runs of templates have no profiles.

        :param workflow_template_id: the template to run.
        :param input_parameters: as in :meth:`run_task`.
        :param region: code of the proxy region. Default: ``US``, the API's.
        :param callback_url: as in :meth:`run_task`.
        :param status_change_callback_url: as in :meth:`run_task`.
        """
        callbacks = {"callback_url": callback_url, "status_change_callback_url": status_change_callback_url}
        return self._start(SourceKind.TEMPLATE, workflow_template_id, input_parameters, region=region, **callbacks)

    def run_bot(
        self,
        bot_id: str,
        input: Mapping[str, Any] | None = None,
        *,
        callback_url: str | None = None,
        status_change_callback_url: str | None = None,
    ) -> CreatedTask:
        """Start a run of a bot (``create-run``). Runs of bots have no profiles.

        The hook does not compare the input with the schema of the bot. BrowserAct refuses an input that does not match.

        :param bot_id: the bot to run.
        :param input: the input by name: any JSON values, as the bot's schema (:meth:`get_bot`) describes them.
        :param callback_url: as in :meth:`run_task`.
        :param status_change_callback_url: as in :meth:`run_task`.
        """
        callbacks = {"callback_url": callback_url, "status_change_callback_url": status_change_callback_url}
        return self._start(SourceKind.BOT, bot_id, input, **callbacks)

    def run_bot_template(
        self,
        template_id: str,
        input: Mapping[str, Any] | None = None,
        *,
        region: str | None = None,
        callback_url: str | None = None,
        status_change_callback_url: str | None = None,
    ) -> CreatedTask:
        """Start a run of an official template as a bot (``create-template-run``).

        :param template_id: the template to run.
        :param input: as in :meth:`run_bot`; :meth:`get_bot_template` returns the schema.
        :param region: code of the proxy region. Default: that of the API, which is not documented.
        :param callback_url: as in :meth:`run_task`.
        :param status_change_callback_url: as in :meth:`run_task`.
        """
        callbacks = {"callback_url": callback_url, "status_change_callback_url": status_change_callback_url}
        return self._start(SourceKind.BOT_TEMPLATE, template_id, input, region=region, **callbacks)

    def _start(self, kind: SourceKind, source_id: str, inputs: Any, **arguments: Any) -> CreatedTask:
        # DAG files import this module.
        from airflow_provider_browseract.runs.request import read_request

        check_for_start(self.settings)
        call = read_request(kind, source_id, inputs, api_base_url=self.settings.base_url, **arguments).call
        try:
            return self.client.send(call)
        except BrowserActError as error:
            if error.not_processed:
                raise
            message = f"It is not known whether BrowserAct started a run: {error.message}"
            raise RunStartUnknownError.after(error, message) from error
        except InputError:
            raise
        except BaseException:
            # For example Airflow's execution_timeout, which can interrupt the code at any point.
            self.log.error(
                "Interrupted during %s. A run may be running and using credits, and its id is not known.", call.name
            )
            raise

    def send_about(self, task_id: str, call: Callable[[ModuleType], Call[T]]) -> T:
        """Send a call about a task that a person names, in the version of the API that knows the task.

        :param call: makes the call of a version. Version 3 is asked only if version 2 does not know the task.
        """
        try:
            return self.client.send(call(v3 if task_id in self._of_bots else v2))
        except TaskNotFoundError:
            if task_id in self._of_bots:
                raise
            result = self.client.send(call(v3))
        self._of_bots.add(task_id)
        return result

    def get_task(self, task_id: str) -> Task:
        """Read everything about a task (``get-task``, ``query-run``).

        :param task_id: the task to read.
        :returns: the task with its steps so far and, once it has ended, its output or the reason of its failure.
        """
        task: Task = self.send_about(task_id, lambda api: api.get_task(task_id))
        return task

    def get_task_status(self, task_id: str) -> TaskStatus:
        """Read only the status of a task, the cheapest way to poll (``get-task-status``, ``query-run-status``).

        :param task_id: the task to read.
        :returns: the status. If its ``ended`` is ``True``, it does not change any more.
        """
        state: TaskState = self.send_about(task_id, lambda api: api.get_task_status(task_id))
        return state.status

    def stop_task(self, task_id: str, *, biz_code: int | None = None) -> bool:
        """Stop a task (``stop-task``, ``cancel-run``).

        :param task_id: the task to stop.
        :param biz_code: a number for your own statistics.
        :returns: ``False`` if the task had already ended or does not exist. If it does not exist, a warning is logged.
        """
        try:
            return self.stop_known_task(task_id, biz_code=biz_code)
        except TaskNotFoundError as error:
            # With the key of another account, a task that is running looks like one that is gone.
            self.log.warning("BrowserAct task %s was not stopped: %s. %s", task_id, error.brief, error.advice)
            return False

    def stop_known_task(self, task_id: str, *, biz_code: int | None = None) -> bool:
        """Stop a task as :meth:`stop_task` does, but raise an error if BrowserAct does not know it.

        :returns: ``False`` if the task had already ended.
        :raises TaskNotFoundError: it does not exist, or belongs to another account.
        """
        try:
            self.send_about(task_id, lambda api: api.stop_task(task_id, biz_code=biz_code))
        except TaskEndedError as error:
            # The first request may have stopped it, and its response was lost.
            return error.resent and self.get_task_status(task_id) is TaskStatus.CANCELED
        return True

    def resume_task(self, task_id: str) -> None:
        """Resume a task that waits for a person (``resume-task``, ``resume-run``).

        The run of a bot may still be paused for a moment.

        :param task_id: the paused task.
        :raises TaskNotPausedError: the task is not paused.
        :raises ResumeNotSupportedError: the task is the run of an agent-built bot, which BrowserAct resumes itself.
        """
        self.send_about(task_id, lambda api: api.resume_task(task_id))

    def iter_tasks(
        self,
        *,
        workflow_id: str | None = None,
        workflow_name: str | None = None,
        status: TaskStatus | str | None = None,
        created_at_from: datetime | None = None,
        created_at_to: datetime | None = None,
    ) -> Iterator[Task]:
        """Iterate over the tasks of version 2 that match (``list-tasks``).

        :param workflow_id: only tasks of this workflow.
        :param workflow_name: only tasks of workflows whose name contains this. Case does not matter.
        :param status: only tasks with this status.
        :param created_at_from: only tasks created at this time or later. It needs a time zone.
        :param created_at_to: only tasks created at this time or earlier. It needs a time zone.
        :returns: the tasks, without steps and downloads, which only :meth:`get_task` returns.
        """
        created = {"created_at_from": created_at_from, "created_at_to": created_at_to}
        call = v2.list_tasks(source_id=workflow_id, name=workflow_name, status=status, **created)
        return self.client.iter_items(call)

    def iter_bot_tasks(
        self,
        *,
        bot_id: str | None = None,
        bot_name: str | None = None,
        status: TaskStatus | str | None = None,
        created_at_from: datetime | None = None,
        created_at_to: datetime | None = None,
    ) -> Iterator[Task]:
        """Iterate over the runs of bots and their templates that match (``page-runs``).

        :param bot_id: only runs of this bot. Runs of templates have no ``bot_id``.
        :param bot_name: only runs of bots whose name contains this.
        :param status: only runs with this status. Version 3 of the API has no ``unknown``.
        :param created_at_from: as in :meth:`iter_tasks`.
        :param created_at_to: as in :meth:`iter_tasks`.
        :returns: the runs, without output, steps and downloads. Their order is not documented.
        """
        created = {"created_at_from": created_at_from, "created_at_to": created_at_to}
        return self.client.iter_items(v3.list_tasks(source_id=bot_id, name=bot_name, status=status, **created))

    def get_spend(
        self,
        created_at_from: datetime,
        created_at_to: datetime | None = None,
        *,
        workflow_id: str | None = None,
        bot_id: str | None = None,
    ) -> Spend:
        """Add up the credits of all runs of the account, whoever started them (``list-tasks``, ``page-runs``).

        :param created_at_from: only runs created at this time or later. It needs a time zone.
        :param created_at_to: only runs created before this time. It needs a time zone.
        :param workflow_id: only runs of this workflow.
        :param bot_id: only runs of this bot; together with ``workflow_id``, the runs of both.
        :returns: the sums by day and workflow or bot. The credits of active runs can be incomplete.
        """
        from airflow_provider_browseract.spending.spend import Spend, list_runs

        of = {ApiVersion.V2: workflow_id, ApiVersion.V3: bot_id}
        given = {version: source_id for version, source_id in of.items() if source_id is not None}
        return Spend.of(list_runs(self.client, created_at_from, created_at_to, given or of))

    def iter_workflows(self) -> Iterator[SourceInfo]:
        """Iterate over the account's workflows (``list-workflows``), without their inputs."""
        return self.client.iter_items(v2.list_sources())

    def get_workflow(self, workflow_id: str) -> SourceInfo:
        """Read a workflow and the inputs that it takes (``get-workflow``).

        :param workflow_id: the workflow to read.
        """
        return self.client.send(v2.get_source(workflow_id))

    def iter_official_workflow_templates(self, keyword: str | None = None) -> Iterator[SourceInfo]:
        """Iterate over the official templates (``list-official-workflow-templates``), without their inputs.

        :param keyword: only templates whose name or description contains this.
        """
        return self.client.iter_items(v2.list_templates(keyword=keyword))

    def get_official_workflow_template(self, workflow_template_id: str) -> SourceInfo:
        """Read an official template and the inputs that it takes (``get-official-workflow-template``).

        :param workflow_template_id: the template to read.
        """
        return self.client.send(v2.get_template(workflow_template_id))

    def iter_bots(self, *, bot_type: BotType | str | None = None, keyword: str | None = None) -> Iterator[SourceInfo]:
        """Iterate over the bots of the account that can run (``page-bots``), without their schemas.

        :param bot_type: only bots that were built like this: ``"workflow"`` or ``"agent"``.
        :param keyword: only bots whose name contains this. Case does not matter.
        """
        return self.client.iter_items(v3.list_sources(bot_type=bot_type, keyword=keyword))

    def get_bot(self, bot_id: str) -> SourceInfo:
        """Read a bot, with the JSON Schemas of its input and its output (``query-bot``).

        :param bot_id: the bot to read.
        :returns: the bot. Its ``input_schema`` is ``None`` if it is not published.
        """
        return self.client.send(v3.get_source(bot_id))

    def iter_bot_templates(self, keyword: str | None = None) -> Iterator[SourceInfo]:
        """Iterate over the official templates that run as bots (``page-templates``), without their schemas.

        :param keyword: only templates whose name or description contains this.
        """
        return self.client.iter_items(v3.list_templates(keyword=keyword))

    def get_bot_template(self, template_id: str) -> SourceInfo:
        """Read an official template, with the JSON Schema of its input (``query-template``).

        :param template_id: the template to read.
        """
        return self.client.send(v3.get_template(template_id))

    def get_region_list(self) -> tuple[Region, ...]:
        """Read the proxy regions for :meth:`run_task_by_template` (``get-region-list``)."""
        return self.client.send(v2.list_regions())

    def get_bot_region_list(self) -> tuple[Region, ...]:
        """Read the proxy regions for :meth:`run_bot_template` (``list-regions``)."""
        return self.client.send(v3.list_regions())

    def test_connection(self) -> tuple[bool, str]:
        """Check API key, address and network by listing one workflow, which uses no credits; then check callbacks.

        :returns: whether the connection works, and a message for the user.
        """
        from airflow_provider_browseract.hooks.probe import probe

        try:
            with self.client_within(timings.CONNECTION_TEST_LIMIT) as client:
                good, message = True, probe(client, self.settings)
        except (BrowserActError, InputError) as error:
            good, message = False, str(error)
        # The id tells nothing new: the command was given it, and the Test button tests a copy that has a random one.
        conn_id = repr(self.browseract_conn_id)
        return good, message.replace(f" of connection {conn_id}", "").replace(f"onnection {conn_id}", "onnection")
