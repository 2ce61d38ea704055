"""What a shared process builds of a response: no output, no values of an input, and only some of many steps."""

import json
from typing import Any

import pytest

from airflow_provider_browseract.api import v2, v3
from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.api.declared import MAX_INPUT, MAX_ITEMS, MAX_NESTED, MAX_TEXT
from airflow_provider_browseract.api.models import Failure
from airflow_provider_browseract.exceptions import (
    ResponseTooLargeError,
    TaskNotFoundError,
    UnexpectedResponseError,
    UnknownRefusalError,
)
from tests.helpers.cases import cases

RUN = {"task_id": "7", "status": "running"}
GET, LIST = v3.get_task("7"), v3.list_tasks()


def read(call: Call[Any], data: object, status: int = 200) -> Any:
    body = data if isinstance(data, bytes) else json.dumps(data).encode()
    return call.read(status, body, {}, shared=True)


@cases(
    ("output", {"output": [[]] * 1000, "output_files": {"csv": {}}, "status": "finished"}, {"output": None}),
    ("input", {"input": {"password": "hunter2", "n": [1]}}, {"input": {"password": None, "n": None}}),
    ("large input", {"input": {"text": "x" * MAX_INPUT}}, {"input": None}),
    ("list as input", {"input": [1]}, {"input": None}),
    ("unknown fields", {"brand_new": [[]] * 1000, "credit": 5}, {"credit": 5}),
    ("live view", {"live_url_info": {"live_url": "https://live.example"}}, {"live_url": "https://live.example"}),
    ("failure", {"task_failure_info": "broken"}, {"failure": None}),
    ("no list of steps", {"steps": 5}, {"steps": (), "step_count": 0}),
    ("odd steps", {"steps": [None, 5, {"step": 3}]}, {"step_count": 1}),
    ("half an emoji", {"output": "a\ud83d", "bot_name": "\ud83d\ude00\ud83d"}, {"bot_name": "\U0001f600\ufffd"}),
    ("half before an emoji", {"bot_name": "\ud83d\ud83d\ude00"}, {"bot_name": "\ufffd\U0001f600"}),
    ("halves in the output", {"output": "\ud83d" * 2000, "bot_name": "Search"}, {"bot_name": "Search"}),
    (
        "form feed and half an emoji",
        {"output": "\ud83d", "bot_name": "\f", "credit": 5},
        {"bot_name": None, "credit": 5},
    ),
    ("object in a text", {"bot_name": {"a": 1}}, {"bot_name": None}),
    ("long text", {"task_failure_info": {"message": "x" * 5000}}, {"failure": Failure(message="x" * 1000)}),
    ("data in data", {"data": {"credit": 5}}, {"credit": None}),
)
def test_shared_process_builds_only_what_it_may_show(fields, built):
    task = read(GET, {**RUN, **fields})
    assert {name: getattr(task, name) for name in built} == built


@pytest.mark.parametrize("shift", range(12))
@cases("part", {"ASCII": "x", "escapes": "\u4e00", "emoji and a half": "\U0001f600" * 999 + "\ud83d"})
def test_beginning_of_a_long_goal_is_built(part, shift):
    goal = "a" * shift + part * MAX_TEXT
    [step] = read(GET, {**RUN, "steps": [{"step_goal": goal}]}).steps
    assert goal.startswith(step.goal.rstrip("\ufffd"))
    assert len(step.goal) > 300


def test_all_schemas_of_a_response_together_are_bounded():
    schema = {"properties": {"a": "x" * (MAX_NESTED // 2)}}
    items = [{"id": str(number), "input_schema": schema} for number in range(3)]
    page = read(v3.list_sources(), {"items": items})
    assert [source.input_schema for source in page.items] == [schema, None, None]


def test_objects_that_are_not_built_do_not_count():
    large = {"a": "x" * MAX_NESTED}
    source = read(v3.get_source("7"), {"id": "7", "name": large, "description": large, "input_schema": {"a": 1}})
    assert (source.name, source.input_schema) == (None, {"a": 1})


def test_run_whose_output_has_halves_of_emoji_is_in_its_list():
    runs = [{**RUN, "task_id": str(number), "output": {"string": "\ud83d" * 1001}} for number in range(60)]
    assert len(read(v2.list_tasks(), {"items": runs}).items) == 60


def test_of_very_many_steps_the_first_and_last_are_built_and_all_are_counted():
    task = read(GET, {**RUN, "steps": [{"step": number} for number in range(100_000)]})
    assert (task.step_count, len(task.steps)) == (100_000, 200)
    assert [task.steps[at].number for at in (0, 99, 100, 199)] == [0, 99, 99_900, 99_999]


@pytest.mark.parametrize("data", [RUN, {"code": 0, "msg": "success", "data": RUN}], ids=["bare", "in an envelope"])
def test_task_is_read_with_and_without_an_envelope(data):
    assert (read(GET, data).id, read(GET, data).status) == ("7", "running")


def test_refusal_keeps_its_meaning():
    with pytest.raises(UnknownRefusalError):
        read(v2.get_task("7"), {**RUN, "code": {"a": 1}, "msg": "No"})
    with pytest.raises(TaskNotFoundError, match="No such task"):
        read(v2.get_task("7"), {"code": 10112, "msg": "No such task"}, 400)
    with pytest.raises(TaskNotFoundError):
        read(v2.get_task("7"), {"code": 10112, "msg": "No such task"})


def nested(levels: int) -> bytes:
    return b"[" * levels + b"]" * levels


@cases(
    ("NaN", GET, b'{"task_id": "7", "status": "running", "output": NaN}', ResponseTooLargeError),
    ("deep nesting", GET, b'{"task_id": "7", "output": ' + nested(100_000) + b"}", ResponseTooLargeError),
    ("part of JSON", GET, b'{"task_id": "7", ', UnexpectedResponseError),
    ("more items than a page can have", LIST, {"items": [RUN] * (MAX_ITEMS + 1)}, ResponseTooLargeError),
    ("large response to a stop", v2.stop_task("7"), {"x": "x" * 100_000}, ResponseTooLargeError),
    ("web page", GET, b"<html>Sign in</html>", UnexpectedResponseError),
    ("another task", GET, {**RUN, "task_id": "8"}, UnexpectedResponseError),
    ("no task", GET, {"status": "running"}, UnexpectedResponseError),
    ("odd item of a list", LIST, {"items": [None]}, UnexpectedResponseError),
)
def test_what_a_shared_process_cannot_read_is_an_error(call, body, error):
    with pytest.raises(error):
        read(call, body)
