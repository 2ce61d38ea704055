from __future__ import annotations

import json

import pytest

from airflow_provider_browseract.emulator import CONTACTS, SEARCH, TEMPLATE_SEARCH
from tests.helpers.cases import cases
from tests.helpers.catalogue import PLAIN_TEXT, PRICES, UNPUBLISHED

COMPANY = {"company_name": "Example Corp"}
WRONG = "99001: Request parameter error"
MISSING = "10143: Required agent bot input is missing (products, country)"
TOO_LONG = f"{WRONG}: input['products'][1] does not conform to 'maxLength' of the input_schema"
TEXT = {"workflow_id": PLAIN_TEXT.id}
TOPIC = {"name": "topic", "value": "1"}
KEYWORD = {"name": "keyword", "value": "paper"}
TEMPLATE = {"workflow_template_id": TEMPLATE_SEARCH.id, "input_parameters": [KEYWORD]}
BOT_TEMPLATE = {"template_id": TEMPLATE_SEARCH.id, "input": {"keyword": "paper"}}

LISTS = ("list-tasks", "list-workflows", "list-official-workflow-templates", "page-runs", "page-templates")
WRONG_PAGES = ("limit=0", "limit=501", "limit=", "page=0", "page=x", "page=+1", "page=1\n", "x=1")
WRONG_MOMENTS = ("today", "2026-05-28", "2026-05-28T20:26:50", "2026-13-01T00:00:00Z", "2026-05-28T20:26Z", "1780000")
REFUSED: list[tuple[str, dict, int | str]] = [
    ("run-task", {}, 99001),
    ("run-task", {"workflow_id": 71002814653029451}, 99001),
    ("run-task", {"workflow_id": "1"}, 10111),
    ("run-task", {"workflow_id": TEMPLATE_SEARCH.id}, 10111),
    ("run-task", {"workflow_id": UNPUBLISHED.id}, 10020),
    ("run-task", {"workflow_id": SEARCH.id}, 10142),
    ("run-task", {"workflow_id": SEARCH.id, "input_parameters": [{**KEYWORD, "value": ""}]}, 10142),
    ("run-task", {**TEXT, "input_parameters": [{**TOPIC, "type": "text"}]}, 99001),
    ("run-task", {**TEXT, "input_parameters": [{**TOPIC, "name": "unheard of"}]}, 99001),
    ("run-task", {**TEXT, "input_parameters": [TOPIC, TOPIC]}, 99001),
    ("run-task", {**TEXT, "profile_id": "16429034742537847"}, 99001),
    ("run-task", {**TEXT, "proxyRegion": "US"}, 99001),
    ("create-run", {"bot_id": TEMPLATE_SEARCH.id, "input": {}}, 10111),
    ("create-run", {"bot_id": UNPUBLISHED.id, "input": {}}, 10020),
    ("create-run", {"bot_id": SEARCH.id, "input": {"keyword": 1}}, 99001),
    ("create-run", {"bot_id": SEARCH.id, "input": {"keyword": "a", "max_itmes": "1"}}, 99001),
    ("create-run", {"bot_id": PRICES.id, "input": {"in_stock": 1}}, MISSING),
    ("create-run", {"bot_id": PRICES.id, "input": {"products": ["a", "s3cret" * 20], "country": "DE"}}, TOO_LONG),
    ("create-run", {"bot_id": CONTACTS.id, "input": []}, 99001),
    ("create-run", {"bot_id": CONTACTS.id, "input": COMPANY, "proxy_region": "US"}, 99001),
    ("run-task-by-template", {**TEMPLATE, "workflow_template_id": SEARCH.id}, 10176),
    ("run-task-by-template", {**TEMPLATE, "workflow_template_id": ""}, 99001),
    ("run-task-by-template", {**TEMPLATE, "input_parameters": []}, 10142),
    ("run-task-by-template", {**TEMPLATE, "proxyRegion": "XX"}, 10013),
    ("run-task-by-template", {**TEMPLATE, "profile_id": "1"}, 99001),
    ("create-template-run", {**BOT_TEMPLATE, "template_id": SEARCH.id}, 10176),
    ("create-template-run", {**BOT_TEMPLATE, "proxy_region": "FR"}, 10013),
    *((endpoint, dict([pair.split("=")]), 99001) for endpoint in LISTS for pair in WRONG_PAGES),
    *(("list-tasks", {"created_at_from": moment}, 99001) for moment in ("", *WRONG_MOMENTS)),
    ("list-tasks", {"status": "stopped"}, 99001),
    ("page-runs", {"bot_id": ""}, 99001),
    ("page-bots", {"limit": 101}, 99001),
    ("page-bots", {"bot_type": "robot"}, 99001),
    ("page-bots", {"keyword": "x" * 201}, 99001),
    *((name, {"task_id": "1"}, 10112) for name in ("get-task", "get-task-status", "stop-task", "resume-task")),
    *((name, {"task_id": "1"}, 10112) for name in ("query-run", "query-run-status", "cancel-run", "resume-run")),
    ("get-task", {}, 99001),
    ("stop-task", {"task_id": "1", "biz_code": "2147483648"}, 99001),
    ("stop-task", {"task_id": "1", "biz_code": "s3cret"}, f"{WRONG}: biz_code: must be a whole number"),
    ("get-workflow", {"workflow_id": "1"}, "10111: Workflow does not exist or is not visible."),
    ("query-bot", {"bot_id": "1"}, "10111: Bot does not exist or is not visible"),
    ("get-official-workflow-template", {"workflow_template_id": SEARCH.id}, 10176),
    ("query-template", {"template_id": SEARCH.id}, 10176),
]
LONGEST = "https://example.com/".ljust(2048, "x")
ADDRESSES = (
    *("", "ftp://example.com/x", "example.com/x", "http://example.com:99999/", "http://[::1/", "http:///path"),
    *("https://example.com/with space", "https://example.com/\x7f", "http://ex\u00e4mple.com/", f"{LONGEST}x"),
)
BODIES = {
    **{"nothing": b"", "broken off": b"{", "no UTF-8": b"\xff", "list": b"[]", "nested too deep": b"[" * 100_000},
    **{"NaN": b'{"workflow_id": NaN}', "surrogate": b'{"workflow_id": "\\ud800"}'},
}
NO_REGEX = {"properties": {"text": {"pattern": r"\p{L}"}}}
UNUSABLE = ({"$ref": "#"}, {"$ref": "http://browseract.invalid/schema.json"}, {"type": "objekt"}, NO_REGEX)
BOT_START = json.dumps({"input": COMPANY}).encode()


