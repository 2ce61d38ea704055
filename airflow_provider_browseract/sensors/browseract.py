"""The sensor that waits for a BrowserAct task which was started elsewhere."""

from __future__ import annotations

import time
from collections.abc import Sequence
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from airflow_provider_browseract.api.errors import BrowserActError
from airflow_provider_browseract.compat import (
    AirflowFailException,
    AirflowNotFoundException,
    AirflowSensorTimeout,
    conf,
)
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.connection import no_connection
from airflow_provider_browseract.links.browseract import BrowserActTaskLink, LiveViewLink
from airflow_provider_browseract.operators.conclusion import Conclusion, show_run
from airflow_provider_browseract.runs.inputs import InputError, read_choice, read_id
from airflow_provider_browseract.runs.outcome import ResultError, RunError, RunLostError
from airflow_provider_browseract.runs.outputs import OutputFormat
from airflow_provider_browseract.runs.report import end_lines, log_url, status_line
from airflow_provider_browseract.runs.waiting import (
    BACKSTOP,
    CORE_RACE_GRACE,
    End,
    Next,
    WaitEvent,
    is_hopeless,
    next_after,
)

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath

    from airflow_provider_browseract.api.models import Task
    from airflow_provider_browseract.hooks.results import ResultStore


class TaskSensor(BaseSensorOperator):
    """Waits until a BrowserAct task has ended which was started elsewhere, and returns its output (``get-task``).

    It starts nothing and stops nothing, whatever becomes of the Airflow task.

    :param browseract_task_id: the BrowserAct task.
    :param output_format: what the text of the output is; as in
        :class:`~airflow_provider_browseract.operators.run.RunOperator`.
    :param output_path: folder in object storage for what the run put out; likewise.
    :param browseract_conn_id: id of the Airflow connection.
    :param deferrable: wait in the triggerer, without a worker. Default: ``[operators] default_deferrable``. Without it,
        ``mode`` says whether a worker is held (``"poke"``) or not (``"reschedule"``).
    :param kwargs: the arguments of Airflow's ``BaseSensorOperator``, among them ``poke_interval`` and ``timeout``.
    :returns: as :class:`~airflow_provider_browseract.operators.run.RunOperator`.
    :raises AirflowFailException: an argument is wrong, or the run failed or was canceled: no retry can mend that.
    :raises AirflowSensorTimeout: the run did not end within ``timeout``; it goes on.
    :raises RunError: its status could not be learned, or its results could not be written. Airflow's retries apply.
    """

    template_fields: Sequence[str] = ("browseract_task_id", "output_path", "browseract_conn_id")
    operator_extra_links = (BrowserActTaskLink(), LiveViewLink())
    ui_color = "#e6f0ff"

    def __init__(
        self,
        *,
        browseract_task_id: str,
        output_format: str = OutputFormat.AUTO.value,
        output_path: str | ObjectStoragePath | None = None,
        browseract_conn_id: str = BrowserActHook.default_conn_name,
        deferrable: bool = conf.getboolean("operators", "default_deferrable", fallback=False),
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.browseract_task_id = browseract_task_id
        self.output_format = output_format
        self.output_path = output_path
        self.browseract_conn_id = browseract_conn_id
        self.deferrable = deferrable

    @cached_property
    def hook(self) -> BrowserActHook:
        """The hook for the sensor's connection."""
        return BrowserActHook(self.browseract_conn_id)

    def execute(self, context: Context) -> Any:
        """Wait in the way asked for."""
        if not self.deferrable:
            return super().execute(context)
        deadline = time.time() + self.timeout
        if (task := self._look(context)) is not None and task.status.ended:
            return self._conclude(context, task)
        self._defer(task, deadline)

    def execute_complete(self, context: Context, event: Any) -> Any:
        """Go on after the deferral: ask the API what became of the run, whatever the event says."""
        told = WaitEvent.read(event)
        seen: Task | BrowserActError
        try:
            seen = self.hook.get_task(told.browseract_task_id)
        except BrowserActError as error:
            seen = error
        then = next_after(told, seen, time.time())
        if then is Next.CONCLUDE and not isinstance(seen, BrowserActError):
            return self._conclude(context, seen)
        if then is Next.DEFER:
            self._defer(None if isinstance(seen, BrowserActError) else seen, told.deadline)
        if told.end is End.DEADLINE:
            raise AirflowSensorTimeout(
                f"BrowserAct task {told.browseract_task_id} did not end within {self.timeout:g} seconds. It goes on."
            )
        why = str(seen) if isinstance(seen, BrowserActError) else told.reason or "it stayed unknown"
        raise RunLostError(f"The status of BrowserAct task {told.browseract_task_id} could not be learned: {why}")

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Look once, and take the result if there is one."""
        task = self._look(context)
        if task is None or not task.status.ended:
            return False
        return PokeReturnValue(True, self._conclude(context, task))

    def _look(self, context: Context) -> Task | None:
        try:
            read_choice("output_format", self.output_format, OutputFormat)
            task = self.hook.get_task(read_id("browseract_task_id", self.browseract_task_id))
        except InputError as error:
            raise AirflowFailException(str(error)) from error
        except AirflowNotFoundException as error:
            raise AirflowFailException(no_connection(self.browseract_conn_id)) from error
        except BrowserActError as error:
            if is_hopeless(error):
                raise AirflowFailException(str(error)) from error
            self.log.warning("Asking for BrowserAct task %s failed: %s", self.browseract_task_id, error)
            return None
        show_run(context["ti"], task)
        if not task.status.ended:
            self.log.info("%s", status_line(task))
        return task

    def _defer(self, seen: Task | None, deadline: float) -> NoReturn:
        from airflow_provider_browseract.triggers.browseract import TaskTrigger

        now = time.time()
        self.defer(
            trigger=TaskTrigger(
                browseract_task_id=seen.id if seen else read_id("browseract_task_id", self.browseract_task_id),
                browseract_conn_id=self.browseract_conn_id,
                poll_interval=max(self.poke_interval, 1.0),
                first_poll_at=now + CORE_RACE_GRACE,
                deadline=deadline,
                last_seen=seen.status.value if seen else None,
                steps_told=len(seen.steps) if seen else 0,
                # Who waits for a run is not who started it.
                cancel_on_kill=False,
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(0.0, deadline - now) + BACKSTOP),
        )

    def _conclude(self, context: Context, task: Task) -> Any:
        for line in end_lines(task):
            self.log.info("%s", line)
        show_run(context["ti"], task)
        conclusion = Conclusion(
            task,
            context,
            output_format=read_choice("output_format", self.output_format, OutputFormat),
            store=self._store(),
            read_again=lambda: self.hook.get_task(task.id),
            outlets=self.outlets,
            url=log_url(task),
            another_try_reads_it=True,
            log=self.log,
        )
        try:
            return conclusion.draw()
        except ResultError:
            raise
        except RunError as error:
            raise AirflowFailException(str(error)) from error

    def _store(self) -> ResultStore | None:
        if self.output_path is None:
            return None
        from airflow_provider_browseract.hooks.results import ResultStore

        return ResultStore(str(self.output_path).strip(), self.hook.settings.client, self.log)
