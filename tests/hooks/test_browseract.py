from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import time
from contextlib import suppress
from datetime import date, datetime, timedelta, timezone

import httpx
import pytest
from fastapi import FastAPI, Request, Response

from airflow_provider_browseract.api import client, v2, v3
from airflow_provider_browseract.api.arguments import InputError
from airflow_provider_browseract.api.client import AsyncBrowserActClient
from airflow_provider_browseract.api.errors import (
    AuthenticationError,
    BrowserActError,
    ConnectionFailedError,
    InsufficientCreditsError,
    ResponseTooLargeError,
    ResumeNotSupportedError,
    RunStartUnknownError,
    TaskNotFoundError,
    TaskNotPausedError,
)
from airflow_provider_browseract.api.models import TaskStatus
from airflow_provider_browseract.compat import AirflowNotFoundException
from airflow_provider_browseract.emulator import (
    AGENT_HUMAN,
    CONTACTS,
    HUMAN,
    LOG_IN,
    ORDERS,
    SEARCH,
    TEMPLATE_SEARCH,
    RequestFault,
)
from airflow_provider_browseract.hooks import probe
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.spend import SpendRow
from tests.cases import cases
from tests.catalogue import TEMPLATE_TEXT
from tests.served import served


@pytest.fixture
def emulator(browseract_emulator):
    return browseract_emulator


async def awaited(hook, call, **limits):
    """Send a call with a client for event loops."""
    async with hook.async_client(**limits) as browseract:
        return await browseract.send(call)


def sent(hook, call, **limits):
    return asyncio.run(awaited(hook, call, **limits))


def test_hook_for_missing_connection_can_be_created():
    assert BrowserActHook("nowhere").browseract_conn_id == "nowhere"


def test_get_conn_returns_a_working_client(emulator):
    hook = BrowserActHook()
    assert hook.get_conn() is hook.client
    assert {region.code for region in hook.get_conn().send(v2.get_region_list())} >= {"US"}


def test_hook_methods_work_for_tasks_workflows_templates_and_regions(emulator):
    hook = BrowserActHook()
    created = hook.run_task(SEARCH.id, {"keyword": "pens", "max_items": 2})
    assert hook.get_task_status(created.id) in ("created", "running")
    assert hook.get_task(created.id).workflow_id == SEARCH.id
    assert [task.id for task in hook.iter_tasks(workflow_id=SEARCH.id)] == [created.id]
    assert hook.stop_task(created.id) is True
    assert hook.stop_task(created.id) is False
    assert {workflow.id for workflow in hook.iter_workflows()} == {each.id for each in emulator.of_kind("workflow")}
    assert [entry.name for entry in hook.get_workflow(LOG_IN.id).input_parameters] == ["username", "password"]
    template = next(hook.iter_official_workflow_templates())
    assert hook.get_official_workflow_template(template.id).id == template.id
    assert "US" in {region.code for region in hook.get_region_list()}
    from_template = hook.run_task_by_template(template.id, {"keyword": "pens"}, region="DE")
    assert from_template.id in {task.id for task in emulator.tasks}


def test_hook_methods_work_for_bots_and_their_templates(emulator):
    hook = BrowserActHook()
    created = hook.run_bot(CONTACTS.id, {"company_name": "Example Corp", "max_pages": 2})
    assert hook.get_task_status(created.id, api_version="v3") in ("created", "running")
    task = hook.get_task(created.id, api_version="v3")
    assert (task.bot_id, task.input) == (CONTACTS.id, {"company_name": "Example Corp", "max_pages": 2})
    from_template = hook.run_bot_template(TEMPLATE_SEARCH.id, {"keyword": "pens"}, region="DE")
    assert [task.id for task in hook.iter_bot_tasks(bot_id=CONTACTS.id)] == [created.id]
    assert [task.id for task in hook.iter_bot_tasks(bot_name="contact")] == [created.id]
    assert {task.id for task in hook.iter_bot_tasks()} == {created.id, from_template.id}
    assert hook.stop_task(created.id, api_version="v3", biz_code=7) is True
    assert hook.stop_task(created.id, api_version="v3") is False
    assert [task.biz_code for task in emulator.tasks] == [7, None]
    assert hook.get_bot(CONTACTS.id).input_schema["required"] == ["company_name"]
    assert {bot.id for bot in hook.iter_bots()} > {SEARCH.id, CONTACTS.id}
    assert "US" in {region.code for region in hook.get_region_list(api_version="v3")}
    assert {request.endpoint for request in emulator.requests} == {
        "create-run",
        "create-template-run",
        "query-run-status",
        "query-run",
        "page-runs",
        "cancel-run",
        "query-bot",
        "page-bots",
        "list-regions",
    }