@pytest.mark.parametrize(("endpoint", "given", "refusal"), REFUSED, ids=repr)
def test_request_is_refused_and_the_message_names_the_place_without_the_value(account, endpoint, given, refusal):
    code, message = account.refusal(endpoint, **given)
    assert refusal in (code, f"{code}: {message}")
    assert account.emulator.tasks == []


@pytest.mark.parametrize("field", ["callback_url", "status_change_callback_url"])
@pytest.mark.parametrize("url", ADDRESSES, ids=lambda url: url[:40])
def test_address_of_a_callback_is_refused(account, field, url):
    assert account.code("run-task", workflow_id=PLAIN_TEXT.id, **{field: url}) == 99001
    assert account.code("create-run", bot_id=CONTACTS.id, input=COMPANY, **{field: url}) == 99001
    account.run(PLAIN_TEXT, **{field: LONGEST})


@cases(
    *((name, "run-task", {"body": body}) for name, body in BODIES.items()),
    ("id of the path in the body", "create-run", {"body": json.dumps({"bot_id": "1", "input": COMPANY}).encode()}),
    ("query of a start", "create-run", {"body": BOT_START, "query": "x=1"}),
    ("no content type", "create-run", {"body": BOT_START, "headers": {"content-type": ""}}),
    ("another content type", "create-run", {"body": BOT_START, "headers": {"content-type": "text/plain"}}),
    *((query, "get-task", {"query": query}) for query in ("task_id=1&task_id=1", "task_id=%ff", "task_id")),
)
def test_request_that_cannot_be_read_is_refused(account, endpoint, sent):
    response = account.send(endpoint, {"bot_id": CONTACTS.id}, **sent)
    assert (response.status, json.loads(response.body)["code"]) == (400, 99001)


@pytest.mark.parametrize("schema", UNUSABLE, ids=str)
def test_input_is_not_checked_if_the_schema_cannot_be_used(account, schema):
    assert account.finished(CONTACTS, {"text": "x"}, input_schema=schema, as_bot=True)["status"] == "finished"
