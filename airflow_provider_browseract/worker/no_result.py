"""Waits that end without a result: the run is over its cap or its time, or it can no longer be read."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from airflow_provider_browseract.api.models import Task
from airflow_provider_browseract.compat import AirflowFailException, AirflowTaskTimeout, count_in_task
from airflow_provider_browseract.exceptions import BrowserActError, RunError, RunLostError, RunTimedOutError
from airflow_provider_browseract.runs.report import brief_of, end_line, error_text
from airflow_provider_browseract.runs.wait import MAX_STOPS, End, Wait, is_unknown_run, why_unread
from airflow_provider_browseract.spending.cap import over_cap_text
from airflow_provider_browseract.worker.fate import STOPPED, Fate, Kind
from airflow_provider_browseract.worker.ledger import id_of
from airflow_provider_browseract.worker.showing import count_run, show_run

if TYPE_CHECKING:
    from airflow_provider_browseract.worker.own_run import OwnRun


@contextmanager
def accounted_for(run: OwnRun, task_id: str) -> Iterator[None]:
    """Wait for a started run in this context. Every error that ends the wait states what happens to the run.

    After an unexpected error, the run is left to a later try. If there is none, the run is stopped.
    """
    try:
        yield
    except (RunError, AirflowFailException):
        raise
    except Exception as error:  # noqa: BLE001 - raised again as an error that states what happens to the run
        why = f"An unexpected error occurred: {brief_of(error)}."
        # Show only the traceback of the original error.
        of_run = lost(run, task_id, why, remedy="The traceback shows where the error occurred.")
        raise of_run.with_traceback(error.__traceback__) from None


def end_over_cap(run: OwnRun, wait: Wait, task: Task) -> Task:
    """Make sure that a run over ``max_credits`` is stopped, and fail, unless it has finished in the meantime.

    :returns: the run, if it has finished or failed.
    :raises AirflowFailException: the run did not finish. There is no retry, which would use as many credits again.
    :raises RunLostError: the run could not be stopped, and the next try can reattach to it.
    """
    fate, task = _stop_over_cap(run, wait, task)
    if task.status.ended_by_itself:
        return task
    run.task_id = None
    _show_end(run, task)
    running = None if task.status.ended or fate.kind is Kind.STOPPED else fate.text
    retried = running is not None and run.leave(RunLostError(running)) is not None
    message = over_cap_text(
        task,
        wait.credits_used(task),
        wait.max_credits or 0,
        earlier=wait.spent_before,
        fate=running,
        shared=run.ledger.is_kept,
        retried=retried,
    )
    if retried:
        raise RunLostError(message)
    count_in_task("browseract.runs.over_max_credits")
    raise AirflowFailException(message)


def _stop_over_cap(run: OwnRun, wait: Wait, task: Task) -> tuple[Fate, Task]:
    """Try to stop a run until it has ended, at most :data:`MAX_STOPS` times; return what the last try did."""
    fate = STOPPED
    for number in range(1, MAX_STOPS + 1):
        if task.status.ended:
            break
        fate = run.stop(task.id)
        if fate.kind is not Kind.STOPPED:
            run.follow(task.id, run.api_version)
        seen = run.look(task.id)
        task = seen if isinstance(seen, Task) else task
        if task.status.ended or fate.kind is Kind.STOPPED or number == MAX_STOPS:
            break
        run.log.error("The run is over its cap. %s", fate.text)
        run.sleep(wait.pause(time.time()))
    return fate, task


def give_up(run: OwnRun, wait: Wait, end: End, seen: Task | BrowserActError, timeout: float) -> Task:
    """Stop the run, or leave it to the next try, and fail. Return it if it has a result at its deadline."""
    if end is End.GIVEN_UP or isinstance(seen, BrowserActError):
        why, remedy = why_unread(seen)
        raise lost(run, wait.browseract_task_id, why, remedy=remedy, seen=seen)
    reason = f"The run did not end within timeout={timeout:g} seconds."
    return stop_and_fail(run, RunTimedOutError, reason, "Raise timeout if the run needs longer.", seen)


def stop_and_fail(run: OwnRun, error: type[Exception], why: str, remedy: str, about: Task | str) -> Task:
    """Stop the run and raise an error, or return the run if it has ended by itself, because its result is paid for.

    An error that forbids a retry is replaced if the run cannot be stopped and a next try can reattach to it.
    """
    fate = run.stop(task_id := about if isinstance(about, str) else about.id)
    seen = None
    # If execution_timeout expires during the look, the error below still decides whether Airflow retries.
    with suppress(AirflowTaskTimeout):
        seen = None if fate.kind is Kind.RUNS else run.look(task_id)
    if isinstance(seen, Task):
        if seen.status.ended_by_itself:
            return seen
        _show_end(run, seen)
    if fate.kind is Kind.RUNS and error is AirflowFailException and run.leave(RunLostError(why)):
        error, remedy = RunLostError, "The next try reattaches to the run."
    raise error(error_text(why, f"{fate.text} {remedy}".rstrip(), about=about))


def _show_end(run: OwnRun, task: Task) -> None:
    """Show and count a run that was stopped, once it has ended. Its live view is no longer linked before."""
    if task.status.ended:
        show_run(run.ledger.ti, task, run.hook, run.log)
        count_run(task)
        run.log.info("%s", end_line(task))


def lost(
    run: OwnRun, task_id: str | None, why: str, *, remedy: str, overdue: bool = False, seen: object = None
) -> RunLostError:
    """Leave the run to the next try, or stop it if there is none or its time is over, and return the error.

    :param why: why this try stops waiting.
    :param remedy: what the user can do.
    :param seen: what the last poll returned.
    """
    if task_id is None:
        run.start_unknown = True
        proof = "Its id is not certain: neither the stored state nor the XCom task has a valid proof."
        check = f"Check the newest tasks of the {run.source} in the BrowserAct dashboard."
        fate = f"A run may be running and using credits. {proof} {check}"
        if named := id_of(run.ledger.own_xcom("task_id")):
            fate = f"{fate} The XCom task_id names BrowserAct task {named}."
    else:
        left = None if overdue else run.leave(RunLostError(why))
        fate = (left or run.stop(task_id)).text
    if isinstance(seen, BrowserActError) and is_unknown_run(seen):
        # Neither a retry nor a refused stop is a promise.
        fate = "It is not known whether the run is still active."
    codes = seen.codes if isinstance(seen, BrowserActError) else ""
    return RunLostError(error_text(why, f"{fate} {remedy}", about=task_id, codes=codes))