def test_run_of_a_bot_resumes_only_if_the_bot_is_workflow_built(emulator):
    for bot in (HUMAN, AGENT_HUMAN):
        emulator.set_workflow(bot.id, pause_at=0, duration=600)
    hook = BrowserActHook()
    built, agent = hook.run_bot(HUMAN.id), hook.run_bot(AGENT_HUMAN.id)
    hook.resume_task(built.id, api_version="v3")
    with pytest.raises(ResumeNotSupportedError, match="continues the run by itself"):
        hook.resume_task(agent.id, api_version="v3")
    assert [task.status for task in emulator.tasks] == ["running", "paused"]


@pytest.fixture
def spent(emulator, monkeypatch):
    """Runs of two workflows at noon on three days, with 20 credits each; on the last day, one is active."""
    hook, clock = BrowserActHook(), [0.0]
    monkeypatch.setattr(emulator, "clock", lambda: clock[0])
    for day, workflow in ((28, SEARCH), (28, ORDERS), (29, SEARCH), (30, SEARCH)):
        clock[0] = datetime(2026, 1, day, 12, tzinfo=timezone.utc).timestamp()
        emulator.next_run(workflow.id, duration=10.0)
        hook.run_task(workflow.id, {"keyword": "pens"} if workflow is SEARCH else {})
        clock[0] += 100.0
    emulator.next_run(SEARCH.id, duration=10.0)
    hook.run_task(SEARCH.id, {"keyword": "pens"})
    return hook


def in_january(day, hour=0):
    return datetime(2026, 1, day, hour, tzinfo=timezone.utc)


@pytest.mark.usefixtures("documented_responses")
def test_get_spend_adds_up_credits_by_day_and_workflow_with_one_request_for_each_version(spent, emulator):
    spend = spent.get_spend(in_january(1))
    assert spend.rows == (
        SpendRow(date(2026, 1, 28), ORDERS.id, 1, 20, 0, 0),
        SpendRow(date(2026, 1, 28), SEARCH.id, 1, 20, 0, 0),
        SpendRow(date(2026, 1, 29), SEARCH.id, 1, 20, 0, 0),
        SpendRow(date(2026, 1, 30), SEARCH.id, 2, 25, 0, 1),
    )
    assert (spend.credits, spend.by_source()) == (85, {SEARCH.id: 65, ORDERS.id: 20})
    assert [request.endpoint for request in emulator.requests[5:]] == ["list-tasks", "page-runs"]


@pytest.mark.usefixtures("documented_responses")
@pytest.mark.parametrize("shared", [False, True], ids=["separate lists", "shared lists"])
def test_get_spend_adds_up_credits_of_workflows_and_bots(emulator, shared):
    hook, emulator.shared_runs = BrowserActHook(), shared
    for each in (ORDERS, CONTACTS):
        emulator.set_workflow(each.id, duration=0.2)
    hook.run_task(ORDERS.id)
    hook.client.send(v3.create_run(CONTACTS.id, {"company_name": "Example Corp"}))
    emulator.wait_until(lambda: [task.status for task in emulator.tasks] == ["finished"] * 2)
    since = datetime.now(timezone.utc) - timedelta(days=1)
    spent = {CONTACTS.id: emulator.tasks[1].credit, ORDERS.id: emulator.tasks[0].credit}
    assert hook.get_spend(since).by_source() == spent
    assert hook.get_spend(since, bot_id=CONTACTS.id).by_source() == {CONTACTS.id: spent[CONTACTS.id]}
    assert hook.get_spend(since, workflow_id=ORDERS.id).by_source() == {ORDERS.id: spent[ORDERS.id]}
    assert hook.get_spend(since, workflow_id=ORDERS.id, bot_id=CONTACTS.id).by_source() == spent


