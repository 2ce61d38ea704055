"""Conclude a run that has ended: return its result or raise its error, and report both."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

from airflow_provider_browseract.api.versions import APIS
from airflow_provider_browseract.compat import CLEAR_KEEPS_STATE, AirflowFailException, AirflowTaskTimeout
from airflow_provider_browseract.exceptions import BrowserActError, ResultError, RunError, StorageError
from airflow_provider_browseract.in_airflow.showing import count_run, show_run
from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.in_airflow.xcoms import why_unstorable
from airflow_provider_browseract.loops import run_steps
from airflow_provider_browseract.runs.addresses import read_output_path
from airflow_provider_browseract.runs.files import addresses_of, pending_line
from airflow_provider_browseract.runs.late_output import read_late_output
from airflow_provider_browseract.runs.options import OutputFormat
from airflow_provider_browseract.runs.outcome import check_finished
from airflow_provider_browseract.runs.outputs import (
    LARGE_OUTPUT,
    FormatError,
    as_text_line,
    doubt_about,
    doubtful_line,
    read_output,
    size_of,
)
from airflow_provider_browseract.runs.report import describe, end_line, facts, log_url, what_ran
from airflow_provider_browseract.runs.stored import storable

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath

    from airflow_provider_browseract.api.models import Task
    from airflow_provider_browseract.hooks.browseract import BrowserActHook
    from airflow_provider_browseract.runs.steps import Log
    from airflow_provider_browseract.worker.results import Results, ResultStore

READ_AGAIN = (
    "On Airflow 3.3, clearing the task reads the same run again; durable=False starts a new one."
    if CLEAR_KEEPS_STATE
    else "Clearing the task with 'Keep task state and resume' reads the same run again; without it, a new run starts."
)
"""How to read the run of an operator again after the error is fixed."""

_UNREAD = {"output_text": "The text is", "output_files": "The addresses of its files are"}
"""What the XComs of an output with a wrong format contain, by key."""


class _KilledError(Exception):
    """The process is being ended while it waits for something."""


@dataclass(repr=False)
class Conclusion:
    """The result or the error of an Airflow task whose run has ended.

    :param output_path: where the output is written; None if it is returned.
    :param hook: reads the run again, if needed.
    :param outlets: the assets that the Airflow task declares as its outlets.
    :param another_try_reads_it: whether a later try reads the result of this run instead of paying for another run.
    :param advice: how to read the run again after the error is fixed.
    :param must_end: returns whether the process is being ended and must not wait for results any longer.
    """

    task: Task
    context: Context
    output_format: OutputFormat
    output_path: str | ObjectStoragePath | None
    hook: BrowserActHook
    outlets: Collection[Any]
    another_try_reads_it: bool
    advice: str
    log: Log
    must_end: Callable[[], bool] = lambda: False
    results: Results | None = field(default=None, init=False)

    def result(self) -> Any:
        """Return the result of the run, after pushing its XComs, counting it and extending the events of its assets.

        :returns: the output as a value or, with an ``output_path``, a dict that describes what was written.
        :raises RunFailedError: the run failed.
        :raises RunCanceledError: the run was canceled.
        :raises ResultError: the run finished and its results could not be written, but the next try may write them.
        :raises AirflowFailException: the run finished, and no retry can return or write its results.
        """
        try:
            try:
                with self._no_new_run_on_error("read"):
                    self.task = self._read_late_output()
            finally:
                self._report()
            check_finished(self.task)
            with self._no_new_run_on_error("written" if self.output_path else "read"):
                store = open_store(self.output_path, self.hook, self.log)
                result = self._read() if store is None else self._keep(store)
        except ResultError:
            # The next try reads the same run and counts it.
            raise
        except Exception:
            count_run(self.task)
            raise
        count_run(self.task)
        self._extend_asset_events()
        return result

    @contextmanager
    def _no_new_run_on_error(self, what: str) -> Iterator[None]:
        """Replace errors of the output with errors that lead to no further paid run.

        :param what: what is done with the output, as a past participle for the message.
        """
        try:
            yield
        except (RunError, AirflowFailException):
            raise
        except AirflowTaskTimeout:
            raise self._not_kept(f"execution_timeout expired while its results were being {what}") from None
        except Exception as error:  # noqa: BLE001
            lost = self._not_kept(f"its results could not be {what}: {type(error).__name__}: {error}")
            raise lost.with_traceback(error.__traceback__) from None

    def _read_late_output(self) -> Task:
        """Read the run again if its output may be late."""
        try:
            steps = read_late_output(self.task, time.time())
            return run_steps(steps, self.hook.client, self.log, check=self._check)
        except _KilledError:
            raise self._not_kept("its process was ended while its output was not available yet") from None

    def _check(self) -> None:
        if self.must_end():
            raise _KilledError

    def _report(self) -> None:
        self.log.info("%s", end_line(self.task))
        show_run(self.context["ti"], self.task, self.hook.browseract_conn_id, self.hook.hiding.hidden, self.log)

    @property
    def _text(self) -> str:
        return (self.task.output.string if self.task.output else None) or ""

    def _read(self) -> Any:
        text = self._text
        if (size := size_of(text)) > LARGE_OUTPUT:
            self.log.warning(
                "The output is %.1f MiB and is stored in Airflow's database. Set output_path to write it to object "
                "storage and pass on only its path.",
                size / LARGE_OUTPUT,
            )
        try:
            read = read_output(self.task, self.output_format, why_unstorable)
        except FormatError as error:
            raise AirflowFailException(self._wrong_format(error, _describe_kept(*self._keep_unread(text)))) from None
        if read.kept_as_text is not None:
            self.log.warning("%s", as_text_line(read.kept_as_text))
        if read.doubt is not None:
            kept = _describe_kept(*self._keep_unread(text))
            self.log.warning("%s", doubtful_line(read.doubt, kept, what_ran(self.task)))
        if pending := pending_line(self.task):
            self.log.warning("%s", pending)
        return read.value

    def _keep_unread(self, text: str) -> tuple[list[str], Exception | None]:
        """Push the text of a wrong format and the addresses of the files as XComs.

        :returns: the keys of the XComs that were pushed, and the error if one of them could not be pushed.
        """
        pushed: list[str] = []
        try:
            for key, value in (("output_text", text and storable(text)), ("output_files", addresses_of(self.task))):
                if value:
                    self.context["ti"].xcom_push(key=key, value=value)
                    pushed.append(key)
        except Exception as error:  # noqa: BLE001 - the task fails because of the wrong format, not because of this
            return pushed, error
        return pushed, None

    def _keep(self, store: ResultStore) -> Any:
        try:
            read_again = partial(self.hook.client.send, APIS[self.task.api_version].get_task(self.task.id))
            results = self.results = store.save(self.task, self.output_format, read_again, self._check)
        except _KilledError:
            raise self._not_kept("its process was ended before all of its files were written") from None
        except (StorageError, BrowserActError) as error:
            raise self._not_kept(f"its results could not be written: {error}") from None
        self.log.info("Wrote %s to %s.", results.written, results.path)
        if results.missing:
            missing = "; ".join(f"{name}: {why.rstrip('.')}" for name, why in results.missing.items())
            raise self._not_kept(
                f"{len(results.missing)} of {len(results.missing) + len(results.files)} files are missing ({missing}). "
                f"The others are in {results.path}",
                lost=results.lost,
            )
        # Without a stored text, the output is empty, which the reason states.
        where = f"The text is stored in {results.output.path}." if results.output else ""
        if results.format_error:
            raise AirflowFailException(self._wrong_format(results.format_error, where))
        if doubt := doubt_about(self._text, self.output_format):
            self.log.warning("%s", doubtful_line(doubt, where, what_ran(self.task)))
        return results.manifest()

    def _wrong_format(self, why: object, kept: str) -> str:
        reason = f"{describe(self.task)} finished, but its output is not {self.output_format}: {why}."
        return " ".join(filter(None, (reason, kept, f"Fix output_format or the {what_ran(self.task)}.", self.advice)))

    def _not_kept(self, why: str, *, lost: bool = False) -> Exception:
        """Return the error of a finished run whose results could not be returned or written."""
        message = f"{describe(self.task)} finished, but {why.rstrip('.')}."
        if not lost and (url := log_url(self.task)):
            message += f" Its output is still available in BrowserAct: {url}"
        if not self.another_try_reads_it:
            # A retry would only start, and bill, another run.
            return AirflowFailException(message)
        if lost:
            return AirflowFailException(f"{message} {self.advice}")
        return ResultError(message)

    def _extend_asset_events(self) -> None:
        """Add the run and the path of its results to the asset events."""
        extra: dict[str, Any] = {"browseract_task_id": self.task.id, "counts": facts(self.task)["counts"]}
        if self.results is not None:
            extra["path"] = self.results.path
            extra["files"] = [kept.path for kept in self.results.files]
        # The result matters more than its asset events.
        with tolerate_errors(self.log.warning, "The run could not be added to the asset events: %s"):
            for outlet in self.outlets:
                if isinstance(outlet, Asset):
                    self.context["outlet_events"][outlet].extra.update(extra)


def _describe_kept(pushed: list[str], error: Exception | None) -> str:
    """Return a sentence that states where the output with the wrong format was stored, or "" if the output is empty."""
    sentences = [f"{_UNREAD[key]} stored in the XCom {key}." for key in pushed]
    if error is not None:
        what = "The rest" if pushed else "The output"
        sentences.append(f"{what} could not be pushed as an XCom ({type(error).__name__}: {error}).")
    return " ".join(sentences)


def open_store(output_path: str | ObjectStoragePath | None, hook: BrowserActHook, log: Log) -> ResultStore | None:
    """Return the store for an ``output_path``, or None if there is no path.

    :raises InputError: the path cannot be used.
    """
    if output_path is None:
        return None
    from airflow_provider_browseract.worker.results import ResultStore

    return ResultStore(read_output_path(output_path), hook.settings, log)
