"""Runs as the responses and callbacks of API v2 describe them."""

from __future__ import annotations

from typing import Any

from airflow_provider_browseract.emulator.run import Run, StoredFile
from airflow_provider_browseract.emulator.times import iso, milliseconds


def listed_task(run: Run, at: float, base_url: str, *, as_in_the_demos: bool) -> dict[str, Any]:
    """Return the fields of a task that lists have too.

    :param base_url: the address of the emulator, for links
    :param as_in_the_demos: whether to respond like the vendor's examples
    """
    task: dict[str, Any] = {
        "id": run.id,
        "status": run.reported(at),
        "workflow_id": run.workflow_id,
        "input_parameters": "; ".join(f"{name}={value}" for name, value in run.inputs),
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
    if as_in_the_demos or run.status in ("running", "pausing", "paused"):
        live_url = f"{base_url}/live/{run.id}"
        task["live_url_info"] = {"width": 1280, "height": 1024, "live_url": live_url}
        task["live_url"] = live_url
    if run.finished is not None:
        task["finished_at"] = iso(run.finished)
    if run.has_output(at):
        files = [stored.link(base_url, at) for stored in run.files if stored.ready(at)]
        task["output"] = {"string": run.output.string, "files": (files or None) if as_in_the_demos else files}
    if run.status == "failed" and run.failure is not None:
        task["task_failure_info"] = {"code": run.failure[0], "message": run.failure[1]}
    return task


def full_task(run: Run, at: float, base_url: str, *, as_in_the_demos: bool) -> dict[str, Any]:
    """Return a task with all its fields, as ``get-task`` and callbacks do. The arguments are as in listed_task."""
    task = listed_task(run, at, base_url, as_in_the_demos=as_in_the_demos)
    if not as_in_the_demos:
        task["log_detail_url"] = f"{base_url}/logs/{run.id}"
    task["steps"] = [
        {
            "id": f"{run.id}{number:02}",
            "step": number,
            "status": status,
            "evaluation_previous_goal": f"Reached: {run.goal(number - 1)}" if number > 1 else "This is the first step",
            "step_goal": run.goal(number),
            "screenshots_url": f"{base_url}/screenshots/{run.id}/{number}.svg",
        }
        for number, status in run.steps(at)
        if not as_in_the_demos or status != "running"
    ]
    if run.downloads and run.has_output(at):
        task["download_files"] = [_download(stored, at, base_url) for stored in run.downloads]
        task["files_expires_at"] = milliseconds(min(stored.expires for stored in run.downloads))
    return task


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
