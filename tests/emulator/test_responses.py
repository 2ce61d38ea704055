import json

import pytest

from airflow_provider_browseract.emulator import CONTACTS, EXPORT, SEARCH, TEMPLATE_SEARCH, EmulatedFile
from airflow_provider_browseract.emulator.catalogue import results_for
from tests.helpers.cases import cases
from tests.helpers.catalogue import DOWNLOAD, PLAIN_TEXT, PRICES, UNPUBLISHED

from .conftest import Account

PAPER, COMPANY = {"keyword": "paper"}, {"company_name": "Example Corp"}
PRODUCTS = {"products": ["paper"], "country": "DE", "price": {"max": 9.5}, "in_stock": True}


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


def test_listed_task_has_no_steps_download_files_or_log_link(account):
    less = {"steps", "download_files", "files_expires_at", "log_detail_url"}
    task, run = account.finished(DOWNLOAD, PAPER), account.finished(CONTACTS, COMPANY, as_bot=True)
    assert less <= task.keys()
    less_on_v3 = less | {"output", "output_files"}
    for endpoint, whole, left_out in (("list-tasks", task, less), ("page-runs", run, less_on_v3)):
        assert account.call(endpoint)["items"] == [{name: whole[name] for name in whole.keys() - left_out}]


@pytest.mark.parametrize("shared", [True, False])
def test_each_version_knows_and_lists_its_own_runs_and_those_of_the_other_if_they_are_shared(shared):
    account = Account(shared_runs=shared)
    bot, workflow = account.run_bot(PRICES, PRODUCTS), account.run(SEARCH, PAPER)
    account.pass_time(2)
    tasks, runs = account.call("list-tasks", limit=9)["items"], account.call("page-runs")["items"]
    assert [each["id"] for each in tasks] == ([workflow, bot] if shared else [workflow])
    assert [each["task_id"] for each in runs] == ([bot, workflow] if shared else [bot])
    if not shared:
        assert {account.code(name, task_id=bot) for name in ("get-task", "stop-task", "resume-task")} == {10112}
        assert {account.code(name, task_id=workflow) for name in ("query-run", "cancel-run", "resume-run")} == {10112}
        return
    task, run = account.task(bot), account.bot_run(workflow)
    assert task["workflow_id"] == PRICES.id
    assert task["input_parameters"] == 'products=["paper"]; country=DE; price={"max": 9.5}; in_stock=true'
    assert json.loads(task["output"]["string"]) == account.bot_run(bot)["output"]
    assert (run["bot_id"], run["input"], run["output"]) == (SEARCH.id, PAPER, results_for("paper"))


def test_run_of_a_template_belongs_to_nothing_that_can_be_found_and_has_no_profile(account):
    given = {"workflow_template_id": TEMPLATE_SEARCH.id, "input_parameters": [{"name": "keyword", "value": "paper"}]}
    for more in ({}, {"proxyRegion": "JP"}):
        account.call("run-task-by-template", **given, **more)
    account.call("create-template-run", template_id=TEMPLATE_SEARCH.id, input=PAPER, proxy_region="DE")
    runs = account.emulator.tasks
    assert [run.proxy_region for run in runs] == ["US", "JP", "DE"]
    first, second = (account.task(run.id) for run in runs[:2])
    assert len({TEMPLATE_SEARCH.id, first["workflow_id"], second["workflow_id"]}) == 3
    assert account.code("get-workflow", workflow_id=first["workflow_id"]) == 10111
    assert {"profile_id", "bot_id", "bot_name"}.isdisjoint(first.keys() | account.bot_run(runs[2].id).keys())
    for query in ({"bot_id": TEMPLATE_SEARCH.id}, {"bot_name": "search"}):
        assert account.call("page-runs", **query)["total_count"] == 0


class TestOutputs:
    @cases(
        ("text", PLAIN_TEXT, "12", "12"),
        ("JSON text", PLAIN_TEXT, "[1, 2]", [1, 2]),
        ("nested too deep", PLAIN_TEXT, "[" * 100_000, "[" * 100_000),
        *((json.dumps(one), CONTACTS, one, one) for one in json.loads('[0, false, "007", "[1]", [], {}, 1.5]')),
    )
    def test_output_of_a_bot_is_a_value(self, account, workflow, output, shown):
        run = account.finished(workflow, COMPANY if workflow is CONTACTS else {}, output=output, files=(), as_bot=True)
        assert (run["output"], type(run["output"])) == (shown, type(shown))
        assert account.emulator.tasks[0].output == (output if isinstance(output, str) else json.dumps(output))

    def test_exported_file_is_an_address_and_on_v3_an_object_by_its_format(self, account):
        output = account.finished(EXPORT, PAPER)["output"]
        [link] = output["files"]
        assert output["string"] == ""
        file = account.get(link)
        assert (file.content_type, file.headers) == ("text/csv", {"Content-Disposition": "attachment"})
        assert file.body.startswith(b"\xef\xbb\xbfrank,title,price,url\r\n")
        late = EmulatedFile("c.md", b"", prepared_after=9)
        files = (EmulatedFile("README", b"a"), EmulatedFile("a b.txt", b"a"), late)
        run = account.finished(EXPORT, PAPER, files=files, as_bot=True)
        named = {name: each["file_name"] for name, each in run["output_files"].items()}
        assert named == {"README": "README", "txt": "a b.txt"}
        assert "/a%20b.txt?" in run["output_files"]["txt"]["download_url"]
        assert "output" not in run

    @cases(("output file", EXPORT), ("download", DOWNLOAD))
    def test_expired_file_link_is_replaced_by_a_new_one(self, account, workflow):
        def link():
            task = account.task(task_id)
            return (task["output"]["files"] or [task["download_files"][0]["downloadUrl"]])[0].partition("?")[0]

        task_id = account.finished(workflow, PAPER, file_lifetime=60.0)["id"]
        old = link()
        account.pass_time(59)
        assert (link(), account.get(old).status) == (old, 200)
        account.pass_time(1)
        assert account.get(old).status == 403
        new = link()
        assert [account.get(each).status for each in (old, new, f"{new}x", "/files/guessed/a")] == [403, 200, 403, 403]

    def test_file_can_still_be_in_preparation_when_its_run_has_ended(self, account):
        late = (EmulatedFile("a.txt", b"A", prepared_after=30.0), EmulatedFile("b.txt", b"", broken="gone"))
        task = account.finished(DOWNLOAD, PAPER, files=late, downloads=late)
        waiting, broken = task["download_files"]
        assert (task["output"]["files"], waiting["status"], broken["errorMessage"]) == ([], "uploading", "gone")
        assert "downloadUrl" not in waiting
        account.pass_time(30)
        task = account.task(task["id"])
        assert (len(task["output"]["files"]), "downloadUrl" in task["download_files"][0]) == (1, True)