@cases(
    ("arguments", "days"),
    {
        "from a moment": ((in_january(28, 12),), [28, 28, 29, 30]),
        "from a fraction of a second later": ((in_january(28, 12).replace(microsecond=1),), [29, 30]),
        "up to a moment, which is excluded": ((in_january(1), in_january(29, 12)), [28, 28]),
        "none": ((in_january(31),), []),
        "another time zone": ((datetime(2026, 1, 30, 14, tzinfo=timezone(timedelta(hours=2))),), [30]),
    },
)
def test_get_spend_takes_runs_by_their_creation_time(spent, arguments, days):
    assert [row.day.day for row in spent.get_spend(*arguments).rows] == days


@pytest.mark.usefixtures("documented_responses")
def test_get_spend_of_one_workflow(spent):
    assert spent.get_spend(in_january(1), workflow_id=ORDERS.id).by_day() == {date(2026, 1, 28): 20}


def test_resume_task_resumes_paused_task_and_raises_when_not_paused(emulator):
    emulator.set_workflow(HUMAN.id, pause_at=0.1, duration=0.5)
    hook = BrowserActHook()
    created = hook.run_task(HUMAN.id)
    emulator.wait_until(lambda: emulator.tasks[0].status == "paused")
    hook.resume_task(created.id)
    emulator.wait_until(lambda: emulator.tasks[0].status == "finished")
    with pytest.raises(TaskNotPausedError):
        hook.resume_task(created.id)


@cases(
    ("name", "arguments", "options"),
    {
        "run_task with empty workflow id": ("run_task", [""], {}),
        "run_task with inputs as text": ("run_task", [ORDERS.id, "keyword=pens"], {}),
        "run_task with ftp callback_url": ("run_task", [ORDERS.id], {"callback_url": "ftp://x"}),
        "run_task_by_template with template id None": ("run_task_by_template", [None], {}),
        "run_task_by_template with empty region": ("run_task_by_template", [TEMPLATE_SEARCH.id], {"region": ""}),
        "run_task_by_template with ftp status callback": (
            "run_task_by_template",
            [TEMPLATE_SEARCH.id],
            {"status_change_callback_url": "ftp://x"},
        ),
        "get_task with empty id": ("get_task", [""], {}),
        "get_task_status with id 'None'": ("get_task_status", ["None"], {}),
        "iter_tasks with empty workflow id": ("iter_tasks", [], {"workflow_id": ""}),
        "iter_tasks with unknown status": ("iter_tasks", [], {"status": "done"}),
        "iter_tasks from naive datetime": ("iter_tasks", [], {"created_at_from": datetime(2026, 1, 31)}),
        "get_spend from naive datetime": ("get_spend", [datetime(2026, 1, 31)], {}),
        "get_spend to naive datetime": (
            "get_spend",
            [datetime(2026, 1, 31, tzinfo=timezone.utc), datetime(2026, 1, 31)],
            {},
        ),
        "get_spend of empty workflow id": (
            "get_spend",
            [datetime(2026, 1, 31, tzinfo=timezone.utc)],
            {"workflow_id": ""},
        ),
        "iter_tasks to naive datetime": ("iter_tasks", [], {"created_at_to": datetime(2026, 1, 31)}),
        "stop_task with empty id": ("stop_task", [""], {}),
        "resume_task with empty id": ("resume_task", [""], {}),
        "get_workflow with empty id": ("get_workflow", [""], {}),
        "get_official_workflow_template with empty id": ("get_official_workflow_template", [""], {}),
        "get_task of unknown version": ("get_task", ["1"], {"api_version": "3"}),
        "get_task_status without version": ("get_task_status", ["1"], {"api_version": None}),
        "stop_task of unknown version": ("stop_task", ["1"], {"api_version": "v1"}),
        "resume_task of unknown version": ("resume_task", ["1"], {"api_version": "v1"}),
        "get_region_list of unknown version": ("get_region_list", [], {"api_version": "v1"}),
        "stop_task of version 3 with a path as id": ("stop_task", ["a/b"], {"api_version": "v3"}),
        "run_bot with an endpoint as id": ("run_bot", ["templates"], {}),
        "run_bot with ftp callback_url": ("run_bot", [CONTACTS.id], {"callback_url": "ftp://x"}),
        "run_bot_template with empty region": ("run_bot_template", [TEMPLATE_SEARCH.id], {"region": ""}),
        "iter_bot_tasks with status unknown": ("iter_bot_tasks", [], {"status": "unknown"}),
        "iter_bots with unknown type": ("iter_bots", [], {"bot_type": "human"}),
        "get_bot with empty id": ("get_bot", [""], {}),
        "get_bot_template with empty id": ("get_bot_template", [""], {}),
    },
)
def test_invalid_argument_raises_input_error_before_any_request(emulator, name, arguments, options):
    with pytest.raises(InputError):
        getattr(BrowserActHook(), name)(*arguments, **options)
    assert emulator.requests == []


