"""Every code block of README and docs is run, except for those that :data:`NOT_RUN` lists with the reason."""

from __future__ import annotations

import asyncio
import json
import os
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from operator import itemgetter
from pathlib import Path
from pkgutil import resolve_name
from types import ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
import yaml
from airflow.cli.cli_parser import get_parser
from airflow.models import Pool, Variable
from airflow.models.asset import AssetEvent
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import BaseNotifier, BaseOperator, Connection
from airflow.utils.session import create_session
from requests.utils import get_environ_proxies
from sqlalchemy import text

from airflow_provider_browseract.__main__ import main
from airflow_provider_browseract.api.settings import EXTRA_FIELDS
from airflow_provider_browseract.emulator import (
    CONTACTS,
    HUMAN,
    LOG_IN,
    ORDERS,
    SEARCH,
    TEMPLATE_SEARCH,
    EmulatedWorkflow,
    Emulator,
    RequestFault,
    Run,
    WorkflowInput,
)
from airflow_provider_browseract.emulator.__main__ import command_line, introduction, make_emulator
from airflow_provider_browseract.exceptions import InputError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.hooks.connection import read_settings
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.bot_input import conform
from airflow_provider_browseract.runs.routes import CALLBACK_PATH, URL_PREFIX
from tests.conftest import DagResult, somebody_resumes
from tests.helpers.local_airflow import wait_for
from tests.helpers.pages import BLOCKS, PAGES, YOUR_WORKFLOW, Block, block_of, blocks_of
from tests.helpers.separate_pytest import assert_passed
from tests.helpers.workers import hold_until_looked_at

NOT_RUN = {
    "pip": "`make dist` builds the wheel, and installs it in a new environment.",
    "make": "`make demo` starts an Airflow and runs for minutes.",
    "docker": "There is no Docker where the tests run.",
    "dockerfile": "The same. A test compares the name of the wheel.",
}
"""The kinds of blocks that no test runs, and why."""

RUN = {"DAG", "test", "json", "console", "yaml", "nginx", "Lambda"}
"""The kinds that tests run: here, and those of relays in tests/webhook/test_relays.py. :func:`every` adds its own."""

RUN_DAGS: set[str] = set()
"""The DAGs that a test of this module runs."""


def dags(*dag_ids: str) -> pytest.MarkDecorator:
    """Have a test run the block with each of these DAGs, which it gets as ``block``; the same code only once."""
    RUN_DAGS.update(dag_ids)
    found = {block.code: block for block in reversed(blocks_of("DAG")) if not {*dag_ids}.isdisjoint(block.dag_ids)}
    return pytest.mark.parametrize("block", found.values(), ids=lambda block: f"{block.page} {block.dag_ids[0]}")


def every(kind: str) -> pytest.MarkDecorator:
    """Run a test with each block of a kind; the same code on two pages only once."""
    RUN.add(kind)
    blocks = {block.code: block for block in reversed(blocks_of(kind))}
    return pytest.mark.parametrize("block", blocks.values(), ids=lambda block: block.page)


def test_every_code_block_is_run_or_excepted():
    assert {block.kind for block in BLOCKS} == {*RUN, *NOT_RUN}
    assert [block.dag_ids for block in blocks_of("DAG") if RUN_DAGS.isdisjoint(block.dag_ids)] == []
    excepted = {block.page for block in BLOCKS if block.kind in NOT_RUN}
    assert excepted == {"README.md", *(f"docs/{name}.md" for name in ("deployment", "tutorial"))}
    # The other module reads this page.
    relays = [block.page for kind in ("nginx", "Lambda") for block in blocks_of(kind)]
    assert relays == ["docs/callbacks.md"] * 2


@pytest.fixture
def emulator(browseract_emulator, short_timings, monkeypatch):
    """The emulator, with runs that take no time to speak of."""
    monkeypatch.setattr(timings, "DEFAULT_POLL_INTERVAL", 0.2)
    monkeypatch.setattr(timings, "FIRST_POLL_JITTER", 0.0)
    browseract_emulator.set_workflow("*", duration=0.2)
    return browseract_emulator


