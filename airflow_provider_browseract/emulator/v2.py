"""The endpoints of API v2, and how it describes tasks.

The functions of the endpoints have the names and the parameters that they have on BrowserAct.
"""

from __future__ import annotations

import json
from functools import partial
from typing import Any

from pydantic import BaseModel, ConfigDict

from airflow_provider_browseract.emulator import endpoints as api
from airflow_provider_browseract.emulator.account import Account
from airflow_provider_browseract.emulator.catalogue import REGIONS
from airflow_provider_browseract.emulator.errors import ApiError, Code, parameter_error
from airflow_provider_browseract.emulator.runs import Run
from airflow_provider_browseract.emulator.workflow import EmulatedWorkflow

ENDPOINTS: dict[str, api.Endpoint] = {}
"""The endpoints by name."""

_get, _post, _put = (
    partial(api.endpoint, ENDPOINTS, method, "/v2/workflow/{name}") for method in ("GET", "POST", "PUT")
)


class InputParameter(BaseModel):
    """An item of ``input_parameters``."""

    model_config = ConfigDict(extra="forbid")
    name: str
    value: str


@_post()
def run_task(
    account: Account,
    workflow_id: api.Id,
    input_parameters: list[InputParameter] = [],  # noqa: B006
    save_browser_data: bool = False,
    profile_id: str = "",
    open_incognito_mode: bool = False,
    callbacks: api.Callbacks = {},  # noqa: B006
) -> Any:
    workflow = account.as_planned(api.find(account, workflow_id, Code.WORKFLOW_UNKNOWN, "workflow"))
    if not workflow.published:
        raise ApiError(Code.NOT_PUBLISHED)
    inputs = _inputs(workflow, input_parameters)
    if profile_id and profile_id not in account.profiles:
        raise parameter_error(f"there is no profile {profile_id!r}")
    run = account.start_run(
        workflow,
        api_version="v2",
        inputs=inputs,
        profile_id=profile_id or account.new_id(),
        profile_given=bool(profile_id),
        save_browser_data=save_browser_data,
        **callbacks,
    )
    if not save_browser_data:
        return {"id": run.id}
    account.profiles.setdefault(run.profile_id or "", {})
    return {"id": run.id, "profile_id": run.profile_id}


@_post()
def run_task_by_template(
    account: Account,
    workflow_template_id: api.Id,
    input_parameters: list[InputParameter] = [],  # noqa: B006
    proxyRegion: str = "US",
    callbacks: api.Callbacks = {},  # noqa: B006
) -> Any:
    template = account.as_planned(api.find(account, workflow_template_id, Code.TEMPLATE_UNKNOWN, "template"))
    if proxyRegion not in REGIONS:
        raise ApiError(Code.REGION_UNKNOWN)
    inputs = _inputs(template, input_parameters)
    run = account.start_run(template, api_version="v2", inputs=inputs, proxy_region=proxyRegion, **callbacks)
    return {"id": run.id}


@_get()
def get_task_status(account: Account, task_id: api.Id) -> Any:
    return {"status": api.find_run(account, task_id, "v2").reported(account.clock())}


@_get()
def get_task(account: Account, task_id: api.Id) -> Any:
    return full_task(account, api.find_run(account, task_id, "v2"))


@_get()
def list_tasks(
    account: Account,
    status: api.StatusOfV2 | None = None,
    workflow_id: api.Id | None = None,
    workflow_name: str = "",
    created_at_from: api.Moment | None = None,
    created_at_to: api.Moment | None = None,
    page: api.PageNumber = 1,
    limit: api.Limit = 1,
) -> Any:
    found = [
        run
        for run in reversed(api.find_runs(account, "v2", status, created_at_from, created_at_to))
        if workflow_id in (None, run.shown_workflow_id) and workflow_name.lower() in run.workflow.name.lower()
    ]
    return api.page_of(found, page, limit, partial(listed_task, account))


@_put()
def stop_task(account: Account, task_id: api.Id, biz_code: api.Whole | None = None) -> None:
    api.stop(account, api.find_run(account, task_id, "v2"), biz_code)