STARTS = [
    lambda hook: hook.run_task(ORDERS.id),
    lambda hook: sent(hook, v2.run_task(ORDERS.id)),
    lambda hook: hook.run_task_by_template(TEMPLATE_TEXT.id),
    lambda hook: sent(hook, v2.run_task_by_template(TEMPLATE_TEXT.id)),
    lambda hook: hook.run_bot(ORDERS.id),
    lambda hook: sent(hook, v3.create_run(ORDERS.id)),
    lambda hook: hook.run_bot_template(TEMPLATE_TEXT.id),
]
START_IDS = [
    "run_task",
    "run_task in event loop",
    "run_task_by_template",
    "run_task_by_template in event loop",
    "run_bot",
    "create_run in event loop",
    "run_bot_template",
]


@pytest.mark.parametrize("start", STARTS, ids=START_IDS)
def test_start_with_lost_response_raises_unknown_error_and_is_not_repeated(emulator, start):
    emulator.fault("*", RequestFault.lost_response(), times=1)
    with pytest.raises(RunStartUnknownError, match=r"(?s)not known whether.*iter_tasks") as caught:
        start(BrowserActHook())
    assert caught.value.temporary is False
    assert len(emulator.tasks) == 1


@pytest.mark.parametrize("start", STARTS, ids=START_IDS)
@pytest.mark.parametrize("status", [200, 500])
def test_start_refused_with_undocumented_code_raises_run_start_unknown_error(emulator, start, status):
    emulator.fault("*", RequestFault.refused(4711, http_status=status), times=1)
    with pytest.raises(RunStartUnknownError, match="code 4711"):
        start(BrowserActHook())


@pytest.mark.parametrize("start", STARTS, ids=START_IDS)
def test_start_of_an_account_without_credits_raises_the_refusal_in_the_words_of_browseract(emulator, start):
    emulator.credits = 0
    with pytest.raises(
        InsufficientCreditsError, match=r"^BrowserAct refused the start: Insufficient credits"
    ) as caught:
        start(BrowserActHook())
    assert "not known" not in str(caught.value)


class TestRotatedApiKey:
    """The key of the connection is replaced while a hook is in use, as when someone rotates keys."""

    @pytest.fixture
    def hook(self, emulator, connect):
        hook = BrowserActHook()
        assert hook.settings.client.api_key == "app-emulator"
        emulator.api_key = "app-new"
        connect(password="app-new")
        return hook

    def test_call_with_rotated_api_key_is_sent_again_with_the_new_key(self, emulator, hook):
        for _ in range(2):
            hook.get_region_list()
            sent(hook, v2.get_region_list())
        assert hook.settings.client.api_key == "app-new"
        assert [request.status for request in emulator.requests] == [401, 200, 200, 200, 200]

    @pytest.mark.parametrize("within", [None, 5])
    def test_stop_with_rotated_api_key_is_sent_again_with_the_new_key(self, emulator, hook, within):
        with hook.client_within(within) as client, pytest.raises(TaskNotFoundError):
            client.send(v2.stop_task("7"))
        assert [request.status for request in emulator.requests] == [401, 400]

    async def test_open_async_client_and_its_hook_both_switch_to_rotated_api_key(self, emulator, hook):
        async with hook.async_client() as browseract:
            await browseract.send(v2.get_region_list())
            with pytest.raises(BrowserActError):
                await browseract.send(v2.get_task("7"))
        assert [request.status for request in emulator.requests] == [401, 200, 400]
        assert hook.settings.client.api_key == "app-new"

    async def test_call_fails_if_the_connection_cannot_be_read_again_and_works_once_it_can(
        self, emulator, hook, monkeypatch
    ):
        stored = os.environ["AIRFLOW_CONN_BROWSERACT_DEFAULT"]
        async with hook.async_client() as browseract:
            monkeypatch.delenv("AIRFLOW_CONN_BROWSERACT_DEFAULT")
            for _ in range(2):
                with pytest.raises(ConnectionFailedError, match="connection 'browseract_default' cannot be read"):
                    await browseract.send(v2.get_region_list())
                with pytest.raises(ConnectionFailedError, match="connection 'browseract_default' cannot be read"):
                    hook.get_region_list()
            monkeypatch.setenv("AIRFLOW_CONN_BROWSERACT_DEFAULT", stored)
            await browseract.send(v2.get_region_list())

    def test_rotated_api_key_that_is_also_refused_raises_authentication_error(self, emulator, hook, connect):
        connect(password="app-wrong")
        for _ in range(2):
            with pytest.raises(AuthenticationError):
                hook.get_region_list()
        # The old key, the wrong one, and the wrong one again.
        assert [request.status for request in emulator.requests] == [401, 401, 401]


