"""The endpoints of API v3, and how it describes runs."""

from __future__ import annotations

import contextlib
import json
import re
from functools import partial
from pathlib import PurePosixPath
from typing import Any, Literal

from airflow_provider_browseract.emulator import endpoints as api
from airflow_provider_browseract.emulator.catalogue import REGIONS
from airflow_provider_browseract.emulator.endpoints import Api, page_of
from airflow_provider_browseract.emulator.errors import ApiError, Code, parameter_error
from airflow_provider_browseract.emulator.records import iso
from airflow_provider_browseract.emulator.runs import Run
from airflow_provider_browseract.emulator.workflow import EmulatedWorkflow

BOTS = ("workflow", "bot")
"""What API v3 serves as a bot."""

_get, _post = (partial(api.endpoint, method) for method in ("GET", "POST"))


class V3(Api):
    """API v3 of an account. The methods of endpoints have the names and the parameters that they have on BrowserAct.

    Of the paths that are equal but for an id, the one without an id comes first.
    """

    @_post("/v3/bots/{bot_id}/runs")
    def create_run(self, bot_id: api.Id, input: dict[str, Any], callbacks: api.Callbacks = {}) -> Any:  # noqa: B006
        bot = self.emulator.as_planned(self.find(bot_id, *BOTS))
        if not bot.published:
            raise ApiError(Code.NOT_PUBLISHED)
        return self._start(bot, input, **callbacks)

    @_post("/v3/bots/templates/{template_id}/runs")
    def create_template_run(
        self,
        template_id: api.Id,
        input: dict[str, Any],
        proxy_region: str = "US",
        callbacks: api.Callbacks = {},  # noqa: B006
    ) -> Any:
        template = self.emulator.as_planned(self.find(template_id, "template"))
        if proxy_region not in REGIONS:
            raise ApiError(Code.REGION_UNKNOWN)
        return self._start(template, input, proxy_region=proxy_region, **callbacks)

    def _start(self, bot: EmulatedWorkflow, given: dict[str, Any], **fields: Any) -> Any:
        _check_input(bot, given)
        run = self.emulator.start_run(bot, api_version="v3", inputs=list(given.items()), **fields)
        return {"task_id": run.id, "status": "created"}

    @_get("/v3/bots/runs/{task_id}/status")
    def query_run_status(self, task_id: api.Id) -> Any:
        return self._status(self.find_run(task_id))

    def _status(self, run: Run) -> dict[str, str]:
        return {"task_id": run.id, "status": run.status, "updated_at": iso(run.history[-1][1])}

    @_get("/v3/bots/runs/{task_id}")
    def query_run(self, task_id: api.Id) -> Any:
        return self.describe(self.find_run(task_id))

    @_get("/v3/bots/runs")
    def page_runs(
        self,
        bot_id: api.Id | None = None,
        bot_name: str = "",
        status: api.Status | None = None,
        created_at_from: api.Moment | None = None,
        created_at_to: api.Moment | None = None,
        page: api.PageNumber = 1,
        limit: api.LimitOfV3 = 20,
    ) -> Any:
        # Runs of templates have neither a bot id nor a name.
        found = [
            run
            for run in self.find_runs(status, created_at_from, created_at_to)
            if bot_id in (None, None if run.workflow.kind == "template" else run.workflow.id)
            and bot_name.lower() in ("" if run.workflow.kind == "template" else run.workflow.name.lower())
        ]
        return page_of(found, page, limit, partial(self._summary, whole=False))

    @_post("/v3/bots/runs/{task_id}/resume")
    def resume_run(self, task_id: api.Id) -> Any:
        if self.find_run(task_id).workflow.kind == "bot":
            raise ApiError(Code.RESUME_NOT_SUPPORTED)
        # On BrowserAct, a run is resumed later than the response, which therefore still has the status paused.
        return self._status(self.resume(task_id))

    @_post("/v3/bots/runs/{task_id}/cancel")
    def cancel_run(self, task_id: api.Id, biz_code: api.Whole | None = None) -> Any:
        return self._status(self.stop(task_id, biz_code))

    @_get("/v3/bots")
    def page_bots(
        self,
        bot_type: Literal["workflow", "agent"] | None = None,
        keyword: api.Keyword = "",
        page: api.PageNumber = 1,
        limit: api.LimitOfV3 = 20,
    ) -> Any:
        found = (
            bot
            for bot in self.emulator.of_kind(*BOTS)
            if bot.published and bot_type in (None, bot.bot_type) and keyword.lower() in bot.name.lower()
        )
        return page_of(found, page, limit, _listed_bot)

    @_get("/v3/bots/templates")
    def page_templates(self, keyword: api.Keyword = "", page: api.PageNumber = 1, limit: api.Limit = 10) -> Any:
        found = (one for one in self.emulator.of_kind("template") if keyword.lower() in one.name.lower())
        return page_of(found, page, limit, _listed_template)

    @_get("/v3/bots/regions")
    def list_regions(self) -> Any:
        return [{"code": code, "name": name} for code, name in REGIONS.items()]

    @_get("/v3/bots/templates/{template_id}")
    def query_template(self, template_id: api.Id) -> Any:
        template = self.find(template_id, "template")
        return {
            **_listed_template(template),
            "description": template.description,
            "created_at": template.created_at,
            "published_at": template.published_at,
            "input_schema": template.schema,
        }

    @_get("/v3/bots/{bot_id}")
    def query_bot(self, bot_id: api.Id) -> Any:
        bot = self.find(bot_id, *BOTS)
        schemas = {"input_schema": bot.schema, "output_schema": bot.output_schema}
        shown = schemas if bot.published else dict.fromkeys(schemas)
        return {**_listed_bot(bot), "created_at": bot.created_at, **shown}

    def _summary(self, run: Run, *, whole: bool) -> dict[str, Any]:
        """Return the fields of a run that lists have too, or more. What does not apply is left out."""
        fields = {"task_id": run.id, "bot_type": run.workflow.bot_type, "input": dict(run.inputs)}
        if run.workflow.kind != "template":
            fields |= {"bot_id": run.workflow.id, "bot_name": run.workflow.name}
        return fields | self.described(run, whole=whole)

    def describe(self, run: Run) -> dict[str, Any]:
        """Return a run as ``query-run`` and callbacks do."""
        fields = self._summary(run, whole=True)
        if not fields["steps"]:
            del fields["steps"]
        if not run.has_output:
            return fields
        if (value := _value(run)) != "":
            fields["output"] = value
        if files := [stored for stored in run.files if stored.ready(run.at)]:
            fields["output_files"] = {
                PurePosixPath(stored.file.name).suffix[1:] or stored.file.name: {
                    "file_name": stored.file.name,
                    "file_size": len(stored.file.content),
                    "download_url": stored.link(self.emulator.url, run.at),
                }
                for stored in files
            }
        if downloads := fields.get("download_files"):
            snake_case = {name: re.sub("[A-Z]", r"_\g<0>", name).lower() for each in downloads for name in each}
            fields["download_files"] = [{snake_case[name]: each[name] for name in each} for each in downloads]
        return fields


