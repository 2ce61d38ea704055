"""Runs as the responses and callbacks of both versions of the API describe them."""

from __future__ import annotations

import json
from pathlib import PurePosixPath
from typing import Any

from airflow_provider_browseract.emulator.run import Run, StoredFile
from airflow_provider_browseract.emulator.times import iso, milliseconds
from airflow_provider_browseract.emulator.workflow import EmulatedBot, EmulatedWorkflow


def listed_task(run: Run, at: float, base_url: str, *, as_in_the_demos: bool) -> dict[str, Any]:
    """Return the fields of a task that lists of API v2 have too.

    :param base_url: the address of the emulator, for links
    :param as_in_the_demos: whether to respond like the vendor's examples
    """
    task: dict[str, Any] = {
        "id": run.id,
        "status": run.reported(at),
        "workflow_id": run.workflow_id,
        "input_parameters": "; ".join(
            f"{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in run.inputs
        ),
        "created_at": iso(run.created),
    }
    if as_in_the_demos:
        task["finished_at"] = None if run.started is None else iso(run.created)
        task["output"] = {"string": None, "files": None}
        task["task_failure_info"] = None
    else:
        task["credit"] = run.credit(at)
    if run.profile_id is not None:
        task["profile_id"] = run.profile_id
    task |= _progress(run, base_url, as_in_the_demos=as_in_the_demos)
    if "live_url_info" in task:
        task["live_url"] = task["live_url_info"]["live_url"]
    if run.has_output(at):
        files = [stored.link(base_url, at) for stored in run.files if stored.ready(at)]
        task["output"] = {"string": run.output.string, "files": (files or None) if as_in_the_demos else files}
    return task


def full_task(run: Run, at: float, base_url: str, *, as_in_the_demos: bool) -> dict[str, Any]:
    """Return a task with all its fields, as ``get-task`` and callbacks of API v2 do. The arguments are as above."""
    task = listed_task(run, at, base_url, as_in_the_demos=as_in_the_demos)
    if not as_in_the_demos:
        task["log_detail_url"] = f"{base_url}/logs/{run.id}"
    steps = _steps(run, at, base_url)
    task["steps"] = [step for step in steps if not as_in_the_demos or step["status"] != "running"]
    if run.downloads and run.has_output(at):
        task["download_files"] = [_download(stored, at, base_url) for stored in run.downloads]
        task["files_expires_at"] = milliseconds(min(stored.expires for stored in run.downloads))
    return task


def bot_type_of(workflow: EmulatedWorkflow) -> str:
    """Return the type of a bot: an ordinary workflow or template is workflow-built."""
    return workflow.bot_type if isinstance(workflow, EmulatedBot) else "workflow"


def run_summary(run: Run, at: float, base_url: str, *, as_in_the_demos: bool) -> dict[str, Any]:
    """Return the fields of a run that lists of API v3 have too. Those that do not apply are left out."""
    described: dict[str, Any] = {
        "task_id": run.id,
        "bot_type": bot_type_of(run.workflow),
        "status": run.reported(at),
        "created_at": iso(run.created),
        "input": dict(run.inputs) if run.shown_input is None else run.shown_input,
        "credit": run.credit(at),
    }
    if not run.from_template:
        described |= {"bot_id": run.workflow.id, "bot_name": run.workflow.name}
    return described | _progress(run, base_url, as_in_the_demos=as_in_the_demos)


def run_detail(run: Run, at: float, base_url: str, *, as_in_the_demos: bool) -> dict[str, Any]:
    """Return a run with all its fields, as ``query-run`` and callbacks of API v3 do."""
    described = run_summary(run, at, base_url, as_in_the_demos=as_in_the_demos)
    described["log_detail_url"] = f"{base_url}/logs/{run.id}"
    steps = _steps(run, at, base_url)
    if steps and not as_in_the_demos:
        described["steps"] = steps
    if not run.has_output(at):
        return described
    files = [stored for stored in run.files if stored.ready(at)]
    value = None if files and as_in_the_demos else _value(run)
    if value is not None or as_in_the_demos:
        described["output"] = value
    if files:
        described["output_files"] = {
            PurePosixPath(stored.file.name).suffix[1:] or stored.file.name: {
                "file_name": stored.file.name,
                "file_size": len(stored.file.content),
                "download_url": stored.link(base_url, at),
            }
            for stored in files
        }
    if run.downloads:
        downloads = [_download(stored, at, base_url) for stored in run.downloads]
        described["download_files"] = [{_snake_case(name): each[name] for name in each} for each in downloads]
        described["files_expires_at"] = milliseconds(min(stored.expires for stored in run.downloads))
    return described


def _value(run: Run) -> Any:
    """Return the output as API v3 does: the text of a workflow that is a JSON object or array, as that value."""
    if isinstance(run.workflow, EmulatedBot) or run.output.value is not None:
        return run.output.value if run.output.value is not None else run.output.string or None
    try:
        value = json.loads(run.output.string)
    except (ValueError, RecursionError):
        value = None
    return value if isinstance(value, dict | list) else run.output.string or None


def _snake_case(name: str) -> str:
    return "".join(f"_{char.lower()}" if char.isupper() else char for char in name)


def _progress(run: Run, base_url: str, *, as_in_the_demos: bool) -> dict[str, Any]:
    """Return the fields of both versions that exist only while a run is active, or only after its end."""
    fields: dict[str, Any] = {}
    if as_in_the_demos or run.status in ("running", "pausing", "paused"):
        fields["live_url_info"] = {"width": 1280, "height": 1024, "live_url": f"{base_url}/live/{run.id}"}
    if run.finished is not None:
        fields["finished_at"] = iso(run.finished)
    if run.status == "failed" and run.failure is not None:
        fields["task_failure_info"] = {"code": run.failure[0], "message": run.failure[1]}
    return fields


def _steps(run: Run, at: float, base_url: str) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{run.id}{number:02}",
            "step": number,
            "status": status,
            "evaluation_previous_goal": f"Reached: {run.goal(number - 1)}" if number > 1 else "This is the first step",
            "step_goal": run.goal(number),
            "screenshots_url": f"{base_url}/screenshots/{run.id}/{number}.svg",
        }
        for number, status in run.steps(at)
    ]


def _download(stored: StoredFile, at: float, base_url: str) -> dict[str, Any]:
    created = milliseconds(stored.created)
    described: dict[str, Any] = {
        "guid": stored.guid,
        "fileName": stored.file.name,
        "status": "uploading",
        "progress": 50,
        "downloadStartTime": created,
        "createTime": created,
    }
    if stored.file.broken is not None:
        return {**described, "status": "failed", "errorMessage": stored.file.broken}
    if not stored.ready(at):
        return described
    announced = stored.file.announced
    return {
        **described,
        "status": "uploaded",
        "progress": 100,
        "fileSize": len(stored.file.content) if announced is None else announced,
        "downloadUrl": stored.link(base_url, at),
        "downloadCompletedTime": milliseconds(stored.created + stored.file.prepared_after),
        "expiresAt": milliseconds(stored.expires),
    }
