"""The operator that runs a BrowserAct workflow."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseOperator
from airflow.sdk.log import mask_secret

from airflow_provider_browseract.api.errors import BrowserActError, RunStartUnknownError
from airflow_provider_browseract.api.models import TaskStatus
from airflow_provider_browseract.compat import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowTaskTimeout,
    TaskDeferralError,
    TaskDeferralTimeout,
    conf,
)
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.following import follow
from airflow_provider_browseract.links.browseract import BrowserActTaskLink
from airflow_provider_browseract.runs.inputs import InputError, read_id, read_seconds
from airflow_provider_browseract.runs.outcome import (
    RunCanceledError,
    RunError,
    RunLostError,
    RunTimedOutError,
    describe,
    result_of,
)
from airflow_provider_browseract.runs.waiting import (
    CALLBACK_GRACE,
    CORE_RACE_GRACE,
    DEFAULT_POLL_INTERVAL,
    DEFAULT_TIMEOUT,
    SAFETY_POLL_INTERVAL,
    End,
    WaitEvent,
    WokenBy,
    is_hopeless,
    status_line,
    wait_for_end,
)
from airflow_provider_browseract.webhook.callback import TOKEN_XCOM, Callback, NoCallbackError, WaitingTask, arrange

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_browseract.api.models import CreatedTask, Task

BACKSTOP = 600.0
"""Seconds that Airflow's own timeout of the deferral stands behind the deadline, which the trigger keeps itself.

