"""Pauses: notify people, ask them in a Required Action, and act on the answer."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from airflow_provider_browseract.compat import AirflowFailException, in_dag_test
from airflow_provider_browseract.exceptions import (
    BrowserActError,
    ResumeNotSupportedError,
    RunPausedError,
    TaskNotPausedError,
)
from airflow_provider_browseract.in_airflow.required_action import ask
from airflow_provider_browseract.in_airflow.showing import show_run
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.options import MAX_RESUMES, Answer, OnPaused
from airflow_provider_browseract.runs.report import facts
from airflow_provider_browseract.runs.resuming import Answered, Decision, GiveUp, Paused, WaitAgain
from airflow_provider_browseract.runs.waiting import End, Wait

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_browseract.api.models import Task
    from airflow_provider_browseract.runs.options import PauseCallback
    from airflow_provider_browseract.worker.owned_run import OwnedRun


def handle_pause(paused: Paused, context: Context, run: OwnedRun, callbacks: Sequence[PauseCallback]) -> Decision:
    """Act on a pause of the run as ``on_paused`` says.

    :returns: what to do next.
    """
    wait, task, log = replace(paused.wait, pauses=paused.wait.pauses + 1), paused.task, run.log
    policy = wait.policy
    show_run(context["ti"], task, run.hook.browseract_conn_id, run.hook.hiding.hidden, log)
    if policy.on_paused is OnPaused.ASK and in_dag_test():
        where = f" at {task.live_url}" if task.live_url else ""
        log.warning("dag.test() has no UI for Required Actions. Resume the run in BrowserAct%s.", where)
    elif policy.on_paused is OnPaused.ASK:
        # The Required Action must exist before anyone is notified of it.
        limit = policy.answer_timeout
        wait = replace(wait, answer_by=None if limit is None else time.time() + limit)
        wait = wait.asking(ask(context["ti"], task, wait, cancel_on_timeout=run.stops_on("cancel_on_timeout")))
    _notify(callbacks, context, task, run)
    if policy.on_paused is OnPaused.FAIL:
        return GiveUp(wait, End.PAUSED)
    if policy.on_paused is OnPaused.RESUME and wait.pauses <= MAX_RESUMES:
        log.info("Resuming BrowserAct task %s (%d of at most %d times).", task.id, wait.pauses, MAX_RESUMES)
        return WaitAgain(_resume(wait, run))
    return WaitAgain(replace(wait, pause_known=True))


def act_on_answer(answered: Answered, run: OwnedRun) -> Decision:
    """Resume or stop the paused run, as a person chose or, without an answer, as ``AskPerson(default=...)`` says.

    :returns: what to do after a resume.
    :raises RunPausedError: nobody answered in time, and the run was stopped.
    :raises AirflowFailException: a person chose to stop the run. There is no retry, which would only ask again.
    """
    wait, answer = answered.wait, answered.answer
    task_id = wait.browseract_task_id
    who = f"{answered.by} chose {answer.option}" if answered.by is not None else "nobody answered in time"
    if answered.by is None and wait.policy.answer_timeout is not None:
        who = f"nobody answered within {wait.policy.answer_timeout:g} seconds"
    if answer is Answer.RESUME:
        run.log.info("Resuming BrowserAct task %s: %s.", task_id, who)
        return WaitAgain(_resume(wait.unasked(), run))
    message = f"BrowserAct task {task_id} paused for a person, and {who}.\n{run.describe(run.stop(task_id))}"
    if answered.by is None:
        raise RunPausedError(f"{message}\nTo wait longer for an answer, raise the timeout of AskPerson.")
    raise AirflowFailException(message)


def _resume(wait: Wait, run: OwnedRun) -> Wait:
    """Resume the run, and return the wait that follows."""
    task_id, log = wait.browseract_task_id, run.log
    try:
        run.hook.client.send(wait.api.resume_task(task_id))
    except TaskNotPausedError:
        log.info("BrowserAct task %s is no longer paused.", task_id)
    except ResumeNotSupportedError:
        log.info(
            "BrowserAct task %s cannot be resumed from Airflow: BrowserAct itself continues runs of agent-built bots "
            "after a person has helped in the live view.",
            task_id,
        )
        return replace(wait, pause_known=True)
    except BrowserActError as error:
        log.warning("BrowserAct task %s could not be resumed: %s", task_id, error.brief)
        return wait
    else:
        log.info("BrowserAct task %s was resumed.", task_id)
    return replace(wait, pauses_from=time.time() + timings.RESUME_GRACE)


def _notify(callbacks: Sequence[PauseCallback], context: Context, task: Task, run: OwnedRun) -> None:
    """Call each callback. A failing one affects neither the others nor the run."""
    for callback in callbacks:
        try:
            # Each gets its own copy of the context, because notifiers change it.
            known = facts(task, run.hook.browseract_conn_id)
            callback({**context, "browseract_task": known, "required_action_url": required_action_url(context)})
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a failing callback must not end the wait
            run.log.error("on_paused_callback %r failed: %s", callback, error)


def required_action_url(context: Context) -> str:
    """Return the address of the page on which a person answers, below ``[api] base_url``."""
    ti: Any = context["ti"]
    return f"{ti.log_url.partition('?')[0]}/required_actions"
