from __future__ import annotations

import inspect
from datetime import datetime, timezone
from typing import Any

import pytest

from airflow_provider_browseract.api import v3
from airflow_provider_browseract.api.arguments import InputError
from airflow_provider_browseract.api.errors import PermissionDeniedError, UnexpectedResponseError
from airflow_provider_browseract.api.exchange import Call, Response
from airflow_provider_browseract.api.fields import MAX_LEVELS
from airflow_provider_browseract.api.models import MAX_FILES, ApiVersion, BotType, OutputFile, TaskStatus
from airflow_provider_browseract.emulator.v3 import V3
from tests.cases import cases

CALLBACKS = {"callback_url": "https://example.com/a", "status_change_callback_url": "https://example.com/b"}
MOMENT = datetime(2026, 1, 2, 3, 4, 5, tzinfo=timezone.utc)

EVERY_CALL: dict[str, Call[Any]] = {
    "create-run": v3.create_run("70", {"pages": 2}, **CALLBACKS),
    "create-template-run": v3.create_template_run("60", {"keyword": "pens"}, region="US", **CALLBACKS),
    "query-run-status": v3.query_run_status("7"),
    "query-run": v3.query_run("7"),
    "page-runs": v3.page_runs(
        bot_id="70", bot_name="shop", status=TaskStatus.FAILED, created_at_from=MOMENT, created_at_to=MOMENT
    ),
    "resume-run": v3.resume_run("7"),
    "cancel-run": v3.cancel_run("7", biz_code=1),
    "page-bots": v3.page_bots(bot_type="agent", keyword="shop"),
    "query-bot": v3.query_bot("70"),
    "page-templates": v3.page_templates(keyword="maps"),
    "query-template": v3.query_template("60"),
    "list-regions": v3.list_regions(),
}

RUN = {"task_id": "7", "bot_id": "70", "bot_type": "agent", "status": "finished", "input": {"pages": 2}}
OUTSIDE = {
    "parent folder": "..",
    "two segments": "a/b",
    "query": "5?x=1#",
    "escaped": "%2e%2e",
    "empty": "",
    "long": "7" * 201,
}


def read(**fields):
    return v3.query_run("7").read({**RUN, **fields})


def test_every_public_function_is_an_operation():
    functions = inspect.getmembers(v3, lambda each: inspect.isfunction(each) and each.__module__ == v3.__name__)
    assert {name for name, _ in functions if name[0] != "_"} == {name.replace("-", "_") for name in EVERY_CALL}


@pytest.mark.parametrize(("name", "call"), EVERY_CALL.items(), ids=EVERY_CALL)
def test_each_call_has_the_name_method_and_path_of_its_endpoint(name, call):
    path = V3.endpoints[name].path.format(bot_id="70", template_id="60", task_id="7")
    assert (call.name, call.method, call.path) == (name, V3.endpoints[name].method, path)


def test_only_create_run_and_create_template_run_start_a_run():
    assert {name for name, call in EVERY_CALL.items() if call.starts_run} == {"create-run", "create-template-run"}


def test_refusal_for_lack_of_a_right_names_the_bot():
    with pytest.raises(PermissionDeniedError, match="of the account that owns the bot into the API key"):
        v3.create_run("70").read_response(Response(400, {}, b'{"code": 99002, "msg": "No"}'))


@cases("given", OUTSIDE)
def test_id_that_could_change_the_address_is_refused_by_every_call(given):
    for call in (
        lambda: v3.create_run(given),
        lambda: v3.create_template_run(given),
        lambda: v3.query_run_status(given),
        lambda: v3.query_run(given),
        lambda: v3.page_runs(bot_id=given),
        lambda: v3.resume_run(given),
        lambda: v3.cancel_run(given),
        lambda: v3.query_bot(given),
        lambda: v3.query_template(given),
    ):
        with pytest.raises(InputError, match="Use the id that the BrowserAct dashboard"):
            call()


@pytest.mark.parametrize("word", ["runs", "templates", "regions"])
def test_bot_id_that_is_the_address_of_another_endpoint_is_refused(word):
    with pytest.raises(InputError, match="which is no id"):
        v3.query_bot(word)


@cases("given", {name: value for name, value in OUTSIDE.items() if value and len(value) < 200})
def test_task_id_in_a_response_that_could_change_later_addresses_is_refused(given):
    with pytest.raises(UnexpectedResponseError, match="characters that no address"):
        v3.create_run("70").read({"task_id": given, "status": "created"})


def test_response_to_a_start_may_name_the_task_as_the_vendors_scripts_do():
    assert v3.create_run("70").read({"id": "7"}).id == "7"


def test_input_is_sent_as_it_is_and_an_empty_object_without_one():
    assert v3.create_run("70", {"pages": 2, "when": None}).body == {"input": {"pages": 2, "when": None}}
    assert v3.create_template_run("60", region="DE").body == {"input": {}, "proxy_region": "DE"}


def test_input_is_in_no_repr():
    assert "s3cret" not in repr(v3.create_run("70", {"note": "s3cret"})) + repr(read(input={"note": "s3cret"}))


def test_status_unknown_is_never_sent():
    with pytest.raises(InputError, match="which version 3 of the API does not have"):
        v3.page_runs(status="unknown")


def test_run_is_read_as_a_task_of_version_3():
    task = read(bot_name="Contacts", live_url_info={"live_url": "https://live.example/7"})
    assert (task.id, task.source_id, task.bot_name, task.bot_type) == ("7", "70", "Contacts", BotType.AGENT)
    assert (task.api_version, task.input, task.workflow_id) == (ApiVersion.V3, {"pages": 2}, None)


