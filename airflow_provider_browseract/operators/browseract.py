"""Operators that run BrowserAct workflows, bots and official templates, and stop and resume BrowserAct tasks."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar

from airflow.sdk import BaseOperator

from airflow_provider_browseract.api.arguments import is_missing, read_ids
from airflow_provider_browseract.api.models import TaskStatus
from airflow_provider_browseract.api.versions import SourceKind
from airflow_provider_browseract.compat import AirflowFailException
from airflow_provider_browseract.exceptions import BrowserActError, InputError, RunError, TaskNotPausedError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.operators.base import InputOperator, InputParametersOperator
from airflow_provider_browseract.runs.hints import check_arguments
from airflow_provider_browseract.runs.options import AskPerson

if TYPE_CHECKING:
    from airflow.sdk import Context
    from typing_extensions import Self

    from airflow_provider_browseract.api.models import Task
    from airflow_provider_browseract.runs.request import RunRequest


T = TypeVar("T")

__all__ = [
    "AskPerson",
    "ResumeTaskOperator",
    "RunBotOperator",
    "RunBotTemplateOperator",
    "RunTemplateOperator",
    "RunWorkflowOperator",
    "StopTaskOperator",
]


class RunWorkflowOperator(InputParametersOperator):
    """Run a BrowserAct workflow, wait for its end, and return its output (``run-task``).

    The task pushes ``task_id`` (the BrowserAct task) and ``profile_id`` (the browser profile that a later run can start
    with, or an empty string) as XComs, right after the start. Pass a profile on with ``task.output["profile_id"]``.

    :param workflow_id: id of the workflow to run, as the BrowserAct dashboard shows it. Templated.
    :param save_browser_data: save the cookies and logins of this run in a browser profile. Its id is the XCom
        ``profile_id``. Default: ``False``.
    :param profile_id: browser profile of an earlier run to start with. If the value renders to nothing, the task fails,
        because the run would not be logged in. Default: no profile. Templated.
    :param input_parameters: the inputs of the run, as a dict of names and values or as the API's list of
        ``{"name": ..., "value": ...}``. Strings are sent as they are, other JSON values as JSON text. Values can be
        templates at any depth. In the list form, names can be templates too. Templated.
    :param callback_url: your own URL that BrowserAct calls when the run ends: http(s), public, at most 2,048
        characters. The task then polls, and does not wait for a callback itself. Templated.
    :param status_change_callback_url: your own URL that BrowserAct calls at each change of status; as ``callback_url``.
        Templated.
    :param output_format: format of the output's text: ``"json"``, ``"csv"`` (returned as a list of dicts), ``"text"``,
        or ``"auto"``, which reads the text as JSON if possible and returns it as text otherwise. Default: ``"auto"``.
        With ``"json"`` or ``"csv"``, the task fails if the text does not have that format. A text of more than 10
        million characters is returned as text, because its value could need too much memory.
    :param output_path: folder in object storage for the results of the run, as ``ObjectStoragePath`` takes it, such as
        ``s3://conn_id@bucket/results``. Text, files and facts are written to a separate folder for each run. Default:
        nothing is written, and the task returns the output itself. Templated.
    :param validate_inputs: compare the names of the inputs with the declared ones before the start. This takes one
        more request. If the declaration cannot be read, the task logs a warning and starts the run. When ``False``,
        a wrong name only shows in the run. Default: ``True``.
    :param dry_run: make all checks that need no start, and log the request that would start the run, but start nothing.
        Only BrowserAct checks the region of a template, and whether a bot is published. The task ends as skipped.
        Default: ``False``.
    :param browseract_conn_id: id of the Airflow connection. Default: ``browseract_default``. Templated.
    :param wait_for_completion: wait for the end of the run. When ``False``, the task succeeds once the run is started,
        and returns the id of the BrowserAct task. Default: ``True``.
    :param deferrable: wait in the triggerer, without holding a worker. Default: ``[operators] default_deferrable``,
        which is ``False`` unless you change it.
    :param webhook: let BrowserAct call back when the run ends, to resume the deferred task at once. ``None`` uses a
        callback if the connection has a ``webhook_base_url``. ``True`` fails the task if a callback is not possible;
        with your own ``callback_url``, the DAG cannot be imported. ``False`` only polls. Default: ``None``.
    :param poll_interval: seconds, or a ``timedelta``, between two polls. Default: 10. While a callback is expected, the
        default grows to 120: polls come about 13, 26, 52, 104 and 208 seconds after the deferral, and so on. A shorter
        interval finds the end of the run sooner, but sends more requests.
    :param timeout: seconds, or a ``timedelta``, that the run may take from its start. After that, the run is stopped
        and the try fails. Default: 7 hours, the limit of the BrowserAct API.
    :param queue_timeout: seconds, or a ``timedelta``, to wait in the queue for a slot if BrowserAct accepts no further
        run. After that, the try fails. Default: the value of ``timeout``.
    :param max_credits: a whole number: the credits that all runs of this task instance may use together. A run that
        exceeds it is stopped, and the Airflow task fails without a retry. The number of steps counts while BrowserAct
        reports fewer credits. A run can use a little more than the cap before it is stopped. With a cap, the run is
        polled every 10 seconds even while a callback is expected. Before Airflow 3.3, each try has its own count.
        Default: no cap.
    :param on_budget: what to do if the budget of the connection (``daily_credits``, ``monthly_credits``) does not allow
        the start: ``"fail"`` without a retry, or ``"wait"`` in the triggerer until the next day or month (UTC) begins,
        and then in the queue for slots. Default: ``"fail"``.
    :param durable: let a later try reattach to the run of an earlier one instead of starting another. It needs Airflow
        3.3 or later, which keeps the state of a run for the next try, and ``retries``: without a later try, a run that
        would be left to that try is stopped. Default: ``True`` from Airflow 3.3 on. Before, ``True`` has no effect, and
        the log has a warning.
    :param on_paused: what to do when the run pauses for a person: keep waiting (``"wait"``), stop the run and fail
        without a retry (``"fail"``), or ask people in Airflow (``"ask"``, or an :class:`AskPerson` with a time limit
        and a default answer). The pause then becomes a Required Action with the live view of the browser and the
        answers Resume and Stop. While it is open, the task is always deferred. Default: ``"wait"``.
    :param on_paused_callback: a notifier or a function, or a list of them, called with the context of the task each
        time the run pauses. In the context, ``browseract_task`` contains the facts about the run
        (:func:`~airflow_provider_browseract.runs.report.facts`), with the live view as ``links.live``, and
        ``required_action_url`` is the page on which to answer. With this, or with an ``on_paused`` other than
        ``"wait"``, the run is polled every 10 seconds even while a callback is expected.
    :param show_live_view: put the address of the run's live view into the log, XComs, buttons and Required Actions of
        the task. Everyone who may see the task can then open it, and may be able to act in a browser that is logged in.
        When ``False``, only BrowserAct shows it. Default: ``True``.
    :param cancel_on_kill: stop the run when a person marks or clears the Airflow task that waits for it, when
        ``execution_timeout`` or Ctrl-C ends the task, or when its process receives SIGTERM and no later try can
        reattach to the run. When ``False``, the run keeps running and using credits, but after a clear, the next
        try can stop it. Default: ``True``.
    :param kwargs: the arguments of Airflow's ``BaseOperator``.
    :returns: the output: the parsed value of JSON text, other text as text, ``None`` if there is none. If the run
        produced files, a dict with that value under ``output`` and the addresses of the files under ``files``.
        With ``output_path``, a dict that describes what was written: ``path`` of the run's folder, ``task`` (path of
        the facts), ``output`` and ``files``, each of those with ``name``, ``path``, ``size`` in bytes and
        ``media_type``.
    :raises InputError: an argument that is not a template has an invalid value. It is raised when the DAG is parsed.
    :raises AirflowFailException: a retry cannot help. Either an argument or a field of the connection is wrong, or
        the budget does not allow a run, and nothing was started. Or the run used more than ``max_credits``. Or it is
        not known whether BrowserAct started a run, and no later try could find out. Or the run finished, and a retry
        would only start, and bill, another run: the output does not have the declared format (its text is stored), or
        some of its files are no longer available. Or a person chose to stop the run.
    :raises RunError: the run failed, was canceled, took too long, paused and nobody answered, or its status could not
        be read; or nothing was started, because there was no free slot or the store did not respond; or the run
        finished and its results could not be written. Airflow's retries apply: the next try starts a new run if it
        cannot use this one.
    """

    source_kind = SourceKind.WORKFLOW
    template_fields: Sequence[str] = ("workflow_id", "profile_id", *InputParametersOperator.template_fields)

    def __init__(
        self, *, workflow_id: str, save_browser_data: bool = False, profile_id: str | None = None, **kwargs: Any
    ) -> None:
        # Before the options are checked.
        self.save_browser_data = save_browser_data
        super().__init__(**kwargs)
        self.workflow_id = workflow_id
        self.profile_id = profile_id

    def request(self, **arguments: Any) -> RunRequest:
        """Check the rendered arguments, and return the request that starts the run."""
        if self.given.get("profile_id", self.profile_id) is not None and is_missing(self.profile_id):
            raise InputError(
                f"profile_id is {self.profile_id!r}. If it comes from a task, that task saved no profile: set "
                "save_browser_data=True there. Otherwise remove profile_id here."
            )
        return super().request(profile_id=self.profile_id, save_browser_data=self.save_browser_data, **arguments)

    def profile_of(self, created: str | None, task: Task | None) -> str:
        """Return the saved profile or, without one, the profile that the run started with; an empty string for neither.

        If the XCom were missing, Airflow would fail the task that reads it, with an error that names neither the
        profile nor save_browser_data.
        """
        # Not every response to a start names the profile.
        saved = created or (task.profile_id if task and self.save_browser_data else None)
        return saved or str(self.profile_id or "").strip()


class RunTemplateOperator(InputParametersOperator):
    """Run an official BrowserAct template, wait for its end, and return its output (``run-task-by-template``).

    Runs of templates have no browser profiles. To use a profile, copy the template to a workflow of your account in
    the BrowserAct dashboard, and run that workflow with :class:`RunWorkflowOperator`.

    :param workflow_template_id: id of the template to run, as ``BrowserActHook.iter_official_workflow_templates`` lists
        it. Templated.
    :param region: code of the proxy region, as ``BrowserActHook.get_region_list`` lists it. Default: ``US``, the
        default of the API. Templated.
    :param kwargs: the arguments of :class:`RunWorkflowOperator`, from ``input_parameters`` on.
    """

    source_kind = SourceKind.TEMPLATE
    template_fields: Sequence[str] = ("workflow_template_id", "region", *InputParametersOperator.template_fields)

    def __init__(self, *, workflow_template_id: str, region: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.workflow_template_id = workflow_template_id
        self.region = region

    def request(self, **arguments: Any) -> RunRequest:
        """Check the rendered arguments, and return the request that starts the run."""
        return super().request(region=self.region, **arguments)


class RunBotOperator(InputOperator):
    """Run a BrowserAct bot, wait for its end, and return its output (``create-run`` of API v3).

    A bot is workflow-built (nodes in the visual editor) or agent-built (made from a description). API v3 has no browser
    profiles: the browser settings of the bot decide which cookies and logins it keeps.

    :param bot_id: id of the bot to run, as the BrowserAct dashboard or ``BrowserActHook.iter_bots`` shows it.
        Templated.
    :param input: the input of the run, a dict of JSON values. Values can be templates at any depth. Before the start,
        the input is compared with the bot's schema. A text that a template was rendered to, such as ``"2"``, is
        converted to the type that the schema asks for, if nothing is lost, and the log names what was converted. With
        ``validate_inputs=False``, it is neither compared nor converted, and no request is made for that.
        Default: ``{}``. Templated.
    :param kwargs: the arguments of :class:`RunWorkflowOperator`, from ``callback_url`` on.
    :returns: the output: a JSON value as it is, a text as ``output_format`` defines. For the rest, and for errors, see
        :class:`RunWorkflowOperator`.
    """

    source_kind = SourceKind.BOT
    template_fields: Sequence[str] = ("bot_id", *InputOperator.template_fields)

    def __init__(self, *, bot_id: str, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bot_id = bot_id


class RunBotTemplateOperator(InputOperator):
    """Run an official BrowserAct template as a bot, wait for its end, and return its output (``create-template-run``).

    :class:`RunTemplateOperator` runs the templates of API v2.

    :param template_id: id of the template to run, as ``BrowserActHook.iter_bot_templates`` lists it. Templated.
    :param region: code of the proxy region, as ``BrowserActHook.get_bot_region_list`` lists it. Default:
        the default of the API. Templated.
    :param kwargs: ``input`` as in :class:`RunBotOperator`, and the arguments of :class:`RunWorkflowOperator`, from
        ``callback_url`` on.
    """

    source_kind = SourceKind.BOT_TEMPLATE
    template_fields: Sequence[str] = ("template_id", "region", *InputOperator.template_fields)

    def __init__(self, *, template_id: str, region: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.template_id = template_id
        self.region = region

    def request(self, **arguments: Any) -> RunRequest:
        """Check the rendered arguments, and return the request that starts the run."""
        return super().request(region=self.region, **arguments)


class TaskOperator(BaseOperator):
    """Act on one or several BrowserAct tasks. If one of them fails, the others are still processed.

    :param browseract_task_id: id of the BrowserAct task, or a list of ids. Templated.
    :param browseract_conn_id: id of the Airflow connection. Default: ``browseract_default``. Templated.
    :returns: the outcome for each task, by its id.
    :raises AirflowFailException: an argument is wrong, or the action can never succeed for one of the tasks.
    :raises RunError: the action failed for some of the tasks, and may succeed later. Airflow's retries apply; repeating
        the action does not affect the other tasks.
    """

    template_fields: Sequence[str] = ("browseract_task_id", "browseract_conn_id")
    ui_color = "#e6f0ff"

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Check the arguments before Airflow does."""
        check_arguments(cls, kwargs)
        return super().__new__(cls)

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
        """Act on one task, and return the outcome as a word.

        :raises BrowserActError: the action failed.
        :raises InputError: the action can never succeed.
        :raises RunError: the action is not possible yet.
        """

    def execute(self, context: Context) -> dict[str, str]:
        """Act on each task, and return the outcomes."""
        from airflow_provider_browseract.worker.final_errors import no_retry_on_bad_arguments

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
            message = "\n".join(f"{error}\nBrowserAct task {task_id}." for task_id, error in failed.items())
            raise (RunError if any(map(_may_pass, failed.values())) else AirflowFailException)(message)
        return done