@_put()
def resume_task(account: Account, task_id: api.Id) -> None:
    api.resume(account, api.find_run(account, task_id, "v2"))


@_get()
def list_workflows(account: Account, page: api.PageNumber = 1, limit: api.Limit = 1) -> Any:
    return api.page_of(_newest_first(account, "workflow"), page, limit, _described)


@_get()
def get_workflow(account: Account, workflow_id: api.Id) -> Any:
    workflow = api.find(account, workflow_id, Code.WORKFLOW_UNKNOWN, "workflow")
    return {**_described(workflow), "input_parameters": _declared(workflow)}


@_get(name="list-official-workflow-templates")
def list_templates(account: Account, keyword: str = "", page: api.PageNumber = 1, limit: api.Limit = 1) -> Any:
    found = (
        one for one in _newest_first(account, "template") if keyword.lower() in f"{one.name}\n{one.description}".lower()
    )
    return api.page_of(found, page, limit, lambda one: {"templateId": one.id, "name": one.name, **_recommended(one)})


@_get(name="get-official-workflow-template")
def get_template(account: Account, workflow_template_id: api.Id) -> Any:
    template = api.find(account, workflow_template_id, Code.TEMPLATE_UNKNOWN, "template")
    return {**_described(template), **_recommended(template), "input_parameters": _declared(template)}


@_get()
def get_region_list(_: Account) -> Any:
    return [{"name": name, "code": code} for code, name in REGIONS.items()]


def listed_task(account: Account, run: Run, at: float | None = None, *, whole: bool = False) -> dict[str, Any]:
    """Return the fields of a task that lists have too, or all, by now or at another time."""
    at = account.clock() if at is None else at
    inputs = ((name, value if isinstance(value, str) else json.dumps(value)) for name, value in run.inputs)
    task: dict[str, Any] = {
        "id": run.id,
        "workflow_id": run.shown_workflow_id,
        "input_parameters": "; ".join(f"{name}={value}" for name, value in inputs),
        **api.described(account, run, at, whole=whole),
    }
    if run.profile_id is not None:
        task["profile_id"] = run.profile_id
    if "live_url_info" in task:
        task["live_url"] = task["live_url_info"]["live_url"]
    if run.has_output(at):
        files = [stored.link(account.url, at) for stored in run.files if stored.ready(at)]
        task["output"] = {"string": run.output.string, "files": files}
    return task


full_task = partial(listed_task, whole=True)
"""Return a task as ``get-task`` and callbacks do."""


def _inputs(workflow: EmulatedWorkflow, parameters: list[InputParameter]) -> list[tuple[str, Any]]:
    inputs = [(each.name, each.value) for each in parameters]
    given = dict(inputs)
    if len(given) < len(inputs):
        raise parameter_error("an input parameter is given twice")
    for name in given.keys() - {one.name for one in workflow.inputs}:
        raise parameter_error(f"the workflow has no input parameter {name!r}")
    for one in workflow.inputs:
        if one.required and not given.get(one.name):
            raise ApiError(Code.INPUT_MISSING, f" ({one.name})")
    return inputs


def _declared(workflow: EmulatedWorkflow) -> list[dict[str, Any]]:
    # According to the vendor's n8n node, a parameter that is not enabled by default is required.
    return [{"name": one.name, "default_enabled": not one.required} for one in workflow.inputs]


def _newest_first(account: Account, kind: str) -> list[EmulatedWorkflow]:
    return sorted(account.of_kind(kind).values(), key=lambda one: one.created_at, reverse=True)


def _described(one: EmulatedWorkflow) -> dict[str, Any]:
    described = {"id": one.id, "name": one.name, "description": one.description, "create_at": one.created_at}
    return {**described, "publish_at": one.published_at} if one.published else described


def _recommended(template: EmulatedWorkflow) -> dict[str, str]:
    return {"recommendDesc": template.recommendation, "detailUrl": template.detail_url}
