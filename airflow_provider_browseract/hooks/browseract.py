"""The hook: BrowserAct's API behind an Airflow connection."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from airflow.sdk import BaseHook

from airflow_provider_browseract import __version__
from airflow_provider_browseract.api import calls
from airflow_provider_browseract.api.errors import (
    NOTHING_TO_STOP,
    AnswerLostError,
    AuthenticationError,
    BrowserActError,
    ConnectionFailedError,
    NotTheApiError,
    RunStartUnknownError,
)
from airflow_provider_browseract.compat import AirflowFailException, AirflowNotFoundException
from airflow_provider_browseract.hooks import connection as form
from airflow_provider_browseract.runs.inputs import (
    InputError,
    read_id,
    read_input_parameters,
    read_run,
)
from airflow_provider_browseract.webhook import callback

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_provider_browseract.api.client import AsyncBrowserActClient, BrowserActClient, ClientSettings
    from airflow_provider_browseract.api.models import (
        CreatedTask,
        Region,
        Task,
        TaskStatus,
        Template,
        Workflow,
    )


PROBE_TIMEOUT = 5.0
"""Seconds that the test of a connection waits for the callback route."""


class BrowserActHook(BaseHook):
    """Talks to BrowserAct as a connection of type ``browseract`` says.

    The connection is looked up at the first call, once. Every method raises
    :class:`~airflow_provider_browseract.api.errors.BrowserActError`, in the class that says what can be done, and
    :class:`~airflow_provider_browseract.runs.inputs.InputError` for arguments or a connection that cannot be used.

    :param browseract_conn_id: id of the Airflow connection.
    """

    conn_name_attr = "browseract_conn_id"
    default_conn_name = "browseract_default"
    conn_type = form.CONNECTION_TYPE
    hook_name = form.HOOK_NAME

    def __init__(self, browseract_conn_id: str = default_conn_name) -> None:
        super().__init__()
        self.browseract_conn_id = browseract_conn_id

    @classmethod
    def get_connection_form_widgets(cls) -> dict[str, Any]:
        """Describe the form's extra fields to Airflow 3.1; newer cores read the provider info."""
        return form.form_widgets()

    @classmethod
    def get_ui_field_behaviour(cls) -> dict[str, Any]:
        """Describe the form's standard fields to Airflow 3.1; newer cores read the provider info."""
        return form.field_behaviour()

    @cached_property
    def settings(self) -> form.ConnectionSettings:
        """What the connection says."""
        return self._read(self.get_connection(self.browseract_conn_id))

    @cached_property
    def client(self) -> BrowserActClient:
        """The client that carries any call of :mod:`airflow_provider_browseract.api.calls`."""
        from airflow_provider_browseract.api.client import BrowserActClient

        return BrowserActClient(self.settings.client)

    def get_conn(self) -> BrowserActClient:
        """Return :attr:`client`, under the name that Airflow's hooks have in common."""
        return self.client

    @asynccontextmanager
    async def async_client(self, *, within: float | None = None) -> AsyncIterator[AsyncBrowserActClient]:
        """Open an asynchronous client, for triggers; the connection is read without blocking the event loop.

        :param within: seconds after which a call gives up, where they are few; the connection's patience otherwise.
        """
        from airflow_provider_browseract.api.client import AsyncBrowserActClient

        if "settings" not in self.__dict__:
            self.__dict__["settings"] = self._read(await self.aget_connection(self.browseract_conn_id))
        settings = self.settings.client
        async with AsyncBrowserActClient(settings if within is None else _hurried(settings, within)) as client:
            yield client

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
        """Start a run of a workflow (``run-task``); everything is checked before anything is sent.

        :param workflow_id: the workflow to run.
        :param input_parameters: names and values, or the API's list of name/value pairs.
        :param save_browser_data: keep cookies and logins; the answer then has the profile's id.
        :param profile_id: browser profile of an earlier run to start with.
        :param callback_url: public address that is called once when the task ends.
        :param status_change_callback_url: public address that is called at each change of status.
        :returns: the ids of the task and, if it is saved, of the profile.
        :raises RunStartUnknownError: the call may have started a run, but its answer was lost or is unusable.
        :raises ConcurrencyLimitError: as many runs as the plan allows are going; this is said at once, and not waited
            for.
        """
        call = read_run(
            workflow_id,
            input_parameters,
            save_browser_data=save_browser_data,
            profile_id=profile_id,
            callback_url=callback_url,
            status_change_callback_url=status_change_callback_url,
            api_base_url=self.settings.client.base_url,
        )
        return self._start(call)

    def run_task_by_template(
        self,
        workflow_template_id: str,
        input_parameters: Mapping[str, Any] | Sequence[Mapping[str, Any]] | None = None,
        *,
        region: str | None = None,
    ) -> CreatedTask:
        """Start a run of an official template (``run-task-by-template``).

        :param workflow_template_id: the template to run.
        :param input_parameters: names and values, or the API's list of name/value pairs.
        :param region: code of the proxy region; the API's default is ``US``.
        :raises RunStartUnknownError: as :meth:`run_task`.
        """
        call = calls.run_task_by_template(
            read_id("workflow_template_id", workflow_template_id),
            region=region,
            input_parameters=read_input_parameters(input_parameters),
        )
        return self._start(call)

    def get_task(self, task_id: str) -> Task:
        """Read everything about a task (``get-task``)."""
        return self.client.send(calls.get_task(read_id("task_id", task_id)))

    def get_task_status(self, task_id: str) -> TaskStatus:
        """Read a task's status alone (``get-task-status``)."""
        return self.client.send(calls.get_task_status(read_id("task_id", task_id)))

    def iter_tasks(
        self,
        *,
        workflow_id: str | None = None,
        workflow_name: str | None = None,
        status: TaskStatus | None = None,
        created_at_from: datetime | None = None,
        created_at_to: datetime | None = None,
    ) -> Iterator[Task]:
        """Give the tasks that match, over all pages (``list-tasks``).

        :param workflow_id: only tasks of this workflow.
        :param workflow_name: only tasks of workflows whose name contains this, in any case.
        :param status: only tasks with this status.
        :param created_at_from: only tasks created at this time or later; needs a time zone.
        :param created_at_to: only tasks created at this time or earlier; needs a time zone.
        """
        return self.client.iter_items(
            calls.list_tasks(
                workflow_id=workflow_id,
                workflow_name=workflow_name,
                status=status,
                created_at_from=created_at_from,
                created_at_to=created_at_to,
            )
        )

    def stop_task(self, task_id: str, *, within: float | None = None) -> bool:
        """Cancel a task (``stop-task``).

        :param task_id: the task to cancel.
        :param within: seconds after which to give up, where they are few; the connection's patience otherwise.
        :returns: False if BrowserAct says that the task had already ended, or does not know it any more.
        """
        call = calls.stop_task(read_id("task_id", task_id))
        try:
            if within is None:
                self.client.send(call)
            else:
                from airflow_provider_browseract.api.client import BrowserActClient

                BrowserActClient(_hurried(self.settings.client, within)).send(call)
        except NOTHING_TO_STOP:
            return False
        return True

    def resume_task(self, task_id: str) -> None:
        """Let a paused task go on (``resume-task``).

        :raises TaskNotPausedError: the task is not paused.
        """
        self.client.send(calls.resume_task(read_id("task_id", task_id)))

    def iter_workflows(self) -> Iterator[Workflow]:
        """Give the account's workflows, over all pages (``list-workflows``)."""
        return self.client.iter_items(calls.list_workflows())

    def get_workflow(self, workflow_id: str) -> Workflow:
        """Read a workflow with the inputs that it takes (``get-workflow``)."""
        return self.client.send(calls.get_workflow(read_id("workflow_id", workflow_id)))

    def iter_official_workflow_templates(self, keyword: str | None = None) -> Iterator[Template]:
        """Give the official templates, over all pages (``list-official-workflow-templates``).

        :param keyword: only templates whose name or description contains this.
        """
        return self.client.iter_items(calls.list_official_workflow_templates(keyword=keyword))

    def get_official_workflow_template(self, workflow_template_id: str) -> Template:
        """Read a template with the inputs that it takes (``get-official-workflow-template``)."""
        workflow_template_id = read_id("workflow_template_id", workflow_template_id)
        return self.client.send(calls.get_official_workflow_template(workflow_template_id))

    def get_region_list(self) -> tuple[Region, ...]:
        """List the proxy regions for template runs (``get-region-list``)."""
        return self.client.send(calls.get_region_list())

    def test_connection(self) -> tuple[bool, str]:
        """Check key, address and network by listing one workflow, which costs no credits, and the way of callbacks.

        :returns: whether it worked, and what was found or what is wrong.
        """
        try:
            page = self.client.send(calls.list_workflows(limit=1))
        except AuthenticationError as error:
            return False, f"The API key is wrong: {error}"
        except NotTheApiError as error:
            return False, f"The host is wrong: {error}"
        except (ConnectionFailedError, AnswerLostError) as error:
            return False, f"The network or the host is wrong: {error}"
        except (BrowserActError, InputError) as error:
            return False, str(error)
        connected = f"Connected to {self.settings.client.base_url}: {page.total_count or 0} workflows are visible."
        good, callbacks = self._test_callbacks()
        return good, f"{connected} {callbacks}"

    def _test_callbacks(self) -> tuple[bool, str]:
        """Knock at the callback route with a token that no run has."""
        import requests

        base_url = self.settings.webhook_base_url
        if base_url is None:
            return True, "Deferred tasks poll, since there is no webhook_base_url."
        try:
            url = callback.address(
                base_url,
                callback.WaitingTask("", "", "", -1),
                callback.new_token(),
                conn_id=self.browseract_conn_id,
                api_base_url=self.settings.client.base_url,
            )
            answer = requests.post(url, json={}, timeout=PROBE_TIMEOUT, allow_redirects=False)
        except InputError as error:
            return False, str(error)
        except requests.RequestException as error:
            return True, (
                f"Whether callbacks arrive at {base_url} is not known: it cannot be reached from here "
                f"({type(error).__name__})."
            )
        if (answer.status_code, answer.content) == (404, callback.UNKNOWN_ANSWER):
            return True, f"Callbacks arrive at {base_url}."
        return False, (
            f"But {base_url} does not lead to the callback route: it answered HTTP {answer.status_code}. Check its "
            "path; where a login stands in front of the API server, callbacks need a relay."
        )

    def _read(self, connection: Connection) -> form.ConnectionSettings:
        from airflow import __version__ as airflow_version

        user_agent = f"airflow-provider-browseract/{__version__} apache-airflow/{airflow_version}"
        return form.read_settings(connection, user_agent=user_agent)

    def _start(self, call: calls.Call[CreatedTask]) -> CreatedTask:
        try:
            return self.client.send(call)
        except BrowserActError as error:
            # A web page where the API should be: no run was asked for from whoever answered.
            if error.not_processed or isinstance(error, NotTheApiError):
                raise
            raise RunStartUnknownError(
                f"It is not known whether BrowserAct started a run: {error.message}",
                http_status=error.http_status,
                code=error.code,
                msg=error.msg,
                trace_id=error.trace_id,
            ) from error
        except BaseException:
            # Such as Airflow's task timeout, which interrupts wherever the code is.
            self.log.error("Interrupted during %s: a run may go on, and cost credits, without its id known.", call.name)
            raise


@contextmanager
def failing_for_good(conn_id: str) -> Iterator[None]:
    """Let what no retry can mend, a wrong argument or no such connection, end the Airflow task without retries.

    :param conn_id: id of the connection that is used within.
    """
    try:
        yield
    except InputError as error:
        raise AirflowFailException(str(error)) from error
    except AirflowNotFoundException as error:
        raise AirflowFailException(form.no_connection(conn_id)) from error


def _hurried(settings: ClientSettings, seconds: float) -> ClientSettings:
    """Let a call of a client end within some seconds."""
    from airflow_provider_browseract.api.retries import RetryPolicy

    part = seconds / 3
    return replace(
        settings,
        connect_timeout=part,
        read_timeout=part,
        retries=RetryPolicy(budget=part, longest_pause=part),
    )
