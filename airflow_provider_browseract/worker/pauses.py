"""Pauses: notify people, ask them in a Required Action, and act on the answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from airflow_provider_browseract.compat import AirflowFailException, in_dag_test
from airflow_provider_browseract.exceptions import (
    BrowserActError,
    ResumeNotSupportedError,
    RunPausedError,
    TaskNotPausedError,
)
from airflow_provider_browseract.in_airflow.required_action import ask, required_action_url
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.options import Answer, OnPaused, RunOptions
from airflow_provider_browseract.runs.report import facts
from airflow_provider_browseract.runs.wait import FOREVER, Wait, WaitEvent
from airflow_provider_browseract.worker.no_result import stop_and_fail
from airflow_provider_browseract.worker.own_run import OwnRun
from airflow_provider_browseract.worker.showing import show_run

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_browseract.api.models import Task
    from airflow_provider_browseract.runs.options import PauseCallback


def handle_pause(
    wait: Wait, task: Task, context: Context, run: OwnRun, options: RunOptions
) -> tuple[Wait, Task | None]:
    """Act on a pause of the run as ``on_paused`` says, and return the wait that follows.

    :returns: the wait, and the run if it has finished or failed before it was stopped.
    :raises AirflowFailException: ``on_paused="fail"``. There is no retry, which would only pay for another pause.
    :raises RunLostError: the run could not be stopped, and the next try can reattach to it.
    """
    log = run.log
    show_run(context["ti"], task, run.hook, log)
    if options.asks and in_dag_test():
        where = f" at {task.live_url}" if task.live_url else ""
        log.warning("dag.test() has no UI for Required Actions. Resume the run in BrowserAct%s.", where)
    elif options.asks:
        # The Required Action must exist before anyone is notified of it.
        limit = options.answer_timeout
        wait = replace(wait, answer_by=None if limit is None else time.time() + limit)
        wait = replace(wait, required_action=ask(context["ti"], task, wait))
    _notify(options.on_paused_callback, context, task, run)
    if options.on_paused is not OnPaused.FAIL:
        return replace(wait, ignore_pause_until=FOREVER), None
    why = "The run paused for a person, and on_paused='fail' does not wait for one."
    remedy = "To let a person help, set on_paused='ask' or on_paused='wait'."
    return wait, stop_and_fail(run, AirflowFailException, why, remedy, task)


def act_on_answer(event: WaitEvent, run: OwnRun, seen: Task | BrowserActError) -> tuple[Wait, Task | BrowserActError]:
    """Resume or stop the paused run, as a person chose or, without an answer, as ``AskPerson(default=...)`` says.

    :returns: the wait that follows a resume, and what the last poll returned.
    :raises RunPausedError: nobody answered in time.
    :raises AirflowFailException: a person chose to stop the run. There is no retry, which would only ask again.
    :raises RunLostError: the run could not be stopped, and the next try can reattach to it.
    """
    wait, answer, task_id = event.wait, event.answer or Answer.RESUME, event.wait.browseract_task_id
    if wait.required_action is None:
        # Airflow also shows an open Required Action in later tries.
        run.log.warning(
            "The answer %s was for an earlier Required Action and has no effect. Waiting again.", answer.option
        )
        return wait, seen
    who = f"{event.answered_by} chose {answer.option}" if event.answered_by else "nobody answered in time"
    if answer is Answer.RESUME:
        run.log.info("Resuming the run: %s.", who)
        return _resume(wait.unasked(), run), seen
    error: type[Exception] = AirflowFailException
    remedy = ""
    if event.answered_by is None:
        error, remedy = RunPausedError, "To wait longer for an answer, raise the timeout of AskPerson."
    return wait, stop_and_fail(run, error, f"The run paused for a person, and {who}.", remedy, task_id)


def _resume(wait: Wait, run: OwnRun) -> Wait:
    """Resume the run, and return the wait that follows."""
    log = run.log
    try:
        run.hook.client.send(wait.api.resume_task(wait.browseract_task_id))
    except TaskNotPausedError:
        log.info("The run is no longer paused.")
    except ResumeNotSupportedError:
        log.info(
            "The run cannot be resumed from Airflow: BrowserAct itself continues runs of agent-built bots after a "
            "person has helped in the live view."
        )
        return replace(wait, ignore_pause_until=FOREVER)
    except BrowserActError as error:
        log.warning("The run could not be resumed: %s", error.brief)
        return wait
    else:
        log.info("The run was resumed.")
    return replace(wait, ignore_pause_until=time.time() + timings.RESUME_GRACE)


def _notify(callbacks: Sequence[PauseCallback], context: Context, task: Task, run: OwnRun) -> None:
    """Call each callback. A failing one affects neither the others nor the run."""
    for callback in callbacks:
        try:
            # Each gets its own copy of the context, because notifiers change it.
            known = facts(task, run.hook.browseract_conn_id)
            callback({**context, "browseract_task": known, "required_action_url": required_action_url(context["ti"])})
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a failing callback must not end the wait
            run.log.error("on_paused_callback %r failed: %s", callback, error)
