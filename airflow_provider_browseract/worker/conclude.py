"""Conclude a run that has ended: return its result or raise its error, and report both."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

from airflow_provider_browseract.api.models import ApiVersion, Task, TaskStatus
from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.compat import CLEAR_KEEPS_STATE, AirflowFailException, AirflowTaskTimeout
from airflow_provider_browseract.exceptions import BrowserActError, ResultError, RunError, StorageError
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.in_airflow.xcoms import why_unstorable
from airflow_provider_browseract.loops import sleep
from airflow_provider_browseract.results.files import has_files, pending_line
from airflow_provider_browseract.results.outputs import LARGE_OUTPUT, FormatError, as_text_line, read_output, size_of
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.options import OutputFormat
from airflow_provider_browseract.runs.report import brief_of, check_finished, end_line, error_text, facts, what_ran
from airflow_provider_browseract.runs.stored import storable
from airflow_provider_browseract.worker.look import look
from airflow_provider_browseract.worker.showing import count_run, show_run

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_browseract.api.settings import Settings
    from airflow_provider_browseract.hooks.browseract import BrowserActHook
    from airflow_provider_browseract.results.store import Results, ResultStore
    from airflow_provider_browseract.runs.log import Log

READ_AGAIN = (
    "On Airflow 3.3, clearing the task reads the same run again; durable=False starts a new one."
    if CLEAR_KEEPS_STATE
    else "Clearing the task with 'Keep task state and resume' reads the same run again; without it, a new run starts."
)
"""How to read the run of an operator again after the error is fixed."""

STILL_THERE = "BrowserAct still has its output."


@dataclass(frozen=True)
class Output:
    """What an operator or a sensor does with the output of a run.

    :param path: where it is written; None to return it.
    :param outlets: the outlets of the Airflow task.
    """

    format: OutputFormat
    path: Any
    outlets: Iterable[Any] = ()


@dataclass(repr=False)
class Conclusion:
    """The result or the error of an Airflow task whose run has ended.

    :param output: what is done with the output.
    :param another_try_reads_it: a later try reads the result of this run instead of paying for another run.
    :param advice: how to read the run again after the error is fixed.
    :param leaves_results: returns whether this process is being killed, and the next try can read the results.
    :param follows: the task instance has not started the run.
    """

    task: Task
    context: Context
    hook: BrowserActHook
    log: Log
    output: Output
    another_try_reads_it: bool
    advice: str
    leaves_results: Callable[[], bool] = lambda: False
    follows: bool = False
    results: Results | None = None

    def conclude(self) -> Any:
        """Return the result of the run, after pushing its XComs, counting it and extending the events of its assets.

        :returns: the output as a value or, with an ``output_path``, a dict that describes what was written.
        :raises RunFailedError: the run failed.
        :raises RunCanceledError: the run was canceled.
        :raises ResultError: the run finished and its results could not be written, but the next try may write them.
        :raises AirflowFailException: the run finished, and no retry can return or write its results.
        """
        try:
            result = self._result()
        except (Exception, AirflowTaskTimeout) as error:  # noqa: BLE001 - always raised again
            failure = self._failure(error)
            # The next try reads the same run and counts it.
            if not isinstance(failure, ResultError):
                count_run(self.task)
            raise failure from None
        count_run(self.task)
        self._extend_asset_events()
        return result

    def _result(self) -> Any:
        hook, log = self.hook, self.log
        try:
            self.task = read_again(self.task, hook, log, self._check)
        finally:
            log.info("%s", end_line(self.task))
            show_run(self.context["ti"], self.task, hook, log, follows=self.follows)
        check_finished(self.task)
        if self.task.unread is not None:
            raise self._without_result(f"its output cannot be read: {self.task.unread}")
        if not (_text_of(self.task) or has_files(self.task)):
            log.warning("The run finished without any output.")
        return self._read() if self.output.path is None else self._write()

    def _check(self) -> None:
        """Leave the results to the next try. Without one, a killed process goes on as long as Airflow lets it live."""
        if self.leaves_results():
            raise self._without_result("its process was ended before its results were complete")

    def _failure(self, error: Exception | AirflowTaskTimeout) -> Exception:
        """Return the error to raise instead of any error of the output: one that leads to no further paid run."""
        if isinstance(error, RunError | AirflowFailException) and not isinstance(error, StorageError):
            return error
        done = "read" if self.output.path is None else "written"
        if isinstance(error, AirflowTaskTimeout):
            return self._without_result(f"execution_timeout expired while its results were being {done}")
        why = error if isinstance(error, StorageError) else brief_of(error)
        return self._without_result(f"its results could not be {done}: {why}").with_traceback(error.__traceback__)

    def _without_result(self, why: str, then: str = STILL_THERE, *, final: bool = False) -> Exception:
        """Return the error of a paid run without a result here.

        :param then: what to do, and where the output still is, as sentences.
        :param final: the next try would get the same result.
        """
        text = error_text(f"The run finished, but {why.rstrip('.')}.", then, about=self.task)
        # Without the state of the run, a retry would only start, and bill, another one.
        return (ResultError if self.another_try_reads_it and not final else AirflowFailException)(text)

    def _wrong_format(self, why: object, kept: str) -> Exception:
        then = f"{kept} Fix output_format or the {what_ran(self.task)}. {self.advice}\n{STILL_THERE}".lstrip()
        return self._without_result(f"its output is not {self.output.format}: {why}", then, final=True)

    # The output as the value of the task

    def _read(self) -> Any:
        log, text = self.log, _text_of(self.task)
        if (size := size_of(text)) > LARGE_OUTPUT:
            log.warning(
                "The output is %.1f MiB and is stored in Airflow's database. Set output_path to write it to object "
                "storage and pass on only its path.",
                size / LARGE_OUTPUT,
            )
        try:
            read = read_output(self.task, self.output.format, why_unstorable)
        except FormatError as error:
            raise self._wrong_format(error, self._keep_unread(text)) from None
        if read.kept_as_text is not None:
            log.warning("%s", as_text_line(read.kept_as_text))
        if pending := pending_line(self.task):
            log.warning("%s", pending)
        return read.value

    def _keep_unread(self, text: str) -> str:
        """Push the text of a wrong format as an XCom, and return where it is, as a sentence; "" if it is empty."""
        if not text:
            return ""
        try:
            self.context["ti"].xcom_push(key="output_text", value=storable(text))
        except Exception as error:  # noqa: BLE001 - the task fails because of the wrong format, not because of this
            return f"The text could not be pushed as an XCom ({type(error).__name__}: {error})."
        return "The text is stored in the XCom output_text."

    # The output in object storage

    def _write(self) -> Any:
        task, output_format = self.task, self.output.format
        read_again = partial(self.hook.client.send, APIS[task.api_version].get_task(task.id))
        store = open_store(self.output.path, self.hook.settings, self.log)
        results = self.results = store.save(task, output_format, read_again, self._check)
        self.log.info("Wrote %s to %s.", results.written, results.path)
        if results.missing:
            missing = "; ".join(f"{name}: {why.rstrip('.')}" for name, why in results.missing.items())
            raise self._without_result(
                f"{len(results.missing)} of {len(results.missing) + len(results.files)} files are missing ({missing}). "
                f"The others are in {results.path}",
                self.advice if results.lost else STILL_THERE,
                final=results.lost,
            )
        if results.format_error:
            # Without a stored text, the output is empty, which the reason states.
            where = f"The text is stored in {results.output.path}." if results.output else ""
            raise self._wrong_format(results.format_error, where)
        return results.manifest()

    def _extend_asset_events(self) -> None:
        """Add the run and the path of its results to the asset events."""
        extra: dict[str, Any] = {"browseract_task_id": self.task.id, "counts": facts(self.task)["counts"]}
        if self.results is not None:
            extra["path"] = self.results.path
            extra["files"] = [kept.path for kept in self.results.files]
        # The result matters more than its asset events.
        with tolerate_errors(self.log.warning, "The run could not be added to the asset events: %s"):
            for outlet in self.output.outlets:
                if isinstance(outlet, Asset):
                    self.context["outlet_events"][outlet].extra.update(extra)


def _text_of(task: Task) -> str:
    return (task.output.string if task.output else None) or ""


def open_store(output_path: Any, settings: Settings, log: Log) -> ResultStore:
    """Return the store for an ``output_path``.

    :raises InputError: the path cannot be used.
    """
    from airflow_provider_browseract.results.folder import read_output_path
    from airflow_provider_browseract.results.store import ResultStore

    return ResultStore(read_output_path(output_path), settings, log)


def read_again(task: Task, hook: BrowserActHook, log: Log, check: Callable[[], None]) -> Task:
    """Read a finished run again while its output cannot be read, or may come later than its status.

    After a callback, the worker reads the run within a second of its end.

    :param check: called while this waits; its exception ends the wait.
    :returns: the run as the API returned it last.
    :raises BrowserActError: the last read failed, so it is not known whether the run has output.
    """
    seen: Task | BrowserActError = task
    for pause in timings.READ_AGAIN_PAUSES:
        if (why := _why_again(task)) is None:
            break
        log.info("%s Reading the run again in %g seconds.", why, pause)
        sleep(pause, check)
        seen = look(hook, task.id, task.api_version)
        if isinstance(seen, BrowserActError):
            log.warning("The run could not be read again: %s", seen.brief)
        else:
            task = seen
    if isinstance(seen, BrowserActError):
        raise seen
    return task


def _why_again(task: Task) -> str | None:
    """Return why a run should be read again, as a sentence; None if it has all that can be expected of it."""
    if task.status is not TaskStatus.FINISHED:
        return None
    if task.unread is not None:
        return f"The output of the run cannot be read: {task.unread.rstrip('.')}."
    ended_at = task.finished_at.timestamp() if task.finished_at else time.time()
    # Agent-built bots may have no steps.
    has_worked = bool(task.steps) or task.api_version is ApiVersion.V3
    if not has_worked or _text_of(task) or has_files(task) or ended_at < time.time() - timings.LATE_OUTPUT_LIMIT:
        return None
    return "The run has finished without output or files, which can be available later than its status."