class Blocks:
    """Runs the DAGs of a block with ``dag.test()``, one after the other."""

    def __init__(self, folder: Path, parse) -> None:
        self._folder, self._parse = folder, parse

    def parse(self, block: Block):
        file = self._folder / "documented.py"
        file.write_text(block.code)
        found = self._parse(file)
        assert sorted(found) == sorted(block.dag_ids)
        return found

    def run(self, block: Block, state: str = "success", prepare: Callable[[Any], None] | None = None, **conf: object):
        """Run each DAG to a state, with retries that begin at once, and return the run of the last one."""
        found = self.parse(block)
        for dag_id in block.dag_ids:
            if prepare is not None:
                prepare(found[dag_id])
            for task in found[dag_id].tasks:
                task.retry_delay = timedelta(0)
            result = DagResult(found[dag_id].test(run_conf=conf))
            assert result.state == state, dag_id
        return result


@pytest.fixture
def documented(emulator, tmp_path, parse, add_dag_bundle, monkeypatch) -> Blocks:
    Pool.create_or_update_pool("browseract", slots=5, description="", include_deferred=True)
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", '{"conn_type": "generic", "password": "hunter2"}')
    monkeypatch.setenv("AIRFLOW_VAR_SEARCH_WORKFLOW_ID", SEARCH.id)
    add_dag_bundle(tmp_path)
    return Blocks(tmp_path, parse)


def output_of(task: Run) -> Any:
    return json.loads(task.output or "")


def cheapest(rows: list[dict[str, Any]]) -> dict[str, Any]:
    return min(rows, key=lambda row: row["price"])


PASSED_ON: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "contacts": ("website", itemgetter("official_website_url")),
    "prices": ("cheapest", cheapest),
    "prices_migrated": ("prices", list),
}
"""The task of a DAG that returns a part of the output of its run, and which part."""


@dags(*PASSED_ON)
def test_documented_dag_passes_on_the_output_of_its_run(block, documented, emulator):
    task_id, part_of = PASSED_ON[block.dag_ids[0]]
    result = documented.run(block)
    [task] = emulator.tasks
    assert result.xcom(task_id) == part_of(output_of(task))


QUOTING = ("README.md", "docs/tutorial.md")
"""The pages that show what their DAGs log."""


def quoted(line: str) -> str:
    """Return the pattern of a quoted line, which matches with other numbers too."""
    parts = re.split(r"\d+(?:\.\d+)?", line)
    return r"[\d.]+".join(map(re.escape, parts))


@pytest.mark.parametrize(
    ("block", "shown"),
    zip((each for each in blocks_of("DAG") if each.page in QUOTING), blocks_of("console"), strict=True),
    ids=lambda block: block.kind,
)
def test_readme_and_tutorial_quote_what_dags_log(
    block, shown, documented, emulator, shop_profile, monkeypatch, caplog, capfd
):
    # A run that had ended before would need no poll.
    hold_until_looked_at(emulator, monkeypatch)
    documented.run(block)
    logged = caplog.text + "".join(capfd.readouterr())
    lines = shown.code.splitlines()
    if lines[-1].startswith("Done. Returned"):
        # The values are always the same.
        assert lines.pop().partition("…")[0] in logged
    assert re.search(".*".join(map(quoted, lines)), logged, re.DOTALL), logged


@pytest.fixture
def shop_profile(airflow_database):
    """The Variable in which DAGs keep a profile."""
    yield Variable
    Variable.delete("shop_profile")


@dags("orders", "shop_login")
def test_documented_dags_log_in_and_then_reuse_the_login(block, documented, emulator, shop_profile):
    documented.run(block)
    log_in, orders = emulator.tasks
    assert orders.profile_id == log_in.profile_id is not None
    assert "order_id" in (orders.output or "")
    kept = log_in.profile_id if "shop_login" in block.dag_ids else None
    assert shop_profile.get("shop_profile", default_var=None) == kept


@pytest.mark.parametrize("logged_in", [True, False], ids=["valid login", "expired login"])
@dags("shop_daily")
def test_documented_daily_dag_logs_in_only_if_login_has_expired(block, documented, emulator, shop_profile, logged_in):
    workflow, inputs = (LOG_IN, {"username": "ada", "password": "hunter2"}) if logged_in else (ORDERS, {})
    hook = BrowserActHook()
    created = hook.run_task(workflow.id, inputs, save_browser_data=True)
    wait_for("the end of the run", lambda: hook.get_task_status(created.id).ended, timeout=60)
    kept = hook.get_task(created.id).profile_id
    shop_profile.set("shop_profile", kept)
    documented.run(block)
    _, orders, *later = emulator.tasks
    assert orders.profile_id == kept
    if logged_in:
        assert later == []
    else:
        log_in, orders_again = later
        assert log_in.workflow_id == LOG_IN.id
        assert orders_again.profile_id == log_in.profile_id == shop_profile.get("shop_profile")
        assert "order_id" in orders_again.output