def _value(run: Run) -> Any:
    """Return the output as API v3 does: the text of a workflow that is a JSON object or array, as that value."""
    value = run.produced.value
    if isinstance(value, str) and run.workflow.kind != "bot":
        with contextlib.suppress(ValueError, RecursionError):
            read = json.loads(value)
            return read if isinstance(read, dict | list) else value
    return value


def _listed_bot(bot: EmulatedWorkflow) -> dict[str, Any]:
    return {
        "bot_id": bot.id,
        "bot_type": bot.bot_type,
        "name": bot.name,
        "description": bot.description,
        "published_at": bot.published_at if bot.published else None,
    }


def _listed_template(template: EmulatedWorkflow) -> dict[str, str]:
    return {
        "template_id": template.id,
        "name": template.name,
        "recommend_desc": template.description,
        "detail_url": template.detail_url,
    }


def _check_input(bot: EmulatedWorkflow, given: dict[str, Any]) -> None:
    """Refuse an input that does not conform to the schema. Everything conforms to a schema that cannot be used."""
    # Imported here, because that takes longer than the import of the whole emulator.
    from jsonschema import Draft202012Validator
    from jsonschema.validators import validator_for
    from referencing import Registry

    try:
        # An empty registry, so that no schema is fetched over the network.
        validator = validator_for(bot.schema, default=Draft202012Validator)(bot.schema, registry=Registry())
        error = min(validator.iter_errors(given), key=lambda each: each.validator != "required", default=None)
    except Exception:  # noqa: BLE001 - a schema can be wrong in many ways
        return
    if error is None:
        return
    if error.validator == "required":
        missing = ", ".join(name for name in error.validator_value if name not in error.instance)
        raise ApiError(Code.AGENT_INPUT_MISSING if bot.bot_type == "agent" else Code.INPUT_MISSING, f" ({missing})")
    place = "input" + "".join(f"[{part!r}]" for part in error.absolute_path)
    raise parameter_error(f"{place} does not conform to {error.validator!r} of the input_schema")
