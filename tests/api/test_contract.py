"""Each call of the provider, held against the vendor's documents of both versions of the API."""

import json
import re
from datetime import datetime
from typing import Any

import jsonschema
import pytest

from airflow_provider_browseract.api.calls import CODES, Call
from airflow_provider_browseract.api.models import ApiVersion, BotType, Page, TaskStatus
from tests.helpers.steps import read as read_response
from tests.helpers.vendor import document

from . import test_v2, test_v3

CALLS = {ApiVersion.V2: test_v2.EVERY_CALL, ApiVersion.V3: test_v3.EVERY_CALL}
EVERY_CALL = [(version, name) for version, calls in CALLS.items() for name in calls]
CALLS_OF_V3 = CALLS[ApiVersion.V3]
RENAMED = {
    **dict.fromkeys(("task_id", "bot_id", "template_id"), "id"),
    **{"bot_type": "type", "recommend_desc": "recommendation", "status": "value"},
}
"""The names of the fields of responses in our models, where they differ."""

UNREAD = {
    "create-run": {"status"},
    "create-template-run": {"status"},
    "query-run-status": {"task_id", "updated_at"},
    "resume-run": {"task_id", "status", "updated_at"},
    "cancel-run": {"task_id", "status", "updated_at"},
    "query-template": {"created_at", "published_at"},
}
"""The fields of responses that are only checked, or that nobody needs."""


def validate(version, schema, value):
    # The schemas refer to each other by their place in the document.
    jsonschema.validate(value, {**schema, "components": document(version)["components"]})


def operation(version: ApiVersion, call: Call[Any]) -> dict[str, Any]:
    """Return what the document has about a call. Of its paths that match, the one with fewest ids counts."""
    paths = document(version)["paths"]
    matching = [path for path in paths if re.fullmatch(re.sub(r"{\w+}", "[^/]+", path), call.path)]
    found: dict[str, Any] = paths[min(matching, key=lambda path: path.count("{"))][call.method.lower()]
    return found


def json_of(part: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = part["content"]["application/json"]
    return found


def example_call(name: str) -> Call[Any]:
    parameters = operation(ApiVersion.V3, CALLS_OF_V3[name]).get("parameters", [])
    return test_v3.CALLS[name].func(*(parameter["example"] for parameter in parameters if parameter["in"] == "path"))


def example_response(name: str) -> Any:
    return json_of(operation(ApiVersion.V3, CALLS_OF_V3[name])["responses"]["200"])["example"]


@pytest.mark.parametrize("version", CALLS)
def test_calls_cover_exactly_the_operations_of_the_vendors_document(version):
    documented = [each["operationId"] for methods in document(version)["paths"].values() for each in methods.values()]
    called = [operation(version, call)["operationId"] for call in CALLS[version].values()]
    assert sorted(called) == sorted(documented)


@pytest.mark.parametrize(("version", "name"), EVERY_CALL)
def test_call_is_valid_by_the_vendors_document_and_asks_for_the_largest_page(version, name):
    call = CALLS[version][name]
    assert call.name == name
    described = operation(version, call)
    parameters = {each["name"]: each for each in described.get("parameters", []) if each["in"] == "query"}
    assert set(call.params) <= set(parameters)
    assert {name for name, parameter in parameters.items() if parameter.get("required")} <= set(call.params)
    for name, value in call.params.items():
        validate(version, parameters[name]["schema"], value)
    assert call.params.get("limit") == parameters.get("limit", {"schema": {}})["schema"].get("maximum")
    if call.body is None:
        assert "requestBody" not in described
        return
    schema = json_of(described["requestBody"])["schema"]
    validate(version, schema, call.body)
    properties = document(version)["components"]["schemas"][schema["$ref"].rsplit("/", 1)[-1]]["properties"]
    assert set(call.body) <= set(properties)


def test_statuses_and_types_are_exactly_those_of_the_vendors_documents():
    words = {status.value for status in TaskStatus}
    assert words == set(document(ApiVersion.V2)["components"]["schemas"]["TaskStatus"]["enum"])
    bots = document(ApiVersion.V3)["components"]["schemas"]
    assert words - {"unknown"} == set(bots["BotRunStatus"]["enum"])
    assert {each.value for each in BotType} == set(bots["BotType"]["enum"])


def test_every_error_code_of_the_vendors_document_has_its_exception():
    codes = {int(code) for code in re.findall(r"`(\d{5})`", json.dumps(document(ApiVersion.V3)))}
    assert len(codes) > 10
    assert codes <= CODES.keys()


@pytest.mark.parametrize("name", CALLS_OF_V3)
def test_call_has_the_name_of_its_operation(name):
    operation_id = operation(ApiVersion.V3, CALLS_OF_V3[name])["operationId"]
    assert re.sub("[A-Z]", lambda letter: f"-{letter[0].lower()}", operation_id) == name


@pytest.mark.parametrize("name", CALLS_OF_V3)
def test_example_of_a_response_is_read(name):
    example = example_response(name)
    found = read_response(example_call(name), example)
    if isinstance(found, Page):
        assert (found.total_count, found.total_pages) == (1, 1)
        found, example = found.items, example["items"]
    if isinstance(found, tuple):
        assert len(found) == len(example)
        found, example = found[0], example[0]
    plain = {field for field in example if isinstance(example[field], str | int) or field == "input_schema"}
    plain -= UNREAD.get(name, set())
    read = {field: getattr(found, field if hasattr(found, field) else RENAMED[field]) for field in plain}
    moments = {field: f"{value:%Y-%m-%dT%H:%M:%SZ}" for field, value in read.items() if isinstance(value, datetime)}
    assert {**read, **moments} == {field: example[field] for field in plain}


def test_example_of_a_run_is_read_with_everything_that_it_has():
    example = example_response("query-run")
    task = read_response(example_call("query-run"), example)
    assert task.output is not None
    assert json.loads(task.output.string) == example["output"]
    assert task.output.is_json is True
    assert {
        each.format: {"file_name": each.name, "file_size": each.size, "download_url": each.url}
        for each in task.output.formats
    } == example["output_files"]
    [file], [download] = task.download_files, example["download_files"]
    names = ("guid", "file_name", "file_size", "status", "expires_at", "download_url")
    assert [getattr(file, name) for name in names] == [download[name] for name in names]
    assert task.live_url == example["live_url_info"]["live_url"]
    assert task.input == example["input"]