async def test_async_start_cancelled_before_response_logs_that_a_run_may_exist(emulator, monkeypatch):
    emulator.fault("run-task", RequestFault.hung())
    hook, logged = BrowserActHook(), []
    monkeypatch.setattr(hook.log, "error", lambda message, *values: logged.append(message % values))
    starting = asyncio.create_task(awaited(hook, v2.run_task(ORDERS.id)))
    await asyncio.to_thread(emulator.wait_until, lambda: emulator.requests)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert logged == ["Interrupted during run-task. A run may be running and using credits, and its id is not known."]


def test_template_run_is_created_with_both_callback_urls(emulator, browseract_emulator):
    end, change = f"{browseract_emulator.url}/end", f"{browseract_emulator.url}/change"
    hook = BrowserActHook()
    hook.run_task_by_template(TEMPLATE_TEXT.id, callback_url=end, status_change_callback_url=change)
    assert [(task.callback_url, task.status_change_callback_url) for task in emulator.tasks] == [(end, change)]


def test_stop_task_sends_biz_code(emulator):
    hook = BrowserActHook()
    assert hook.stop_task(hook.run_task(ORDERS.id).id, biz_code=7) is True
    assert [task.biz_code for task in emulator.tasks] == [7]


def test_stop_task_for_ended_task_returns_false_without_a_warning(emulator, capfd):
    emulator.next_run(ORDERS.id, duration=0)
    hook = BrowserActHook()
    assert hook.stop_task(hook.run_task(ORDERS.id).id) is False
    assert "was not stopped" not in "".join(capfd.readouterr())


OTHER_VERSIONS = cases(
    ("start", "api_version", "remedy"),
    {
        "bot as v2": (lambda hook: hook.run_bot(ORDERS.id), "v2", "If it is the run of a bot, set api_version='v3'."),
        "workflow as v3": (
            lambda hook: hook.run_task(ORDERS.id),
            "v3",
            "If it is the run of a workflow, set api_version='v2'.",
        ),
    },
)


@OTHER_VERSIONS
@pytest.mark.parametrize("name", ["get_task", "get_task_status", "resume_task"])
def test_task_of_another_version_is_not_found_and_the_remedy_names_that_version(
    emulator, start, api_version, remedy, name
):
    hook = BrowserActHook()
    with pytest.raises(TaskNotFoundError, match=remedy):
        getattr(hook, name)(start(hook).id, api_version=api_version)


@OTHER_VERSIONS
def test_stop_task_of_another_version_returns_false_and_warns_that_it_was_not_stopped(
    emulator, start, api_version, remedy, capfd
):
    hook = BrowserActHook()
    task_id = start(hook).id
    assert hook.stop_task(task_id, api_version=api_version) is False
    line = rf"BrowserAct task {task_id} was not stopped: .*code 10112.* {remedy}"
    assert re.search(line, "".join(capfd.readouterr()))
    assert emulator.tasks[0].status == "running"


@pytest.mark.parametrize("status", [TaskStatus.FINISHED, "finished"], ids=["enum", "text"])
def test_iter_tasks_filters_by_status_enum_or_text(emulator, status):
    emulator.next_run(ORDERS.id, duration=0)
    hook = BrowserActHook()
    finished, _ = hook.run_task(ORDERS.id), hook.run_task(ORDERS.id)
    assert [task.id for task in hook.iter_tasks(status=status)] == [finished.id]


