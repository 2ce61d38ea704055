"""A sensor that waits for a BrowserAct task that was started elsewhere."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn

from airflow.sdk import BaseSensorOperator, PokeReturnValue

from airflow_provider_browseract.api.errors import AuthenticationError, BrowserActError, PermissionDeniedError
from airflow_provider_browseract.compat import (
    AirflowFailException,
    AirflowSensorTimeout,
    AirflowSkipException,
    AirflowTaskTimeout,
    conf,
    is_unmapped,
)
from airflow_provider_browseract.hooks.browseract import BrowserActHook, get_task_or_error, no_retry_on_bad_arguments
from airflow_provider_browseract.hooks.hiding import Hiding
from airflow_provider_browseract.links.browseract import BrowserActTaskLink, LiveViewLink, prevent_second_push
from airflow_provider_browseract.links.showing import show_run
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.arguments import (
    check_rendered,
    naming_similar_arguments,
    read_choice,
    read_flag,
    read_id,
)
from airflow_provider_browseract.runs.outcome import ResultError, RunError, RunLostError
from airflow_provider_browseract.runs.outputs import OutputFormat
from airflow_provider_browseract.runs.report import polling_line, status_line
from airflow_provider_browseract.runs.resuming import (
    Answered,
    Conclude,
    GiveUp,
    Paused,
    WaitAgain,
    WaitEvent,
    after_deferral,
)
from airflow_provider_browseract.runs.stored import from_json
from airflow_provider_browseract.runs.waiting import End, Wait, WaitPolicy, is_hopeless
from airflow_provider_browseract.worker.conclusion import Conclusion, open_store

if TYPE_CHECKING:
    from airflow.sdk import BaseOperatorLink, Context, ObjectStoragePath

    from airflow_provider_browseract.api.models import Task


class TaskSensor(BaseSensorOperator):
    """Wait until a BrowserAct task that was started elsewhere has ended, and return its output (``get-task``).

    The sensor never starts or stops a run, whatever happens to the Airflow task.

    :param browseract_task_id: id of the BrowserAct task.
    :param output_format: format of the output's text, as in
        :class:`~airflow_provider_browseract.operators.run.RunOperator`.
    :param output_path: folder in object storage for the results of the run, as in
        :class:`~airflow_provider_browseract.operators.run.RunOperator`.
    :param browseract_conn_id: id of the Airflow connection. Default: ``browseract_default``.
    :param deferrable: wait in the triggerer, without holding a worker. Default: ``[operators] default_deferrable``.
        When ``False``, ``mode`` decides whether the sensor holds a worker (``"poke"``) or not (``"reschedule"``).
    :param show_live_view: put the address of the run's live view into the log, XComs and buttons of the task, as in
        :class:`~airflow_provider_browseract.operators.run.RunOperator`. Default: ``True``.
    :param kwargs: the arguments of Airflow's ``BaseSensorOperator``, such as ``poke_interval`` and ``timeout``.
        ``soft_fail`` and ``never_fail`` have the same effect with ``deferrable`` as without it.
    :returns: the output, as :class:`~airflow_provider_browseract.operators.run.RunOperator` does.
    :raises AirflowFailException: an argument is wrong, or the run failed or was canceled; no retry can fix that. Or
        BrowserAct refused the API key at the first request. A key that is refused later may be in rotation, so the
        sensor keeps waiting: for 10 minutes, or until ``timeout`` with ``mode="reschedule"``, which keeps no state.
    :raises AirflowSensorTimeout: the run did not end within ``timeout``; it keeps running.
    :raises RunError: the status could not be read, or the results could not be written. Airflow's retries apply.
    """

    template_fields: Sequence[str] = ("browseract_task_id", "output_path", "browseract_conn_id")
    operator_extra_links: Collection[BaseOperatorLink] = (BrowserActTaskLink(), LiveViewLink())
    ui_color = "#e6f0ff"

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
        with naming_similar_arguments(type(self), kwargs):
            super().__init__(**kwargs)
        self.browseract_task_id = browseract_task_id
        self.output_format = output_format
        self.output_path = output_path
        self.browseract_conn_id = browseract_conn_id
        self.deferrable = deferrable
        self.show_live_view = show_live_view
        self._asked = False
        self._refused_since: float | None = None
        # Rendering may replace a given value with None.
        self._given = {name: getattr(self, name) for name in self.template_fields}
        if not is_unmapped(self):
            self._check_constants()

    @property
    def _poll_interval(self) -> float:
        return max(self.poke_interval, 1.0)

    @cached_property
    def hook(self) -> BrowserActHook:
        """The hook for the sensor's connection."""
        hook = BrowserActHook(self.browseract_conn_id)
        hook.hiding = Hiding(live_view=not self.show_live_view)
        return hook

    def execute(self, context: Context) -> Any:
        """Wait for the end of the run, deferred or in this worker, and return its output."""
        prevent_second_push(self)
        with self._leniently():
            self._check_arguments()
            self._check_store()
            if self.deferrable:
                task_id = read_id("browseract_task_id", self.browseract_task_id)
                wait = Wait(task_id, time.time() + self.timeout)
                if (task := self._look(context)) is not None and task.status.ended:
                    return self._conclude(context, task)
                if task is not None:
                    _, wait = wait.news(task)
                self._defer(wait)
        return super().execute(context)

    def resume_execution(self, next_method: str, next_kwargs: dict[str, Any] | None, context: Context) -> Any:
        """Continue after a deferral, however it ended."""
        prevent_second_push(self)
        with self._leniently():
            return super().resume_execution(next_method, next_kwargs, context)

    def execute_complete(self, context: Context, event: Any) -> Any:
        """Read the run from the API, whatever the event says; then return its output, wait again or fail."""
        read = from_json(WaitEvent, event)
        seen = self._read(read.wait.browseract_task_id)
        decision, lines = after_deferral(read, seen, time.time())
        for line in lines:
            self.log.log(line.level, "%s", line.text)
        match decision:
            case Conclude(task):
                return self._conclude(context, task)
            case GiveUp():
                raise self._no_result(decision)
            case WaitAgain(wait) | Paused(wait) | Answered(wait):
                self._defer(wait)

    def _no_result(self, over: GiveUp) -> Exception:
        task_id = over.wait.browseract_task_id
        if over.end is End.DEADLINE:
            return AirflowSensorTimeout(
                f"BrowserAct task {task_id} did not end within timeout={self.timeout:g} seconds.\nThe run keeps "
                "running.\nRaise timeout if it needs longer."
            )
        if over.error is not None and is_hopeless(over.error):
            return AirflowFailException(str(over.error))
        return RunLostError(
            f"Stopped waiting for BrowserAct task {task_id}, because {over.why}.\nThe run may keep running.\n"
            f"{over.remedy}"
        )

    def poke(self, context: Context) -> bool | PokeReturnValue:
        """Poll once, and return the result if the run has ended."""
        task = self._look(context)
        if task is None or not task.status.ended:
            return False
        return PokeReturnValue(True, self._conclude(context, task))

    @contextmanager
    def _leniently(self) -> Iterator[None]:
        """Skip the task if ``soft_fail`` or ``never_fail`` is set, as Airflow does with the exceptions of ``poke``."""
        try:
            yield
        except AirflowSkipException:
            raise
        except (AirflowFailException, AirflowSensorTimeout, AirflowTaskTimeout) as error:
            if self.soft_fail or self.never_fail:
                raise self._skip(error) from error
            raise
        except Exception as error:
            if self.never_fail:
                raise self._skip(error) from error
            raise

    def _skip(self, error: BaseException) -> AirflowSkipException:
        argument = "soft_fail" if self.soft_fail else "never_fail"
        return AirflowSkipException(f"Skipped because of {argument}=True: {error}")

    def _check_constants(self) -> None:
        read_choice("output_format", self.output_format, OutputFormat)
        read_flag("deferrable", self.deferrable)
        read_flag("show_live_view", self.show_live_view)

    def _check_arguments(self) -> None:
        with no_retry_on_bad_arguments(self.browseract_conn_id):
            self._check_constants()
            for name, given in self._given.items():
                check_rendered(name, given, getattr(self, name))
            read_id("browseract_task_id", self.browseract_task_id)

    def _check_store(self) -> None:
        """Check the connection and the store now, because an error after the end of the run comes too late."""
        with no_retry_on_bad_arguments(self.browseract_conn_id):
            _ = self.hook.settings
            # A rescheduled sensor starts from the beginning each time.
            if (store := open_store(self.output_path, self.hook, self.log)) is not None and not self.reschedule:
                store.check()

    def _read(self, browseract_task_id: str) -> Task | BrowserActError:
        """Return the run, or the error with which reading it failed."""
        with no_retry_on_bad_arguments(self.browseract_conn_id):
            return get_task_or_error(self.hook, browseract_task_id)

    def _look(self, context: Context) -> Task | None:
        seen = self._read(self.browseract_task_id)
        first, self._asked = not self._asked, True
        if isinstance(seen, BrowserActError):
            if self._is_final(seen, first, context):
                raise AirflowFailException(str(seen)) from None
            self.log.warning("Poll of BrowserAct task %s failed: %s", self.browseract_task_id, seen.brief)
            return None
        self._refused_since = None
        show_run(context["ti"], seen, self.log)
        if not seen.status.ended:
            self.log.info("%s", status_line(seen))
        return seen

    def _is_final(self, error: BrowserActError, first: bool, context: Context) -> bool:
        """Return whether a failed poll fails the task.

        :param error: the error of the poll.
        :param first: this is the first poll of this process.
        :param context: the context of the Airflow task.
        """
        if not isinstance(error, AuthenticationError | PermissionDeniedError) or error.code is None:
            return is_hopeless(error)
        if self.reschedule:
            # Each poke is a separate process, so only Airflow knows of earlier ones.
            return context["ti"].get_first_reschedule_date(context) is None
        now = time.monotonic()
        if self._refused_since is None:
            self._refused_since = now
        return first or now - self._refused_since >= timings.POLL_PATIENCE

    def _defer(self, wait: Wait) -> NoReturn:
        from airflow_provider_browseract.triggers.run import TaskTrigger

        now = time.time()
        wait = replace(wait, policy=WaitPolicy(poll_interval=self._poll_interval, show_live_view=self.show_live_view))
        self.log.info("%s", polling_line(self._poll_interval))
        self.defer(
            # The sensor has not started the run, so it does not stop the run either.
            trigger=TaskTrigger(
                browseract_conn_id=self.browseract_conn_id, wait=wait.deferred(now), cancel_on_kill=False
            ),
            method_name="execute_complete",
            timeout=timedelta(seconds=max(0.0, wait.deadline - now) + timings.TIMEOUT_BACKSTOP),
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
            advice="Clearing the task reads the same run again.",
            log=self.log,
        )
        try:
            return conclusion.result()
        except ResultError:
            raise
        except RunError as error:
            raise AirflowFailException(str(error)) from None
