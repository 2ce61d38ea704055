"""The questions of ``make live`` about version 2 of the API: a workflow, its runs and their profiles."""

from __future__ import annotations

import time
from datetime import datetime, timezone
from typing import Any

import httpx

from airflow_provider_browseract.api import v2
from dev import live_session as session
from dev.live_session import Live, Receiver, Version, json_of, outcome, place_of, redacted, value_of, wait_until

V2 = Version(
    task_id="id",
    source_id="workflow_id",
    task="/v2/workflow/get-task?task_id={}",
    stop=("PUT", "/v2/workflow/stop-task?task_id={}"),
    resume=("PUT", "/v2/workflow/resume-task?task_id={}"),
    tasks="/v2/workflow/list-tasks",
    limit=500,
)


def ask(live: Live, receiver: Receiver | None) -> None:
    """Ask everything about the workflow."""
    ask_without_a_run(live)
    ask_with_a_run(live, receiver)


def start(live: Live, **fields: Any) -> httpx.Response:
    """Start a run of the workflow."""
    pairs = [{"name": name, "value": value} for name, value in live.settings.inputs.items()]
    return live.start(
        "/v2/workflow/run-task", {"workflow_id": live.settings.source_id, "input_parameters": pairs, **fields}
    )


def ask_without_a_run(live: Live) -> None:
    """Ask what costs nothing."""
    wrong = {"Authorization": "Bearer app-not-a-key"}
    live.tell(
        "How is a wrong API key answered?", outcome(live.send("GET", "/v2/workflow/get-region-list", headers=wrong))
    )
    unknown = live.send("GET", "/v2/workflow/get-task", params={"task_id": "10000000000000001"})
    live.tell("How is an unknown task answered?", outcome(unknown), json_of(unknown))
    live.tell("How is a path that does not exist answered?", outcome(live.send("GET", "/v2/workflow/no-such-endpoint")))
    live.tell("How is limit=501 answered?", outcome(live.send("GET", "/v2/workflow/list-tasks", params={"limit": 501})))
    page = live.send("GET", "/v2/workflow/list-workflows")
    live.tell("How many items has a page without limit?", f"limit {value_of(page, 'limit')}")
    beyond = live.send("GET", "/v2/workflow/list-workflows", params={"page": 9999, "limit": 500})
    live.tell("What is a page after the last one?", f"{outcome(beyond)}, {len(value_of(beyond, 'items') or [])} items")
    declared = value_of(
        live.send("GET", "/v2/workflow/get-workflow", params={"workflow_id": live.settings.source_id}),
        "input_parameters",
    )
    live.tell("Which inputs are enabled by default?", str([one.get("default_enabled") for one in declared or []]))


def ask_with_a_run(live: Live, receiver: Receiver | None) -> None:
    """Ask what takes a run to its end, and some that are stopped at once."""
    callbacks = {} if receiver is None else {"callback_url": live.settings.callback_url}
    before = datetime.now(timezone.utc)
    sent = time.monotonic()
    started = start(live, save_browser_data=True, **callbacks)
    task_id = live.id_of(started)
    if task_id is None:
        live.tell("What does a start answer?", f"{outcome(started)}. Nothing more can be asked.", json_of(started))
        return
    keys = sorted(json_of(started))
    live.tell(
        "What does a start with save_browser_data answer?", f"HTTP {started.status_code}, {keys}", json_of(started)
    )
    listed = session.listed_after(live, task_id, before, sent, session.LISTED)
    ask_beside_the_run(live, value_of(started, "profile_id") or value_of(started, "profileId"))
    listed = listed or session.listed_after(live, task_id, before, sent, session.LATE)
    live.tell("How soon does list-tasks have it?", listed or "not in time")
    seen = session.follow(live, task_id)
    live.tell("Which statuses were seen?", " > ".join(f"{status} ({at:.0f} s)" for status, at in seen.statuses.items()))
    live.tell("What does a run have while it is active?", seen.waited or "It was never seen active.")
    live.tell("Do its credits grow while it is active?", seen.growth)
    if seen.ended is None:
        live.tell("What happened to the run?", f"It did not end within {live.settings.timeout:g} s and is stopped.")
        return
    live.active.discard(task_id)
    ask_after_the_end(live, task_id, receiver, seen.ended)


def ask_beside_the_run(live: Live, profile: object) -> None:
    """Ask what a second run gets while the first is active; whatever starts is stopped at once."""
    questions: dict[str, dict[str, Any]] = {
        session.WHILE_ACTIVE: {},
        "How is a second run with the same profile answered?": {"profile_id": profile} if profile else {},
        "How is an unknown profile_id answered?": {"profile_id": "10000000000000001"},
    }
    for question, fields in questions.items():
        response = start(live, **fields)
        task_id = live.id_of(response)
        stopped = f", then stopped: {outcome(live.stop(task_id))}" if task_id is not None else ""
        live.tell(question, f"{outcome(response)}{stopped}", None if stopped else json_of(response))
        if question == session.WHILE_ACTIVE:
            live.tell(
                "Does the provider know a full plan by it?",
                session.PLAN_HAS_SLOTS if stopped else place_of(v2.run("1"), response),
            )


def ask_after_the_end(live: Live, task_id: str, receiver: Receiver | None, ended: dict[str, Any]) -> None:
    """Ask what a run has when it has ended, and what can still be done with it.

    :param ended: the first response with the end of the run.
    """
    began = time.monotonic()

    def has_output() -> bool:
        task = live.task(task_id)
        output = task.get("output") or {}
        return bool(output.get("string") or output.get("files") or task.get("download_files"))

    there = wait_until(has_output, session.LATE)
    late = time.monotonic() - began
    live.tell(
        "Is the output there with the status?", f"after {late:.1f} s at most" if there else f"not in {session.LATE:g} s"
    )
    task = live.task(task_id)
    live.tell("What does an ended run have?", ", ".join(sorted(task)), task)
    live.tell("Is there a live view after the end?", "yes" if task.get("live_url_info") else "no")
    live.tell(
        "Are screenshots null?",
        str(sorted({str(one.get("screenshots_url") is None) for one in task.get("steps") or []})),
    )
    live.tell("What do file addresses look like?", str(redacted((task.get("output") or {}).get("files"))))
    live.tell(
        "Are its credits final in the first response after the end?", session.finality(live, task_id, ended, began)
    )
    shown = str(task.get("input_parameters"))
    named = [name for name in live.settings.inputs if name in shown]
    live.tell(
        "Which inputs does it show?", f"{len(shown)} characters, with {len(named)} of {len(live.settings.inputs)} names"
    )
    live.tell("How is a stop of an ended run answered?", outcome(live.stop(task_id)))
    live.tell(
        "How is a resume of an ended run answered?",
        outcome(live.resume(task_id)),
    )
    session.ask_about_callbacks(live, receiver)
