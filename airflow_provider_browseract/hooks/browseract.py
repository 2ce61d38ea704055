"""The hook: call BrowserAct's API with an Airflow connection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any

from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.arguments import read_choice
from airflow_provider_browseract.api.models import ApiVersion
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.exceptions import TaskEndedError, TaskNotFoundError
from airflow_provider_browseract.hooks import connection as form
from airflow_provider_browseract.hooks.bots import BotHook
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.request import read_run, read_template_run

if TYPE_CHECKING:
    from airflow_provider_browseract.api.models import CreatedTask, Region, Task, TaskStatus
    from airflow_provider_browseract.api.workflows import Template, Workflow
    from airflow_provider_browseract.runs.spend import Spend


class BrowserActHook(BotHook):
    """Call BrowserAct with an Airflow connection of type ``browseract``.

    Each endpoint of the API has a method, which blocks. For code that runs in an event loop, :meth:`async_client` opens
    a client that sends the calls of :mod:`airflow_provider_browseract.api.v2` and
    :mod:`airflow_provider_browseract.api.v3`.

    A task is known only to the version of the API that has started it. Where a method takes a task id, its argument
    ``api_version`` names that version: ``"v2"``, the default, or ``"v3"`` for the runs of bots and bot templates.

    The hook reads the connection at the first call, and again after BrowserAct has refused the API key. If it then has
    another key, the call is sent again, unless it starts a run. Every method raises a subclass of
    :class:`~airflow_provider_browseract.exceptions.BrowserActError` if the call fails, and
    :class:`~airflow_provider_browseract.exceptions.InputError` if an argument or the connection cannot be used.

    The examples run against the package's emulator, whose ids they use. In them, ``hook`` is ``BrowserActHook()``, and
    ``task_id``, ``finished_task_id`` and ``paused_task_id`` are the ids of three tasks, of which the first is running.
    ``finished_bot_task_id`` is that of the run of a bot.

    :param browseract_conn_id: id of the Airflow connection.
    """

    # Airflow reads these two methods from this class only, not from its bases.
    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Describe the form's extra fields to Airflow 3.1; newer cores read the provider info."""
        return form.form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Describe the form's standard fields to Airflow 3.1; newer cores read the provider info."""
        return form.field_behaviour()

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
        """Start a run of a workflow (``run-task``). Check all arguments before sending anything.

        :param workflow_id: the workflow to run.
        :param input_parameters: the inputs, as a dict or as the API's list of name/value pairs.
        :param save_browser_data: save cookies and logins of the run in a profile. The result then contains its id.
        :param profile_id: profile of an earlier run to start with.
        :param callback_url: public address that BrowserAct calls once, when the task ends.
        :param status_change_callback_url: public address that BrowserAct calls at each change of status.
        :returns: the id of the task and, with ``save_browser_data``, of the profile.
        :raises RunStartUnknownError: the call may have started a run, but the response was lost or cannot be used.
        :raises ConcurrencyLimitError: as many runs as the plan allows are running. The hook does not wait for a slot.

        >>> created = hook.run_task("71002814653029437", {"keyword": "laptops"})
        >>> print(hook.get_task_status(created.id))
        running
        """
        request = read_run(
            workflow_id,
            input_parameters,
            save_browser_data=save_browser_data,
            profile_id=profile_id,
            callback_url=callback_url,
            status_change_callback_url=status_change_callback_url,
            api_base_url=self.settings.client.base_url,
        )
        return self._start(request.call)

    def run_task_by_template(
        self,
        workflow_template_id: str,
        input_parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        region: str | None = None,
        callback_url: str | None = None,
        status_change_callback_url: str | None = None,
    ) -> CreatedTask:
        """Start a run of an official template (``run-task-by-template``). Check all arguments before sending anything.

        :param workflow_template_id: the template to run.
        :param input_parameters: the inputs, as a dict or as the API's list of name/value pairs.
        :param region: code of the proxy region. Default: ``US``, the API's.
        :param callback_url: public address that BrowserAct calls once, when the task ends.
        :param status_change_callback_url: public address that BrowserAct calls at each change of status.
        :returns: the id of the task. Runs of templates have no profiles.
        :raises RunStartUnknownError: as :meth:`run_task`.
        :raises ConcurrencyLimitError: as :meth:`run_task`.

        >>> created = hook.run_task_by_template("52000417936205143", {"keyword": "laptops"}, region="DE")
        >>> print(hook.get_task_status(created.id))
        running
        """
        request = read_template_run(
            workflow_template_id,
            input_parameters,
            region=region,
            callback_url=callback_url,
            status_change_callback_url=status_change_callback_url,
            api_base_url=self.settings.client.base_url,
        )
        return self._start(request.call)

    def get_task(self, task_id: str, *, api_version: str = ApiVersion.V2.value) -> Task:
        """Read everything about a task (``get-task``, ``query-run``).

        :param task_id: the task to read.
        :param api_version: the version of the API that has started it.
        :returns: the task with its steps so far and, once it has ended, its output or the reason of its failure.
        :raises TaskNotFoundError: there is no such task.

        >>> import json
        >>> task = hook.get_task(finished_task_id)
        >>> print(task.status, task.credit, json.loads(task.output.string)[0]["title"])
        finished 20 laptops 824
        >>> json.loads(hook.get_task(finished_bot_task_id, api_version="v3").output.string)["official_website_url"]
        'https://examplecorp.example'
        """
        version = _read_version(api_version)
        return self.client.send(APIS[version].get_task(task_id))

    def get_task_status(self, task_id: str, *, api_version: str = ApiVersion.V2.value) -> TaskStatus:
        """Read only the status of a task, the cheapest way to poll (``get-task-status``, ``query-run-status``).

        :param task_id: the task to read.
        :param api_version: the version of the API that has started it.
        :returns: the status. If its ``ended`` is ``True``, it does not change any more.
        :raises TaskNotFoundError: there is no such task.

        >>> hook.get_task_status(task_id)
        <TaskStatus.RUNNING: 'running'>
        >>> hook.get_task_status(finished_task_id).ended
        True
        """
        version = _read_version(api_version)
        return self.client.send(APIS[version].get_task_status(task_id))

    def iter_tasks(
        self,
        *,
        workflow_id: str | None = None,
        workflow_name: str | None = None,
        status: TaskStatus | str | None = None,
        created_at_from: datetime | None = None,
        created_at_to: datetime | None = None,
    ) -> Iterator[Task]:
        """Iterate over the tasks of version 2 that match (``list-tasks``); each page is read when it is needed.

        :param workflow_id: only tasks of this workflow.
        :param workflow_name: only tasks of workflows whose name contains this. Case does not matter.
        :param status: only tasks with this status.
        :param created_at_from: only tasks created at this time or later. It needs a time zone.
        :param created_at_to: only tasks created at this time or earlier. It needs a time zone.
        :returns: the tasks, without steps and downloads, which only :meth:`get_task` returns.

        >>> import pendulum
        >>> yesterday = pendulum.now("UTC").subtract(days=1)
        >>> tasks = hook.iter_tasks(workflow_name="search", status="finished", created_at_from=yesterday)
        >>> sum(task.credit or 0 for task in tasks)
        20
        """
        call = v2.list_tasks(
            workflow_id=workflow_id,
            workflow_name=workflow_name,
            status=status,
            created_at_from=created_at_from,
            created_at_to=created_at_to,
        )
        return self.client.iter_items(call)

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

        >>> import pendulum
        >>> spend = hook.get_spend(pendulum.today("UTC"), workflow_id="71002814653029437")
        >>> [(row.source_id, row.credits >= 20) for row in spend.rows]
        [('71002814653029437', True)]
        """
        from airflow_provider_browseract.runs.spend import ListedRun, Spend

        of = {ApiVersion.V2: workflow_id, ApiVersion.V3: bot_id}
        # These calls do not read the outputs.
        calls = [
            APIS[version].list_tasks(source_id=given, created_at_from=created_at_from, created_at_to=created_at_to)
            for version, given in of.items()
            if given is not None or (workflow_id is None and bot_id is None)
        ]
        runs = (ListedRun.of(task) for call in calls for task in self.client.iter_items(call))
        # The API compares whole seconds.
        return Spend.of(
            run
            for run in runs
            if created_at_from <= run.created_at and (created_at_to is None or run.created_at < created_at_to)
        )

    def stop_task(self, task_id: str, *, biz_code: int | None = None, api_version: str = ApiVersion.V2.value) -> bool:
        """Stop a task (``stop-task``, ``cancel-run``).

        :param task_id: the task to stop.
        :param biz_code: a number for your own statistics.
        :param api_version: the version of the API that has started it.
        :returns: ``False`` if the task had already ended or does not exist. If it does not exist, a warning is logged.

        >>> hook.stop_task(task_id)
        True
        >>> hook.stop_task(finished_task_id)
        False
        """
        version = _read_version(api_version)
        call = APIS[version].stop_task(task_id, biz_code=biz_code)
        try:
            self.client.send(call)
        except TaskEndedError:
            return False
        except TaskNotFoundError as error:
            # With the wrong version, a task that is running looks like one that is gone.
            self.log.warning("BrowserAct task %s was not stopped: %s. %s", task_id, error.brief, error.advice)
            return False
        return True

    def resume_task(self, task_id: str, *, api_version: str = ApiVersion.V2.value) -> None:
        """Resume a paused task (``resume-task``, ``resume-run``).

        :param task_id: the task that waits for a person.
        :param api_version: the version of the API that has started it. With ``"v3"``, the task may still be paused for
            a moment when this returns.
        :raises TaskNotPausedError: the task is not paused.
        :raises ResumeNotSupportedError: the task is the run of an agent-built bot, which BrowserAct resumes itself.
        :raises TaskNotFoundError: there is no such task.

        >>> hook.resume_task(paused_task_id)
        >>> print(hook.get_task_status(paused_task_id))
        running
        """
        version = _read_version(api_version)
        self.client.send(APIS[version].resume_task(task_id))

    def iter_workflows(self) -> Iterator[Workflow]:
        """Iterate over the account's workflows (``list-workflows``); each page is read when it is needed.

        :returns: the workflows, without their inputs, which only :meth:`get_workflow` returns.

        >>> [workflow.id for workflow in hook.iter_workflows() if workflow.name == "Search"]
        ['71002814653029437']
        """
        return self.client.iter_items(v2.list_workflows())

    def get_workflow(self, workflow_id: str) -> Workflow:
        """Read a workflow and the inputs that it takes (``get-workflow``).

        :param workflow_id: the workflow to read.
        :returns: the workflow.
        :raises NotFoundError: there is no such workflow.

        >>> [entry.name for entry in hook.get_workflow("71002814653029437").input_parameters]
        ['keyword', 'max_items']
        """
        return self.client.send(v2.get_workflow(workflow_id))

    def iter_official_workflow_templates(self, keyword: str | None = None) -> Iterator[Template]:
        """Iterate over the official templates (``list-official-workflow-templates``); each page is read when needed.

        :param keyword: only templates whose name or description contains this.
        :returns: the templates, without their inputs, which only :meth:`get_official_workflow_template` returns.

        >>> [(template.id, template.name) for template in hook.iter_official_workflow_templates("product search")]
        [('52000417936205143', 'Product search')]
        """
        return self.client.iter_items(v2.list_official_workflow_templates(keyword=keyword))

    def get_official_workflow_template(self, workflow_template_id: str) -> Template:
        """Read an official template and the inputs that it takes (``get-official-workflow-template``).

        :param workflow_template_id: the template to read.
        :returns: the template.
        :raises NotFoundError: there is no such template.

        >>> [entry.name for entry in hook.get_official_workflow_template("52000417936205143").input_parameters]
        ['keyword', 'max_items']
        """
        return self.client.send(v2.get_official_workflow_template(workflow_template_id))

    def get_region_list(self, *, api_version: str = ApiVersion.V2.value) -> tuple[Region, ...]:
        """Read the proxy regions for runs of templates (``get-region-list``, ``list-regions``).

        :param api_version: ``"v2"`` for the regions of :meth:`run_task_by_template`, ``"v3"`` for those of
            :meth:`run_bot_template`.
        :returns: the regions, whose codes these methods take.

        >>> [region.code for region in hook.get_region_list()]
        ['US', 'UK', 'DE', 'JP']
        """
        return self.client.send(APIS[_read_version(api_version)].list_regions())

    def test_connection(self) -> tuple[bool, str]:
        """Check API key, address and network by listing one workflow, which uses no credits; then check callbacks.

        :returns: whether the connection works, and a message for the user.
        """
        from airflow_provider_browseract.hooks.probe import probe

        with self.client_within(timings.CONNECTION_TEST_LIMIT) as client:
            good, message = probe(client, self)
        # The id tells nothing new: the command was given it, and the Test button tests a copy that has a random one.
        conn_id = repr(self.browseract_conn_id)
        return good, message.replace(f" of connection {conn_id}", "").replace(f"onnection {conn_id}", "onnection")


def _read_version(value: str) -> ApiVersion:
    return read_choice("api_version", value, ApiVersion)
