"""The endpoints of API v2, and how it describes tasks."""

from __future__ import annotations

import json
from functools import partial
from typing import Any, Literal

from pydantic import BaseModel

from airflow_provider_browseract.emulator import endpoints as api
from airflow_provider_browseract.emulator.catalogue import REGIONS
from airflow_provider_browseract.emulator.endpoints import Api, page_of
from airflow_provider_browseract.emulator.errors import ApiError, Code, parameter_error
from airflow_provider_browseract.emulator.runs import Run
from airflow_provider_browseract.emulator.workflow import EmulatedWorkflow

_get, _post, _put = (partial(api.endpoint, method, "/v2/workflow/{name}") for method in ("GET", "POST", "PUT"))


class InputParameter(BaseModel, extra="forbid"):
    """An item of ``input_parameters``."""

    name: str
    value: str


class V2(Api):
    """API v2 of an account. The methods of endpoints have the names and the parameters that they have on BrowserAct."""

    @_post()
    def run_task(
        self,
        workflow_id: api.Id,
        input_parameters: list[InputParameter] = [],  # noqa: B006
        save_browser_data: bool = False,
        profile_id: str = "",
        open_incognito_mode: bool = False,
        callbacks: api.Callbacks = {},  # noqa: B006
    ) -> Any:
        profiles = self.emulator.profiles
        workflow = self.emulator.as_planned(self.find(workflow_id, "workflow"))
        if not workflow.published:
            raise ApiError(Code.NOT_PUBLISHED)
        inputs = _inputs(workflow, input_parameters)
        if profile_id and profile_id not in profiles:
            raise parameter_error(f"there is no profile {profile_id!r}")
        run = self.emulator.start_run(
            workflow,
            api_version="v2",
            inputs=inputs,
            profile_id=profile_id or self.emulator.new_id(),
            profile_given=bool(profile_id),
            save_browser_data=save_browser_data,
            **callbacks,
        )
        if not save_browser_data:
            return {"id": run.id}
        profiles.setdefault(run.profile_id or "", {})
        return {"id": run.id, "profile_id": run.profile_id}

    @_post()
    def run_task_by_template(
        self,
        workflow_template_id: api.Id,
        input_parameters: list[InputParameter] = [],  # noqa: B006
        proxyRegion: str = "US",
        callbacks: api.Callbacks = {},  # noqa: B006
    ) -> Any:
        template = self.emulator.as_planned(self.find(workflow_template_id, "template"))
        if proxyRegion not in REGIONS:
            raise ApiError(Code.REGION_UNKNOWN)
        inputs = _inputs(template, input_parameters)
        run = self.emulator.start_run(template, api_version="v2", inputs=inputs, proxy_region=proxyRegion, **callbacks)
        return {"id": run.id}

    @_get()
    def get_task_status(self, task_id: api.Id) -> Any:
        return {"status": self.find_run(task_id).status}

    @_get()
    def get_task(self, task_id: api.Id) -> Any:
        return self.describe(self.find_run(task_id))

    @_get()
    def list_tasks(
        self,
        status: api.Status | Literal["unknown"] | None = None,
        workflow_id: api.Id | None = None,
        workflow_name: str = "",
        created_at_from: api.Moment | None = None,
        created_at_to: api.Moment | None = None,
        page: api.PageNumber = 1,
        limit: api.Limit = 1,
    ) -> Any:
        found = [
            run
            for run in reversed(self.find_runs(status, created_at_from, created_at_to))
            if workflow_id in (None, run.shown_workflow_id) and workflow_name.lower() in run.workflow.name.lower()
        ]
        return page_of(found, page, limit, partial(self.describe, whole=False))

    @_put()
    def stop_task(self, task_id: api.Id, biz_code: api.Whole | None = None) -> None:
        self.stop(task_id, biz_code)

    @_put()
    def resume_task(self, task_id: api.Id) -> None:
        self.resume(task_id)

    @_get()
    def list_workflows(self, page: api.PageNumber = 1, limit: api.Limit = 1) -> Any:
        return page_of(self.emulator.of_kind("workflow")[::-1], page, limit, _described)

    @_get()
    def get_workflow(self, workflow_id: api.Id) -> Any:
        return _with_inputs(self.find(workflow_id, "workflow"))

    @_get(name="list-official-workflow-templates")
    def list_templates(self, keyword: str = "", page: api.PageNumber = 1, limit: api.Limit = 1) -> Any:
        templates = self.emulator.of_kind("template")[::-1]
        found = (one for one in templates if keyword.lower() in f"{one.name}\n{one.description}".lower())
        return page_of(found, page, limit, lambda one: {"templateId": one.id, "name": one.name, **_recommended(one)})

    @_get(name="get-official-workflow-template")
    def get_template(self, workflow_template_id: api.Id) -> Any:
        template = self.find(workflow_template_id, "template")
        return {**_with_inputs(template), **_recommended(template)}

    @_get()
    def get_region_list(self) -> Any:
        return [{"name": name, "code": code} for code, name in REGIONS.items()]

    def describe(self, run: Run, *, whole: bool = True) -> dict[str, Any]:
        """Return a task as ``get-task`` and callbacks do, or with the fields that lists have."""
        inputs = ((name, value if isinstance(value, str) else json.dumps(value)) for name, value in run.inputs)
        task: dict[str, Any] = {
            "id": run.id,
            "workflow_id": run.shown_workflow_id,
            "input_parameters": "; ".join(f"{name}={value}" for name, value in inputs),
            **self.described(run, whole=whole),
        }
        if run.profile_id is not None:
            task["profile_id"] = run.profile_id
        if "live_url_info" in task:
            task["live_url"] = task["live_url_info"]["live_url"]
        if run.has_output:
            files = [stored.link(self.emulator.url, run.at) for stored in run.files if stored.ready(run.at)]
            task["output"] = {"string": run.produced.string, "files": files}
        return task


def _inputs(workflow: EmulatedWorkflow, parameters: list[InputParameter]) -> list[tuple[str, Any]]:
    inputs = [(each.name, each.value) for each in parameters]
    given = dict(inputs)
    if len(given) < len(inputs):
        raise parameter_error("an input parameter is given twice")
    if unknown := given.keys() - {one.name for one in workflow.inputs}:
        raise parameter_error(f"the workflow has no input parameter {min(unknown)!r}")
    if missing := [one.name for one in workflow.inputs if one.required and not given.get(one.name)]:
        raise ApiError(Code.INPUT_MISSING, f" ({', '.join(missing)})")
    return inputs


def _described(one: EmulatedWorkflow) -> dict[str, Any]:
    described = {"id": one.id, "name": one.name, "description": one.description, "create_at": one.created_at}
    return {**described, "publish_at": one.published_at} if one.published else described


def _with_inputs(one: EmulatedWorkflow) -> dict[str, Any]:
    # According to the vendor's n8n node, a parameter that is not enabled by default is required.
    inputs = [{"name": each.name, "default_enabled": not each.required} for each in one.inputs]
    return {**_described(one), "input_parameters": inputs}


def _recommended(template: EmulatedWorkflow) -> dict[str, str]:
    return {"recommendDesc": template.description, "detailUrl": template.detail_url}
