"""Pauses: notify people, ask them, and do what they have decided."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from airflow_provider_browseract.api.errors import BrowserActError, TaskNotPausedError
from airflow_provider_browseract.compat import AirflowFailException, in_dag_test
from airflow_provider_browseract.hooks.required_action import ask
from airflow_provider_browseract.links.showing import show_run
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.arguments import InputError
from airflow_provider_browseract.runs.outcome import RunPausedError
from airflow_provider_browseract.runs.report import facts
from airflow_provider_browseract.runs.resuming import Answered, Decision, GiveUp, Paused, WaitAgain
from airflow_provider_browseract.runs.waiting import MAX_RESUMES, Answer, End, OnPaused, Wait

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_browseract.api.models import Task
    from airflow_provider_browseract.hooks.steps import Log
    from airflow_provider_browseract.worker.owned_run import OwnedRun

PauseCallback = Callable[[Any], Any]
PauseCallbacks = PauseCallback | Sequence[PauseCallback] | None


def read_callbacks(value: Any) -> list[PauseCallback]:
    """Check what is to be called when a run pauses.

    :param value: one notifier or function, or several, or None.
    :raises InputError: it is something else.
    """
    given = [value] if callable(value) else value if isinstance(value, list | tuple) else [] if value is None else None
    if given is None or not all(callable(each) for each in given):
        raise InputError(f"on_paused_callback is {value!r}. Give a notifier or a function, or a list of them.")
    if any(map(iscoroutinefunction, given)):
        raise InputError(f"on_paused_callback is {value!r}. Give a function that is not async: nobody would await it.")
    return list(given)


def handle_pause(paused: Paused, context: Context, run: OwnedRun, callbacks: Sequence[PauseCallback]) -> Decision:
    """Do what is wanted when the run has paused for a person.

    :param paused: the wait and the run.
    :param context: the context of the Airflow task.
    :param run: the run that this process answers for.
    :param callbacks: whom to notify.
    :returns: what follows.
    """
    wait, task, log = replace(paused.wait, pauses=paused.wait.pauses + 1), paused.task, run.log
    policy = wait.policy
    show_run(context["ti"], task, log)
    if policy.on_paused is OnPaused.ASK and in_dag_test():
        log.warning("dag.test() has nobody to ask. Resume the run in BrowserAct: %s", task.live_url)
    elif policy.on_paused is OnPaused.ASK:
        # Before anybody is notified of where to answer.
        limit = policy.answer_timeout
        action = ask(context["ti"], task, policy.answer_default, limit)
        wait = wait.asking(action, None if limit is None else time.time() + limit)
    _notify(callbacks, context, task, log)
    if policy.on_paused is OnPaused.FAIL:
        return GiveUp(wait, End.PAUSED)
    if policy.on_paused is OnPaused.RESUME and wait.pauses <= MAX_RESUMES:
        log.info("Resuming BrowserAct task %s, %d of %d times.", task.id, wait.pauses, MAX_RESUMES)
        return WaitAgain(_resume(wait, run))
    return WaitAgain(replace(wait, pause_known=True))


def act_on_answer(answered: Answered, run: OwnedRun) -> Decision:
    """Resume or stop the paused run, as a person or the lack of one has decided.

    :param answered: what was decided.
    :param run: the run that this process answers for.
    :returns: what follows a resume.
    :raises RunPausedError: nobody answered in time, and the run was stopped.
    :raises AirflowFailException: a person has stopped it. There is no retry, which would only ask the same again.
    """
    wait, answer = answered.wait, answered.answer
    task_id = wait.browseract_task_id
    who = f"{answered.by} has chosen {answer.option}" if answered.by is not None else "nobody answered in time"
    if answered.by is None and wait.policy.answer_timeout is not None:
        who = f"nobody answered within {wait.policy.answer_timeout:g} seconds"
    if answer is Answer.RESUME:
        run.log.info("BrowserAct task %s is resumed: %s.", task_id, who)
        return WaitAgain(_resume(wait.unasked(), run))
    said = f"BrowserAct task {task_id} paused for a person, and {who}.\n{run.describe(run.stop(task_id))}"
    if answered.by is None:
        raise RunPausedError(said)
    raise AirflowFailException(said)


def _resume(wait: Wait, run: OwnedRun) -> Wait:
    """Resume the run, and return the wait from there."""
    task_id, log = wait.browseract_task_id, run.log
    try:
        run.hook.resume_task(task_id)
    except TaskNotPausedError:
        log.info("BrowserAct task %s is not paused any more.", task_id)
    except BrowserActError as error:
        log.warning("BrowserAct task %s could not be resumed: %s", task_id, error.brief)
        return wait
    else:
        log.info("BrowserAct task %s was resumed.", task_id)
    return replace(wait, pauses_from=time.time() + timings.RESUME_GRACE)


def _notify(callbacks: Sequence[PauseCallback], context: Context, task: Task, log: Log) -> None:
    """Call those who want to know of a pause. One that fails affects neither the others nor the run."""
    for callback in callbacks:
        try:
            # A context for each: a notifier writes into its own.
            callback({**context, "browseract_task": facts(task), "required_action_url": required_action_url(context)})
        except (Exception, SystemExit) as error:  # noqa: BLE001 - the run must not be left without a word
            log.error("on_paused_callback %r failed: %s", callback, error)


def required_action_url(context: Context) -> str:
    """Return the address of the page on which a person answers, below ``[api] base_url``."""
    ti: Any = context["ti"]
    return f"{ti.log_url.partition('?')[0]}/required_actions"