STARTED = {
    "dated": [("v2", SEARCH.id, None, "laptops")],
    "decorated": [("v2", SEARCH.id, None, "laptops"), ("v2", SEARCH.id, None, "phones")],
    "decorated_bot": [("v3", CONTACTS.id, None, "Example Corp"), ("v3", CONTACTS.id, None, "Sample Ltd")],
    "five_at_once": [("v2", SEARCH.id, None, "laptops"), ("v2", SEARCH.id, None, "phones")],
    "listings": [("v3", TEMPLATE_SEARCH.id, "DE", "laptops"), ("v3", TEMPLATE_SEARCH.id, "DE", "phones")],
    "staged": [("v2", SEARCH.id, None, "laptops")],
    "template": [("v2", TEMPLATE_SEARCH.id, "DE", "laptops")],
}
"""What DAGs start: version of the API, workflow or bot, region, and first input without a date."""


@dags(*STARTED)
def test_documented_dag_starts_one_run_for_each_input(block, documented, emulator):
    documented.run(block)
    started = []
    for task in emulator.tasks:
        first_input = re.sub(r" \d{4}-\d\d-\d\d$", "", task.inputs[0][1])
        started.append((str(task.api_version), task.workflow_id, task.proxy_region, first_input))
    assert sorted(started) == STARTED[block.dag_ids[0]]


@dags("keywords")
def test_documented_mapped_task_starts_one_run_per_input_and_passes_on_all_outputs(block, documented, emulator):
    result = documented.run(block)
    outputs = {dict(task.inputs)["keyword"]: output_of(task) for task in emulator.tasks}
    assert result.xcom("cheapest") == [cheapest(outputs[keyword]) for keyword in ("laptops", "phones")]


@every("text")
def test_documented_error_of_an_input_is_the_one_of_the_emulators_bot(block):
    given = {"companyname": "Example Corp", "max_pages": "200"}
    with pytest.raises(InputError) as caught:
        conform(given, CONTACTS.input_schema, f"bot {CONTACTS.id}")
    assert str(caught.value) == " ".join(block.code.split())


@dags("export")
def test_documented_export_returns_the_documented_manifest(block, s3, documented, emulator):
    result = documented.run(block)
    [task] = emulator.tasks
    [shown] = blocks_of("json")
    documented_id = json.loads(shown.code)["path"].rpartition("/")[2]
    assert result.xcom("export") == json.loads(shown.code.replace(documented_id, task.id))
    listed = s3.list_objects_v2(Bucket="bucket", Prefix=f"browseract/{task.id}/")["Contents"]
    assert {each["Key"].rpartition("/")[2] for each in listed} == {"results.csv", "task.json"}


@dags("prices_csv")
def test_documented_csv_is_returned_as_rows(block, documented, emulator):
    prices = "title,price\nlaptop,499.0\nother laptop,1200.0\n"
    inputs = (WorkflowInput("keyword"),)
    emulator.add_workflow(EmulatedWorkflow(YOUR_WORKFLOW, "Prices", inputs=inputs, output=prices, duration=0.2))
    result = documented.run(block)
    assert result.xcom("cheapest") == {"title": "laptop", "price": "499.0"}


@dags("costs")
def test_documented_dag_adds_up_credits_by_day(block, documented, emulator):
    for _ in range(2):
        BrowserActHook().run_task(SEARCH.id, {"keyword": "laptops"})
    emulator.wait_until(lambda: [task.status for task in emulator.tasks] == ["finished"] * 2)
    spent = sum(task.credit for task in emulator.tasks)
    found = documented.run(block).xcom("spent")
    assert found["credits"] == spent
    assert sum(found["by_day"].values()) == spent
    assert str(emulator.tasks[0].created_at.date()) in found["by_day"]


def documented_yaml(name: str) -> Any:
    """Return the content of a YAML file, by its name without a folder."""
    [block] = [block for block in blocks_of("yaml") if Path(block.file).name == name]
    return yaml.safe_load(block.code)


