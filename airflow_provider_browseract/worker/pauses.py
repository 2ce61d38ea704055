"""Telling people that a run has paused."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Any

from airflow_provider_browseract.runs.inputs import InputError
from airflow_provider_browseract.runs.report import facts

if TYPE_CHECKING:
    from airflow.sdk import Context

    from airflow_provider_browseract.api.models import Task
    from airflow_provider_browseract.hooks.following import Log

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


def tell_pause(callbacks: Sequence[PauseCallback], context: Context, task: Task, log: Log) -> None:
    """Call those who want to know of a pause. One that fails keeps neither the others nor the run.

    :param callbacks: notifiers and functions.
    :param context: the context of the Airflow task.
    :param task: the paused run.
    :param log: the task's log.
    """
    for callback in callbacks:
        try:
            # A context for each: a notifier writes into its own.
            callback({**context, "browseract_task": facts(task), "required_action_url": required_action_url(context)})
        except (Exception, SystemExit) as error:  # noqa: BLE001 - whatever it is, the run must not be left unsaid
            log.log(logging.ERROR, "%r failed when it was told of the pause: %s", callback, error)


def required_action_url(context: Context) -> str:
    """Give the address of the page on which a person answers, below ``[api] base_url``."""
    ti: Any = context["ti"]
    return f"{ti.log_url.partition('?')[0]}/required_actions"