class TestLists:
    def test_pages_list_every_run_once_newest_first_or_on_v3_oldest_first(self):
        account = Account(concurrency=10)
        assert account.call("list-tasks") == {"page": 1, "limit": 1, "items": [], "total_pages": 0, "total_count": 0}
        tasks, runs = ([start(PLAIN_TEXT) for _ in range(5)] for start in (account.run, account.run_bot))
        for endpoint, key, ids in (("list-tasks", "id", tasks[::-1]), ("page-runs", "task_id", runs)):
            pages = [account.call(endpoint, limit=2, page=page) for page in (1, 2, 3, 4)]
            assert [[item[key] for item in page["items"]] for page in pages] == [ids[:2], ids[2:4], ids[4:], []]
            assert {(page["total_pages"], page["total_count"]) for page in pages} == {(3, 5)}

    @cases(
        ("status", {"status": "finished"}, "ab"),
        ("another status", {"status": "pausing"}, ""),
        ("id", {"workflow_id": SEARCH.id}, "a"),
        ("name and status", {"workflow_name": "A page", "status": "running"}, "c"),
        ("from in another zone", {"created_at_from": "2026-05-28T22:26:42+02:00"}, "c"),
        ("to", {"created_at_to": "2026-05-28T20:26:40Z"}, "ab"),
    )
    @pytest.mark.parametrize("version", ["v2", "v3"])
    def test_runs_are_found(self, account, version, query, found):
        start, endpoint = (account.run, "list-tasks") if version == "v2" else (account.run_bot, "page-runs")
        runs = {"a": start(SEARCH, PAPER), "b": start(PLAIN_TEXT)}
        account.pass_time(2)
        runs["c"] = start(PLAIN_TEXT)
        if version == "v3":
            query = {name.replace("workflow", "bot"): value for name, value in query.items()}
        items = account.call(endpoint, limit=9, **query)["items"]
        assert {each.get("id") or each["task_id"] for each in items} == {runs[name] for name in found}


class TestCatalogue:
    def test_only_a_published_workflow_has_a_date_and_a_schema_and_is_a_listed_bot(self, account):
        workflow = account.call("get-workflow", workflow_id=SEARCH.id)
        inputs = [{"name": "keyword", "default_enabled": False}, {"name": "max_items", "default_enabled": True}]
        assert (workflow["publish_at"], workflow["input_parameters"]) == (SEARCH.published_at, inputs)
        bot, text = account.call("query-bot", bot_id=SEARCH.id), {"type": "string"}
        schema = {"type": "object", "properties": {"keyword": text, "max_items": text}, "required": ["keyword"]}
        assert (bot["bot_type"], bot["input_schema"]) == ("workflow", {**schema, "additionalProperties": False})
        assert "publish_at" not in account.call("get-workflow", workflow_id=UNPUBLISHED.id)
        bot = account.call("query-bot", bot_id=UNPUBLISHED.id)
        assert (bot["published_at"], bot["input_schema"], bot["output_schema"]) == (None, None, None)
        assert UNPUBLISHED.id not in {each["bot_id"] for each in account.call("page-bots", limit=100)["items"]}

    @cases(
        ("agents", "page-bots", {"bot_type": "agent", "keyword": "CONTACT"}, ["Find a contact"]),
        ("workflows", "page-bots", {"bot_type": "workflow", "keyword": "contact"}, []),
        ("templates of v2", "list-official-workflow-templates", {"keyword": "SENTENCE"}, ["Page summary"]),
        ("templates of v3", "page-templates", {"keyword": "EXPORT"}, ["Product export"]),
        ("by no description", "page-templates", {"keyword": "sentence"}, []),
    )
    def test_bots_and_templates_are_found_by_type_and_name_or_v2_description(self, account, endpoint, query, names):
        assert [each["name"] for each in account.call(endpoint, limit=9, **query)["items"]] == names
