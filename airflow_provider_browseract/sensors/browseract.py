"""The sensor that waits for a BrowserAct task which was started elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseSensorOperator, PokeReturnValue
from airflow.sdk.definitions.xcom_arg import PlainXComArg

from airflow_provider_browseract.api.errors import BrowserActError
from airflow_provider_browseract.compat import (
    TRIGGERS_START_TASKS,
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    conf,
)
from airflow_provider_browseract.hooks.browseract import BrowserActHook, failing_for_good
from airflow_provider_browseract.links.browseract import BrowserActTaskLink, LiveViewLink
from airflow_provider_browseract.links.telling import show_run
from airflow_provider_browseract.operators.conclusion import Conclusion, open_store
from airflow_provider_browseract.runs.inputs import read_choice, read_id
from airflow_provider_browseract.runs.outcome import ResultError, RunError, RunLostError
from airflow_provider_browseract.runs.outputs import OutputFormat
from airflow_provider_browseract.runs.report import status_line
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


def _for_triggerer(value: Any) -> str | None:
    """Give what the triggerer can render, or None where only a worker can.

    A triggerer knows no macros and filters of the DAG. And it can read one XCom, but not look for those of all mapped
    tasks, as ``xcom_pull`` does unless it is told which one: for the answer it would wait for ever.

    :param value: the text, template or XCom that was given to the sensor.
    """
    if isinstance(value, PlainXComArg):
        source = value.operator
        if source.is_mapped or source.get_closest_mapped_task_group() is not None:
            return None
        return f"{{{{ ti.xcom_pull(task_ids={source.task_id!r}, key={value.key!r}, map_indexes=-1) }}}}"
    return value if isinstance(value, str) and "{" not in value else None


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
    :param start_from_trigger: with ``deferrable``, begin in the triggerer too, and end there if the run has finished:
        no worker is used at all (Airflow 3.3 and later). By default so where nothing needs a worker, which is that
        neither ``output_path`` nor ``outlets``, ``execution_timeout``, ``on_execute_callback``, ``pre_execute`` or
        ``post_execute`` are given, the task is not mapped, and id and connection are texts without templates or the
        ``output`` of a task that is not mapped. ``False`` begins and ends in a worker.
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
        start_from_trigger: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.browseract_task_id = browseract_task_id
        self.output_format = output_format
        self.output_path = output_path
        self.browseract_conn_id = browseract_conn_id
        self.deferrable = deferrable
        if start_from_trigger and deferrable and TRIGGERS_START_TASKS and not self._needs_worker:
            self._start_in_triggerer()

    @property
    def _needs_worker(self) -> bool:
        hooks = (self._pre_execute_hook, self._post_execute_hook, self.on_execute_callback)
        return any((self.output_path, self.outlets, self.execution_timeout, *hooks))

    def _start_in_triggerer(self) -> None:
        from airflow.triggers.base import StartTriggerArgs

        rendered = [_for_triggerer(value) for value in (self.browseract_task_id, self.browseract_conn_id)]
        if None in rendered:
            return
        self.start_from_trigger = True
        self.start_trigger_args = StartTriggerArgs(
            trigger_cls="airflow_provider_browseract.triggers.browseract.TaskSensorTrigger",
            trigger_kwargs={
                "browseract_task_id": rendered[0],
                "browseract_conn_id": rendered[1],
                "poll_interval": self._poll_interval,
                "output_format": self.output_format,
            },
            next_method="execute_complete",
            timeout=timedelta(seconds=self.timeout + BACKSTOP),
        )

    @property
    def _poll_interval(self) -> float:
        return max(self.poke_interval, 1.0)

    @cached_property
    def hook(self) -> BrowserActHook:
        """The hook for the sensor's connection."""
        return BrowserActHook(self.browseract_conn_id)

    def execute(self, context: Context) -> Any:
        """Wait in the way asked for."""
        with self._leniently():
            self._check_arguments()
            self._check_store()
            if self.deferrable:
                deadline = time.time() + self.timeout
                if (task := self._look(context)) is not None and task.status.ended:
                    return self._conclude(context, task)
                self._defer(read_id("browseract_task_id", self.browseract_task_id), task, deadline)
        return super().execute(context)

    def execute_complete(self, context: Context, event: Any) -> Any:
        """Go on after the deferral: ask the API what became of the run, whatever the event says."""
        with self._leniently():
            # Of a sensor that began in the triggerer, nothing was checked before.
            self._check_arguments()
            return self._resume(context, WaitEvent.read(event))

    def _resume(self, context: Context, told: WaitEvent) -> Any:
        seen = self._read(told.browseract_task_id)
        then = next_after(told, seen, time.time())
        if then is Next.CONCLUDE and not isinstance(seen, BrowserActError):
            return self._conclude(context, seen)
        if then is Next.DEFER:
            known = None if isinstance(seen, BrowserActError) else seen
            self._defer(told.browseract_task_id, known, told.deadline)
        if then is Next.WAIT_HERE:
            self.log.warning("The triggerer could not follow the run (%s). Waiting here.", told.reason)
            self.timeout = max(0.0, told.deadline - time.time())
            # Rescheduled, the sensor would begin anew, with all of its time.
            self.mode = "poke"
            return super().execute(context)
        if told.end is End.DEADLINE:
            raise AirflowSensorTimeout(
                f"BrowserAct task {told.browseract_task_id} did not end within {self.timeout:g} seconds. It goes on."
            )
        if isinstance(seen, BrowserActError) and is_hopeless(seen):
            raise AirflowFailException(str(seen)) from seen
        why = str(seen) if isinstance(seen, BrowserActError) else told.reason or "it stayed unknown"
        raise RunLostError(f"The status of BrowserAct task {told.browseract_task_id} could not be learned: {why}")

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Look once, and take the result if there is one."""
        task = self._look(context)
        if task is None or not task.status.ended:
            return False
        return PokeReturnValue(True, self._conclude(context, task))

    @contextmanager
    def _leniently(self) -> Iterator[None]:
        """Skip in place of failing where that is wanted: as Airflow does with what a poke raises, and not with more."""
        try:
            yield
        except AirflowFailException as error:
            if self.soft_fail or self.never_fail:
                raise AirflowSkipException(f"Skipped, since the sensor is not to fail: {error}") from error
            raise

    def _check_arguments(self) -> None:
        with failing_for_good(self.browseract_conn_id):
            read_choice("output_format", self.output_format, OutputFormat)
            read_id("browseract_task_id", self.browseract_task_id)

    def _check_store(self) -> None:
        """Try the store: better now than when the run has ended."""
        with failing_for_good(self.browseract_conn_id):
            # A sensor that is rescheduled begins anew each time.
            if (store := open_store(self.output_path, self.hook, self.log)) is not None and not self.reschedule:
                store.check()

    def _read(self, browseract_task_id: str) -> Task | BrowserActError:
        with failing_for_good(self.browseract_conn_id):
            try:
                return self.hook.get_task(browseract_task_id)
            except BrowserActError as error:
                return error

    def _look(self, context: Context) -> Task | None:
        seen = self._read(self.browseract_task_id)
        if isinstance(seen, BrowserActError):
            if is_hopeless(seen):
                raise AirflowFailException(str(seen)) from seen
            self.log.warning("Asking for BrowserAct task %s failed: %s", self.browseract_task_id, seen)
            return None
        show_run(context["ti"], seen)
        if not seen.status.ended:
            self.log.info("%s", status_line(seen))
        return seen

    def _defer(self, browseract_task_id: str, seen: Task | None, deadline: float) -> NoReturn:
        from airflow_provider_browseract.triggers.browseract import TaskTrigger

        now = time.time()
        self.defer(
            trigger=TaskTrigger(
                browseract_task_id=browseract_task_id,
                browseract_conn_id=self.browseract_conn_id,
                poll_interval=self._poll_interval,
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
        conclusion = Conclusion(
            task,
            context,
            output_format=read_choice("output_format", self.output_format, OutputFormat),
            output_path=self.output_path,
            hook=self.hook,
            outlets=self.outlets,
            another_try_reads_it=True,
            advice="Clearing the task reads the same run anew.",
            log=self.log,
        )
        try:
            return conclusion.draw()
        except ResultError:
            raise
        except RunError as error:
            raise AirflowFailException(str(error)) from error