def test_documented_containers_have_the_default_connection_and_that_of_the_emulator_serves_there():
    services = documented_yaml("docker-compose.override.yaml")["services"]
    emulator = services.pop("browseract")
    assert emulator["entrypoint"] == ["python", "-m", "airflow_provider_browseract.emulator"]
    options = command_line().parse_args(emulator["command"])
    assert options.host == emulator["hostname"] == "browseract"
    assert emulator["ports"] == [f"127.0.0.1:{options.port}:{options.port}"]
    assert services.keys() == {"airflow-apiserver", "airflow-triggerer", "airflow-worker"}
    for service in services.values():
        [(name, value)] = service["environment"].items()
        assert name == "AIRFLOW_CONN_BROWSERACT_DEFAULT"
        settings = read_settings(Connection.from_json(value, conn_id="browseract_default"))
        assert settings.base_url == f"http://{options.host}:{options.port}"
        assert settings.api_key == options.api_key
        assert settings.webhook_base_url == "http://airflow-apiserver:8080"
    assert [each["envName"] for each in documented_yaml("values.yaml")["secret"]] == ["AIRFLOW_CONN_BROWSERACT_DEFAULT"]


def test_documented_ingress_forwards_the_path_of_callbacks():
    [rule] = documented_yaml("ingress.yaml")["spec"]["rules"]
    [path] = rule["http"]["paths"]
    assert (path["path"], path["pathType"]) == (f"{URL_PREFIX}{CALLBACK_PATH}", "Prefix")


def test_emulator_that_listens_on_a_name_uses_it_in_its_links():
    with Emulator().serve("localhost", 0) as running:
        assert running.url.startswith("http://localhost:")
        assert httpx.get(running.url).status_code == 200


@every("sql")
def test_documented_query_adds_up_credits_by_dag(block, documented, emulator):
    with create_session() as session:
        session.execute(text("DELETE FROM xcom"))
    documented.run(block_of("docs/slots.md", 'DAG("keywords"'))
    spent = sum(task.credit for task in emulator.tasks)
    now = datetime.now(timezone.utc)
    query = block.code.replace("2026-10-01", str(now.date())).replace("2026-11-01", str(now.date() + timedelta(days=1)))
    with create_session() as session:
        [found] = session.execute(text(query))
    assert tuple(found) == ("keywords", spent, 2)


@dags("capped")
def test_documented_cap_stops_a_run_that_never_ends(block, documented, emulator):
    # On a busy machine, seconds can pass between the step above the cap and the stop.
    emulator.set_workflow(SEARCH.id, step_every=0.3)
    documented.run(block, "failed")
    [task] = emulator.tasks
    assert task.status == "canceled"
    assert 200 < task.credit < 400


@dags("prices_by_day")
def test_documented_backfill_waits_when_its_budget_is_used_up(block, documented, emulator, connect):
    connect({"daily_credits": 2000})
    [dag] = documented.parse(block).values()
    assert (dag.catchup, dag.get_task("search").on_budget) == (True, "wait")
    documented.run(block)
    [task] = emulator.tasks
    assert re.fullmatch(r"laptops \d{4}-\d\d-\d\d", dict(task.inputs)["keyword"])


@dags("pay_once", "patient")
def test_documented_retries_after_errors_of_the_infrastructure_pay_for_one_run(block, documented, emulator, connect):
    connect({"retry_budget": 0.2})
    emulator.set_workflow(SEARCH.id, duration=1.5)
    emulator.fault("get-task", RequestFault.status(503), skip=1)

    def clear_after_two_tries(context) -> None:
        if context["ti"].try_number == 2:
            emulator.clear_faults()

    def prepare(dag) -> None:
        search = dag.get_task("search")
        search.on_retry_callback = [clear_after_two_tries]
        if dag.dag_id == "patient":
            assert search.retries * search.retry_delay >= timedelta(hours=1)

    result = documented.run(block, prepare=prepare)
    assert (result.task("search").try_number, len(emulator.tasks)) == (3, 1)


@dags("after_upload")
def test_documented_run_waits_for_a_file(block, s3, documented, emulator):
    today = datetime.now(timezone.utc)
    s3.put_object(Bucket="bucket", Key=f"keywords/{today:%Y%m%d}.txt", Body=b"")
    [dag] = documented.parse(block).values()
    assert DagResult(dag.test(logical_date=today)).state == "success"
    assert len(emulator.tasks) == 1