class TestAsyncCalls:
    async def test_v2_of_an_async_client_share_one_pool_until_it_is_closed(self, emulator, monkeypatch):
        opened = []

        class Recorded(httpx.AsyncClient):
            def __init__(self, **arguments):
                opened.append(self)
                super().__init__(**arguments)

        monkeypatch.setattr(httpx, "AsyncClient", Recorded)
        async with BrowserActHook().async_client() as browseract:
            await asyncio.gather(*(browseract.send(v2.get_workflow(one.id)) for one in emulator.of_kind("workflow")))
            async for one in browseract.iter_items(v2.list_workflows()):
                await browseract.send(v2.get_workflow(one.id))
            assert [client.is_closed for client in opened] == [False]
        assert [client.is_closed for client in opened] == [True]

    async def test_async_client_obeys_its_response_size_limit(self, emulator):
        hook = BrowserActHook()
        async with hook.async_client(max_response=10) as browseract:
            with pytest.raises(ResponseTooLargeError, match="larger than 10 bytes"):
                await browseract.send(v2.get_region_list())

    async def test_async_client_with_time_limit_has_shorter_timeouts(self, emulator, monkeypatch):
        given = []

        class Recorded(AsyncBrowserActClient):
            def __init__(self, settings, **arguments):
                given.append(settings)
                super().__init__(settings, **arguments)

        monkeypatch.setattr(client, "AsyncBrowserActClient", Recorded)
        async with BrowserActHook().async_client(within=6):
            settings = await given[0]()
        assert (settings.connect_timeout, settings.read_timeout, settings.retries.budget) == (1.5, 3, 1.5)


class TestConnectionInTask:
    @pytest.fixture
    def supervisor(self, browseract_emulator, monkeypatch):
        """Returns connections to a task; on Airflow 3.1, and under ``dag.test()``, only with the blocking method."""
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.comms import ConnectionResult, ErrorResponse

        empty = dict.fromkeys(["schema", "login", "port", "extra"])
        stored = {**empty, **browseract_emulator.connection, "conn_id": "stored"}

        class Supervisor:
            def send(self, message):
                # It also receives the secrets that must be masked.
                asked = getattr(message, "conn_id", None)
                return ConnectionResult.model_validate(stored) if asked == "stored" else ErrorResponse()

        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(), raising=False)

    @pytest.fixture
    def in_a_task(self):
        from airflow.sdk.execution_time.context import set_current_context

        with set_current_context({}):
            yield

    @pytest.mark.usefixtures("supervisor", "in_a_task")
    async def test_async_call_in_task_reads_connection_through_blocking_supervisor(self, emulator):
        assert await awaited(BrowserActHook("stored"), v2.get_region_list())

    @pytest.mark.usefixtures("supervisor", "in_a_task")
    async def test_async_call_in_task_with_missing_connection_raises_not_found(self):
        with pytest.raises(AirflowNotFoundException):
            await awaited(BrowserActHook("nowhere"), v2.get_region_list())

    @pytest.mark.usefixtures("supervisor")
    async def test_async_call_outside_task_does_not_use_blocking_supervisor(self):
        with pytest.raises(AirflowNotFoundException):
            await awaited(BrowserActHook("stored"), v2.get_region_list())


def test_async_client_used_twice_reads_connection_once_without_blocking(emulator, monkeypatch):
    def blocking(hook, conn_id):
        raise AssertionError("the blocking accessor was used in the event loop")

    looked_up = []
    original = BrowserActHook.aget_connection

    async def counting(hook, conn_id):
        looked_up.append(conn_id)
        return await original(conn_id)

    monkeypatch.setattr(BrowserActHook, "get_connection", blocking)
    monkeypatch.setattr(BrowserActHook, "aget_connection", counting)
    hook = BrowserActHook()

    async def use():
        for _ in range(2):
            async with hook.async_client() as browseract:
                assert await browseract.send(v2.get_region_list())

    asyncio.run(use())
    assert looked_up == ["browseract_default"]


def test_user_agent_of_requests_contains_provider_and_airflow_versions(emulator, connect):
    from airflow import __version__ as airflow_version

    from airflow_provider_browseract import __version__

    agents = []
    app = FastAPI()

    @app.get("/{path:path}", status_code=404)
    def answer(request: Request) -> None:
        agents.append(request.headers["User-Agent"])

    with served(app) as port:
        connect(host=f"http://127.0.0.1:{port}")
        hook = BrowserActHook()
        with pytest.raises(BrowserActError):
            hook.get_task("7")
        with pytest.raises(BrowserActError):
            sent(hook, v2.get_task("7"))
    assert agents == [f"airflow-provider-browseract/{__version__} apache-airflow/{airflow_version}"] * 2


