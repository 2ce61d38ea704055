"""What the API refuses, with which code: a table for each version."""

from __future__ import annotations

import json

import pytest

from airflow_provider_browseract.emulator import AGENT_HUMAN, CONTACTS, LOG_IN, SEARCH, TEMPLATE_SEARCH
from tests.catalogue import PLAIN_TEXT, PRICES, UNPUBLISHED

from .conftest import Refused

COMPANY = {"company_name": "Example Corp"}
PRODUCTS = {"products": ["paper"], "country": "DE"}
KEYWORD = [{"name": "keyword", "value": "paper"}]

STARTS: list[tuple[dict, int]] = [
    ({}, 99001),
    ({"workflow_id": ""}, 99001),
    ({"workflow_id": 71002814653029451}, 99001),
    ({"workflow_id": None}, 99001),
    ({"workflow_id": "1"}, 10111),
    ({"workflow_id": TEMPLATE_SEARCH.id}, 10111),
    ({"workflow_id": CONTACTS.id}, 10111),
    ({"workflow_id": UNPUBLISHED.id}, 10020),
    ({"workflow_id": SEARCH.id}, 10142),
    ({"workflow_id": LOG_IN.id, "input_parameters": [{"name": "username", "value": "ada"}]}, 10142),
    ({"workflow_id": SEARCH.id, "input_parameters": [{"name": "keyword", "value": ""}]}, 10142),
    ({"workflow_id": PLAIN_TEXT.id, "inputParameters": []}, 99001),
    ({"workflow_id": PLAIN_TEXT.id, "input_parameters": {"topic": "x"}}, 99001),
    ({"workflow_id": PLAIN_TEXT.id, "input_parameters": ["topic"]}, 99001),
    ({"workflow_id": PLAIN_TEXT.id, "input_parameters": [{"name": "topic"}]}, 99001),
    ({"workflow_id": PLAIN_TEXT.id, "input_parameters": [{"name": "topic", "value": 1}]}, 99001),
    ({"workflow_id": PLAIN_TEXT.id, "input_parameters": [{"name": "topic", "value": "1", "type": "text"}]}, 99001),
    ({"workflow_id": PLAIN_TEXT.id, "input_parameters": [{"name": "unheard of", "value": "1"}]}, 99001),
    ({"workflow_id": PLAIN_TEXT.id, "input_parameters": [{"name": "topic", "value": "1"}] * 2}, 99001),
    ({"workflow_id": PLAIN_TEXT.id, "save_browser_data": "true"}, 99001),
    ({"workflow_id": PLAIN_TEXT.id, "save_browser_data": 1}, 99001),
    ({"workflow_id": PLAIN_TEXT.id, "profile_id": None}, 99001),
    ({"workflow_id": PLAIN_TEXT.id, "profile_id": "16429034742537847"}, 99001),
    ({"workflow_id": PLAIN_TEXT.id, "proxyRegion": "US"}, 99001),
    ({"workflow_id": PLAIN_TEXT.id, "callback_url": None}, 99001),
]
BOT_STARTS: list[tuple[str, dict, int]] = [
    ("1", {"input": {}}, 10111),
    (TEMPLATE_SEARCH.id, {"input": {}}, 10111),
    (UNPUBLISHED.id, {"input": {}}, 10020),
    (SEARCH.id, {"input": {}}, 10142),
    (CONTACTS.id, {"input": {"max_pages": 2}}, 10143),
    (SEARCH.id, {"input": {"keyword": 1}}, 99001),
    (SEARCH.id, {"input": {"keyword": None}}, 99001),
    (SEARCH.id, {"input": {"keyword": "a", "max_itmes": "1"}}, 99001),
    (CONTACTS.id, {"input": {**COMPANY, "max_pages": "2"}}, 99001),
    (CONTACTS.id, {"input": {**COMPANY, "max_pages": 101}}, 99001),
    (PRICES.id, {"input": {**PRODUCTS, "country": "FR"}}, 99001),
    (PRICES.id, {"input": {**PRODUCTS, "price": {"maximum": 1}}}, 99001),
    (CONTACTS.id, {}, 99001),
    (CONTACTS.id, {"input": None}, 99001),
    (CONTACTS.id, {"input": []}, 99001),
    (CONTACTS.id, {"input": COMPANY, "proxy_region": "US"}, 99001),
    (CONTACTS.id, {"input": COMPANY, "profile_id": "1"}, 99001),
]
TEMPLATE = {"workflow_template_id": TEMPLATE_SEARCH.id, "input_parameters": KEYWORD}
TEMPLATE_STARTS: list[tuple[dict, int]] = [
    ({"workflow_template_id": SEARCH.id}, 10176),
    ({"workflow_template_id": ""}, 99001),
    ({"input_parameters": []}, 10142),
    ({"proxyRegion": "XX"}, 10013),
    ({"profile_id": "1"}, 99001),
    ({"proxy_region": "US"}, 99001),
]
BOT_TEMPLATE = {"template_id": TEMPLATE_SEARCH.id, "input": {"keyword": "paper"}}
BOT_TEMPLATE_STARTS: list[tuple[dict, int]] = [
    ({"template_id": SEARCH.id}, 10176),
    ({"proxy_region": "FR"}, 10013),
    ({"input": {}}, 10142),
]
ADDRESSES = [
    "",
    "ftp://example.com/x",
    "example.com/x",
    "http://example.com:99999/",
    "http://[::1/",
    "http:///path",
    "https://example.com/with space",
    "https://example.com/\x7f",
    "http://ex\u00e4mple.com/",
    "https://example.com/" + "x" * 2048,
]
LISTS = ("list-tasks", "list-workflows", "list-official-workflow-templates", "page-runs", "page-templates")
WRONG_PAGES = ("limit=0", "limit=501", "limit=", "page=0", "page=x", "page=+1", "page=1\n", "x=1")
WRONG_MOMENTS = ("today", "2026-05-28", "2026-05-28T20:26:50", "2026-13-01T00:00:00Z", "2026-05-28T20:26Z", "1780000")
QUERIES: list[tuple[str, dict, int]] = [
    *((endpoint, dict([pair.split("=")]), 99001) for endpoint in LISTS for pair in WRONG_PAGES),
    *(("list-tasks", {"created_at_from": moment}, 99001) for moment in ("", *WRONG_MOMENTS)),
    ("list-tasks", {"workflow_id": ""}, 99001),
    ("list-tasks", {"status": "stopped"}, 99001),
    ("page-runs", {"limit": 101}, 99001),
    ("page-runs", {"status": "unknown"}, 99001),
    ("page-runs", {"created_at_to": "yesterday"}, 99001),
    ("page-runs", {"bot_id": ""}, 99001),
    ("page-runs", {"workflow_id": SEARCH.id}, 99001),
    ("page-bots", {"limit": 101}, 99001),
    ("page-bots", {"bot_type": "robot"}, 99001),
    ("page-bots", {"keyword": "x" * 201}, 99001),
    ("list-regions", {"page": 1}, 99001),
    *((name, {"task_id": "1"}, 10112) for name in ("get-task", "get-task-status", "stop-task", "resume-task")),
    *((name, {"task_id": "1"}, 10112) for name in ("query-run", "query-run-status", "cancel-run", "resume-run")),
    ("get-task", {}, 99001),
    ("get-task", {"task_id": ""}, 99001),
    ("get-task", {"taskId": "1"}, 99001),
    ("stop-task", {"task_id": "1", "biz_code": "2147483648"}, 99001),
    ("cancel-run", {"task_id": "1", "biz_code": "1.0"}, 99001),
    ("get-workflow", {"workflow_id": "1"}, 10111),
    ("get-official-workflow-template", {"workflow_template_id": SEARCH.id}, 10176),
    ("query-bot", {"bot_id": "1"}, 10111),
    ("query-template", {"template_id": SEARCH.id}, 10176),
]
BODIES = {
    "nothing": b"",
    "broken off": b"{",
    "no UTF-8": b"\xff",
    "NaN": b'{"workflow_id": NaN}',
    "list": b"[]",
    "text": b'"text"',
    "surrogate": b'{"workflow_id": "\\ud800"}',
    "nested too deep": b"[" * 100_000,
}