@cases(
    ("output", "string", "is_json"),
    {
        "object": ({"a": [1, None, "\u00fc"]}, '{"a": [1, null, "\u00fc"]}', True),
        "number": (12, "12", True),
        "false": (False, "false", True),
        "text": ("007", "007", False),
    },
)
def test_output_is_the_text_or_the_json_text_of_the_value(output, string, is_json):
    found = read(output=output).output
    assert (found.string, found.is_json, found.formats) == (string, is_json, ())


@pytest.mark.parametrize("fields", [{}, {"output": None}])
def test_run_without_a_value_has_no_output(fields):
    assert read(**fields).output is None


def test_formats_of_the_output_are_files_whose_addresses_are_in_no_repr():
    file = {"file_name": "result.csv", "file_size": 9, "download_url": "https://files.example/s3cret"}
    found = read(output=None, output_files={"csv": file}).output
    assert found.formats == (OutputFile("csv", "result.csv", 9, "https://files.example/s3cret"),)
    assert (found.string, found.is_json) == (None, None)
    assert "s3cret" not in repr(found)


@cases(
    "files",
    {
        "list": [],
        "no address": {"csv": {"file_name": "a"}},
        "empty address": {"csv": {"download_url": ""}},
        "number as address": {"csv": {"download_url": 7}},
        "no object": {"csv": 1},
    },
)
def test_unreadable_files_of_an_ended_run_are_an_error_because_a_paid_result_would_be_lost(files):
    with pytest.raises(UnexpectedResponseError):
        read(output=None, output_files=files)
    assert read(output=None, output_files=files, status="running").output is None


@pytest.mark.parametrize(
    "file", [{"file_name": "result.csv", "download_url": None}, 1], ids=["no address", "no object"]
)
def test_file_without_an_address_does_not_hide_the_value_of_the_output(file):
    found = read(output=[1], output_files={"csv": file}).output
    assert (found.string, [(each.format, each.url) for each in found.formats]) == ("[1]", [("csv", None)])


@pytest.mark.parametrize(
    "call", [v3.query_run("8"), v3.query_run_status("8"), v3.cancel_run("8"), v3.resume_run("8")], ids=lambda c: c.name
)
def test_response_about_another_task_is_refused(call):
    with pytest.raises(UnexpectedResponseError, match="about another task"):
        call.read(RUN)


@pytest.mark.parametrize(
    "call", [v3.query_run_status("7"), v3.cancel_run("7"), v3.resume_run("7")], ids=lambda c: c.name
)
def test_status_without_a_task_is_refused_because_it_may_be_that_of_a_gateway(call):
    with pytest.raises(UnexpectedResponseError, match="does not name the task"):
        call.read({"status": "failed", "message": "upstream"})


def test_task_id_may_be_sent_as_a_number():
    number = {**RUN, "task_id": 7}
    assert (v3.query_run("7").read(number).id, v3.query_run_status("7").read(number)) == ("7", "finished")


@cases(
    "response",
    {"status": {"task_id": "7", "status": "canceled"}, "empty": None, "no fields": {}, "code 0": {"code": 0}},
)
def test_stop_and_resume_accept_a_status_or_nothing(response):
    assert v3.cancel_run("7").read(response) is None
    assert v3.resume_run("7").read(response) is None


@cases("response", {"unknown status": {"status": "gone"}, "text": "ok", "other object": {"done": True}})
def test_stop_and_resume_refuse_anything_else(response):
    with pytest.raises(UnexpectedResponseError):
        v3.cancel_run("7").read(response)


def test_run_without_an_id_does_not_hide_the_others_of_a_list():
    page = v3.page_runs().read({"items": [{**RUN, "status": "running"}, {"status": "running"}], "total_count": 2})
    assert [(task.id, task.status) for task in page.items] == [("7", TaskStatus.RUNNING)]
    assert len(page.skipped) == 1


def test_input_that_is_nested_too_deeply_to_be_compared_is_left_out():
    def nested(levels):
        value: Any = 1
        for _ in range(levels):
            value = {"a": [value]}
        return value

    deepest = nested(MAX_LEVELS // 2)
    assert read(input=deepest).input == deepest
    assert read(input={"a": deepest}).input is None
    assert read(input=[1]).input is None


def test_fields_that_only_version_2_has_are_not_read():
    task = read(workflow_id="70", profile_id="5", profileId="5", input_parameters="a=1")
    assert (task.workflow_id, task.profile_id, task.input_parameters) == (None, None, None)


def test_only_a_limited_number_of_formats_is_read():
    files = {str(number): {"file_name": "a", "download_url": "https://files.example/a"} for number in range(1002)}
    task = read(output_files=files)
    assert task.output is not None
    assert (len(task.output.formats), task.files_left_out) == (MAX_FILES, 2)


def test_runs_and_bots_can_be_kept_in_sets():
    schema = {"input_schema": {"type": "object"}, "output_schema": {}}
    bots = [v3.query_bot("70").read({"bot_id": "70", "name": name, **schema}) for name in "aab"]
    templates = [v3.query_template("60").read({"template_id": "60", **schema}) for _ in range(2)]
    assert (len({*bots}), len({*templates})) == (2, 1)
    assert "object" not in repr((bots, templates))
    assert len({read(), read(), read(input={})}) == 2


def test_bot_and_template_have_the_schemas_that_were_sent():
    bot = v3.query_bot("70").read(
        {"bot_id": "70", "bot_type": "new", "name": "A", "input_schema": [], "output_schema": None}
    )
    assert (bot.id, bot.type, bot.input_schema, bot.output_schema) == ("70", None, [], None)
    assert v3.query_template("60").read({"template_id": "60", "input_schema": {}}).input_schema == {}
