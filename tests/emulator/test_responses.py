"""What responses contain: tasks and runs, outputs and files, lists, workflows, templates and bots."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from airflow_provider_browseract.emulator import (
    CONTACTS,
    EXPORT,
    HUMAN,
    SEARCH,
    TEMPLATE_SEARCH,
    EmulatedFile,
    EmulatedWorkflow,
    Output,
)
from airflow_provider_browseract.emulator.catalogue import contact_of, results_for
from tests.cases import cases
from tests.catalogue import DOWNLOAD, FAILING, PLAIN_TEXT, PRICES, TEMPLATE_EXPORT, UNPUBLISHED

PAPER, COMPANY = {"keyword": "paper"}, {"company_name": "Example Corp"}
PRODUCTS = {"products": ["paper"], "country": "DE", "price": {"max": 9.5}, "in_stock": True}
VALUES: list[Any] = [0, False, "007", '{"a": 1}', [], {}, 1.5]


def test_finished_task_has_all_fields_that_apply(account):
    account.emulator.url = "http://emulator"
    task = account.finished(SEARCH, {"keyword": "紙 & Füße = 100%", "max_items": "3"})
    steps, profile_id = task.pop("steps"), task.pop("profile_id")
    assert (len(steps), len(profile_id)) == (4, 17)
    assert json.loads(task.pop("output")["string"]) == results_for("紙 & Füße = 100%", 3)
    assert task == {
        "id": task["id"],
        "status": "finished",
        "workflow_id": SEARCH.id,
        "input_parameters": "keyword=紙 & Füße = 100%; max_items=3",
        "created_at": "2026-05-28T20:26:40Z",
        "finished_at": "2026-05-28T20:26:42Z",
        "credit": 20,
        "log_detail_url": f"http://emulator/logs/{task['id']}",
    }


def test_new_run_has_only_the_fields_that_apply(account):
    account.emulator.set_workflow(CONTACTS.id, queued=1.0)
    created = account.call("create-run", bot_id=CONTACTS.id, input=COMPANY)
    task_id = created["task_id"]
    assert created == {"task_id": task_id, "status": "created"}
    assert account.call("query-run", task_id=task_id) == {
        "task_id": task_id,
        "bot_id": CONTACTS.id,
        "bot_type": "agent",
        "bot_name": CONTACTS.name,
        "status": "created",
        "created_at": "2026-05-28T20:26:40Z",
        "input": COMPANY,
        "credit": 0,
        "log_detail_url": f"http://browseract.invalid/logs/{task_id}",
    }


@pytest.mark.parametrize("version", ["v2", "v3"])
def test_live_view_exists_only_while_a_task_is_running_or_paused(account, version):
    account.emulator.set_workflow(HUMAN.id, queued=1.0, pause_limit=1.0)
    start, endpoint = (account.run, "get-task") if version == "v2" else (account.run_bot, "query-run")
    task_id, seen = start(HUMAN), []
    for _ in range(5):
        task = account.call(endpoint, task_id=task_id)
        seen.append((task["status"], "live_url_info" in task, "output" in task, "finished_at" in task))
        account.pass_time(1)
    assert seen == [
        ("created", False, False, False),
        *((status, True, False, False) for status in ("running", "paused", "running")),
        ("finished", False, True, True),
    ]


def test_listed_task_has_no_steps_download_files_or_log_link(account):
    missing = {"steps", "download_files", "files_expires_at", "log_detail_url"}
    task = account.finished(DOWNLOAD, PAPER)
    [listed] = account.call("list-tasks")["items"]
    assert missing <= task.keys()
    assert listed == {name: value for name, value in task.items() if name not in missing}
    run = account.finished_bot(CONTACTS, COMPANY)
    [listed] = account.call("page-runs")["items"]
    missing |= {"output", "output_files"}
    assert listed == {name: value for name, value in run.items() if name not in missing}


def test_shared_runs_are_known_and_listed_by_both_versions(make_account):
    account = make_account(shared_runs=True)
    bot, workflow = account.run_bot(PRICES, PRODUCTS), account.run(SEARCH, PAPER)
    account.pass_time(2)
    task, run = account.task(bot), account.call("query-run", task_id=workflow)
    assert task["workflow_id"] == PRICES.id
    assert task["input_parameters"] == 'products=["paper"]; country=DE; price={"max": 9.5}; in_stock=true'
    assert json.loads(task["output"]["string"]) == account.call("query-run", task_id=bot)["output"]
    assert (run["bot_id"], run["input"], run["output"]) == (SEARCH.id, PAPER, results_for("paper"))
    assert [each["task_id"] for each in account.call("page-runs")["items"]] == [bot, workflow]
    assert [each["id"] for each in account.call("list-tasks", limit=9)["items"]] == [workflow, bot]


def test_each_version_knows_and_lists_only_its_own_runs(account):
    bot, workflow = account.run_bot(SEARCH, PAPER), account.run(SEARCH, PAPER)
    for endpoint in ("get-task", "get-task-status", "stop-task", "resume-task"):
        assert account.code(endpoint, task_id=bot) == 10112
    for endpoint in ("query-run", "query-run-status", "cancel-run", "resume-run"):
        assert account.code(endpoint, task_id=workflow) == 10112
    assert [each["task_id"] for each in account.call("page-runs")["items"]] == [bot]
    assert [each["id"] for each in account.call("list-tasks", limit=9)["items"]] == [workflow]


def test_task_of_a_template_belongs_to_a_workflow_that_nobody_knows_and_has_no_profile(account):
    items = [{"name": "keyword", "value": "paper"}]
    given = {"workflow_template_id": TEMPLATE_SEARCH.id, "input_parameters": items}
    tasks = [account.call("run-task-by-template", **given, **more)["id"] for more in ({}, {"proxyRegion": "JP"})]
    found = [account.task(task_id) for task_id in tasks]
    assert len({TEMPLATE_SEARCH.id, *(task["workflow_id"] for task in found)}) == 3
    assert "profile_id" not in found[0]
    assert [(run.workflow_id, run.proxy_region) for run in account.emulator.tasks] == [
        (TEMPLATE_SEARCH.id, "US"),
        (TEMPLATE_SEARCH.id, "JP"),
    ]
    assert account.code("get-workflow", workflow_id=found[0]["workflow_id"]) == 10111


def test_run_of_a_template_has_neither_a_bot_id_nor_a_name_and_is_not_found_by_them(account):
    given = {"template_id": TEMPLATE_SEARCH.id, "input": PAPER, "proxy_region": "DE"}
    task_id = account.call("create-template-run", **given)["task_id"]
    for run in (account.call("query-run", task_id=task_id), account.call("page-runs")["items"][0]):
        assert run.keys().isdisjoint({"bot_id", "bot_name"})
        assert (run["bot_type"], run["input"]) == ("workflow", PAPER)
    assert [(run.workflow_id, run.proxy_region) for run in account.emulator.tasks] == [(TEMPLATE_SEARCH.id, "DE")]
    for query in ({"bot_id": TEMPLATE_SEARCH.id}, {"bot_name": "search"}):
        assert account.call("page-runs", **query)["total_count"] == 0


def test_failed_run_has_the_reason_and_no_output(account):
    run = account.finished_bot(FAILING)
    assert (run["status"], run["task_failure_info"]["code"]) == ("failed", 1011)
    assert run.keys().isdisjoint({"output", "output_files"})


class TestOutputs:
    @cases(
        ("workflow", "output", "shown"),
        {
            "text": (PLAIN_TEXT, "12", "12"),
            "JSON text": (PLAIN_TEXT, "[1, 2]", [1, 2]),
            "nested too deep": (PLAIN_TEXT, "[" * 100_000, "[" * 100_000),
            **{json.dumps(value): (CONTACTS, value, value) for value in VALUES},
        },
    )
    def test_output_of_a_bot_is_a_value(self, account, workflow, output, shown):
        run = account.finished_bot(workflow, COMPANY if workflow is CONTACTS else {}, output=output, files=())
        assert (run["output"], type(run["output"])) == (shown, type(shown))
        assert account.emulator.tasks[0].output == (output if isinstance(output, str) else json.dumps(output))

    def test_run_without_output_has_no_such_field(self, account):
        run = account.finished_bot(CONTACTS, COMPANY, behaviour=lambda _: Output())
        assert run["status"] == "finished"
        assert run.keys().isdisjoint({"output", "output_files", "download_files"})

    def test_exported_file_is_an_address_and_on_v3_an_object_by_its_format(self, account):
        task = account.finished(EXPORT, PAPER)
        [link] = task["output"]["files"]
        assert (task["output"]["string"], "download_files" in task) == ("", False)
        content = account.emulator.handle("GET", link.removeprefix(account.emulator.url).partition("?")[0]).body
        assert content.startswith(b"\xef\xbb\xbfrank,title,price,url\r\n")
        assert content.count(b"\n") == 11
        files = tuple(EmulatedFile(name, b"a") for name in ("README", "a b.txt"))
        run = account.finished_bot(EXPORT, PAPER, files=(*files, EmulatedFile("c.md", b"", prepared_after=9)))
        named = {name: each["file_name"] for name, each in run["output_files"].items()}
        assert named == {"README": "README", "txt": "a b.txt"}
        assert "/a%20b.txt?" in run["output_files"]["txt"]["download_url"]
        assert "output" not in run

    def test_downloads_have_their_fields_in_snake_case_on_v3(self, account):
        [file] = account.finished(DOWNLOAD, PAPER)["download_files"]
        run = account.finished_bot(DOWNLOAD, PAPER)
        [of_v3] = run["download_files"]
        assert file.keys() >= {
            "guid",
            "fileName",
            "downloadStartTime",
            "downloadUrl",
            "downloadCompletedTime",
            "expiresAt",
        }
        assert [name.replace("_", "") for name in of_v3] == [name.lower() for name in file]
        assert (run["files_expires_at"], of_v3["file_size"]) == (of_v3["expires_at"], file["fileSize"])

    @pytest.mark.parametrize("workflow", [EXPORT, DOWNLOAD], ids=["output file", "download"])
    def test_expired_file_link_is_replaced_by_a_new_one(self, account, workflow):
        def link():
            task = account.task(task_id)
            found = task["output"]["files"] or [task["download_files"][0]["downloadUrl"]]
            return found[0].removeprefix(account.emulator.url).partition("?")[0]

        task_id = account.finished(workflow, PAPER, file_lifetime=60.0)["id"]
        old = link()
        account.pass_time(59)
        assert (link(), account.emulator.handle("GET", old).status) == (old, 200)
        account.pass_time(1)
        assert account.emulator.handle("GET", old).status == 403
        new = link()
        statuses = [account.emulator.handle("GET", each).status for each in (old, new, f"{new}x", "/files/guessed/a")]
        assert statuses == [403, 200, 403, 403]

    @pytest.mark.parametrize("given", [COMPANY, {**COMPANY, "max_pages": 1}], ids=json.dumps)
    def test_contact_conforms_to_its_schema_and_has_files_in_four_formats(self, account, given):
        run = account.finished_bot(CONTACTS, given)
        jsonschema.validate(run["output"], account.call("query-bot", bot_id=CONTACTS.id)["output_schema"])
        assert run["output"] == contact_of("Example Corp", given.get("max_pages", 3))
        assert list(run["output_files"]) == ["json", "md", "csv", "xml"]


class TestLists:
    @pytest.mark.parametrize(("endpoint", "limit"), [("list-workflows", 1), ("page-bots", 20), ("page-templates", 10)])
    def test_page_has_the_default_of_its_version(self, account, endpoint, limit):
        page = account.call(endpoint)
        assert (page["page"], page["limit"]) == (1, limit)
        assert len(page["items"]) == min(limit, page["total_count"])

    def test_pages_list_every_run_once_newest_first_or_on_v3_oldest_first(self, make_account):
        account = make_account(concurrency=10)
        assert account.call("list-tasks") == {"page": 1, "limit": 1, "items": [], "total_pages": 0, "total_count": 0}
        tasks, runs = ([start(PLAIN_TEXT) for _ in range(5)] for start in (account.run, account.run_bot))
        for endpoint, key, ids in (("list-tasks", "id", tasks[::-1]), ("page-runs", "task_id", runs)):
            pages = [account.call(endpoint, limit=2, page=page) for page in (1, 2, 3, 4)]
            assert [item[key] for page in pages for item in page["items"]] == ids
            assert [len(page["items"]) for page in pages] == [2, 2, 1, 0]
            assert {(page["total_pages"], page["total_count"]) for page in pages} == {(3, 5)}

    @cases(
        ("query", "found"),
        {
            "status": ({"status": "finished"}, "ab"),
            "another status": ({"status": "pausing"}, ""),
            "id": ({"workflow_id": SEARCH.id}, "a"),
            "unknown id": ({"workflow_id": "1"}, ""),
            "name": ({"workflow_name": "sEaRc"}, "a"),
            "name and status": ({"workflow_name": "A page", "status": "running"}, "c"),
            "from": ({"created_at_from": "2026-05-28T20:26:42Z"}, "c"),
            "from in another zone": ({"created_at_from": "2026-05-28T22:26:42+02:00"}, "c"),
            "from a moment later": ({"created_at_from": "2026-05-28T20:26:42.001Z"}, ""),
            "to": ({"created_at_to": "2026-05-28T20:26:40Z"}, "ab"),
            "both": ({"created_at_from": "2026-05-28T20:26:40Z", "created_at_to": "2026-05-28T20:26:42Z"}, "abc"),
        },
    )
    @pytest.mark.parametrize("version", ["v2", "v3"])
    def test_runs_are_found(self, account, version, query, found):
        start = account.run if version == "v2" else account.run_bot
        runs = {"a": start(SEARCH, PAPER), "b": start(PLAIN_TEXT)}
        account.pass_time(2)
        runs["c"] = start(PLAIN_TEXT)
        if version == "v3":
            query = {name.replace("workflow", "bot"): value for name, value in query.items()}
        items = account.call("list-tasks" if version == "v2" else "page-runs", limit=9, **query)["items"]
        assert {each.get("id") or each["task_id"] for each in items} == {runs[name] for name in found}


class TestCatalogue:
    def test_workflow_has_its_inputs_and_as_a_bot_a_schema_that_is_made_of_them(self, account):
        assert account.call("get-workflow", workflow_id=SEARCH.id) == {
            "id": SEARCH.id,
            "name": "Search",
            "description": SEARCH.description,
            "create_at": SEARCH.created_at,
            "publish_at": SEARCH.published_at,
            "input_parameters": [
                {"name": "keyword", "default_enabled": False},
                {"name": "max_items", "default_enabled": True},
            ],
        }
        bot = account.call("query-bot", bot_id=SEARCH.id)
        assert (bot["bot_type"], bot["output_schema"]) == ("workflow", None)
        assert bot["input_schema"] == {
            "type": "object",
            "properties": {"keyword": {"type": "string"}, "max_items": {"type": "string"}},
            "required": ["keyword"],
            "additionalProperties": False,
        }
        assert account.call("query-template", template_id=TEMPLATE_SEARCH.id)["input_schema"] == bot["input_schema"]

    def test_unpublished_workflow_has_no_date_no_schema_and_is_no_listed_bot(self, account):
        assert "publish_at" not in account.call("get-workflow", workflow_id=UNPUBLISHED.id)
        bot = account.call("query-bot", bot_id=UNPUBLISHED.id)
        assert (bot["published_at"], bot["input_schema"], bot["output_schema"]) == (None, None, None)
        assert UNPUBLISHED.id not in {each["bot_id"] for each in account.call("page-bots", limit=100)["items"]}

    def test_bots_are_found_by_type_and_name_and_those_of_v3_only_are_unknown_to_v2(self, account):
        def found(**query):
            return {bot["bot_id"] for bot in account.call("page-bots", limit=100, **query)["items"]}

        workflows, bots = ({each.id for each in account.emulator.of_kind(kind)} for kind in ("workflow", "bot"))
        assert (found(bot_type="agent"), found(bot_type="workflow")) == (bots, workflows - {UNPUBLISHED.id})
        assert (found(keyword="CONTACT"), found(keyword="contact", bot_type="workflow")) == ({CONTACTS.id}, set())
        assert {each["id"] for each in account.call("list-workflows", limit=500)["items"]} == workflows

    def test_templates_are_found_by_name_and_on_v2_by_description(self, account):
        def found(endpoint, **query):
            return [each["name"] for each in account.call(endpoint, limit=9, **query)["items"]]

        assert found("list-official-workflow-templates") == ["Product export", "Page summary", "Product search"]
        assert found("list-official-workflow-templates", keyword="SENTENCE") == ["Page summary"]
        assert found("page-templates", keyword="EXPORT") == [TEMPLATE_EXPORT.name]
        assert found("page-templates", keyword="sentence") == []
        template = account.call("get-official-workflow-template", workflow_template_id=TEMPLATE_SEARCH.id)
        assert (template["recommendDesc"], len(template["input_parameters"])) == (TEMPLATE_SEARCH.description, 2)

    def test_regions_are_a_plain_list(self, account):
        for endpoint in ("get-region-list", "list-regions"):
            assert [region["code"] for region in account.call(endpoint)] == ["US", "UK", "DE", "JP"]

    def test_schemas_are_valid(self, account):
        for workflow in account.emulator.workflows.values():
            for schema in (workflow.schema, workflow.output_schema or {}):
                jsonschema.Draft202012Validator.check_schema(schema)

    def test_workflow_and_bot_of_ones_own_can_be_added_and_changed(self, account):
        workflow = EmulatedWorkflow(id="81002814653029411", name="Mine", output="mine")
        bot = EmulatedWorkflow(kind="bot", id="1", name="Mine", output={"a": 1})
        for each in (workflow, bot):
            account.emulator.add_workflow(each)
        account.emulator.set_workflow("1", output_schema={"type": "object"})
        assert account.finished(workflow)["output"]["string"] == "mine"
        assert account.finished_bot(bot)["output"] == {"a": 1}
        assert account.call("query-bot", bot_id="1")["output_schema"] == {"type": "object"}
        account.emulator.set_workflow("*", queued=7.0)
        assert {workflow.queued for workflow in account.emulator.workflows.values()} == {7.0}