Airflow's timeout is for the case that no trigger runs: it can neither stop the run nor say what became of it.
"""

KILL_GRACE = 4.0
"""Seconds within which a killed task has to have stopped its run; Airflow ends the process after 5."""

InputParameters = Mapping[str, Any] | Sequence[Mapping[str, Any]] | None


class RunWorkflowOperator(BaseOperator):
    """Runs a BrowserAct workflow, waits for its end, and returns its output.

    Right after the start it pushes the XComs ``task_id`` (the BrowserAct task) and, where there is one,
    ``profile_id`` (the browser profile that a later run can start with). ``task.output["profile_id"]`` hands it on.

    :param workflow_id: the workflow to run, as the BrowserAct dashboard shows it.
    :param input_parameters: the workflow's inputs, as a dict of names and values or as the API's list of
        ``{"name": ..., "value": ...}``. Strings are sent as they are, other JSON values as JSON text. Templates work
        at every depth, in values (and in the list form in names too).
    :param save_browser_data: keep cookies and logins of this run; its ``profile_id`` XCom then names them.
    :param profile_id: browser profile of an earlier run to start with. A value that turns out to be empty is an
        error, since the run would not be logged in.
    :param callback_url: a receiver of your own for the end of the run; http(s), public, at most 2,048 characters.
    :param status_change_callback_url: a receiver of your own for each change of status; as ``callback_url``.
    :param browseract_conn_id: id of the Airflow connection.
    :param wait_for_completion: wait for the end. Without it the task succeeds once the run is started and returns
        the id of the BrowserAct task.
    :param deferrable: wait in the triggerer, without a worker. Default: ``[operators] default_deferrable``.
    :param webhook: let BrowserAct call back when the run ends, and resume the deferred task at once. ``None`` does so
        where the connection has a ``webhook_base_url``, ``True`` demands it, ``False`` leaves it to the polls.
    :param poll_interval: seconds, or a ``timedelta``, between two questions for the status. Default: 10, and 120 while
        a callback is expected.
    :param timeout: seconds, or a ``timedelta``, that the run may take from its start. Then it is stopped and the
        Airflow task fails. Default: 7 hours, the limit of the BrowserAct API.
    :returns: the output: JSON text as the value it describes, other text as text, ``None`` if there is none. If the
        run put out files, a dict with that under ``output`` and the files' addresses under ``files``.
    :raises AirflowFailException: something is wrong that a retry cannot mend, such as an argument, the connection or
        the API key; nothing was started. Or it is not known whether a run was started, so that a retry could start
        a second one.
    :raises RunError: the run was started and failed, was canceled, took too long, or could not be followed. Airflow
        retries the task, which starts a new run.
    """

    template_fields: Sequence[str] = (
        "workflow_id",
        "input_parameters",
        "profile_id",
        "callback_url",
        "status_change_callback_url",
        "browseract_conn_id",
    )
    template_fields_renderers = {"input_parameters": "json"}
    operator_extra_links = (BrowserActTaskLink(),)
    ui_color = "#e6f0ff"

    def __init__(
        self,
        *,
        workflow_id: str,
        input_parameters: InputParameters = None,
        save_browser_data: bool = False,
        profile_id: str | None = None,
        callback_url: str | None = None,
        status_change_callback_url: str | None = None,
        browseract_conn_id: str = BrowserActHook.default_conn_name,
        wait_for_completion: bool = True,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        webhook: bool | None = None,
        poll_interval: float | timedelta | None = None,
        timeout: float | timedelta = DEFAULT_TIMEOUT,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.workflow_id = workflow_id
        self.input_parameters = input_parameters
        self.save_browser_data = save_browser_data
        self.profile_id = profile_id
        self.callback_url = callback_url
        self.status_change_callback_url = status_change_callback_url
        self.browseract_conn_id = browseract_conn_id
        self.wait_for_completion = wait_for_completion
        self.deferrable = deferrable
        self.webhook = webhook
        self.poll_interval = poll_interval
        self.timeout = timeout
        # Rendering may turn a profile into nothing; only here can it be told that one was asked for.
        self._profile_wanted = profile_id is not None
        self._browseract_task_id: str | None = None
        self._killed = False

    @cached_property
    def hook(self) -> BrowserActHook:
        """The hook for the operator's connection."""
        return BrowserActHook(self.browseract_conn_id)

    def execute(self, context: Context) -> Any:
        """Start the run, and wait for it in the way asked for."""
        created, timeout, callback = self._start(context)
        deadline = time.time() + timeout
        with self._accounting_for(created.id):
            self._hand_on(context, created)
            task = self._look_once(context, created)
            if not self.wait_for_completion:
                self._browseract_task_id = None
                self.log.info("Not waiting for BrowserAct task %s.", created.id)
                return created.id
            if task is not None and task.status.ended:
                return self._conclude(context, task)
            if self.deferrable:
                self._defer(context, created.id, deadline, callback.token_sha256 if callback else None)
            return self._wait_here(context, created.id, deadline, task)

    def execute_complete(self, context: Context, event: Any) -> Any:
        """Go on after the deferral: ask the API what became of the run, whatever the event says.

        :param event: the payload of a :class:`~airflow_provider_browseract.runs.waiting.WaitEvent`, from the trigger or
            from the callback route.
        """
        resumed_at = time.time()
        try:
            told = WaitEvent.read(event)
        except ValueError as error:
            self._give_up(self._started_task_id(context), f"the trigger cannot be understood: {error}")
        with self._accounting_for(told.browseract_task_id):
            return self._resume(context, told, resumed_at)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Go on after the deferral, also when Airflow ended it: then the run must not be left going unseen."""
        try:
            return super().resume_execution(next_method, next_kwargs, context)
        except (TaskDeferralError, TaskDeferralTimeout) as error:
            self._give_up(self._started_task_id(context), f"Airflow ended the deferral: {error}")

    def on_kill(self) -> None:
        """Stop the run, since the Airflow task that waits for it is being killed."""
        self._killed = True
        if self._browseract_task_id is not None:
            self.log.warning(
                "Killed while waiting for BrowserAct task %s. %s",
                self._browseract_task_id,
                self._stop(self._browseract_task_id, within=KILL_GRACE),
            )

    def _start(self, context: Context) -> tuple[CreatedTask, float, Callback | None]:
        try:
            # Both are read again later, when it would be too late to refuse them.
            self._poll_interval(DEFAULT_POLL_INTERVAL)
            timeout = read_seconds("timeout", self.timeout)
            if not isinstance(self.save_browser_data, bool):
                raise InputError(f"save_browser_data is {self.save_browser_data!r}. Give True or False.")
            if self._profile_wanted:
                self.profile_id = self._read_profile_id()
            callback = self._arrange_callback(context)
            created = self.hook.run_task(
                self.workflow_id,
                self.input_parameters,
                save_browser_data=self.save_browser_data,
                profile_id=self.profile_id,
                callback_url=callback.callback_url if callback else self.callback_url,
                status_change_callback_url=(
                    callback.status_change_callback_url if callback else self.status_change_callback_url
                ),
            )
        except AirflowNotFoundException as error:
            raise AirflowFailException(
                f"There is no connection {self.browseract_conn_id!r}. Add one of type BrowserAct with the API key as "
                f"its password, or set AIRFLOW_CONN_{self.browseract_conn_id.upper()}."
            ) from error
        except AirflowTaskTimeout as error:
            raise AirflowFailException(
                f"execution_timeout ended the start of workflow {self.workflow_id}, so it is not known whether a "
                f"run was started. {RunStartUnknownError.remedy}"
            ) from error
        except InputError as error:
            raise AirflowFailException(str(error)) from error
        except BrowserActError as error:
            if error.temporary:
                raise
            raise AirflowFailException(str(error)) from error
        self._browseract_task_id = created.id
        self.log.info("Started BrowserAct task %s of workflow %s.", created.id, self.workflow_id)
        if self._killed:
            # The signal came while the call was under way, and Airflow lets the code go on after it.
            raise RunCanceledError(
                f"Killed while BrowserAct task {created.id} was started. {self._stop(created.id, within=KILL_GRACE)}"
            )
        return created, timeout, callback

    def _poll_interval(self, default: float) -> float:
        return default if self.poll_interval is None else read_seconds("poll_interval", self.poll_interval)

    def _arrange_callback(self, context: Context) -> Callback | None:
        """Decide whether BrowserAct is to call back, and keep what the callback will be recognised by."""
        if self.webhook is not None and not isinstance(self.webhook, bool):
            raise InputError(f"webhook is {self.webhook!r}. Give True, False or None.")
        demanded = self.webhook is True
        if demanded and not (self.deferrable and self.wait_for_completion):
            raise InputError(
                "webhook=True needs deferrable=True and wait_for_completion=True: a callback can only wake a task "
                "that waits without a worker."
            )
        if self.webhook is False or not (self.deferrable and self.wait_for_completion):
            return None
        settings = self.hook.settings
        if settings.webhook_base_url is None:
            if demanded:
                raise InputError(
                    f"webhook=True needs webhook_base_url in the extra of connection {self.browseract_conn_id!r}: the "
                    "public address of the Airflow API server."
                )
            return None
        ti = context["ti"]
        try:
            callback = arrange(
                settings.webhook_base_url,
                WaitingTask(ti.dag_id, ti.run_id, ti.task_id, -1 if ti.map_index is None else ti.map_index),
                callback_url=self.callback_url,
                status_change_callback_url=self.status_change_callback_url,
                conn_id=self.browseract_conn_id,
                api_base_url=settings.client.base_url,
            )
        except NoCallbackError as error:
            if demanded:
                raise InputError(f"{error}. Change that, or leave webhook=True out to let the task poll.") from None
            self.log.info("%s. This task polls.", error)
            return None
        mask_secret(callback.token)
        # Before the start, so that not even a callback that overtakes the answer to the start is unknown.
        ti.xcom_push(key=TOKEN_XCOM, value=callback.token_sha256)
        return callback

    def _read_profile_id(self) -> str:
        try:
            return read_id("profile_id", self.profile_id)
        except InputError:
            raise InputError(
                f"profile_id is {self.profile_id!r}. The task that it comes from saved no profile: give it "
                "save_browser_data=True, or leave profile_id out here."
            ) from None

    def _hand_on(self, context: Context, created: CreatedTask) -> None:
        context["ti"].xcom_push(key="task_id", value=created.id)
        if profile_id := created.profile_id or self.profile_id:
            context["ti"].xcom_push(key="profile_id", value=profile_id)

    def _look_once(self, context: Context, created: CreatedTask) -> Task | None:
        """Read the new task for its links and, if the answer to the start had none, for its profile."""
        try:
            task = self.hook.get_task(created.id)
        except BrowserActError as error:
            self.log.warning("BrowserAct task %s was started, but cannot be read yet: %s", created.id, error)
            return None
        self._push_link(context, task)
        if self.save_browser_data and not created.profile_id and task.profile_id:
            context["ti"].xcom_push(key="profile_id", value=task.profile_id)
        self.log.info("%s", status_line(task.id, task.status, task))
        return task

    def _defer(
        self, context: Context, browseract_task_id: str, deadline: float, callback_token_sha256: str | None
    ) -> NoReturn:
        from airflow_provider_browseract.triggers.browseract import TaskTrigger

        if callback_token_sha256 is None:
            poll_interval, grace = self._poll_interval(DEFAULT_POLL_INTERVAL), CORE_RACE_GRACE
            self.log.info("Waiting without a worker; the status is asked for every %g seconds.", poll_interval)
        else:
            poll_interval, grace = self._poll_interval(SAFETY_POLL_INTERVAL), CORE_RACE_GRACE + CALLBACK_GRACE
            self.log.info(
                "Waiting without a worker for BrowserAct's callback. Should it get lost: the status is asked for every "
                "%g seconds.",
                poll_interval,
            )
        waits_for = WokenBy.POLL if callback_token_sha256 is None else WokenBy.CALLBACK
        self._show_wait(context, {"waits_for": waits_for.value, "poll_interval": poll_interval})
        now = time.time()
        self.defer(
            trigger=TaskTrigger(
                browseract_task_id=browseract_task_id,
                browseract_conn_id=self.browseract_conn_id,
                poll_interval=poll_interval,
                first_poll_at=now + grace,
                deadline=deadline,
                callback_token_sha256=callback_token_sha256,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(0.0, deadline - now) + BACKSTOP),
        )

    def _wait_here(self, context: Context, browseract_task_id: str, deadline: float, seen: Task | None) -> Any:
        poll_interval = self._poll_interval(DEFAULT_POLL_INTERVAL)
        over = follow(
            wait_for_end(
                browseract_task_id,
                poll_interval=poll_interval,
                first_poll_at=min(time.time() + poll_interval, deadline),
                deadline=deadline,
                clock=time.time,
                chance=random.random,
                last_seen=seen.status if seen else None,
            ),
            self.hook.client,
            self.log,
        )
        if over.end is End.ENDED and over.task is not None:
            return self._conclude(context, over.task)
        self._end_without_result(browseract_task_id, over.end, str(over.error) if over.error else None)

    def _resume(self, context: Context, told: WaitEvent, resumed_at: float) -> Any:
        self._browseract_task_id = told.browseract_task_id
        try:
            task = self.hook.get_task(told.browseract_task_id)
        except BrowserActError as error:
            late = time.time() >= told.deadline + BACKSTOP
            if told.end is not End.ENDED or is_hopeless(error) or late:
                self._end_without_result(told.browseract_task_id, End.GIVEN_UP, str(error))
            self.log.warning("The result of BrowserAct task %s cannot be read yet: %s", told.browseract_task_id, error)
            self._defer(context, told.browseract_task_id, told.deadline, told.callback_token_sha256)
        if task.status.ended:
            self._tell_what_woke(context, told, task, resumed_at)
            return self._conclude(context, task)
        if told.end is End.ENDED:
            self.log.warning(
                "%s is %s, and not ended as a %s told. Waiting on.", describe(task), task.status, told.woken_by
            )
            self._defer(context, task.id, told.deadline, told.callback_token_sha256)
        if told.end is End.GIVEN_UP and task.status is not TaskStatus.UNKNOWN and time.time() < told.deadline:
            self.log.warning("The triggerer could not follow the run (%s). Waiting here.", told.reason)
            return self._wait_here(context, task.id, told.deadline, task)
        self._end_without_result(task.id, told.end, told.reason)

    def _tell_what_woke(self, context: Context, told: WaitEvent, task: Task, resumed_at: float) -> None:
        shown: dict[str, Any] = {"woken_by": told.woken_by.value}
        after = ""
        if task.finished_at is not None:
            # Two clocks, ours and BrowserAct's: less than nothing means that they differ.
            shown["seconds_after_end"] = seconds = round(max(0.0, resumed_at - task.finished_at.timestamp()), 1)
            after = f", {seconds:g} seconds after the end of the run"
        no_callback = ""
        if told.woken_by is WokenBy.POLL and told.callback_token_sha256 is not None:
            no_callback = " No callback had resumed it."
        self.log.info("Woken by a %s%s.%s", told.woken_by, after, no_callback)
        self._show_wait(context, shown)

    def _show_wait(self, context: Context, shown: dict[str, Any]) -> None:
        """Let the XComs of the task instance say how it waits, or what woke it."""
        try:
            context["ti"].xcom_push(key="wait", value=shown)
        except Exception:
            self.log.warning("How the task waits could not be kept as an XCom.", exc_info=True)

    def _conclude(self, context: Context, task: Task) -> Any:
        self._browseract_task_id = None
        spent = f", {task.credit} credits used" if task.credit is not None else ""
        self.log.info("%s ended as %s%s.", describe(task), task.status, spent)
        try:
            self._push_link(context, task)
        except Exception:
            self.log.warning("The link to the task could not be kept.", exc_info=True)
        return result_of(task)

    def _push_link(self, context: Context, task: Task) -> None:
        if url := task.log_detail_url or task.live_url:
            BrowserActTaskLink().push(context["ti"], url)

    def _end_without_result(self, browseract_task_id: str, end: End, reason: str | None) -> NoReturn:
        if end is End.DEADLINE:
            raise RunTimedOutError(
                f"BrowserAct task {browseract_task_id} did not end within {read_seconds('timeout', self.timeout):g} "
                f"seconds. {self._stop(browseract_task_id)} Raise timeout if the workflow needs longer."
            )
        self._give_up(browseract_task_id, f"its status could not be learned: {reason or 'it stayed unknown'}")

    def _give_up(self, browseract_task_id: str | None, why: str) -> NoReturn:
        if browseract_task_id is None:
            raise RunLostError(
                f"A run of workflow {self.workflow_id} was started but its id is not known here: {why.rstrip('.')}. "
                "Look at the newest tasks of the workflow in the BrowserAct dashboard."
            )
        raise RunLostError(
            f"BrowserAct task {browseract_task_id} was given up: {why.rstrip('.')}. {self._stop(browseract_task_id)}"
        )

    def _stop(self, browseract_task_id: str, within: float | None = None) -> str:
        """Stop a run, and say in a sentence what came of it."""
        self._browseract_task_id = None
        try:
            stopped = self.hook.stop_task(browseract_task_id, within=within)
        except Exception as error:  # noqa: BLE001 - whatever it is, the run must not go on unsaid
            return (
                f"It could not be stopped ({str(error).rstrip('.')}): it may go on, and cost credits, until someone "
                "stops it in the BrowserAct dashboard."
            )
        return "It was stopped." if stopped else "It had already ended."

    @contextmanager
    def _accounting_for(self, browseract_task_id: str) -> Iterator[None]:
        """Let nothing leave a started run behind unsaid: what is not about the run itself ends it."""
        try:
            yield
        except RunError:
            raise
        except KeyboardInterrupt:
            # As in dag.test(), where no one calls on_kill.
            self.on_kill()
            raise
        except Exception as error:
            reason = f"{type(error).__name__}: {error}"
            raise RunLostError(
                f"BrowserAct task {browseract_task_id} was given up after an error in Airflow ({reason}). "
                f"{self._stop(browseract_task_id)}"
            ) from error

    def _started_task_id(self, context: Context) -> str | None:
        ti = context["ti"]
        found = ti.xcom_pull(task_ids=self.task_id, key="task_id", map_indexes=ti.map_index)
        return found if isinstance(found, str) else None
