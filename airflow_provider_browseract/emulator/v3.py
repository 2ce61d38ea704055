"""The endpoints of API v3."""

from __future__ import annotations

import json
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
    AGENT_INPUT_MISSING,
    BOT_MESSAGES,
    INPUT_MISSING,
    NOT_CONFIGURED,
    NOT_PUBLISHED,
    REGION_UNKNOWN,
    RESUME_NOT_SUPPORTED,
    TEMPLATE_UNKNOWN,
    WORKFLOW_UNKNOWN,
    ApiError,
    parameter_error,
)
from airflow_provider_browseract.emulator.parameters import Query
from airflow_provider_browseract.emulator.rendering import bot_type_of, run_detail, run_summary
from airflow_provider_browseract.emulator.run import STATUSES, Run
from airflow_provider_browseract.emulator.times import iso
from airflow_provider_browseract.emulator.workflow import EmulatedBot, EmulatedTemplate, EmulatedWorkflow

MAX_KEYWORD_LENGTH = 200
HIDDEN = "******"


def _create_run(browseract: BrowserAct, body: Body) -> Any:
    bot = browseract.as_planned(_bot(browseract, body["bot_id"]))
    if not bot.published:
        raise _error(NOT_PUBLISHED)
    if isinstance(bot, EmulatedBot) and not bot.ready:
        raise _error(NOT_CONFIGURED)
    return _start(browseract, bot, body, workflow_id=bot.id)


def _create_template_run(browseract: BrowserAct, body: Body) -> Any:
    template = browseract.as_planned(_template(browseract, body["template_id"]))
    region = body.get("proxy_region", "US")
    if region not in REGIONS:
        raise _error(REGION_UNKNOWN)
    return _start(browseract, template, body, workflow_id=browseract.new_id(), region=region)


def _query_run_status(browseract: BrowserAct, query: Query) -> Any:
    return _status(browseract, find_run(browseract, query, "v3"))


def _query_run(browseract: BrowserAct, query: Query) -> Any:
    return browseract.describe(run_detail, find_run(browseract, query, "v3"))


def _page_runs(browseract: BrowserAct, query: Query) -> Any:
    bot_id, name = query.text("bot_id"), (query.text("bot_name") or "").lower()
    if bot_id == "":
        raise parameter_error("bot_id must not be empty")
    statuses = tuple(status for status in STATUSES if status != "unknown")
    # Runs of templates have neither a bot id nor a name.
    found = [
        run
        for run in find_runs(browseract, query, "v3", statuses)
        if bot_id in (None, None if run.from_template else run.workflow.id)
        and name in ("" if run.from_template else run.workflow.name.lower())
    ]
    return page_of(query, found, partial(browseract.describe, run_summary), default=20, most=100)


def _resume_run(browseract: BrowserAct, query: Query) -> Any:
    run = find_run(browseract, query, "v3")
    if bot_type_of(run.workflow) == "agent":
        raise _error(RESUME_NOT_SUPPORTED)
    # A run is resumed later than the response, which therefore still has the status paused.
    before = _status(browseract, run)
    resume(browseract, run)
    return None if browseract.as_in_the_demos else before


def _cancel_run(browseract: BrowserAct, query: Query) -> Any:
    run = stop(browseract, query, "v3")
    return None if browseract.as_in_the_demos else _status(browseract, run)


def _page_bots(browseract: BrowserAct, query: Query) -> Any:
    wanted, keyword = query.text("bot_type"), _keyword(query)
    if wanted not in (None, "workflow", "agent"):
        raise parameter_error("bot_type must be workflow or agent")
    found = [
        bot
        for bot in _oldest_first(_bots(browseract))
        if bot.published and wanted in (None, bot_type_of(bot)) and keyword in bot.name.lower()
    ]
    return page_of(query, found, _listed_bot, default=20, most=100)


def _query_bot(browseract: BrowserAct, query: Query) -> Any:
    bot = _bot(browseract, query.required("bot_id"))
    input_schema, output_schema = (bot.schema, bot.output_schema) if bot.published else (None, None)
    return {
        **_listed_bot(bot),
        "created_at": bot.created_at,
        "input_schema": input_schema,
        "output_schema": output_schema,
    }


def _page_templates(browseract: BrowserAct, query: Query) -> Any:
    keyword = _keyword(query)
    found = [one for one in _oldest_first(browseract.templates) if keyword in one.name.lower()]
    return page_of(query, found, _listed_template, default=10)


def _query_template(browseract: BrowserAct, query: Query) -> Any:
    template = _template(browseract, query.required("template_id"))
    return {
        **_listed_template(template),
        "description": template.description,
        "created_at": template.created_at,
        "published_at": template.published_at,
        "input_schema": template.schema,
    }


def _list_regions(_: BrowserAct, __: Query) -> Any:
    return [{"code": code, "name": name} for code, name in REGIONS.items()]


_START: dict[str, type] = {"input": dict, **dict.fromkeys(CALLBACKS, str)}
_START_TEMPLATE: dict[str, type] = {**_START, "proxy_region": str}
_FILTERS = ("bot_id", "bot_name", "status", "created_at_from", "created_at_to")
_PAGE = ("page", "limit")

