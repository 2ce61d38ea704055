"""API v3: bots of both types, their input and output, and how their runs differ from those of API v2."""

from __future__ import annotations

import json
from typing import Any

import httpx
import jsonschema
import pytest

from airflow_provider_browseract.emulator import (
    AGENT_HUMAN,
    CONTACTS,
    DOWNLOAD,
    EXPORT,
    FAILING,
    HUMAN,
    LOG_IN,
    NOT_READY,
    PLAIN_TEXT,
    PRICES,
    SEARCH,
    TEMPLATE_EXPORT,
    TEMPLATE_SEARCH,
    UNPUBLISHED,
    EmulatedBot,
    EmulatedFile,
    EmulatedTemplate,
    EmulatedWorkflow,
    Output,
    RequestFault,
)
from airflow_provider_browseract.emulator.catalogue import BOTS, TEMPLATES, WORKFLOWS, contact_of, results_for
from airflow_provider_browseract.emulator.errors import ApiError
from airflow_provider_browseract.emulator.v3 import ENDPOINTS

COMPANY = {"company_name": "Example Corp"}
PRODUCTS = {"products": ["paper"], "country": "DE"}


def run_template(account: Any, given: Any = None, **fields: Any) -> str:
    body = {"input": given or {"keyword": "paper"}, **fields}
    return str(account.post("create-template-run", body, template_id=TEMPLATE_SEARCH.id)["task_id"])


def finished(account: Any, bot: Any, given: Any = None, **settings: Any) -> Any:
    """Return the detail of a run that has ended."""
    account.emulator.next_run(bot.id, **settings)
    task_id = account.run_bot(bot, given)
    account.pass_time(2)
    return account.detail(task_id)