@pytest.mark.parametrize(
    ("endpoint", "given", "code"),
    [
        *(("run-task", body, code) for body, code in STARTS),
        *(("create-run", {"bot_id": bot_id, **body}, code) for bot_id, body, code in BOT_STARTS),
        *(("run-task-by-template", {**TEMPLATE, **change}, code) for change, code in TEMPLATE_STARTS),
        *(("create-template-run", {**BOT_TEMPLATE, **change}, code) for change, code in BOT_TEMPLATE_STARTS),
        *QUERIES,
    ],
    ids=repr,
)
def test_request_is_refused(account, endpoint, given, code):
    assert account.code(endpoint, **given) == code
    assert account.emulator.tasks == []


@pytest.mark.parametrize("field", ["callback_url", "status_change_callback_url"])
@pytest.mark.parametrize("url", ADDRESSES, ids=lambda url: url[:40])
def test_address_of_a_callback_is_refused(account, field, url):
    assert account.code("run-task", workflow_id=PLAIN_TEXT.id, **{field: url}) == 99001
    assert account.code("create-run", bot_id=CONTACTS.id, input=COMPANY, **{field: url}) == 99001


def test_address_of_2048_characters_is_accepted(account):
    url = "https://example.com/".ljust(2048, "x")
    account.run(PLAIN_TEXT, callback_url=url)
    assert account.emulator.tasks[0].callback_url == url


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
@pytest.mark.parametrize("endpoint", ["run-task", "create-run"])
def test_body_that_is_no_json_object_is_refused(account, endpoint, body):
    response = account.send(endpoint, {"bot_id": CONTACTS.id}, body=body)
    assert (response.status, json.loads(response.body)["code"]) == (400, 99001)