# Of the paths that are equal but for an id, the one without an id comes first.
ENDPOINTS = {
    name: Endpoint(name, method, f"/v3/bots{path}", respond, parameters)
    for name, method, path, respond, parameters in (
        ("create-run", "POST", "/{bot_id}/runs", _create_run, _START),
        ("create-template-run", "POST", "/templates/{template_id}/runs", _create_template_run, _START_TEMPLATE),
        ("query-run-status", "GET", "/runs/{task_id}/status", _query_run_status, ()),
        ("query-run", "GET", "/runs/{task_id}", _query_run, ()),
        ("page-runs", "GET", "/runs", _page_runs, (*_FILTERS, *_PAGE)),
        ("resume-run", "POST", "/runs/{task_id}/resume", _resume_run, ()),
        ("cancel-run", "POST", "/runs/{task_id}/cancel", _cancel_run, ("biz_code",)),
        ("page-bots", "GET", "", _page_bots, ("bot_type", "keyword", *_PAGE)),
        ("page-templates", "GET", "/templates", _page_templates, ("keyword", *_PAGE)),
        ("list-regions", "GET", "/regions", _list_regions, ()),
        ("query-template", "GET", "/templates/{template_id}", _query_template, ()),
        ("query-bot", "GET", "/{bot_id}", _query_bot, ()),
    )
}
"""The endpoints by name."""


def _error(code: int, detail: str = "") -> ApiError:
    return ApiError(code, BOT_MESSAGES[code] + detail)


def _bots(browseract: BrowserAct) -> dict[str, EmulatedWorkflow]:
    return {**browseract.workflows, **browseract.bots}


def _bot(browseract: BrowserAct, bot_id: str) -> EmulatedWorkflow:
    bot = _bots(browseract).get(bot_id)
    if bot is None:
        raise _error(WORKFLOW_UNKNOWN)
    return bot


def _template(browseract: BrowserAct, template_id: str) -> EmulatedTemplate:
    template = browseract.templates.get(template_id)
    if template is None:
        raise _error(TEMPLATE_UNKNOWN)
    return template


def _listed_bot(bot: EmulatedWorkflow) -> dict[str, Any]:
    return {
        "bot_id": bot.id,
        "bot_type": bot_type_of(bot),
        "name": bot.name,
        "description": bot.description,
        "published_at": bot.published_at if bot.published else None,
    }


def _listed_template(template: EmulatedTemplate) -> dict[str, str]:
    return {
        "template_id": template.id,
        "name": template.name,
        "recommend_desc": template.recommendation,
        "detail_url": template.detail_url,
    }


def _start(browseract: BrowserAct, bot: EmulatedWorkflow, body: Body, **fields: Any) -> Any:
    callbacks = read_callbacks(browseract, body)
    if "input" not in body:
        raise parameter_error("input is required")
    given, declared = body["input"], _declared(bot.schema)
    if browseract.converts_input:
        given = {name: _converted(value, declared.get(name, {}).get("type")) for name, value in given.items()}
    _check_input(bot, given)
    shown = given
    if browseract.shows_defaults:
        shown = {name: each["default"] for name, each in declared.items() if "default" in each} | given
    if browseract.hides_input:
        shown = dict.fromkeys(shown, HIDDEN)
    fields |= {"api_version": "v3", "inputs": list(given.items()), "shown_input": shown, **callbacks}
    run = browseract.start_run(bot, **fields)
    return {"id" if browseract.as_in_the_demos else "task_id": run.id, "status": run.reported(browseract.clock())}


def _declared(schema: Any) -> dict[str, dict[str, Any]]:
    """Return the schemas of the names that a schema declares at the top level."""
    properties = schema.get("properties") if isinstance(schema, dict) else None
    named = properties.items() if isinstance(properties, dict) else ()
    return {name: each for name, each in named if isinstance(each, dict)}


def _converted(value: Any, wanted: Any) -> Any:
    """Return the value for which a text stands, if another type is wanted."""
    if not (isinstance(value, str) and isinstance(wanted, str)) or wanted == "string":
        return value
    try:
        return json.loads(value)
    except (ValueError, RecursionError):
        return value


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
        raise _error(AGENT_INPUT_MISSING if bot_type_of(bot) == "agent" else INPUT_MISSING, f" ({missing})")
    place = "input" + "".join(f"[{part!r}]" for part in error.absolute_path)
    raise parameter_error(f"{place} does not conform to {error.validator!r} of the input_schema")


def _status(browseract: BrowserAct, run: Run) -> dict[str, str]:
    now = browseract.clock()
    return {"task_id": run.id, "status": run.reported(now), "updated_at": iso(run.updated(now))}


def _keyword(query: Query) -> str:
    keyword = query.text("keyword") or ""
    if len(keyword) > MAX_KEYWORD_LENGTH:
        raise parameter_error(f"keyword must not be longer than {MAX_KEYWORD_LENGTH} characters")
    return keyword.lower()


def _oldest_first(bots: Mapping[str, Any]) -> list[Any]:
    return sorted(bots.values(), key=lambda one: one.created_at)