class TestRuns:
    def test_new_run_is_created_and_then_runs_for_its_duration(self, account: Any) -> None:
        created = account.post("create-run", {"input": COMPANY}, bot_id=CONTACTS.id)
        assert created == {"task_id": account.emulator.tasks[0].id, "status": "created"}
        seen = []
        for _ in range(3):
            seen.append(account.get("query-run-status", task_id=created["task_id"]))
            account.pass_time(1)
        assert [each["status"] for each in seen] == ["running", "running", "finished"]
        assert {each["task_id"] for each in seen} == {created["task_id"]}

    def test_update_time_changes_with_the_status_and_with_each_step(self, account: Any) -> None:
        account.setting(CONTACTS, duration=30.0, queued=5.0)
        task_id = account.run_bot(CONTACTS, COMPANY)
        began, seen = account.now, []
        for _ in range(9):
            seen.append(account.get("query-run-status", task_id=task_id)["updated_at"][-3:-1])
            account.pass_time(5)
        seconds = [(int(second) - int(began % 60)) % 60 for second in seen]
        assert seconds == [0, 5, 5, 15, 15, 25, 25, 35, 35]

    def test_update_time_of_a_run_that_was_paused_is_not_before_its_resume(self, account: Any) -> None:
        account.setting(HUMAN, duration=30.0)
        task_id = account.run_bot(HUMAN)
        account.pass_time(100)
        paused = account.get("query-run-status", task_id=task_id)["updated_at"]
        account.get("resume-run", task_id=task_id)
        account.pass_time(1)
        resumed = account.get("query-run-status", task_id=task_id)["updated_at"]
        assert (paused[-6:], resumed[-6:]) == ("26:55Z", "28:20Z")

    def test_detail_of_a_new_run_has_only_the_fields_that_apply(self, account: Any) -> None:
        account.setting(CONTACTS, queued=1.0)
        task_id = account.run_bot(CONTACTS, COMPANY)
        assert account.detail(task_id) == {
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

    def test_running_run_has_steps_and_a_live_view_and_an_ended_one_its_end(self, account: Any) -> None:
        task_id = account.run_bot(CONTACTS, COMPANY)
        running = account.detail(task_id)
        assert [step["status"] for step in running["steps"]] == ["running"]
        assert running["live_url_info"]["live_url"].endswith(f"/live/{task_id}")
        assert running.keys().isdisjoint({"finished_at", "output", "output_files"})
        account.pass_time(2)
        ended = account.detail(task_id)
        assert (ended["finished_at"], ended["credit"], len(ended["steps"])) == ("2026-05-28T20:26:42Z", 15, 3)
        assert "live_url_info" not in ended

    def test_failed_run_has_the_reason_and_no_output(self, account: Any) -> None:
        run = finished(account, FAILING)
        assert (run["status"], run["task_failure_info"]["code"]) == ("failed", 1011)
        assert run.keys().isdisjoint({"output", "output_files"})

    def test_run_of_a_template_has_neither_a_bot_id_nor_a_name(self, account: Any) -> None:
        task_id = run_template(account, proxy_region="DE")
        for run in (account.detail(task_id), account.get("page-runs")["items"][0]):
            assert run.keys().isdisjoint({"bot_id", "bot_name"})
            assert (run["bot_type"], run["input"]) == ("workflow", {"keyword": "paper"})
        [record] = account.emulator.tasks
        assert (record.workflow_id, record.from_template, record.proxy_region) == (TEMPLATE_SEARCH.id, True, "DE")

    def test_record_of_a_run_has_its_input_as_it_was_sent_and_its_version(self, account: Any) -> None:
        account.run_bot(PRICES, {**PRODUCTS, "price": {"max": 9.5}, "in_stock": True})
        account.run(SEARCH, {"keyword": "paper"})
        bot, workflow = account.emulator.tasks
        assert dict(bot.inputs) == {**PRODUCTS, "price": {"max": 9.5}, "in_stock": True}
        assert (bot.api_version, bot.workflow_id, workflow.api_version) == ("v3", PRICES.id, "v2")

    def test_runs_of_both_versions_share_the_slots_of_the_plan(self, make_account: Any, code_of: Any) -> None:
        account = make_account(concurrency=2)
        account.run_bot(CONTACTS, COMPANY)
        account.run(PLAIN_TEXT)
        assert code_of(lambda: account.run(PLAIN_TEXT)) == 10118
        assert code_of(lambda: account.run_bot(CONTACTS, COMPANY)) == 10118
        assert code_of(lambda: run_template(account)) == 10118

    def test_each_version_knows_and_lists_only_its_own_runs(self, account: Any, code_of: Any) -> None:
        bot, workflow = account.run_bot(SEARCH, {"keyword": "paper"}), account.run(SEARCH, {"keyword": "paper"})
        for endpoint in ("get-task", "get-task-status", "stop-task", "resume-task"):
            assert code_of(lambda: account.get(endpoint, task_id=bot)) == 10112  # noqa: B023
        for endpoint in ("query-run", "query-run-status", "cancel-run", "resume-run"):
            assert code_of(lambda: account.get(endpoint, task_id=workflow)) == 10112  # noqa: B023
        assert [run["task_id"] for run in account.get("page-runs")["items"]] == [bot]
        assert [task["id"] for task in account.get("list-tasks", limit=9)["items"]] == [workflow]

    def test_shared_runs_are_known_and_listed_by_both_versions(self, make_account: Any) -> None:
        account = make_account(shared_runs=True)
        bot, workflow = account.run_bot(PRICES, PRODUCTS), account.run(SEARCH, {"keyword": "paper"})
        account.pass_time(2)
        task = account.task(bot)
        assert (task["workflow_id"], task["input_parameters"]) == (PRICES.id, 'products=["paper"]; country=DE')
        assert json.loads(task["output"]["string"]) == account.detail(bot)["output"]
        run = account.detail(workflow)
        assert (run["bot_id"], run["input"], run["output"]) == (SEARCH.id, {"keyword": "paper"}, results_for("paper"))
        assert [run["task_id"] for run in account.get("page-runs")["items"]] == [bot, workflow]
        assert [task["id"] for task in account.get("list-tasks", limit=9)["items"]] == [workflow, bot]


class TestStopsAndResumes:
    def test_cancel_ends_a_run_at_once_and_returns_its_status(self, account: Any, code_of: Any) -> None:
        task_id = account.run_bot(CONTACTS, COMPANY)
        canceled = account.get("cancel-run", task_id=task_id, biz_code=7)
        assert canceled == {"task_id": task_id, "status": "canceled", "updated_at": "2026-05-28T20:26:40Z"}
        assert account.emulator.tasks[0].biz_code == 7
        assert code_of(lambda: account.get("cancel-run", task_id=task_id)) == 10121

    def test_cancel_that_takes_effect_later_returns_the_status_before(self, account: Any) -> None:
        account.setting(CONTACTS, stop_after=1.0)
        task_id = account.run_bot(CONTACTS, COMPANY)
        assert account.get("cancel-run", task_id=task_id)["status"] == "running"
        account.pass_time(1)
        assert account.get("query-run-status", task_id=task_id)["status"] == "canceled"

    def test_resumed_run_is_still_paused_in_the_response(self, account: Any, code_of: Any) -> None:
        task_id = account.run_bot(HUMAN)
        assert code_of(lambda: account.get("resume-run", task_id=task_id)) == 10127
        account.pass_time(1)
        assert account.get("resume-run", task_id=task_id)["status"] == "paused"
        assert account.get("query-run-status", task_id=task_id)["status"] == "running"
        account.pass_time(1)
        assert account.detail(task_id)["output"] == {"confirmed": True}

    @pytest.mark.parametrize("seconds", [0, 1, 1000], ids=["running", "paused", "finished"])
    def test_run_of_an_agent_built_bot_cannot_be_resumed(self, account: Any, code_of: Any, seconds: int) -> None:
        task_id = account.run_bot(AGENT_HUMAN)
        account.pass_time(seconds)
        assert code_of(lambda: account.get("resume-run", task_id=task_id)) == 10879

    def test_run_of_an_agent_built_bot_continues_by_itself_after_its_pause(self, account: Any) -> None:
        task_id = account.run_bot(AGENT_HUMAN)
        account.pass_time(1)
        assert account.get("query-run-status", task_id=task_id)["status"] == "paused"
        account.pass_time(601)
        assert account.detail(task_id)["output"] == {"confirmed": False}

    def test_settings_that_accept_late_stops_and_resumes_hold_for_bots(self, make_account: Any) -> None:
        account = make_account(stop_ended_is_ok=True, resume_running_is_ok=True)
        task_id = account.run_bot(PLAIN_TEXT)
        assert account.get("resume-run", task_id=task_id)["status"] == "running"
        account.pass_time(2)
        assert account.get("cancel-run", task_id=task_id)["status"] == "finished"


class TestRefusals:
    @pytest.mark.parametrize(
        ("bot", "given", "code"),
        [
            (EmulatedBot(id="1", name="Unknown"), {}, 10111),
            (UNPUBLISHED, {}, 10020),
            (NOT_READY, {}, 10021),
            (SEARCH, {}, 10142),
            (CONTACTS, {"max_pages": 2}, 10143),
            (SEARCH, {"keyword": 1}, 99001),
            (SEARCH, {"keyword": None}, 99001),
            (SEARCH, {"keyword": "a", "max_itmes": "1"}, 99001),
            (CONTACTS, {**COMPANY, "max_pages": "2"}, 99001),
            (CONTACTS, {**COMPANY, "max_pages": 101}, 99001),
            (PRICES, {**PRODUCTS, "country": "FR"}, 99001),
            (PRICES, {**PRODUCTS, "products": ["a", 2]}, 99001),
            (PRICES, {**PRODUCTS, "price": {"maximum": 1}}, 99001),
            (PRICES, {**PRODUCTS, "coupon": "x"}, 99001),
        ],
        ids=[
            "unknown bot",
            "unpublished",
            "no language model",
            "missing input of a workflow",
            "missing input of an agent",
            "number for a text",
            "null for a text",
            "unknown name",
            "text for an integer",
            "out of range",
            "not in the enum",
            "wrong item of a list",
            "unknown name in an object",
            "other pattern",
        ],
    )
    def test_start_is_refused_with_the_code_for_the_reason(
        self, account: Any, code_of: Any, bot: Any, given: Any, code: int
    ) -> None:
        assert code_of(lambda: account.run_bot(bot, given)) == code
        assert account.emulator.tasks == []

    def test_refusal_of_an_input_names_the_place_without_the_value(self, account: Any) -> None:
        with pytest.raises(ApiError, match=r"input\['products'\]\[1\] does not conform to 'maxLength'") as refused:
            account.run_bot(PRICES, {**PRODUCTS, "products": ["a", "s3cret" * 20]})
        assert "s3cret" not in str(refused.value)
        with pytest.raises(ApiError, match=r"10143: Required agent bot input is missing \(products, country\)"):
            account.run_bot(PRICES)

    @pytest.mark.parametrize(
        "body",
        [
            {},
            {"input": None},
            {"input": []},
            {"input": COMPANY, "bot_id": CONTACTS.id},
            {"input": COMPANY, "proxy_region": "US"},
            {"input": COMPANY, "profile_id": "1"},
            {"input": COMPANY, "callback_url": "ftp://receiver.example/"},
            {"input": COMPANY, "status_change_callback_url": "https://receiver.example/" + "x" * 2048},
        ],
        ids=["no input", "null", "list", "id in the body", "region", "profile", "scheme of a URL", "long URL"],
    )
    def test_body_of_a_start_is_read_strictly(self, account: Any, code_of: Any, body: Any) -> None:
        assert code_of(lambda: account.post("create-run", body, bot_id=CONTACTS.id)) == 99001

    def test_private_callback_address_can_be_refused(self, make_account: Any, code_of: Any) -> None:
        account = make_account(allow_private_callbacks=False)
        assert code_of(lambda: account.run_bot(CONTACTS, COMPANY, callback_url="http://127.0.0.1/")) == 99001

    def test_start_of_a_template_is_refused_for_an_unknown_id_or_region(self, account: Any, code_of: Any) -> None:
        body = {"input": {"keyword": "paper"}}
        assert code_of(lambda: account.post("create-template-run", body, template_id=SEARCH.id)) == 10176
        assert code_of(lambda: account.post("create-run", body, bot_id=TEMPLATE_SEARCH.id)) == 10111
        assert code_of(lambda: run_template(account, proxy_region="FR")) == 10013
        assert code_of(lambda: run_template(account, {"keyword": 1})) == 99001

    @pytest.mark.parametrize(
        ("endpoint", "query"),
        [
            ("page-runs", {"limit": 101}),
            ("page-bots", {"limit": 101}),
            ("page-templates", {"limit": 501}),
            ("page-runs", {"page": 0}),
            ("page-runs", {"status": "unknown"}),
            ("page-runs", {"created_at_from": "yesterday"}),
            ("page-runs", {"bot_id": ""}),
            ("page-runs", {"workflow_id": SEARCH.id}),
            ("page-bots", {"bot_type": "robot"}),
            ("page-bots", {"keyword": "x" * 201}),
            ("page-templates", {"keyword": "x" * 201}),
            ("list-regions", {"page": 1}),
        ],
    )
    def test_query_of_a_list_is_read_strictly(self, account: Any, code_of: Any, endpoint: str, query: Any) -> None:
        assert code_of(lambda: account.get(endpoint, **query)) == 99001

    @pytest.mark.parametrize("endpoint", ["query-run", "query-run-status", "cancel-run", "resume-run"])
    def test_unknown_run_is_refused(self, account: Any, code_of: Any, endpoint: str) -> None:
        assert code_of(lambda: account.get(endpoint, task_id="1")) == 10112

    def test_refused_start_does_not_use_up_settings_for_the_next_run(self, account: Any, code_of: Any) -> None:
        account.emulator.next_run(CONTACTS.id, output="planned")
        assert code_of(lambda: account.run_bot(CONTACTS, {})) == 10143
        assert finished(account, CONTACTS, COMPANY)["output"] == "planned"

    def test_busy_bot_that_runs_one_at_a_time_refuses_a_second_run_of_each_version(
        self, account: Any, code_of: Any
    ) -> None:
        account.run_bot(LOG_IN, {"username": "ada", "password": "x"})
        assert code_of(lambda: account.run(LOG_IN, {"username": "ada", "password": "x"})) == 90001


class TestSchemas:
    @pytest.mark.parametrize("bot", [*WORKFLOWS, *TEMPLATES, *BOTS], ids=lambda bot: bot.name)
    def test_schemas_of_the_catalogue_are_valid(self, bot: EmulatedWorkflow) -> None:
        jsonschema.Draft202012Validator.check_schema(bot.schema)
        jsonschema.Draft202012Validator.check_schema(bot.output_schema or {})
        for declared in bot.schema["properties"].values():
            if "default" in declared:
                jsonschema.validate(declared["default"], declared)

    @pytest.mark.parametrize(
        "given",
        [
            COMPANY,
            {**COMPANY, "max_pages": 1},
            PRODUCTS,
            {**PRODUCTS, "products": ["paper", "pens"], "in_stock": True, "price": {"min": 1, "max": 400.5}},
            {**PRODUCTS, "max_offers": 1, "coupon": None},
        ],
        ids=json.dumps,
    )
    def test_outputs_of_the_catalogue_conform_to_their_schema(self, account: Any, given: Any) -> None:
        bot = CONTACTS if "company_name" in given else PRICES
        output = finished(account, bot, given)["output"]
        jsonschema.validate(output, account.get("query-bot", bot_id=bot.id)["output_schema"])
        assert output

    def test_schema_of_a_workflow_is_made_of_its_inputs(self, account: Any) -> None:
        bot = account.get("query-bot", bot_id=SEARCH.id)
        assert bot["input_schema"] == {
            "type": "object",
            "properties": {"keyword": {"type": "string"}, "max_items": {"type": "string"}},
            "required": ["keyword"],
            "additionalProperties": False,
        }
        assert (bot["bot_type"], bot["output_schema"]) == ("workflow", None)
        template = account.get("query-template", template_id=TEMPLATE_SEARCH.id)
        assert template["input_schema"] == bot["input_schema"]

    def test_schemas_of_a_template_or_workflow_can_be_set(self, account: Any, code_of: Any) -> None:
        schema = {"properties": {"keyword": {"type": "string", "minLength": 2}}}
        account.setting(TEMPLATE_SEARCH, input_schema=schema)
        assert account.get("query-template", template_id=TEMPLATE_SEARCH.id)["input_schema"] == schema
        assert code_of(lambda: run_template(account, {"keyword": "a"})) == 99001
        run_template(account, {"keyword": "aa"})

    @pytest.mark.parametrize(
        "schema",
        [
            {"$ref": "#"},
            {"$ref": "http://browseract.invalid/schema.json"},
            {"type": "objekt"},
            {"properties": {"text": {"pattern": r"\p{L}"}}},
            {"properties": []},
            [],
        ],
        ids=["recursive", "remote", "unknown type", "pattern", "list of properties", "list"],
    )
    @pytest.mark.parametrize("settings", [{}, {"converts_input": True, "shows_defaults": True}], ids=["strict", "odd"])
    def test_input_is_not_checked_if_the_schema_cannot_be_used(
        self, make_account: Any, schema: Any, settings: Any
    ) -> None:
        account = make_account(**settings)
        account.setting(CONTACTS, input_schema=schema)
        assert finished(account, CONTACTS, {"text": "x"})["status"] == "finished"

    def test_unpublished_bot_has_no_schemas_and_is_not_listed(self, account: Any) -> None:
        account.setting(CONTACTS, published=False)
        bot = account.get("query-bot", bot_id=CONTACTS.id)
        assert (bot["published_at"], bot["input_schema"], bot["output_schema"]) == (None, None, None)
        listed = {bot["bot_id"] for bot in account.get("page-bots", limit=100)["items"]}
        assert listed.isdisjoint({CONTACTS.id, UNPUBLISHED.id})


class TestInputSettings:
    def test_text_is_converted_where_the_schema_asks_for_another_type(self, make_account: Any, code_of: Any) -> None:
        account = make_account(converts_input=True)
        given = {"products": '["paper"]', "country": "DE", "max_offers": "2", "in_stock": "true", "price": '{"max": 9}'}
        wanted = {"products": ["paper"], "country": "DE", "max_offers": 2, "in_stock": True, "price": {"max": 9}}
        task_id = account.run_bot(PRICES, given)
        assert account.detail(task_id)["input"] == dict(account.emulator.tasks[0].inputs) == wanted
        assert account.detail(account.run_bot(SEARCH, {"keyword": "7"}))["input"] == {"keyword": "7"}
        assert code_of(lambda: account.run_bot(SEARCH, {"keyword": 7})) == 99001
        assert code_of(lambda: account.run_bot(CONTACTS, {**COMPANY, "max_pages": "two"})) == 99001

    def test_defaults_of_the_schema_can_be_shown(self, make_account: Any) -> None:
        account = make_account(shows_defaults=True)
        task_id = account.run_bot(PRICES, {**PRODUCTS, "max_offers": 1})
        expected = {**PRODUCTS, "max_offers": 1, "in_stock": False}
        assert account.detail(task_id)["input"] == account.get("page-runs")["items"][0]["input"] == expected
        assert dict(account.emulator.tasks[0].inputs) == {**PRODUCTS, "max_offers": 1}

    def test_values_of_the_input_can_be_hidden(self, make_account: Any) -> None:
        account = make_account(hides_input=True)
        task_id = account.run_bot(CONTACTS, {**COMPANY, "max_pages": 2})
        hidden = {"company_name": "******", "max_pages": "******"}
        assert account.detail(task_id)["input"] == account.get("page-runs")["items"][0]["input"] == hidden
        account.pass_time(2)
        assert account.detail(task_id)["output"]["company_name"] == "Example Corp"


class TestOutputs:
    def test_contact_is_an_object_with_a_null_member_and_four_files(self, client: Any) -> None:
        task_id = client.start_bot(CONTACTS, {**COMPANY, "max_pages": 1}).json()["task_id"]
        client.emulator.wait_until(lambda: client.emulator.tasks[0].status == "finished")
        run = client.http.get(f"/v3/bots/runs/{task_id}").json()
        assert run["output"] == {**contact_of("Example Corp"), "pages": ["https://examplecorp.example/"]}
        assert run["output"]["facebook_url"] is None
        assert list(run["output_files"]) == ["json", "md", "csv", "xml"]
        for end, file in run["output_files"].items():
            content = httpx.get(file["download_url"]).content
            assert (file["file_name"], file["file_size"]) == (f"result.{end}", len(content))
            assert b"Example Corp" in content

    def test_text_of_a_workflow_is_a_value_if_it_is_a_json_object_or_array(self, account: Any) -> None:
        assert finished(account, SEARCH, {"keyword": "paper"})["output"] == results_for("paper")
        assert finished(account, PLAIN_TEXT, output="12")["output"] == "12"
        assert finished(account, PLAIN_TEXT, output="[" * 100_000)["output"] == "[" * 100_000

    @pytest.mark.parametrize("output", [0, False, "007", '{"a": 1}', [], {}, 1.5], ids=json.dumps)
    def test_output_of_a_bot_is_any_json_value(self, account: Any, output: Any) -> None:
        assert finished(account, CONTACTS, COMPANY, output=output)["output"] == output
        assert account.emulator.tasks[0].output == (output if isinstance(output, str) else json.dumps(output))

    def test_output_that_is_not_json_is_refused(self, account: Any) -> None:
        with pytest.raises(TypeError, match="set"):
            account.setting(CONTACTS, output={1, 2})

    def test_run_without_output_has_no_such_field(self, account: Any) -> None:
        run = finished(account, CONTACTS, COMPANY, behaviour=lambda _: Output())
        assert run["status"] == "finished"
        assert run.keys().isdisjoint({"output", "output_files", "download_files"})

    def test_output_can_appear_later_than_the_end(self, account: Any) -> None:
        assert "output" not in finished(account, CONTACTS, COMPANY, output_after=5.0)
        account.pass_time(5)
        assert "output" in account.detail(account.emulator.tasks[0].id)

    def test_output_file_is_named_by_its_format(self, account: Any) -> None:
        run = finished(account, EXPORT, {"keyword": "paper"})
        assert run["output_files"]["csv"]["file_name"] == "results.csv"
        assert "output" not in run
        files = (EmulatedFile("README", b"a"), EmulatedFile("b.txt", b"b", prepared_after=9.0))
        assert list(finished(account, EXPORT, {"keyword": "paper"}, files=files)["output_files"]) == ["README"]

    def test_downloads_have_their_fields_in_snake_case(self, account: Any) -> None:
        run = finished(account, DOWNLOAD, {"keyword": "paper"})
        [file] = run["download_files"]
        assert file.keys() == {
            "guid",
            "file_name",
            "file_size",
            "status",
            "progress",
            "download_url",
            "download_start_time",
            "download_completed_time",
            "expires_at",
            "create_time",
        }
        assert run["files_expires_at"] == file["expires_at"]


class TestLists:
    def test_runs_are_listed_oldest_first_in_pages_of_twenty(self, make_account: Any) -> None:
        account = make_account(concurrency=30)
        ids = [account.run_bot(PLAIN_TEXT) for _ in range(25)]
        pages = [account.get("page-runs", page=number) for number in (1, 2, 3)]
        assert [run["task_id"] for page in pages for run in page["items"]] == ids
        assert {key: pages[1][key] for key in ("page", "limit", "total_count", "total_pages")} == {
            "page": 2,
            "limit": 20,
            "total_count": 25,
            "total_pages": 2,
        }

    def test_runs_are_found_by_bot_name_status_and_time(self, account: Any) -> None:
        contact, search = account.run_bot(CONTACTS, COMPANY), account.run_bot(SEARCH, {"keyword": "paper"})
        run_template(account)
        account.pass_time(2)
        later = account.run_bot(CONTACTS, COMPANY)

        def found(**query: Any) -> list[str]:
            return [run["task_id"] for run in account.get("page-runs", **query)["items"]]

        assert found(bot_id=CONTACTS.id) == [contact, later]
        assert found(bot_id=TEMPLATE_SEARCH.id) == []
        assert found(bot_name="SEARCH") == [search]
        assert found(status="running") == [later]
        assert found(created_at_from="2026-05-28T20:26:42Z") == [later]
        assert len(found(created_at_to="2026-05-28T20:26:41Z")) == 3

    def test_listed_run_has_no_output_steps_files_or_log_link(self, account: Any) -> None:
        finished(account, CONTACTS, COMPANY)
        [run] = account.get("page-runs")["items"]
        assert run.keys().isdisjoint({"output", "output_files", "steps", "download_files", "log_detail_url"})
        assert (run["status"], run["credit"]) == ("finished", 15)

    def test_run_is_listed_only_after_the_time_that_is_set(self, account: Any) -> None:
        account.setting(CONTACTS, listed_after=2.0)
        account.run_bot(CONTACTS, COMPANY)
        assert account.get("page-runs")["total_count"] == 0
        account.pass_time(2)
        assert account.get("page-runs")["total_count"] == 1

    def test_bots_are_all_published_workflows_and_bots_by_type_and_name(self, account: Any) -> None:
        def found(**query: Any) -> list[str]:
            return [bot["bot_id"] for bot in account.get("page-bots", limit=100, **query)["items"]]

        assert found() == [
            bot.id for bot in sorted((*WORKFLOWS, *BOTS), key=lambda bot: bot.created_at) if bot.published
        ]
        assert found(bot_type="agent") == [bot.id for bot in BOTS]
        assert found(keyword="CONTACT") == [CONTACTS.id]
        assert found(bot_type="workflow", keyword="contact") == []

    def test_templates_are_listed_by_name(self, account: Any) -> None:
        page = account.get("page-templates")
        assert (page["limit"], [one["template_id"] for one in page["items"]]) == (10, [one.id for one in TEMPLATES])
        assert [one["template_id"] for one in account.get("page-templates", keyword="EXPORT")["items"]] == [
            TEMPLATE_EXPORT.id
        ]

    def test_bots_that_only_version_3_serves_are_unknown_to_version_2(self, account: Any, code_of: Any) -> None:
        listed = {one["id"] for one in account.get("list-workflows", limit=500)["items"]}
        assert listed == {one.id for one in WORKFLOWS}
        assert code_of(lambda: account.run(CONTACTS)) == 10111
        assert code_of(lambda: account.get("get-workflow", workflow_id=CONTACTS.id)) == 10111


class TestCatalogue:
    def test_bot_of_ones_own_can_be_added_and_changed(self, account: Any) -> None:
        bot = EmulatedBot(id="1", name="Mine", bot_type="workflow", output={"a": 1})
        account.emulator.add_workflow(bot)
        assert account.get("query-bot", bot_id="1")["bot_type"] == "workflow"
        account.emulator.set_workflow("1", output_schema={"type": "object"})
        assert account.get("query-bot", bot_id="1")["output_schema"] == {"type": "object"}
        assert finished(account, bot)["output"] == {"a": 1}

    @pytest.mark.parametrize("kind", [EmulatedWorkflow, EmulatedTemplate, EmulatedBot])
    def test_id_belongs_to_one_workflow_template_or_bot(self, account: Any, kind: Any) -> None:
        for taken in {SEARCH, TEMPLATE_SEARCH, CONTACTS}:
            if type(taken) is not kind:
                with pytest.raises(ValueError, match=taken.id):
                    account.emulator.add_workflow(kind(id=taken.id, name="Other"))

    def test_setting_that_only_bots_have_is_refused_for_a_workflow(self, account: Any) -> None:
        account.setting(NOT_READY, ready=True)
        account.run_bot(NOT_READY)
        with pytest.raises(TypeError, match="ready"):
            account.setting(SEARCH, ready=False)


class TestResponsesAsInTheDemos:
    @pytest.fixture
    def account(self, make_account: Any) -> Any:
        return make_account(as_in_the_demos=True)

    def start(self, account: Any, bot: Any, given: Any = None) -> str:
        created = account.post("create-run", {"input": given or {}}, bot_id=bot.id)
        assert created.keys() == {"id", "status"}
        return str(created["id"])

    def test_start_returns_the_task_id_as_id(self, account: Any) -> None:
        task_id = self.start(account, CONTACTS, COMPANY)
        assert account.detail(task_id)["task_id"] == task_id

    def test_cancel_and_resume_respond_with_nothing(self, account: Any) -> None:
        task_id = self.start(account, HUMAN)
        account.pass_time(1)
        assert account.get("resume-run", task_id=task_id) is None
        assert account.get("query-run-status", task_id=task_id)["status"] == "running"
        assert account.get("cancel-run", task_id=task_id) is None
        assert account.get("query-run-status", task_id=task_id)["status"] == "canceled"

    def test_ended_run_has_a_live_view_no_steps_and_no_output_beside_its_files(self, account: Any) -> None:
        ids = [self.start(account, CONTACTS, COMPANY), self.start(account, PRICES, PRODUCTS)]
        account.pass_time(2)
        contact, prices = map(account.detail, ids)
        assert contact["live_url_info"]["live_url"]
        assert "steps" not in contact
        assert (contact["output"], list(contact["output_files"])) == (None, ["json", "md", "csv", "xml"])
        assert isinstance(prices["output"], list)

    @pytest.mark.parametrize("setting", ["as_in_the_demos", "errors_as_in_the_demos"])
    def test_error_has_no_data_and_a_time_without_a_zone(self, serve: Any, setting: str) -> None:
        client = serve(**{setting: True})
        client.emulator.fault("query-bot", RequestFault.refused(10111), times=1)
        for _ in range(2):
            error = client.http.get("/v3/bots/1").json()
            assert error.keys() == {"code", "msg", "ts", "time", "traceId"}
            assert (error["code"], error["time"][10]) == (10111, " ")


class TestOverHttp:
    def test_fault_applies_to_its_endpoint_of_version_3_only(self, client: Any) -> None:
        client.emulator.fault("query-run", RequestFault.status(503))
        task_id = client.start_bot(PLAIN_TEXT).json()["task_id"]
        assert client.http.get(f"/v3/bots/runs/{task_id}").status_code == 503
        for path in (
            f"runs/{task_id}/status",
            "runs",
            SEARCH.id,
            "templates",
            "regions",
            f"templates/{TEMPLATE_SEARCH.id}",
        ):
            assert client.http.get(f"/v3/bots/{path}").status_code == 200
        assert client.regions().status_code == 200

    def test_fault_for_every_endpoint_applies_to_both_versions(self, client: Any) -> None:
        client.emulator.fault("*", RequestFault.status(500))
        assert client.http.get("/v3/bots").status_code == client.regions().status_code == 500

    def test_lost_response_to_a_start_leaves_its_run(self, client: Any) -> None:
        client.emulator.fault("create-run", RequestFault.lost_response(), times=1)
        with pytest.raises(httpx.RemoteProtocolError):
            client.start_bot(CONTACTS, COMPANY)
        [task] = client.emulator.tasks
        assert dict(task.inputs) == COMPANY

    def test_requests_are_recorded_with_the_names_of_the_endpoints(self, client: Any) -> None:
        for endpoint in ENDPOINTS.values():
            client.http.request(endpoint.method, endpoint.path.replace("{", "").replace("}", ""))
        assert [record.endpoint for record in client.emulator.requests] == list(ENDPOINTS)

    @pytest.mark.parametrize("path", ["runs", "templates", "regions"])
    def test_bot_cannot_be_asked_for_by_the_name_of_another_endpoint(self, client: Any, path: str) -> None:
        client.emulator.add_workflow(EmulatedBot(id=path, name="Hidden"))
        assert "bot_id" not in client.http.get(f"/v3/bots/{path}").json()
        assert client.emulator.requests[0].endpoint != "query-bot"

    def test_wrong_method_is_refused_with_405(self, client: Any) -> None:
        for method, path in (
            ("GET", f"{SEARCH.id}/runs"),
            ("DELETE", "runs/1"),
            ("GET", "runs/1/cancel"),
            ("POST", ""),
        ):
            assert client.http.request(method, f"/v3/bots/{path}".rstrip("/")).status_code == 405

    def test_both_callbacks_carry_the_detail_of_a_bots_run(self, client: Any, receiver: Any) -> None:
        urls = {"callback_url": receiver.url, "status_change_callback_url": receiver.url}
        task_id = client.start_bot(CONTACTS, COMPANY, **urls).json()["task_id"]
        client.emulator.wait_until(lambda: len(client.emulator.deliveries) == 3)
        detail = client.http.get(f"/v3/bots/runs/{task_id}").json()
        assert receiver.statuses == ["running", "finished", "finished"]
        assert receiver.bodies[1:] == [detail, detail]
        assert {record.task_id for record in client.emulator.deliveries} == {task_id}

    def test_links_of_a_bots_run_can_be_opened_and_show_no_input(self, client: Any) -> None:
        client.emulator.set_workflow(CONTACTS.id, duration=1e6)
        task_id = client.start_bot(CONTACTS, {"company_name": "s3cret"}).json()["task_id"]
        run = client.http.get(f"/v3/bots/runs/{task_id}").json()
        for link in (run["log_detail_url"], run["live_url_info"]["live_url"], run["steps"][0]["screenshots_url"]):
            page = httpx.get(link)
            assert page.status_code == 200
            assert "s3cret" not in page.text
            assert run["steps"][0]["step_goal"] in page.text
