"""The cap of a task instance: the credits that all its runs may use together (``max_credits``)."""

from __future__ import annotations

from airflow_provider_browseract.api.models import Task
from airflow_provider_browseract.runs.report import error_text, name_step


class CapUsedUpError(Exception):
    """The cap does not allow another run. No run was started."""


def over_cap_text(
    task: Task, used: int, cap: int, *, earlier: int, fate: str | None, shared: bool, retried: bool
) -> str:
    """Return the error of a task instance that has used more than its cap.

    :param fate: a sentence about the run; None if it was stopped.
    :param shared: whether the tries of the task instance share the cap.
    :param retried: whether another try follows, because the run was not stopped.
    """
    over = f"more credits were used than max_credits={cap} allows."
    reason = f"The run was stopped, because {over}" if fate is None else over.capitalize()
    whose = "The runs of this task instance" if earlier else "It"
    step = f" by {name_step(task.steps[-1]).rstrip('.')}" if task.steps else ""
    why = "the tries of a task instance share max_credits" if shared else "another run would probably use as much"
    then = f"There is no retry, because {why}."
    if retried:
        then = "The next try reattaches to the run, and stops it if it is still running."
    look = "Look for a loop in its last steps, or raise max_credits if the run needs more."
    facts = filter(None, (f"{whose} used {used:,} credits{step}.", fate, then, look))
    return error_text(reason, " ".join(facts), about=task)


def check_cap(spent: int, cap: int | None) -> None:
    """Check that the cap leaves credits for a run.

    :param spent: the credits of earlier tries.
    :raises CapUsedUpError: the cap leaves no credits.
    """
    if cap is not None and spent >= cap:
        raise CapUsedUpError(
            f"The runs of earlier tries have used {spent:,} credits, and max_credits={cap} allows no further run. No "
            "run was started.\nRaise max_credits if the task needs more. To begin a new count, clear the task."
        )