def test_body_of_another_content_type_is_refused(account):
    body = json.dumps({"workflow_id": PLAIN_TEXT.id}).encode()
    types = ("", "text/plain", "application/x-www-form-urlencoded", "Application/JSON ; charset=utf-8")
    statuses = [account.send("run-task", body=body, headers={"content-type": each}).status for each in types]
    assert statuses == [400, 400, 400, 200]


@pytest.mark.parametrize("query", ["task_id=1&task_id=1", "task_id=%ff", "task_id"])
def test_broken_query_is_refused(account, query):
    assert account.send("get-task", query=query).status == 400


def test_query_of_a_start_and_an_id_of_the_path_in_the_body_are_refused(account):
    body = json.dumps({"input": COMPANY}).encode()
    assert account.send("create-run", {"bot_id": CONTACTS.id}, "x=1", body=body).status == 400
    body = json.dumps({"input": COMPANY, "bot_id": CONTACTS.id}).encode()
    assert account.send("create-run", {"bot_id": CONTACTS.id}, body=body).status == 400


def test_refusal_names_the_place_without_the_value(account):
    with pytest.raises(Refused, match=r"input\['products'\]\[1\] does not conform to 'maxLength'") as refused:
        account.run_bot(PRICES, {**PRODUCTS, "products": ["a", "s3cret" * 20]})
    assert "s3cret" not in str(refused.value)
    with pytest.raises(Refused, match=r"10143: Required agent bot input is missing \(products, country\)"):
        account.run_bot(PRICES)
    with pytest.raises(Refused, match=r"^99001: Request parameter error: biz_code: must be a whole number$"):
        account.call("stop-task", task_id="1", biz_code="s3cret")


def test_each_version_has_its_own_message(account):
    with pytest.raises(Refused, match=r"^10111: Workflow does not exist or is not visible\.$"):
        account.call("get-workflow", workflow_id="1")
    with pytest.raises(Refused, match=r"^10111: Bot does not exist or is not visible$"):
        account.call("query-bot", bot_id="1")


@pytest.mark.parametrize("seconds", [0, 1, 1000], ids=["running", "paused", "finished"])
def test_run_of_an_agent_built_bot_cannot_be_resumed(account, seconds):
    task_id = account.run_bot(AGENT_HUMAN)
    account.pass_time(seconds)
    assert account.code("resume-run", task_id=task_id) == 10879


SCHEMAS: list[dict] = [
    {"$ref": "#"},
    {"$ref": "http://browseract.invalid/schema.json"},
    {"type": "objekt"},
    {"properties": {"text": {"pattern": r"\p{L}"}}},
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=["recursive", "remote", "unknown type", "pattern"])
def test_input_is_not_checked_if_the_schema_cannot_be_used(account, schema):
    assert account.finished_bot(CONTACTS, {"text": "x"}, input_schema=schema)["status"] == "finished"
