"""What becomes of a run that has ended: its result, or which error, and who is told of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset

from airflow_provider_browseract.api.errors import BrowserActError
from airflow_provider_browseract.compat import AirflowFailException, AirflowTaskTimeout
from airflow_provider_browseract.hooks.steps import run_steps
from airflow_provider_browseract.hooks.xcoms import why_unstorable
from airflow_provider_browseract.links.showing import count_run, show_run
from airflow_provider_browseract.runs.arguments import read_output_path
from airflow_provider_browseract.runs.late_output import read_late_output
from airflow_provider_browseract.runs.outcome import ResultError, RunError, check_finished
from airflow_provider_browseract.runs.outputs import (
    LARGE_OUTPUT,
    FormatError,
    OutputFormat,
    addresses_of,
    as_text_line,
    pending_line,
    read_output,
    storable,
)
from airflow_provider_browseract.runs.report import describe, end_lines, facts, log_url

if TYPE_CHECKING:
    from airflow.sdk import Context, ObjectStoragePath

    from airflow_provider_browseract.api.models import Task
    from airflow_provider_browseract.hooks.browseract import BrowserActHook
    from airflow_provider_browseract.hooks.steps import Log
    from airflow_provider_browseract.worker.store import Results, ResultStore


_UNREAD = {"output_text": "The text is", "output_files": "The addresses of its files are"}
"""What the XComs of an output with a wrong format have."""


class _KilledError(Exception):
    """The process is being ended while something is waited for."""


@dataclass(repr=False)
class Conclusion:
    """What an Airflow task makes of its run that has ended.

    :param task: the run.
    :param context: the context of the Airflow task.
    :param output_format: what the text of the output is declared to be.
    :param output_path: where the output is written; None if it is returned.
    :param hook: reads the run again, if that is needed.
    :param outlets: the assets that the Airflow task declares as its outlets.
    :param another_try_reads_it: whether a later try takes the result of this run instead of paying for another.
    :param advice: how to have the run read again, for those who fix something first.
    :param log: the task's log.
    :param killed: returns whether the process is being ended, so that nothing is waited for any more.
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
    killed: Callable[[], bool] = lambda: False
    results: Results | None = field(default=None, init=False)

    def result(self) -> Any:
        """Return the result of the run, after pushing its XComs, counting it and extending the events of its assets.

        :returns: the output as a value or, where there is a store, what was written there.
        :raises RunFailedError: the run failed.
        :raises RunCanceledError: the run was canceled.
        :raises ResultError: it finished, its results could not be written, and the next try can.
        :raises AirflowFailException: it finished, and no retry can bring its results where they belong.
        """
        try:
            try:
                with self._paid_once("reading"):
                    self.task = self._read_late_output()
            finally:
                self._report()
            check_finished(self.task)
            with self._paid_once("writing"):
                store = open_store(self.output_path, self.hook, self.log)
                result = self._read() if store is None else self._keep(store)
        except ResultError:
            # The next try comes to the same end.
            raise
        except Exception:
            count_run(self.task)
            raise
        count_run(self.task)
        self._extend_asset_events()
        return result

    @contextmanager
    def _paid_once(self, what: str) -> Iterator[None]:
        """Let nothing that goes wrong with the output pay for another run.

        :param what: what is done with the output.
        """
        try:
            yield
        except (RunError, AirflowFailException):
            raise
        except AirflowTaskTimeout:
            raise self._not_kept(f"execution_timeout ended the {what} of its results") from None
        except Exception as error:  # noqa: BLE001 - it becomes one that says what becomes of the results
            lost = self._not_kept(f"its results could not be kept: {type(error).__name__}: {error}")
            raise lost.with_traceback(error.__traceback__) from None

    def _read_late_output(self) -> Task:
        """Read the run again if its output may come late; a process that is being ended takes what there is."""
        try:
            steps = read_late_output(self.task, time.time())
            return run_steps(steps, self.hook.client, self.log, check=self._check)
        except _KilledError:
            return self.task

    def _check(self) -> None:
        if self.killed():
            raise _KilledError

    def _report(self) -> None:
        for line in end_lines(self.task):
            self.log.info("%s", line)
        show_run(self.context["ti"], self.task, self.log)

    def _read(self) -> Any:
        text = (self.task.output.string if self.task.output else None) or ""
        try:
            read = read_output(self.task, self.output_format, why_unstorable)
        except FormatError as error:
            raise AirflowFailException(self._wrong_format(error, _describe_kept(*self._keep_unread(text)))) from None
        if read.kept_as_text is not None:
            self.log.warning("%s", as_text_line(read.kept_as_text))
        if pending := pending_line(self.task):
            self.log.warning("%s", pending)
        if (size := len(text.encode("utf-8", "replace"))) > LARGE_OUTPUT:
            self.log.warning(
                "The output has %.1f MiB and goes into Airflow's database. Give the operator an output_path, so that "
                "it is written to object storage and only its path is passed on.",
                size / LARGE_OUTPUT,
            )
        return read.value

    def _keep_unread(self, text: str) -> tuple[list[str], Exception | None]:
        """Push the text of a wrong format and the addresses of the files as XComs.

        :returns: the keys of the XComs that were pushed, and why there are no more, if one failed.
        """
        pushed: list[str] = []
        try:
            for key, value in (("output_text", text and storable(text)), ("output_files", addresses_of(self.task))):
                if value:
                    self.context["ti"].xcom_push(key=key, value=value)
                    pushed.append(key)
        except Exception as error:  # noqa: BLE001 - the wrong format is what the task fails with
            return pushed, error
        return pushed, None

    def _keep(self, store: ResultStore) -> Any:
        from airflow_provider_browseract.worker.store import StorageError

        try:
            read_again = partial(self.hook.get_task, self.task.id)
            results = self.results = store.save(self.task, self.output_format, read_again, self._check)
        except _KilledError:
            raise self._not_kept("its process was ended while BrowserAct was still preparing files") from None
        except (StorageError, BrowserActError) as error:
            raise self._not_kept(f"its results could not be written: {error}") from None
        kept = [*([results.output] if results.output else []), *results.files]
        size = sum(each.size for each in kept)
        self.log.info("Wrote %d files, %d bytes, to %s.", len(kept), size, results.path)
        if results.missing:
            missing = "; ".join(f"{name}: {why.rstrip('.')}" for name, why in results.missing.items())
            raise self._not_kept(
                f"{len(results.missing)} of {len(results.missing) + len(results.files)} files are missing ({missing}). "
                f"The others are in {results.path}",
                lost=results.lost,
            )
        if results.format_error:
            where = f"The text is kept in {results.output.path}." if results.output else "There is nothing to keep."
            raise AirflowFailException(self._wrong_format(results.format_error, where))
        return results.manifest()

    def _wrong_format(self, why: object, kept: str) -> str:
        return (
            f"{describe(self.task)} finished, but its output is not {self.output_format}: {why}. {kept} Correct "
            f"output_format, or the workflow. {self.advice}"
        )

    def _not_kept(self, why: str, *, lost: bool = False) -> Exception:
        """Make the error of a run that was paid for and whose results are not where they belong."""
        said = f"{describe(self.task)} finished, but {why.rstrip('.')}."
        if not lost and (url := log_url(self.task)):
            said += f" Its output is still available in BrowserAct: {url}"
        if not self.another_try_reads_it:
            # A retry would only pay for another run.
            return AirflowFailException(said)
        if lost:
            return AirflowFailException(f"{said} {self.advice}")
        return ResultError(said)

    def _extend_asset_events(self) -> None:
        """Add to the asset events which run they come from and where its results are."""
        extra: dict[str, Any] = {"browseract_task_id": self.task.id, "counts": facts(self.task)["counts"]}
        if self.results is not None:
            extra["path"] = self.results.path
            extra["files"] = [kept.path for kept in self.results.files]
        try:
            for outlet in self.outlets:
                if isinstance(outlet, Asset):
                    self.context["outlet_events"][outlet].extra.update(extra)
        except Exception as error:  # noqa: BLE001 - the result matters more than its asset events
            self.log.warning("The asset events could not be extended with the run: %s", error)


def _describe_kept(pushed: list[str], error: Exception | None) -> str:
    """Return in words what was kept of an output with a wrong format.

    :param pushed: keys of the XComs that were pushed.
    :param error: why there are no more, if one failed.
    """
    said = [f"{_UNREAD[key]} kept in the XCom {key}." for key in pushed]
    if error is not None:
        said.append(f"The rest could not be kept as an XCom ({type(error).__name__}: {error}).")
    return " ".join(said) or "There is nothing to keep."


def open_store(output_path: str | ObjectStoragePath | None, hook: BrowserActHook, log: Log) -> ResultStore | None:
    """Return the store for an ``output_path``, or None where there is none.

    :raises InputError: the path is none.
    """
    if output_path is None:
        return None
    from airflow_provider_browseract.worker.store import ResultStore

    return ResultStore(read_output_path(output_path), hook.settings.client, log)