@dags("reported")
def test_documented_message_of_a_failure_has_the_address_of_the_run(block, documented, emulator, capsys):
    notified: list[str] = []

    class Notifier(BaseNotifier):
        template_fields = ("text",)
        text = " ".join(re.findall(r"`({{ (?:exception|ti\.).*?}})`", PAGES["docs/recipes.md"]))

        def notify(self, context) -> None:
            notified.append(self.text)

    emulator.set_workflow(SEARCH.id, outcome="failed", failure=(1011, "captcha"))

    def notify_too(dag) -> None:
        dag.get_task("search").on_failure_callback.append(Notifier())

    documented.run(block, "failed", notify_too)
    printed = capsys.readouterr().out
    log = BrowserActHook().get_task(emulator.tasks[-1].id).log_detail_url
    assert re.search(r"search failed: captcha \(", printed)
    assert f"Log: {log}" in printed
    [text] = notified
    assert re.fullmatch(rf"captcha .* {log}.*", text, re.DOTALL)


@dags("asked")
def test_documented_params_become_the_inputs_of_the_run_and_are_checked(block, documented, emulator):
    [dag] = documented.parse(block).values()
    with pytest.raises(Exception, match="'pens' is not one of"):  # whose class depends on the version of Airflow
        dag.params["keyword"] = "pens"
    documented.run(block, keyword="phones", max_items=3)
    [task] = emulator.tasks
    assert dict(task.inputs) == {"keyword": "phones", "max_items": "3"}


@dags("two_accounts")
def test_documented_tasks_run_in_the_accounts_of_their_connections(block, documented, emulator, monkeypatch):
    with Emulator(api_key="app-research").serve() as research:
        research.set_workflow(SEARCH.id, duration=0.2)
        monkeypatch.setenv("AIRFLOW_CONN_BROWSERACT_RESEARCH", json.dumps(research.connection))
        documented.run(block)
        keywords = [[dict(task.inputs)["keyword"] for task in each.tasks] for each in (emulator, research)]
    assert keywords == [["laptops"], ["phones"]]


CONTACT = {"company_name": "Example Corp", "official_website_url": "https://example.com"}
ENDINGS: dict[str, dict[str, dict[str, Any]]] = {
    "pay_once": {"failed": {"outcome": "failed", "failure": (1011, "captcha")}},
    "enough_rows": {"failed": {"output": '[{"rank": 1}]'}, "success": {"output": json.dumps([{"rank": 1}] * 5)}},
    "checked_contact": {"failed": {"output": {}}, "success": {"output": CONTACT}},
}
"""The states in which DAGs end in their first try, and the runs of BrowserAct that lead to each."""


@dags(*ENDINGS)
def test_documented_dag_pays_for_one_run_however_it_ends(block, documented, emulator):
    for number, (state, settings) in enumerate(ENDINGS[block.dag_ids[0]].items(), start=1):
        emulator.set_workflow("*", **settings)
        result = documented.run(block, state)
        assert {ti.try_number for ti in result.dag_run.get_task_instances()} == {1}
        assert len(emulator.tasks) == number


@dags("prices_updated")
def test_documented_asset_event_has_the_files_of_the_run(block, s3, documented, emulator):
    found = documented.parse(block)
    result = DagResult(found["prices_updated"].test())
    with create_session() as session:
        [event] = session.query(AssetEvent).filter_by(source_run_id=result.dag_run.run_id)
    [file] = result.xcom("export")["files"]
    assert event.extra["files"] == [file["path"]]
    # Airflow passes the events only to DAG runs that its scheduler has created.
    paths = found["prices_used"].get_task("paths").python_callable
    assert paths({found["prices_used"].schedule[0]: [event]}) == [file["path"]]


@pytest.fixture
def slack(monkeypatch) -> list[str]:
    """Replaces Slack's notifier, which is not installed, and returns the messages that it has sent."""
    sent: list[str] = []

    class SlackWebhookNotifier(BaseNotifier):
        template_fields = ("slack_webhook_conn_id", "text")

        def __init__(self, *, slack_webhook_conn_id: str = "slack_default", text: str, **kwargs) -> None:
            super().__init__(**kwargs)
            self.slack_webhook_conn_id = slack_webhook_conn_id
            self.text = text

        def notify(self, context) -> None:
            sent.append(self.text)

        async def async_notify(self, context) -> None:
            sent.append(self.text)

    pretend(monkeypatch, "airflow.providers.slack.notifications.slack_webhook", SlackWebhookNotifier)
    return sent


def pretend(monkeypatch, module: str, *classes: type) -> None:
    """Let DAGs import classes from a module that is not installed."""
    parts = module.split(".")
    for end in range(3, len(parts) + 1):
        name = ".".join(parts[:end])
        if name not in sys.modules:
            monkeypatch.setitem(sys.modules, name, ModuleType(name))
    for each in classes:
        each.__module__, each.__qualname__ = module, each.__name__
        monkeypatch.setattr(sys.modules[module], each.__name__, each, raising=False)


