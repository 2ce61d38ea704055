"""The page of a run: what the viewer may see of it, and whether it may be stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from airflow_provider_browseract.api.models import Task, TaskStatus
from airflow_provider_browseract.in_airflow.hiding import LIVE_VIEW, SECRET_INPUTS, Hiding
from airflow_provider_browseract.panel.access import Rights, rights_on
from airflow_provider_browseract.panel.html import Notice
from airflow_provider_browseract.panel.kept import Known
from airflow_provider_browseract.panel.links import Link
from airflow_provider_browseract.panel.rows import TOO_MANY_WAIT, Look
from airflow_provider_browseract.panel.web import FORBIDDEN, PageError

MAX_STEPS = 100
"""Steps of a run that a page has."""

STEPS_UNFOLDED = 9
"""How many of them are not folded."""

NOT_STOPPED = Notice(
    "error",
    "You may not stop this run.",
    "You need the right to edit task instances of its DAG, or to edit the connection.",
)


def run_content(look: Look, read: Known[Task], of_instance: Sequence[Link], link: Link | None) -> dict[str, Any] | None:
    """Return what the page of a run shows; None if the run was not read yet.

    :param of_instance: the runs of its task instance. What is older than the records gives rights too.
    :param link: the task instance that is shown with it.
    """
    if read.value is None:
        return None
    proven = look.viewing.proven(read.value.id)
    asked = [each for each in of_instance[:1] if each == link and each not in proven]
    rights = rights_on(look.viewing.access, look.account.conn_id, [*proven, *asked])
    if not rights.run:
        raise PageError(403, FORBIDDEN)
    # A sensor, which anyone can point at a run, hides nothing from those whose task instance has started it.
    own = [each for each in (*proven, *asked) if not each.follows] or [*proven, *asked]
    hidden = {word for each in own for word in each.hidden}
    task = visible(read.value, rights, Hiding(LIVE_VIEW in hidden, texts=SECRET_INPUTS in hidden))
    row = replace(look.row(task, link), rights=rights)
    steps = [*task.steps]
    attention = next((step for step in reversed(steps) if step.status == "failed"), None)
    if task.status is not TaskStatus.FAILED:
        attention = steps[-1] if row.is_active and steps else None
    if row.is_active:
        steps.reverse()
    further = [step for step in steps if step is not attention]
    ids = {each.browseract_task_id for each in of_instance} - {task.id}
    others = [look.row(other) for other in look.account.tasks if other.id in ids]
    others = [other for other in others if other.rights.run]
    return {
        "row": row,
        "task": task,
        "attention": attention,
        "steps": further[:STEPS_UNFOLDED],
        "folded": further[STEPS_UNFOLDED:],
        "waiting": look.waiting(task),
        "others": others,
        "sum": sum(each.credits or 0 for each in [row, *others]),
    }


def visible(task: Task, rights: Rights, hiding: Hiding) -> Task:
    """Return a run with what the viewer may see of it, and with its first and last steps or, while it is active, its
    last ones."""
    steps = task.steps
    if len(steps) > MAX_STEPS:
        half = 0 if not task.status.ended else MAX_STEPS // 2
        steps = steps[:half] + steps[half - MAX_STEPS :]
    changed: dict[str, Any] = {"steps": steps, "steps_left_out": task.step_count - len(steps)}
    if not rights.steps:
        changed |= {"steps": (), "failure": None, "log_detail_url": None}
    if not rights.act or task.status.ended:
        changed["live_url"] = None
    shown: Task = hiding.apply(task.model_copy(update=changed))
    return shown


def why_not_stopped(look: Look, task: Task) -> str | None:
    """Return why a run must not be stopped; None if it is not waited for."""
    rights = look.rights_on(task.id)
    if not rights.act:
        raise PageError(403, NOT_STOPPED if rights.run else FORBIDDEN)
    if look.viewing.records.incomplete:
        return TOO_MANY_WAIT
    if who := look.who_waits(task.id):
        return f"The run is waited for by {who}. Clear or mark the task instance instead."
    return None if look.is_unread(task) else "The run is less than a minute old. Try again in a minute."