class StopTaskOperator(TaskOperator):
    """Stop BrowserAct tasks, wherever they were started (``stop-task``, or ``cancel-run`` of API v3).

    The outcome of a task is ``stopped``, or ``ended`` if it had already ended. For arguments and errors, see
    :class:`TaskOperator`.
    """

    def act(self, browseract_task_id: str) -> str:
        """Stop the task, unless it has already ended."""
        return "stopped" if self.hook.stop_known_task(browseract_task_id) else "ended"


class ResumeTaskOperator(TaskOperator):
    """Resume paused BrowserAct tasks (``resume-task``, or ``resume-run`` of API v3).

    The outcome of a task is ``resumed``, or its status if it is not paused any more. Resuming a task that has ended
    is an error, and so is resuming the run of an agent-built bot, which BrowserAct resumes itself. For arguments and
    errors, see :class:`TaskOperator`.
    """

    def act(self, browseract_task_id: str) -> str:
        """Resume the task, if it is paused."""
        try:
            self.hook.send_about(browseract_task_id, lambda api: api.resume_task(browseract_task_id))
        except TaskNotPausedError:
            status = self.hook.get_task_status(browseract_task_id)
            if status.ended:
                raise InputError(
                    f"The run has ended as {status} and cannot be resumed. Remove its id from browseract_task_id."
                ) from None
            if status is TaskStatus.PAUSING:
                raise RunError(
                    "The run is about to pause and cannot be resumed yet. Set retries, so that a later try resumes it."
                ) from None
            return str(status)
        return "resumed"


def _may_pass(error: Exception) -> bool:
    return isinstance(error, RunError) or (isinstance(error, BrowserActError) and error.temporary)
