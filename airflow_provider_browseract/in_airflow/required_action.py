"""The Required Action of a paused run: ask people in the Airflow UI (Airflow's human-in-the-loop).

Airflow stores one Required Action per task instance. A new one replaces the earlier one. One without an answer is still
open in the next try. A worker creates it. On Airflow 3.3 the answer itself resumes the deferred task. On earlier
versions, and if the answer came too early for that, the trigger finds it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import UUID

from airflow_provider_browseract.api.models import BotType, Task
from airflow_provider_browseract.compat import required_actions
from airflow_provider_browseract.runs.options import Answer
from airflow_provider_browseract.runs.report import goal_of, log_url, what_ran
from airflow_provider_browseract.runs.stored import from_json
from airflow_provider_browseract.runs.wait import Wait, WaitEvent, WokenBy


class Found(NamedTuple):
    """An answer: the choice, and who made it; None if a trigger made it."""

    answer: Answer
    by: str | None


def required_action_url(ti: Any) -> str:
    """Return the address of the page on which a person answers, below ``[api] base_url``."""
    return f"{ti.log_url.partition('?')[0]}/required_actions"


def ask(ti: Any, task: Task, wait: Wait) -> str:
    """Ask whether to resume a paused run.

    :param wait: the wait for the run, with the time by which to answer.
    :returns: the id with which :func:`read_answer` finds the answer.
    """
    index = "" if ti.map_index in (None, -1) else f"[{ti.map_index}]"
    which = f"BrowserAct {what_ran(task)} {task.source_id}" if task.source_id else "a run in BrowserAct"
    if name := task.bot_name or wait.source_name:
        which = f"{name} ({which})"
    required_actions().upsert_hitl_detail(
        ti_id=ti.id,
        options=[answer.option for answer in Answer],
        # The list of Required Actions shows only the beginning, so it begins with what differs. It is no Markdown.
        subject=f"{ti.task_id}{index}: {which} waits for a person",
        body=_what_to_do(task, wait),
        # Airflow's page highlights the default options or, without a list, all of them. With an empty list it
        # highlights none, so that a person chooses. If nobody answers in time, the trigger applies the default answer.
        defaults=[],
        params={},
    )
    return str(ti.id)


def read_answer(action: str) -> Found | None:
    """Return the answer to a Required Action, or None if there is none yet.

    :raises Exception: the request to Airflow failed.
    """
    given = required_actions().get_hitl_detail_content_detail(ti_id=UUID(action))
    if not given.response_received or not given.chosen_options:
        return None
    person: Any = given.responded_by_user
    return Found(_read_options(given.chosen_options), person.name if person else None)


def close(action: str, answer: Answer) -> None:
    """Answer a Required Action instead of a person, so that it is no longer open.

    :raises Exception: a person was faster, or the request to Airflow failed.
    """
    required_actions().update_hitl_detail_response(ti_id=UUID(action), chosen_options=[answer.option], params_input={})


def read_event(payload: Any, wait: Mapping[str, Any] | None) -> WaitEvent:
    """Read the payload that resumed a deferred task: an event of this provider or, on Airflow 3.3, the answer itself.

    :param wait: the stored wait that ended; None if Airflow has not kept it.
    :raises ValueError: the payload is neither, or the wait cannot be read.
    """
    if not wait or not isinstance(payload, Mapping) or "chosen_options" not in payload:
        return from_json(WaitEvent, payload)
    person = payload.get("responded_by_user")
    return WaitEvent(
        from_json(Wait, wait),
        WokenBy.PERSON,
        answer=_read_options(payload["chosen_options"]),
        answered_by=person.get("name") if isinstance(person, Mapping) else None,
    )


def _read_options(options: Any) -> Answer:
    chosen = [answer for answer in Answer if [answer.option] == options]
    if not chosen:
        raise ValueError(f"the answer is {options!r}, but must be one of {[answer.option for answer in Answer]}")
    return chosen[0]


LINK_CHARACTERS = ":/?#[]@!$&'*+,;=%~"
"""Characters that a link in Markdown may have in addition to letters, digits and ``_.-``; parentheses would end it."""


def _as_code(text: str) -> str:
    """Return Markdown that shows exactly this text, without links, images or HTML.

    Airflow makes a link of each address in the text of a page, even if its characters are escaped, but not in code.
    """
    # A run of backticks ends code only if it is as long as the one that began it.
    fence = "`" * (max(map(len, re.findall("`+", text)), default=0) + 1)
    space = " " if len(fence) > 1 else ""
    return f"{fence}{space}{text}{space}{fence}"


def _what_to_do(task: Task, wait: Wait) -> str:
    """Return in Markdown why the run waits, where to help, what each answer does, and what happens without one.

    Airflow keeps the first text of a task instance for all its later Required Actions, so the text states that it stays
    the same.
    """
    last = ""
    if task.steps:
        step = task.steps[-1]
        # The goal of a step may contain text from a web page.
        number = f" {step.number}" if step.number is not None else ""
        last = f" Last step{number}: {_as_code(goal_of(step))}"
    of_which = f" of {_as_code(name)}" if (name := task.bot_name or wait.source_name) else ""
    links = {"Live view of the browser": task.live_url, "Log": log_url(task)}
    resume = "continues the run"
    if task.bot_type is BotType.AGENT:
        resume = (
            "only closes this request: BrowserAct itself continues the run of an agent-built bot once the step is "
            "complete"
        )
    shown = [f"[{name}]({quote(url, safe=LINK_CHARACTERS)})" for name, url in links.items() if url]
    return "\n\n".join(
        [
            f"BrowserAct task {_as_code(task.id)}{of_which} has paused.{last}",
            *([" | ".join(shown)] if shown else []),
            f"Complete the step in the browser, then answer here. **Resume** {resume}. **Stop** cancels the run and "
            "fails the Airflow task without retries.",
            _time_limit(wait),
            "If the run pauses again, this text stays the same."
            + (" Open the current browser with **Live view** under **Details**." if task.live_url else ""),
        ]
    )


def _time_limit(wait: Wait) -> str:
    """Return in Markdown by when to answer, and what happens otherwise."""
    if wait.answer_by is not None and wait.answer_by < wait.deadline and wait.default_answer is not None:
        return f"Answer by **{_utc(wait.answer_by)}**. Otherwise **{wait.default_answer.option}** is chosen."
    return (
        f"Answer by **{_utc(wait.deadline)}**. Otherwise the Airflow task fails because its `timeout` expires, and the "
        "run is stopped."
    )


def _utc(moment: float) -> str:
    return datetime.fromtimestamp(moment, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
