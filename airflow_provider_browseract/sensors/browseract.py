"""A sensor that waits for a BrowserAct task that was started elsewhere."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from airflow_provider_browseract.api.arguments import read_choice, read_flag, read_path_id
from airflow_provider_browseract.api.models import Task
from airflow_provider_browseract.compat import AirflowFailException, AirflowSensorTimeout, conf, is_unmapped
from airflow_provider_browseract.exceptions import (
    AuthenticationError,
    BrowserActError,
    PermissionDeniedError,
    ResultError,
    RunError,
    RunLostError,
)
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow.hiding import SECRET_INPUTS, Hiding
from airflow_provider_browseract.in_airflow.links import BUTTONS, stop_airflow_pushing_links
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.hints import check_arguments, check_rendered, naming_task
from airflow_provider_browseract.runs.options import OutputFormat
from airflow_provider_browseract.runs.report import error_text, polling_line
from airflow_provider_browseract.runs.stored import from_json
from airflow_provider_browseract.runs.wait import End, Wait, WaitEvent, is_unknown_run, no_such_end, why_unread
from airflow_provider_browseract.worker.conclude import Conclusion, Output, open_store
from airflow_provider_browseract.worker.final_errors import no_retry_on_bad_arguments
from airflow_provider_browseract.worker.look import look
from airflow_provider_browseract.worker.showing import id_or_none, show_run, showing_failure

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context, ObjectStoragePath
    from typing_extensions import Self


class TaskSensor(BaseSensorOperator):
    """Wait until a BrowserAct task that was started elsewhere has ended, and return its output (``get-task``).

    The sensor never starts or stops a run, whatever happens to the Airflow task.

    :param browseract_task_id: id of the BrowserAct task. Templated.
    :param output_format: format of the output's text, as
        :class:`~airflow_provider_browseract.operators.browseract.RunWorkflowOperator` reads it. Default: ``"auto"``.
    :param output_path: folder in object storage for the results of the run, as for that operator. Default: nothing is
        written, and the task returns the output itself. Templated.
    :param browseract_conn_id: id of the Airflow connection. Default: ``browseract_default``. Templated.
    :param deferrable: wait in the triggerer, without holding a worker. Default: ``[operators] default_deferrable``.
        When ``False``, ``mode`` decides whether the sensor holds a worker (``"poke"``) or not (``"reschedule"``).
    :param show_live_view: put the address of the run's live view into the log, XComs and buttons of the task. Everyone
        who may see the task can then open it, and may be able to act in a browser that is logged in. When ``False``,
        only BrowserAct shows it. Default: ``True``.
    :param kwargs: the arguments of Airflow's ``BaseSensorOperator``, such as ``poke_interval`` (seconds between two
        polls) and ``timeout``. With ``deferrable``, ``soft_fail`` and ``never_fail`` have the same effect as without
        it, and ``mode`` and ``exponential_backoff`` have no effect. Before Airflow 3.3, ``never_fail`` has no effect if
        Airflow itself ends the deferral.
    :returns: the output or, with ``output_path``, a dict that describes what was written, as for that operator.
    :raises AirflowFailException: an argument is wrong, or the run failed or was canceled; no retry can fix that. Or
        BrowserAct has refused the API key from the start. A key that is refused later may be in rotation, so the
        sensor keeps waiting: deferred for at least 10 minutes and 5 polls, otherwise until ``timeout``.
    :raises AirflowSensorTimeout: the run did not end within ``timeout``; it keeps running.
    :raises RunError: the status could not be read, or the results could not be written. Airflow's retries apply.
    """

    template_fields: Sequence[str] = ("browseract_task_id", "output_path", "browseract_conn_id")
    operator_extra_links: Collection[BaseOperatorLink] = BUTTONS
    ui_color = "#e6f0ff"

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        """Check the arguments before Airflow does."""
        check_arguments(cls, kwargs)
        return super().__new__(cls)

    def __init__(
        self,
        *,
        browseract_task_id: str,
        output_format: str = OutputFormat.AUTO.value,
        output_path: str | ObjectStoragePath | None = None,
        browseract_conn_id: str = BrowserActHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        show_live_view: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.browseract_task_id = browseract_task_id
        self.output_format = output_format
        self.output_path = output_path
        self.browseract_conn_id = browseract_conn_id
        self.deferrable = deferrable
        self.show_live_view = show_live_view
        self._wait: Wait | None = None
        # Rendering may replace a given value with None.
        self._given = {name: getattr(self, name) for name in self.template_fields}
        if not is_unmapped(self):
            with naming_task(self.task_id):
                self._check_constants()

    @cached_property
    def hook(self) -> BrowserActHook:
        """The hook for the sensor's connection."""
        hook = BrowserActHook(self.browseract_conn_id)
        hook.hiding = Hiding(live_view=not self.show_live_view, secrets=True)
        return hook

    def execute(self, context: Context) -> Any:
        """Wait for the end of the run, deferred or in this worker, and return its output."""
        stop_airflow_pushing_links(self)
        with showing_failure(context["ti"], self._failure_facts, self.log):
            # Airflow pokes, again and again unless a poke defers, and skips as soft_fail and never_fail say.
            return super().execute(context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after a deferral, however it ended."""
        stop_airflow_pushing_links(self)
        with showing_failure(context["ti"], self._failure_facts, self.log):
            return super().resume_execution(next_method, next_kwargs, context)

    def execute_complete(self, context: Context, event: Any) -> Any:
        """Poke again, whatever the event says."""
        self._wait = from_json(WaitEvent, event).wait
        return super().execute(context)

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Read the run, and return its result if it has ended; otherwise defer, if the sensor does that."""
        with no_retry_on_bad_arguments(self.browseract_conn_id):
            wait = self._wait or self._begin()
            seen = look(self.hook, wait.browseract_task_id, wait.api_version)
        logged = wait.steps_logged
        if isinstance(seen, Task):
            self.hook.hiding = self.hook.hiding.of_run(seen)
            show_run(context["ti"], seen, self.hook, self.log, follows=True)
            if not seen.status.ended:
                # The triggerer logs the steps. Without one, the poke that finds the end logs them.
                wait = replace(wait, steps_logged=seen.step_count)
        elif self._is_final(seen, wait, context):
            raise AirflowFailException(str(seen)) from None
        wait, end = wait.after_poll(seen, time.time(), self.log)
        wait = replace(wait, steps_logged=logged)
        match end:
            case End.ENDED:
                assert isinstance(seen, Task)
                return PokeReturnValue(True, self._conclude(context, seen))
            case End.DEADLINE | End.GIVEN_UP:
                if self.deferrable:
                    raise self._no_result(end, seen)
            # A sensor has neither a cap nor Required Actions.
            case None | End.PAUSED | End.NO_LONGER_PAUSED | End.MAX_CREDITS:
                pass
            case _:
                no_such_end(end)
        if self.deferrable:
            self._defer(wait)
        self._wait = wait
        return False

    def _failure_facts(self) -> dict[str, Any]:
        task_id = id_or_none(self.browseract_task_id)
        return {"connection": self.browseract_conn_id, "source": None, "task_id": task_id, "started": bool(task_id)}

    def _check_constants(self) -> None:
        read_choice("output_format", self.output_format, OutputFormat)
        read_flag("deferrable", self.deferrable)
        read_flag("show_live_view", self.show_live_view)

    def _begin(self) -> Wait:
        """Check arguments, connection and store now, because an error after the end of the run comes too late."""
        self._check_constants()
        for name, given in self._given.items():
            check_rendered(name, given, getattr(self, name))
        self.browseract_task_id = read_path_id("browseract_task_id", self.browseract_task_id)
        _ = self.hook.settings
        store = None if self.output_path is None else open_store(self.output_path, self.hook.settings, self.log)
        # A rescheduled sensor begins again with each poke.
        if store is not None and (self.deferrable or not self.reschedule):
            store.folder.check()
        interval, deadline = max(self.poke_interval, 1.0), time.time() + self.timeout
        return Wait(self.browseract_task_id, deadline, None, poll_interval=interval, show_live_view=self.show_live_view)

    def _is_final(self, error: BrowserActError, wait: Wait, context: Context) -> bool:
        """Return whether a failed poll fails the task."""
        if is_unknown_run(error):
            return True
        refused = isinstance(error, AuthenticationError | PermissionDeniedError) and error.code is not None
        if not refused or wait.last_seen is not None or wait.failed_polls:
            # A key that was accepted before may be in rotation.
            return False
        # Only Airflow knows of the earlier pokes of a rescheduled sensor.
        return not self.reschedule or context["ti"].get_first_reschedule_date(context) is None

    def _defer(self, wait: Wait) -> NoReturn:
        from airflow_provider_browseract.triggers.task import TaskTrigger

        # The triggerer does not read the inputs, so it logs no goals if they are secret or not known.
        secret = wait.last_seen is None or SECRET_INPUTS in self.hook.hiding.hidden
        now = time.time()
        wait = replace(wait, hide_goals=wait.hide_goals or secret, began_at=now)
        self.log.info("%s", polling_line(wait.longest_pause))
        self.defer(
            # The sensor has not started the run, so it does not stop the run either.
            trigger=TaskTrigger(
                browseract_conn_id=self.browseract_conn_id, wait=replace(wait, follows=True), cancel_on_kill=False
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(0.0, wait.deadline - now) + timings.TIMEOUT_BACKSTOP),
        )

    def _no_result(self, end: End, seen: Task | BrowserActError) -> Exception:
        task_id = self.browseract_task_id
        if end is End.DEADLINE:
            reason = f"The run did not end within timeout={self.timeout:g} seconds, and keeps running."
            return AirflowSensorTimeout(error_text(reason, "Raise timeout if it needs longer.", about=task_id))
        why, remedy = why_unread(seen)
        codes = seen.codes if isinstance(seen, BrowserActError) else ""
        return RunLostError(error_text(why, f"The run may keep running. {remedy}", about=task_id, codes=codes))

    def _conclude(self, context: Context, task: Task) -> Any:
        try:
            advice = "Clearing the task reads the same run again."
            output = Output(OutputFormat(self.output_format), self.output_path, self.outlets)
            return Conclusion(task, context, self.hook, self.log, output, True, advice, follows=True).conclude()
        except ResultError:
            raise
        except RunError as error:
            raise AirflowFailException(str(error)) from None