@dags("spend_alert")
def test_documented_alert_is_sent_once_the_runs_of_today_have_used_more_than_the_threshold(
    block, documented, emulator, slack
):
    hook = BrowserActHook()
    for state, credits_of_run in (("success", 1500), ("failed", 4)):
        emulator.set_workflow(SEARCH.id, credits_per_step=credits_of_run // 4)
        hook.run_task(SEARCH.id, {"keyword": "laptops"})
        emulator.wait_until(lambda: {task.status for task in emulator.tasks} == {"finished"})
        assert slack == []
        result = documented.run(block, state)
    assert result.task("compare").try_number == 1
    assert slack == ["spend_alert: The runs of today have used 1,504 credits, more than 1,500."]


@dags("in_time")
def test_documented_deadline_has_a_callback_that_a_triggerer_can_import_and_await(block, documented, emulator, slack):
    [late] = documented.parse(block)["in_time"].deadline
    assert (late.reference.reference_name, late.interval) == ("DagRunQueuedAtDeadline", timedelta(hours=2))

    async def call() -> None:
        await resolve_name(late.callback.path)(**late.callback.kwargs)

    asyncio.run(call())
    assert slack == ["The prices are late."]

    def without_deadline(dag) -> None:
        # dag.test() of Airflow 3.3.2 takes the deadline for the id of a row of its database.
        dag.deadline = None

    documented.run(block, prepare=without_deadline)
    assert [task.status for task in emulator.tasks] == ["finished"]


@pytest.mark.parametrize(("option", "started", "state"), [("Approve", 1, "success"), ("Reject", 0, "skipped")])
@dags("approved")
def test_documented_run_starts_only_if_a_person_approves(
    block, documented, emulator, monkeypatch, option, started, state
):
    answer = {
        "chosen_options": [option],
        "params_input": {},
        "responded_at": datetime.now(timezone.utc),
        "responded_by_user": {"id": "1", "name": "ada"},
    }

    def answered(operator, context):
        assert operator.subject == "Search for phones, for at most 1,000 credits?"
        return operator.execute_complete(context, answer)

    monkeypatch.setattr(HITLOperator, "execute", answered)
    result = documented.run(block, keyword="phones")
    assert (result.task("search").state, len(emulator.tasks)) == (state, started)


@dags("agent")
def test_documented_agent_chooses_the_inputs_of_at_most_five_runs(block, documented, emulator, monkeypatch):
    """The class of the agent and of its toolset are replaced, because they are not installed."""

    class HookToolset:
        def __init__(self, hook, *, allowed_methods: list[str]) -> None:
            self.methods = [getattr(hook, name) for name in allowed_methods]

    class AgentOperator(BaseOperator):
        def __init__(
            self, *, prompt: str, llm_conn_id: str, output_type: type, toolsets: list[HookToolset], **kwargs
        ) -> None:
            super().__init__(**kwargs)
            self.prompt, self.toolsets = prompt, toolsets

        def execute(self, context) -> list[str]:
            [workflow_id] = re.findall(r"\d{17}", self.prompt)
            [get_workflow, get_spend] = self.toolsets[0].methods
            assert [each.name for each in get_workflow(workflow_id).input_parameters] == ["keyword", "max_items"]
            assert get_spend(datetime.now(timezone.utc)).credits == 0
            return ["desk", "chair", "lamp", "shelf", "screen", "one more"]

    pretend(monkeypatch, "airflow.providers.common.ai.operators.agent", AgentOperator)
    pretend(monkeypatch, "airflow.providers.common.ai.toolsets", HookToolset)
    documented.run(block)
    keywords = [dict(task.inputs)["keyword"] for task in emulator.tasks]
    assert sorted(keywords) == ["chair", "desk", "lamp", "screen", "shelf"]


@dags("elsewhere")
def test_documented_sensor_returns_the_output_of_a_run_that_something_else_started(block, documented, emulator):
    created = BrowserActHook().run_task(SEARCH.id, {"keyword": "laptops"})
    result = documented.run(block, id=created.id)
    [task] = emulator.tasks
    assert result.xcom("wait") == output_of(task)


@dags("stop_runs")
def test_documented_dags_stop_and_resume_runs(block, documented, emulator):
    emulator.set_workflow(HUMAN.id, duration=60.0, pause_at=0.0, pause_limit=600.0)
    stopped, resumed = (BrowserActHook().run_task(HUMAN.id).id for _ in range(2))
    emulator.wait_until(lambda: {task.status for task in emulator.tasks} == {"paused"})
    stop, resume = block.dag_ids
    found = documented.parse(block)
    assert DagResult(found[stop].test(run_conf={"ids": [stopped]})).xcom("stop") == {stopped: "stopped"}
    assert DagResult(found[resume].test(run_conf={"ids": [resumed]})).xcom("resume") == {resumed: "resumed"}
    assert [task.status for task in emulator.tasks] == ["canceled", "running"]


@dags("short_run")
def test_documented_task_of_the_hook_starts_and_stops_a_run(block, documented, emulator):
    emulator.set_workflow(SEARCH.id, duration=60.0)
    assert documented.run(block).xcom("start_and_stop") == "canceled"
    assert [task.status for task in emulator.tasks] == ["canceled"]


@dags("active_runs")
def test_documented_dag_lists_the_active_runs(block, documented, emulator):
    for workflow in (SEARCH, CONTACTS):
        emulator.next_run(workflow.id, duration=600.0)
    hook = BrowserActHook()
    search = hook.run_task(SEARCH.id, {"keyword": "laptops"})
    find = hook.run_bot(CONTACTS.id, {"company_name": "Example Corp"})
    described = documented.run(block).xcom("list_active")
    assert {task_id: re.sub(r"started .*,", "started,", text) for task_id, text in described.items()} == {
        search.id: f"running, started, of {SEARCH.id}",
        find.id: f"running, started, of {CONTACTS.id}",
    }


@dags("paused_runs")
def test_documented_reminder_fails_only_while_runs_are_paused(block, documented, emulator, capfd):
    documented.run(block)
    emulator.set_workflow(HUMAN.id, duration=60.0, pause_at=0.0, pause_limit=600.0)
    paused = BrowserActHook().run_task(HUMAN.id).id
    emulator.wait_until(lambda: emulator.tasks[0].status == "paused")
    documented.run(block, "failed")
    assert f"These runs wait for a person: {paused}" in capfd.readouterr().out


@dags("person")
def test_documented_dag_notifies_a_person_and_succeeds_after_resume(block, documented, emulator, caplog, capfd):
    emulator.set_workflow(HUMAN.id, duration=0.4, pause_limit=600.0)
    logged: list[str] = []

    def notified() -> bool:
        logged.append("".join(capfd.readouterr()))
        return "Help at" in caplog.text + "".join(logged)

    with somebody_resumes(emulator, notified):
        result = documented.run(block)
    assert result.xcom("solve") == {"confirmed": True}
    assert re.search(rf"Help at \S+/live/{emulator.tasks[0].id} and answer at ", caplog.text + "".join(logged))


@dags("outside")
def test_documented_watcher_watches_the_workflow_whose_output_the_dag_reads(block, documented, emulator):
    dag = documented.parse(block)["outside"]
    [orders] = dag.schedule
    [watcher] = orders.watchers
    _, arguments = watcher.trigger.serialize()
    created = BrowserActHook().run_task(arguments["workflow_id"])
    emulator.wait_until(lambda: emulator.tasks[0].status in arguments["status"])
    # Airflow passes the events only to DAG runs that its scheduler has created.
    event = SimpleNamespace(extra={"from_trigger": True, "payload": {"tasks": [{"task_id": created.id}]}})
    assert dag.get_task("read").python_callable({orders: [event]}) == [emulator.tasks[0].output]


@every("script")
def test_documented_script_runs(block, browseract_emulator, tmp_path, capsys):
    file = tmp_path / "script.py"
    file.write_text(block.code)
    runpy.run_path(str(file))
    printed = capsys.readouterr().out
    assert ("canceled" if "stop_task" in block.code else "running") in printed


def test_documented_tests_pass_unchanged(tmp_path):
    """Run them in a separate pytest, as a DAG author would: one for all, because starting it takes long."""
    tests = {block.code for block in blocks_of("test")}
    for folder in ("dags", "tests"):
        (tmp_path / folder).mkdir()
    (tmp_path / "dags" / "prices.py").write_text(block_of("README.md", 'DAG("prices"').code)
    (tmp_path / "dags" / "shop.py").write_text(block_of("docs/tutorial.md", 'DAG("shop_login"').code)
    for number, code in enumerate(tests):
        (tmp_path / "tests" / f"test_{number}.py").write_text(code)
    tests_in_all = sum(len(re.findall(r"^def test_", code, re.MULTILINE)) for code in tests)
    assert_passed(tests_in_all, tmp_path, tmp_path)


@every("python")
def test_documented_emulator_command_serves_where_its_page_says(block):
    [line] = block.lines
    *command, module = shlex.split(line)[:3]
    assert (command, module) == (["python", "-m"], "airflow_provider_browseract.emulator")
    options = command_line().parse_args(shlex.split(line)[3:])
    emulator = make_emulator(options)
    emulator.url = f"http://{options.host}:{options.port}"
    assert f"`{introduction(emulator).splitlines()[0]}`" in PAGES["docs/tutorial.md"]


@every("command")
def test_documented_command_runs(block, browseract_emulator, airflow_database, monkeypatch, capsys):
    # The command sets it for its process.
    monkeypatch.setenv("_AIRFLOW_PROCESS_CONTEXT", "server")
    monkeypatch.setenv("AIRFLOW__LOGGING__LOGGING_LEVEL", "ERROR")
    yours = EmulatedWorkflow(YOUR_WORKFLOW, "Prices", inputs=(WorkflowInput("keyword"),))
    browseract_emulator.add_workflow(yours)
    for line in block.lines:
        printed, _, file = line.partition(" > ")
        _, _, _, *words = shlex.split(printed)
        exit_code = main(words)
        out, err = capsys.readouterr()
        if words[0] == "check":
            # Nothing of an Airflow runs here.
            assert "\nok    API  " in out
        else:
            assert exit_code == 0
            assert f"Save it as {file}" in err or len(words) == 1


@every("airflow")
def test_documented_airflow_command_is_complete_and_its_connection_can_be_read(block):
    dag_ids = [dag_id for other in blocks_of("DAG") if other.page == block.page for dag_id in other.dag_ids]
    for line in block.lines:
        words = shlex.split(line)
        args = get_parser().parse_args(words[1:])
        if words[1] == "dags":
            assert args.dag_id in dag_ids
        if words[1:3] == ["connections", "add"] and args.conn_type == "browseract":
            fields = ("id", "type", "password", "host", "port", "extra")
            given = {name: getattr(args, f"conn_{name}") for name in fields}
            found = Connection(conn_id=given.pop("id"), conn_type=given.pop("type"), **given)
            settings = read_settings(found)
            # A connection with unknown keys can be read too.
            assert found.extra_dejson.keys() <= EXTRA_FIELDS.keys()
            assert settings.base_url == (args.conn_host or "https://api.browseract.com")


COMPANY_CA = "-----BEGIN CERTIFICATE-----\nof the company\n-----END CERTIFICATE-----\n"


@every("environment")
def test_documented_variables_have_their_effect(block, tmp_path, monkeypatch):
    """Run each line in a shell, after those before it, and look at its variable."""
    (tmp_path / "company-ca.pem").write_text(COMPANY_CA)
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    for number, line in enumerate(block.lines, start=1):
        shown = "\n".join([*block.lines[:number], "env -0"]).replace("/opt/airflow", str(tmp_path))
        printed = subprocess.check_output(["sh", "-e", "-c", shown], cwd=tmp_path, env=environment, timeout=60)
        name = line.removeprefix("export ").partition("=")[0]
        [value] = re.findall(rf"^{name}=(.*)$", printed.decode().replace("\0", "\n"), re.MULTILINE) or [""]
        if line.startswith("export "):
            monkeypatch.setenv(name, value)
        match name:
            case "AIRFLOW_CONN_BROWSERACT_DEFAULT":
                settings = read_settings(Connection.get("browseract_default"))
                assert settings.api_key == "app-..."
            case "AIRFLOW__SECRETS__BACKEND":
                # The provider with this class is not installed.
                assert value == "airflow.providers.hashicorp.secrets.vault.VaultBackend"
            case "AIRFLOW__SECRETS__BACKEND_KWARGS":
                assert json.loads(value).keys() == {"url", "mount_point"}
            case "HTTPS_PROXY":
                assert get_environ_proxies("https://api.browseract.com")["https"] == value
            case "NO_PROXY":
                assert get_environ_proxies("http://airflow-api-server:8080") == {}
            case "REQUESTS_CA_BUNDLE":
                assert Path(value).read_text().endswith(COMPANY_CA)
                assert Path(value).read_text().count("BEGIN CERTIFICATE") > 50
            case _:
                assert not line.startswith("export ")
