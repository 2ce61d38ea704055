"""The endpoints of API v2."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

from airflow_provider_browseract.emulator.browseract import BrowserAct
from airflow_provider_browseract.emulator.catalogue import REGIONS
from airflow_provider_browseract.emulator.endpoints import (
    CALLBACKS,
    Body,
    Endpoint,
    find_run,
    find_runs,
    page_of,
    read_callbacks,
    resume,
    stop,
)
from airflow_provider_browseract.emulator.errors import (
    INPUT_MISSING,
    MESSAGES,
    NOT_PUBLISHED,
    REGION_UNKNOWN,
    TEMPLATE_UNKNOWN,
    WORKFLOW_UNKNOWN,
    ApiError,
    parameter_error,
)
from airflow_provider_browseract.emulator.parameters import Query, read_inputs
from airflow_provider_browseract.emulator.rendering import full_task, listed_task
from airflow_provider_browseract.emulator.run import STATUSES
from airflow_provider_browseract.emulator.workflow import EmulatedTemplate, EmulatedWorkflow, Workflow


def _run_task(browseract: BrowserAct, body: Body) -> Any:
    if not body.get("workflow_id"):
        raise parameter_error("workflow_id is required")
    fields = _common_fields(browseract, body)
    workflow = browseract.workflows.get(body["workflow_id"])
    if workflow is None:
        raise ApiError(WORKFLOW_UNKNOWN)
    workflow = browseract.as_planned(workflow)
    if not workflow.published:
        raise ApiError(NOT_PUBLISHED)
    _check_inputs(workflow, fields["inputs"])
    given = body.get("profile_id") or None
    if given is not None and given not in browseract.profiles:
        raise parameter_error(f"there is no profile {given!r}")
    run = browseract.start_run(
        workflow,
        workflow_id=workflow.id,
        profile_id=given or browseract.new_id(),
        profile_given=given is not None,
        save_browser_data=body.get("save_browser_data", False),
        **fields,
    )
    if not run.save_browser_data or run.profile_id is None:
        return {"id": run.id}
    browseract.profiles.setdefault(run.profile_id, {})
    return {"id": run.id, "profileId" if browseract.as_in_the_demos else "profile_id": run.profile_id}


def _run_task_by_template(browseract: BrowserAct, body: Body) -> Any:
    if not body.get("workflow_template_id"):
        raise parameter_error("workflow_template_id is required")
    fields = _common_fields(browseract, body)
    template = browseract.templates.get(body["workflow_template_id"])
    if template is None:
        raise ApiError(TEMPLATE_UNKNOWN)
    template = browseract.as_planned(template)
    region = body.get("proxyRegion", "US")
    if region not in REGIONS:
        raise ApiError(REGION_UNKNOWN)
    _check_inputs(template, fields["inputs"])
    profile_id = browseract.new_id() if browseract.as_in_the_demos else None
    run = browseract.start_run(
        template, workflow_id=browseract.new_id(), region=region, profile_id=profile_id, **fields
    )
    return {"id": run.id, "profileId": profile_id} if profile_id else {"id": run.id}


def _get_task_status(browseract: BrowserAct, query: Query) -> Any:
    return {"status": find_run(browseract, query, "v2").reported(browseract.clock())}


def _get_task(browseract: BrowserAct, query: Query) -> Any:
    return browseract.describe(full_task, find_run(browseract, query, "v2"))


def _list_tasks(browseract: BrowserAct, query: Query) -> Any:
    workflow_id = query.text("workflow_id")
    if workflow_id == "":
        if not browseract.as_in_the_demos:
            raise parameter_error("workflow_id must not be empty")
        workflow_id = None
    name = (query.text("workflow_name") or "").lower()
    found = [
        run
        for run in reversed(find_runs(browseract, query, "v2", STATUSES))
        if workflow_id in (None, run.workflow_id) and name in run.workflow.name.lower()
    ]
    return page_of(query, found, partial(browseract.describe, listed_task))


def _stop_task(browseract: BrowserAct, query: Query) -> None:
    stop(browseract, query, "v2")


def _resume_task(browseract: BrowserAct, query: Query) -> None:
    resume(browseract, find_run(browseract, query, "v2"))


def _list_workflows(browseract: BrowserAct, query: Query) -> Any:
    return page_of(query, _newest_first(browseract.workflows), _workflow)


def _get_workflow(browseract: BrowserAct, query: Query) -> Any:
    workflow = browseract.workflows.get(query.required("workflow_id"))
    if workflow is None:
        raise ApiError(WORKFLOW_UNKNOWN)
    return {**_workflow(workflow), "input_parameters": _inputs(workflow)}


def _list_templates(browseract: BrowserAct, query: Query) -> Any:
    keyword = (query.text("keyword") or "").lower()
    found = [
        one
        for one in _newest_first(browseract.templates)
        if keyword in one.name.lower() or keyword in one.description.lower()
    ]
    return page_of(query, found, lambda one: {"templateId": one.id, "name": one.name, **_recommended(one)})


def _get_template(browseract: BrowserAct, query: Query) -> Any:
    template = browseract.templates.get(query.required("workflow_template_id"))
    if template is None:
        raise ApiError(TEMPLATE_UNKNOWN)
    return {**_workflow(template), **_recommended(template), "input_parameters": _inputs(template)}


def _get_region_list(_: BrowserAct, __: Query) -> Any:
    return [{"name": name, "code": code} for code, name in REGIONS.items()]


_START: dict[str, type] = {"input_parameters": list, **dict.fromkeys(CALLBACKS, str)}
_RUN: dict[str, type] = {
    **_START,
    "workflow_id": str,
    "save_browser_data": bool,
    "profile_id": str,
    "open_incognito_mode": bool,
}
_RUN_TEMPLATE: dict[str, type] = {**_START, "workflow_template_id": str, "proxyRegion": str}
_FILTERS = ("status", "workflow_id", "workflow_name", "created_at_from", "created_at_to")
_PAGE = ("page", "limit")

ENDPOINTS = {
    name: Endpoint(name, method, f"/v2/workflow/{name}", respond, parameters)
    for name, method, respond, parameters in (
        ("run-task", "POST", _run_task, _RUN),
        ("run-task-by-template", "POST", _run_task_by_template, _RUN_TEMPLATE),
        ("get-task-status", "GET", _get_task_status, ("task_id",)),
        ("get-task", "GET", _get_task, ("task_id",)),
        ("list-tasks", "GET", _list_tasks, (*_FILTERS, *_PAGE)),
        ("stop-task", "PUT", _stop_task, ("task_id", "biz_code")),
        ("resume-task", "PUT", _resume_task, ("task_id",)),
        ("list-workflows", "GET", _list_workflows, _PAGE),
        ("get-workflow", "GET", _get_workflow, ("workflow_id",)),
        ("list-official-workflow-templates", "GET", _list_templates, ("keyword", *_PAGE)),
        ("get-official-workflow-template", "GET", _get_template, ("workflow_template_id",)),
        ("get-region-list", "GET", _get_region_list, ()),
    )
}
"""The endpoints by name."""


def _common_fields(browseract: BrowserAct, body: Body) -> dict[str, Any]:
    """Return the fields of a run that workflows and templates have."""
    callbacks = read_callbacks(browseract, body)
    return {"inputs": read_inputs(body.get("input_parameters", [])), **callbacks}


def _check_inputs(workflow: EmulatedWorkflow, inputs: list[tuple[str, str]]) -> None:
    given = dict(inputs)
    for name in given.keys() - {one.name for one in workflow.inputs}:
        raise parameter_error(f"the workflow has no input parameter {name!r}")
    for one in workflow.inputs:
        if one.required and not given.get(one.name):
            raise ApiError(INPUT_MISSING, f"{MESSAGES[INPUT_MISSING]} ({one.name})")


def _newest_first(workflows: Mapping[str, Workflow]) -> list[Workflow]:
    return sorted(workflows.values(), key=lambda one: one.created_at, reverse=True)


def _workflow(workflow: EmulatedWorkflow) -> dict[str, Any]:
    described = {
        "id": workflow.id,
        "name": workflow.name,
        "description": workflow.description,
        "create_at": workflow.created_at,
    }
    if workflow.published:
        described["publish_at"] = workflow.published_at
    return described


def _inputs(workflow: EmulatedWorkflow) -> list[dict[str, Any]]:
    # According to the vendor's n8n node, a parameter that is not enabled by default is required.
    return [{"name": one.name, "default_enabled": not one.required} for one in workflow.inputs]


def _recommended(template: EmulatedTemplate) -> dict[str, str]:
    return {"recommendDesc": template.recommendation, "detailUrl": template.detail_url}