class TestConnectionTest:
    @pytest.fixture
    def failure(self, connect):
        """Set the connection, test it, and return the message of the failure."""

        def test(*extra, **fields) -> str:
            connect(*extra, **fields)
            good, message = BrowserActHook().test_connection()
            assert good is False
            return message

        return test

    def test_connection_test_with_valid_key_reports_workflows_and_starts_no_run(self, emulator):
        good, message = BrowserActHook().test_connection()
        assert good is True
        assert f"{len(emulator.of_kind('workflow'))} workflows are visible" in message
        assert emulator.tasks == []
        assert [request.method for request in emulator.requests] == ["GET"]

    @pytest.mark.parametrize(
        ("change", "blamed"),
        [
            ({"password": "app-wrong"}, "The API key is wrong"),
            ({"password": None}, "has no API key"),
            ({"host": "gopher://x"}, "the host is not an http or https address"),
            ({"host": "http://127.0.0.1:9"}, "No usable connection to the API address: No connection"),
            ({"host": "http://nowhere.invalid"}, "No usable connection to the API address: No connection"),
        ],
        ids=["wrong key", "no key", "invalid host", "closed port", "unknown host"],
    )
    def test_connection_test_reports_which_of_key_host_or_network_is_wrong(
        self, emulator, failure, monkeypatch, change, blamed
    ):
        monkeypatch.setattr(timings, "CONNECTION_TEST_LIMIT", 6.0)
        message = failure(**change)
        assert blamed in message
        assert "app-wrong" not in message

    @pytest.mark.parametrize(
        "change",
        [{"password": None}, {"host": "gopher://x"}, {"host": "http://127.0.0.1:9"}, {}],
        ids=["no key", "invalid host", "closed port", "invalid webhook_base_url"],
    )
    def test_connection_test_does_not_name_the_random_id_of_the_copy_that_airflow_tests(
        self, emulator, connect, monkeypatch, change
    ):
        from airflow.models.connection import Connection

        monkeypatch.setattr(timings, "CONNECTION_TEST_LIMIT", 6.0)
        connect({"webhook_base_url": "ftp://x"}, **change)
        copied = json.loads(os.environ["AIRFLOW_CONN_BROWSERACT_DEFAULT"])
        monkeypatch.setenv("AIRFLOW_CONN_F0OADLFP", json.dumps(copied))
        good, message = Connection.get_connection_from_secrets("F0oADlfp").test_connection()
        assert good is False
        assert "F0oADlfp" not in message

    def test_connection_test_with_html_response_reports_wrong_host(self, emulator):
        emulator.fault("list-workflows", RequestFault.html())
        assert BrowserActHook().test_connection()[1].startswith("The host is wrong")

    @pytest.mark.parametrize("fault", [RequestFault.hung(), RequestFault.status(503)], ids=["hung", "503"])
    def test_connection_test_with_failing_service_ends_within_its_own_limit(self, emulator, monkeypatch, fault):
        monkeypatch.setattr(timings, "CONNECTION_TEST_LIMIT", 1.5)
        emulator.fault("list-workflows", fault)
        before = time.monotonic()
        good, message = BrowserActHook().test_connection()
        assert good is False
        assert "list-workflows" in message
        # Far below the 30 seconds that one response, and the 60 that all attempts may take for a task.
        assert time.monotonic() - before < 15

    def test_connection_test_can_be_called_through_airflow_connection_object(self, emulator):
        from airflow.models.connection import Connection

        good, message = Connection.get_connection_from_secrets("browseract_default").test_connection()
        assert good is True, message

    def test_connection_test_with_reachable_callback_route_reports_that_it_responds(
        self, emulator, connect, api_server
    ):
        with served(api_server) as port:
            connect({"webhook_base_url": f"http://127.0.0.1:{port}/"})
            good, message = BrowserActHook().test_connection()
        assert good is True, message
        assert f"The callback route responds at http://127.0.0.1:{port}/." in message

    @pytest.mark.parametrize(
        ("path", "problem"),
        [
            ("/browseract/callback", "contains the path of the callback route. Remove /browseract/callback and what"),
            ("/browseract/callback/", "contains the path of the callback route. Remove /browseract/callback and what"),
            ("/browseract/callback/a/b", "contains the path of the callback route. Remove /browseract/callback and wh"),
            ("/browseract", "the response was HTTP 404. Check its path (remove /browseract from its end), and"),
            ("/browseract/", "the response was HTTP 404. Check its path (remove /browseract from its end), and"),
            ("/team-a", "the response was HTTP 404. Check its path, and"),
        ],
        ids=["route", "route with a slash", "an address", "prefix", "prefix with a slash", "another path"],
    )
    def test_connection_test_fails_when_the_path_of_webhook_base_url_is_wrong(
        self, emulator, failure, api_server, path, problem
    ):
        with served(api_server) as port:
            message = failure({"webhook_base_url": f"http://127.0.0.1:{port}{path}"})
        assert problem in message

    def test_connection_test_passes_when_airflow_itself_is_below_the_path_of_our_routes(
        self, emulator, connect, api_server
    ):
        app = FastAPI()
        app.mount("/browseract", api_server)
        with served(app) as port:
            connect({"webhook_base_url": f"http://127.0.0.1:{port}/browseract"})
            good, message = BrowserActHook().test_connection()
        assert good is True, message

    def test_connection_test_fails_when_webhook_base_url_leads_to_another_server(
        self, emulator, failure, browseract_emulator
    ):
        message = failure({"webhook_base_url": browseract_emulator.url})
        assert "does not lead to the callback route: the response was HTTP 404" in message

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (Response('{"outcome":"unavailable"}', 503), "cannot handle callbacks now (HTTP 503): Airflow's database"),
            (
                Response("<html>", 503, media_type="text/html"),
                "does not lead to the callback route: the response was HTTP 503",
            ),
            (Response(status_code=302, headers={"location": "/login"}), "a login page or another gateway responds at"),
            (Response(status_code=401), "(HTTP 401) instead of the callback route. Set up a relay"),
            (Response("<html>log in", media_type="text/html"), "a login page or another gateway responds at"),
            (Response("{}", 404), "Check its path, and that the provider is installed"),
        ],
        ids=["no database", "a page with 503", "a redirect", "401", "a login page", "no route"],
    )
    def test_connection_test_reports_cause_when_callback_url_responds_wrongly(self, emulator, failure, answer, message):
        app = FastAPI()
        app.add_api_route("/{path:path}", lambda: answer, methods=["POST"])
        with served(app) as port:
            logged = failure({"webhook_base_url": f"http://127.0.0.1:{port}"})
        assert message in logged

    @pytest.mark.parametrize(
        ("base_url", "reason"),
        [
            ("http://127.0.0.1:9", "Connection refused"),
            ("http://nowhere.invalid", "Name or service not known|Temporary failure in name resolution"),
        ],
        ids=["closed port of this machine", "unknown name"],
    )
    def test_connection_test_fails_with_the_reason_when_callbacks_cannot_arrive(
        self, emulator, failure, base_url, reason
    ):
        message = failure({"webhook_base_url": base_url})
        assert re.search(f"But {base_url} cannot be reached from the machine of this test: ({reason})\\.", message)
        assert "a machine cannot reach its own public address" in message
        assert "'Woken by a callback'" in message

    def test_connection_test_fails_when_nothing_responds_to_a_callback_in_time(self, emulator, failure, monkeypatch):
        monkeypatch.setattr(probe, "PROBE_TIMEOUT", 0.2)
        with socket.create_server(("127.0.0.1", 0)) as silent:
            message = failure({"webhook_base_url": f"http://127.0.0.1:{silent.getsockname()[1]}"})
        assert "no response within 0.2 seconds" in message

    def test_airflow_command_shows_why_callbacks_cannot_arrive(self, emulator, connect, cli, monkeypatch, capsys):
        connect({"webhook_base_url": "http://127.0.0.1:9"})
        monkeypatch.setenv("AIRFLOW__CORE__TEST_CONNECTION", "Enabled")
        shown = ""
        # Newer cores end the command with an error.
        with suppress(SystemExit):
            shown = cli("connections", "test", "browseract_default")
        shown = " ".join((shown + capsys.readouterr().out).split())
        assert "Connection failed!" in shown
        assert "But http://127.0.0.1:9 cannot be reached from the machine of this test" in shown

    def test_connection_test_fails_when_webhook_base_url_is_not_http(self, emulator, failure):
        message = failure({"webhook_base_url": "ftp://airflow.example.com"})
        assert "But callbacks are not possible: webhook_base_url is not an http or https address" in message

    def test_connection_test_without_callbacks_reports_polling(self, emulator):
        assert "Deferred tasks poll" in BrowserActHook().test_connection()[1]
