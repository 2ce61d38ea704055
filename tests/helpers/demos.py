"""The responses of the vendor's examples, which differ from its OpenAPI documents: a table of rewrites.

The examples are in https://github.com/browseract-ai/browseract.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import Any

from airflow_provider_browseract.emulator import Emulator
from airflow_provider_browseract.emulator.account import ENDPOINTS
from airflow_provider_browseract.emulator.v3 import V3

Body = Any


def error(emulator: Emulator, body: Body) -> Body:
    """The error envelope of API v2: no data, and a time with a space and without a zone."""
    time = datetime.strptime(body["time"], "%Y-%m-%dT%H:%M:%SZ")
    return {**body, "data": None, "time": f"{time:%Y-%m-%d %H:%M:%S}"}


def error_of_v3(emulator: Emulator, body: Body) -> Body:
    """The error envelope of API v3, which has no data at all."""
    return {name: value for name, value in error(emulator, body).items() if name != "data"}


def start(emulator: Emulator, body: Body) -> Body:
    """A start returns ``profileId``, also of a template."""
    run = emulator.runs[body["id"]]
    run.profile_id = run.profile_id or emulator.new_id()
    shown = run.save_browser_data or run.workflow.kind == "template"
    return {"id": run.id, **({"profileId": run.profile_id} if shown else {})}


def live_view(emulator: Emulator, run_id: str) -> dict[str, Any]:
    """A run has a live view even if it is not running."""
    return {"width": 1280, "height": 1024, "live_url": f"{emulator.url}/live/{run_id}"}


def listed_task(emulator: Emulator, body: Body) -> Body:
    """A task always has a live view and an end, and null for what it does not have, but no credits."""
    live = live_view(emulator, body["id"])
    task = {
        "finished_at": None if body["status"] == "created" else body["created_at"],
        "task_failure_info": None,
        "live_url_info": live,
        "live_url": live["live_url"],
        **{name: value for name, value in body.items() if name not in ("credit", "log_detail_url")},
    }
    output = body.get("output", {"string": None, "files": None})
    return {**task, "output": {"string": output["string"], "files": output["files"] or None}}


def task(emulator: Emulator, body: Body) -> Body:
    """The steps of a task appear when they end."""
    steps = [step for step in body["steps"] if step["status"] != "running"]
    return {**listed_task(emulator, body), "steps": steps}


def listed_run(emulator: Emulator, body: Body) -> Body:
    """A run in a list always has a live view."""
    return {"live_url_info": live_view(emulator, body["task_id"]), **body}


def run(emulator: Emulator, body: Body) -> Body:
    """A run of API v3 never has steps, and no output if it has files."""
    described = {name: value for name, value in listed_run(emulator, body).items() if name != "steps"}
    if emulator.runs[body["task_id"]].seen(emulator.clock()).has_output:
        described["output"] = None if "output_files" in body else body.get("output")
    return described


def page(item: Callable[[Emulator, Body], Body], emulator: Emulator, body: Body) -> Body:
    return {**body, "items": [item(emulator, each) for each in body["items"]]}


REWRITES: dict[str, Callable[[Emulator, Body], Body]] = {
    "run-task": start,
    "run-task-by-template": start,
    "get-task": task,
    "list-tasks": partial(page, listed_task),
    "create-run": lambda _, body: {"id": body["task_id"], "status": body["status"]},
    "create-template-run": lambda _, body: {"id": body["task_id"], "status": body["status"]},
    "query-run": run,
    "page-runs": partial(page, listed_run),
    "resume-run": lambda *_: None,
    "cancel-run": lambda *_: None,
    "callback": lambda emulator, body: task(emulator, body) if "id" in body else run(emulator, body),
}
"""What the examples make of the bodies of responses that are no errors, by endpoint."""


def respond_as_in_the_demos(emulator: Any) -> Any:
    """Let an emulator respond like the vendor's examples while its attribute ``as_in_the_demos`` is true."""
    emulator.as_in_the_demos = False

    def rewrite(endpoint: str, body: Body) -> Body:
        if not emulator.as_in_the_demos:
            return body
        if isinstance(body, dict) and "traceId" in body:
            return (error_of_v3 if endpoint in V3.endpoints else error)(emulator, body)
        return REWRITES[endpoint](emulator, body) if endpoint in REWRITES else body

    for endpoint in (*ENDPOINTS, "callback"):
        emulator.rewrite(endpoint, partial(rewrite, endpoint))
    return emulator


def report_status(emulator: Emulator, status: str) -> None:
    """Report a word instead of every status of a task, also in lists."""
    for endpoint in ("get-task-status", "get-task", "list-tasks"):
        emulator.rewrite(
            endpoint,
            lambda body: {
                **body,
                **({"status": status} if "status" in body else {}),
                **({"items": [{**item, "status": status} for item in body["items"]]} if "items" in body else {}),
            },
        )


def accept_stops_of_ended_runs(emulator: Emulator) -> None:
    """Respond to a stop of a run that has ended with 200, as one of the vendor's documents says."""
    for endpoint in ("stop-task", "cancel-run"):
        emulator.rewrite(endpoint, lambda body: None if body and body.get("code") == 10121 else body)


def refuse_with(emulator: Emulator, code: int, message: str) -> None:
    """Refuse starts beyond the plan with another code and message."""
    for endpoint in ("run-task", "create-run"):
        emulator.rewrite(
            endpoint, lambda body: {**body, "code": code, "msg": message} if body.get("code") == 10118 else body
        )


def show_input(emulator: Emulator, show: Callable[[dict[str, Any], dict[str, Any]], dict[str, Any]]) -> None:
    """Change the ``input`` in the responses of API v3, given the declared schemas by name, and the input."""

    def shown(body: Body) -> Body:
        workflow = emulator.runs[body["task_id"]].workflow
        return {**body, "input": show(workflow.schema.get("properties", {}), body["input"])}

    emulator.rewrite("query-run", lambda body: body if "traceId" in body else shown(body))
    emulator.rewrite("page-runs", lambda body: {**body, "items": [shown(each) for each in body["items"]]})


def show_defaults(emulator: Emulator) -> None:
    show_input(
        emulator,
        lambda declared, given: {name: each["default"] for name, each in declared.items() if "default" in each} | given,
    )
