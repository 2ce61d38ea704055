"""The hook with both clients against the emulator: its methods, keys that are replaced, and the connection test."""

import asyncio
import inspect
import os
import re
from contextlib import nullcontext
from datetime import date, datetime, timezone
from functools import partial
from types import SimpleNamespace
from typing import get_type_hints

import httpx
import pytest
from airflow import __version__ as airflow_version
from airflow.models.connection import Connection
from airflow.sdk.execution_time import task_runner
from airflow.sdk.execution_time.comms import ConnectionResult, ErrorResponse
from fastapi import FastAPI, Response
from fastapi.middleware.gzip import GZipMiddleware

from airflow_provider_browseract import __version__
from airflow_provider_browseract import exceptions as errors
from airflow_provider_browseract.api import v2
from airflow_provider_browseract.api.models import TaskStatus
from airflow_provider_browseract.emulator import CONTACTS, LOG_IN, ORDERS, SEARCH, TEMPLATE_SEARCH, RequestFault
from airflow_provider_browseract.emulator.v2 import V2
from airflow_provider_browseract.emulator.v3 import V3
from airflow_provider_browseract.exceptions import InputError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.spending.spend import SpendRow
from tests.helpers.cases import cases, raising
from tests.helpers.catalogue import TEMPLATE_TEXT
from tests.helpers.served import responding, served

LONGER_THAN_A_TEST = {"read_timeout": 3600, "retry_budget": 3600}
"""The extra of a connection whose calls end only because of another limit."""


@pytest.fixture
def emulator(browseract_emulator):
    return browseract_emulator


async def awaited(hook, call, **limits):
    async with hook.async_client(**limits) as browseract:
        return await browseract.send(call)


METHODS = [each for name, each in vars(BrowserActHook).items() if inspect.isfunction(each) and name[0] != "_"]


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)
def test_annotations_of_each_public_method_resolve(method):
    arguments = inspect.signature(method).parameters.keys() - {"self"}
    assert get_type_hints(method).keys() == {*arguments, "return"}


def test_hook_methods_work_for_tasks_workflows_templates_and_regions(emulator, capfd):
    emulator.next_run(SEARCH.id, duration=600)
    hook = BrowserActHook()
    assert hook.get_conn() is hook.client
    created = hook.run_task(SEARCH.id, {"keyword": "pens", "max_items": 2})
    assert hook.get_task_status(created.id) in ("created", "running")
    assert hook.get_task(created.id).workflow_id == SEARCH.id
    assert [task.id for task in hook.iter_tasks(workflow_id=SEARCH.id)] == [created.id]
    assert hook.stop_task(created.id, biz_code=7) is True
    assert hook.stop_task(created.id) is False
    assert "was not stopped" not in "".join(capfd.readouterr())
    assert {workflow.id for workflow in hook.iter_workflows()} == {each.id for each in emulator.of_kind("workflow")}
    assert [entry.name for entry in hook.get_workflow(LOG_IN.id).input_parameters] == ["username", "password"]
    template = next(hook.iter_official_workflow_templates())
    assert hook.get_official_workflow_template(template.id).id == template.id
    assert "US" in {region.code for region in hook.get_region_list()}
    end, change = f"{emulator.url}/end", f"{emulator.url}/change"
    callbacks = {"callback_url": end, "status_change_callback_url": change}
    from_template = hook.run_task_by_template(template.id, {"keyword": "pens"}, region="DE", **callbacks)
    started = [(task.id, task.biz_code, task.callback_url, task.status_change_callback_url) for task in emulator.tasks]
    assert started == [(created.id, 7, None, None), (from_template.id, None, end, change)]
    for status in (TaskStatus.CANCELED, "canceled"):
        assert [task.id for task in hook.iter_tasks(status=status)] == [created.id]


def test_hook_methods_work_for_bots_and_their_templates(emulator):
    hook = BrowserActHook()
    created = hook.run_bot(CONTACTS.id, {"company_name": "Example Corp", "max_pages": 2})
    assert hook.get_task_status(created.id) in ("created", "running")
    task = hook.get_task(created.id)
    assert (task.bot_id, task.input) == (CONTACTS.id, {"company_name": "Example Corp", "max_pages": 2})
    from_template = hook.run_bot_template(TEMPLATE_SEARCH.id, {"keyword": "pens"}, region="DE")
    assert [task.id for task in hook.iter_bot_tasks(bot_id=CONTACTS.id)] == [created.id]
    assert [task.id for task in hook.iter_bot_tasks(bot_name="contact")] == [created.id]
    assert {task.id for task in hook.iter_bot_tasks()} == {created.id, from_template.id}
    assert hook.stop_task(created.id, biz_code=7) is True
    assert hook.stop_task(created.id) is False
    assert [task.biz_code for task in emulator.tasks] == [7, None]
    assert hook.get_bot(CONTACTS.id).input_schema["required"] == ["company_name"]
    [template] = hook.iter_bot_templates("product search")
    assert hook.get_bot_template(template.id).input_schema["required"] == ["keyword"]
    assert {bot.id for bot in hook.iter_bots()} > {SEARCH.id, CONTACTS.id}
    assert "US" in {region.code for region in hook.get_bot_region_list()}
    assert emulator.requests[-1].endpoint == "list-regions"


@pytest.mark.parametrize("run", ["run_task", "run_bot"])
def test_task_is_looked_for_in_both_versions_and_the_one_that_knows_it_is_remembered(emulator, run):
    hook = BrowserActHook()
    task_id = getattr(hook, run)(ORDERS.id).id
    assert [hook.get_task(task_id).id, hook.get_task_status(task_id)] == [task_id, "running"]
    assert hook.stop_task(task_id) is True
    names = [request.endpoint for request in emulator.requests[1:]]
    of_bots = ["get-task", "query-run", "query-run-status", "cancel-run"]
    assert names == (["get-task", "get-task-status", "stop-task"] if run == "run_task" else of_bots)


def test_task_is_unknown_only_if_both_versions_say_so(emulator, capfd):
    hook = BrowserActHook()
    for read in (hook.get_task, hook.get_task_status, hook.resume_task):
        with pytest.raises(errors.TaskNotFoundError):
            read("404")
    assert hook.stop_task("404") is False
    assert re.search("BrowserAct task 404 was not stopped: .*code 10112", "".join(capfd.readouterr()))
    assert [request.status for request in emulator.requests] == [400] * 8
    # Another error, of the one version or the other, does not mean that there is no such task.
    for endpoint in ("get-task", "query-run"):
        refused = RequestFault.refused(99002, http_status=403)
        with emulator.fault(endpoint, refused), pytest.raises(errors.PermissionDeniedError):
            hook.get_task("404")


def in_january(day, hour=0):
    return datetime(2026, 1, day, hour, tzinfo=timezone.utc)


def test_get_spend_lists_the_runs_of_both_versions_once_and_can_be_limited_to_a_source(emulator, monkeypatch):
    hook, clock = BrowserActHook(), [0.0]
    monkeypatch.setattr(emulator, "clock", lambda: clock[0])
    for day in (28, 29):
        clock[0] = in_january(day, 12).timestamp()
        hook.run_task(SEARCH.id, {"keyword": "pens"})
        hook.run_bot(CONTACTS.id, {"company_name": "Example Corp"})
    clock[0] = in_january(30).timestamp()
    spend = hook.get_spend(in_january(1))
    assert spend.rows == tuple(
        SpendRow(date(2026, 1, day), source.id, 1, used, 0, 0)
        for day in (28, 29)
        for source, used in ((SEARCH, 20), (CONTACTS, 15))
    )
    assert [request.endpoint for request in emulator.requests[4:]] == ["list-tasks", "page-runs"]
    assert hook.get_spend(in_january(1), bot_id=CONTACTS.id).rows == spend.rows[1::2]
    assert hook.get_spend(in_january(1), workflow_id=SEARCH.id).rows == spend.rows[::2]
    assert hook.get_spend(in_january(1), workflow_id=SEARCH.id, bot_id=CONTACTS.id).rows == spend.rows
    assert hook.get_spend(in_january(28, 12), in_january(29, 12)).rows == spend.rows[:2]


NAIVE, SINCE = datetime(2026, 1, 31), in_january(31)
TAKE_AN_ID = [
    *("run_task", "run_task_by_template", "run_bot", "run_bot_template", "get_task", "get_task_status", "stop_task"),
    *("resume_task", "get_workflow", "get_official_workflow_template", "get_bot", "get_bot_template"),
]


@pytest.mark.parametrize(
    ("name", "arguments", "options"),
    [
        *((name, [odd], {}) for name in TAKE_AN_ID for odd in ("", "None", None)),
        # The addresses of other endpoints.
        *(("run_bot", [each], {}) for each in ("templates", "runs", "regions")),
        ("run_task", [ORDERS.id, "keyword=pens"], {}),
        *((name, ["1"], {"callback_url": "ftp://x"}) for name in TAKE_AN_ID[:4]),
        *((name, ["1"], {"status_change_callback_url": "ftp://x"}) for name in TAKE_AN_ID[:4]),
        *((name, ["1"], {"region": ""}) for name in ("run_task_by_template", "run_bot_template")),
        *(("iter_tasks", [], {"workflow_id": ""}), ("iter_tasks", [], {"status": "done"})),
        *(("iter_tasks", [], {each: NAIVE}) for each in ("created_at_from", "created_at_to")),
        *(("get_spend", [NAIVE], {}), ("get_spend", [SINCE, NAIVE], {}), ("get_spend", [SINCE], {"workflow_id": ""})),
        ("iter_bot_tasks", [], {"status": "unknown"}),
        ("iter_bots", [], {"bot_type": "human"}),
    ],
    ids=str,
)
def test_invalid_argument_raises_input_error_before_any_request(emulator, name, arguments, options):
    with pytest.raises(InputError):
        getattr(BrowserActHook(), name)(*arguments, **options)
    assert emulator.requests == []


@cases(
    "start",
    {
        "run_task": lambda hook: hook.run_task(ORDERS.id),
        "run_task_by_template": lambda hook: hook.run_task_by_template(TEMPLATE_TEXT.id),
        "run_bot": lambda hook: hook.run_bot(ORDERS.id),
        "run_bot_template": lambda hook: hook.run_bot_template(TEMPLATE_TEXT.id),
    },
)
def test_start_with_lost_response_raises_unknown_error_and_is_not_repeated(emulator, start):
    emulator.fault("*", RequestFault.lost_response(), times=1)
    with pytest.raises(errors.RunStartUnknownError, match=r"(?s)not known whether.*iter_tasks") as caught:
        start(BrowserActHook())
    assert caught.value.temporary is False
    assert len(emulator.tasks) == 1


def test_interrupted_start_logs_that_a_run_may_exist(emulator, monkeypatch):
    hook, logged = BrowserActHook(), []
    monkeypatch.setattr(hook.log, "error", lambda message, *values: logged.append(message % values))
    monkeypatch.setattr(hook, "client", SimpleNamespace(send=raising(KeyboardInterrupt())))
    with pytest.raises(KeyboardInterrupt):
        hook.run_task(ORDERS.id)
    assert logged == ["Interrupted during run-task. A run may be running and using credits, and its id is not known."]


class TestRotatedApiKey:
    @pytest.fixture
    def hook(self, emulator, connect):
        hook = BrowserActHook()
        assert hook.settings.api_key == "app-emulator"
        emulator.api_key = "app-new"
        connect(password="app-new")
        return hook

    async def test_start_with_rotated_api_key_raises_and_the_next_start_uses_the_new_key(self, emulator, hook, connect):
        with pytest.raises(errors.AuthenticationError, match="connection 'browseract_default'"):
            hook.run_task(ORDERS.id)
        hook.run_task(ORDERS.id)
        assert [request.status for request in emulator.requests] == [401, 200]
        async with hook.async_client() as browseract:
            emulator.api_key = "app-newest"
            connect(password="app-newest")
            with pytest.raises(errors.AuthenticationError):
                await browseract.send(v2.run(ORDERS.id))
            await browseract.send(v2.run(ORDERS.id))
        assert [request.status for request in emulator.requests[2:]] == [401, 200]

    @pytest.mark.parametrize("within", [None, 5])
    def test_stop_with_rotated_api_key_is_sent_again_with_the_new_key(self, emulator, hook, within):
        with hook.client_within(within) as client, pytest.raises(errors.TaskNotFoundError):
            client.send(v2.stop_task("7"))
        assert [request.status for request in emulator.requests] == [401, 400]

    async def test_open_async_client_and_its_hook_both_switch_to_rotated_api_key(self, emulator, hook):
        async with hook.async_client() as browseract:
            for _ in range(2):
                await browseract.send(v2.list_regions())
                hook.get_region_list()
        assert [request.status for request in emulator.requests] == [401, 200, 200, 200, 200]
        assert hook.settings.api_key == "app-new"

    async def test_call_fails_only_while_the_connection_cannot_be_read_again(self, emulator, hook, monkeypatch):
        words = "connection 'browseract_default' cannot be read"
        cannot_be_read = partial(pytest.raises, errors.ConnectionFailedError, match=words)
        stored = os.environ["AIRFLOW_CONN_BROWSERACT_DEFAULT"]
        async with hook.async_client() as browseract:
            monkeypatch.delenv("AIRFLOW_CONN_BROWSERACT_DEFAULT")
            for _ in range(2):
                with cannot_be_read():
                    await browseract.send(v2.list_regions())
                with cannot_be_read():
                    hook.get_region_list()
            monkeypatch.setenv("AIRFLOW_CONN_BROWSERACT_DEFAULT", stored)
            await browseract.send(v2.list_regions())

    def test_connection_that_cannot_be_used_is_an_input_error_also_after_the_key_was_refused(self, hook, connect):
        with pytest.raises(errors.AuthenticationError):
            hook.run_task(ORDERS.id)
        connect(password="")
        with pytest.raises(InputError, match="has no API key"):
            hook.run_task(ORDERS.id)

    def test_another_error_does_not_count_as_a_refused_api_key(self, emulator, monkeypatch):
        hook = BrowserActHook()
        emulator.fault("get-region-list", RequestFault.refused(99002, http_status=403), times=1)
        with pytest.raises(errors.PermissionDeniedError):
            hook.get_region_list()
        # It is not read again.
        monkeypatch.delenv("AIRFLOW_CONN_BROWSERACT_DEFAULT")
        assert hook.get_region_list()

    def test_rotated_api_key_that_is_also_refused_raises_authentication_error(self, emulator, hook, connect):
        connect(password="app-wrong")
        for _ in range(2):
            with pytest.raises(errors.AuthenticationError):
                hook.get_region_list()
        # The old key, the wrong one, and the wrong one again.
        assert [request.status for request in emulator.requests] == [401, 401, 401]


class TestAsyncCalls:
    async def test_calls_of_an_async_client_share_one_pool_until_it_is_closed(self, emulator, monkeypatch):
        opened = []

        class Recorded(httpx.AsyncClient):
            def __init__(self, **arguments):
                opened.append(self)
                super().__init__(**arguments)

        monkeypatch.setattr(httpx, "AsyncClient", Recorded)
        async with BrowserActHook().async_client() as browseract:
            await asyncio.gather(*(browseract.send(v2.get_source(one.id)) for one in emulator.of_kind("workflow")))
            assert [client.is_closed for client in opened] == [False]
        assert [client.is_closed for client in opened] == [True]

    async def test_call_of_an_async_client_with_a_time_limit_ends_within_it(self, emulator, connect):
        connect(LONGER_THAN_A_TEST)
        emulator.fault("get-region-list", RequestFault.hung(), times=None)
        assert BrowserActHook().settings.within(1.0).longest_call == 1.0
        with pytest.raises(errors.ResponseLostError, match="No complete response to get-region-list"):
            await awaited(BrowserActHook(), v2.list_regions(), within=1.0)

    async def test_async_client_used_twice_reads_connection_once_without_blocking(self, emulator, monkeypatch):
        looked_up = []
        original = BrowserActHook.aget_connection

        async def counting(hook, conn_id):
            looked_up.append(conn_id)
            return await original(conn_id)

        monkeypatch.setattr(BrowserActHook, "get_connection", raising(AssertionError("blocked in the event loop")))
        monkeypatch.setattr(BrowserActHook, "aget_connection", counting)
        hook = BrowserActHook()
        for _ in range(2):
            assert await awaited(hook, v2.list_regions())
        assert looked_up == ["browseract_default"]


@pytest.fixture
def supervisor(browseract_emulator, monkeypatch):
    """Returns connections only with the blocking method, as under ``dag.test()``."""
    empty = dict.fromkeys(["schema", "login", "port", "extra"])
    stored = {**empty, **browseract_emulator.connection, "conn_id": "stored"}

    def send(message):
        # It also receives the secrets that must be masked.
        asked = getattr(message, "conn_id", None)
        return ConnectionResult.model_validate(stored) if asked == "stored" else ErrorResponse()

    monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", SimpleNamespace(send=send), raising=False)


@pytest.mark.usefixtures("supervisor")
@cases(
    ("stored", True, "stored", True),
    ("missing", True, "nowhere", False),
    # There, the supervisor would block the event loop.
    ("in a triggerer", False, "stored", False),
)
async def test_async_call_reads_its_connection_in_a_blocking_way_only_under_dag_test(
    monkeypatch, under_dag_test, conn_id, found
):
    monkeypatch.setattr("airflow_provider_browseract.hooks.connected.in_dag_test", lambda: under_dag_test)
    with nullcontext() if found else pytest.raises(errors.ConnectionFailedError):
        assert await awaited(BrowserActHook(conn_id), v2.list_regions())


def test_user_agent_contains_provider_and_airflow_versions(emulator):
    agent = BrowserActHook().settings.user_agent
    assert agent == f"airflow-provider-browseract/{__version__} apache-airflow/{airflow_version}"


class TestConnectionTest:
    @pytest.fixture
    def tested(self, emulator, connect, monkeypatch):
        """Set the connection, test the copy that Airflow makes of it, and return a message without its random id."""

        def test(*extra, succeeds: bool = False, **fields) -> str:
            connect(*extra, **fields)
            monkeypatch.setenv("AIRFLOW_CONN_F0OADLFP", os.environ["AIRFLOW_CONN_BROWSERACT_DEFAULT"])
            good, message = Connection.get_connection_from_secrets("F0oADlfp").test_connection()
            assert good is succeeds, message
            assert "F0oADlfp" not in message
            return str(message)

        return test

    def test_connection_test_with_valid_key_reports_workflows_and_starts_no_run(self, emulator, connect):
        connect()
        good, message = BrowserActHook().test_connection()
        assert good is True
        assert f"{len(emulator.of_kind('workflow'))} workflows are visible" in message
        assert emulator.tasks == []
        assert [request.method for request in emulator.requests] == ["GET"]

    @cases(
        ("wrong key", {"password": "app-wrong"}, "BrowserAct refused list-workflows"),
        ("invalid host", {"host": "gopher://x"}, "the host is not an http or https address"),
        ("unknown key", {"extra": {"webhook_url": "x"}}, "The extra has unknown keys: 'webhook_url'"),
        (
            "invalid webhook_base_url",
            {"extra": {"webhook_base_url": "ftp://x"}},
            "webhook_base_url is not an http or https address",
        ),
    )
    def test_connection_test_reports_which_field_is_wrong(self, tested, monkeypatch, changed, words):
        monkeypatch.setattr(timings, "CONNECTION_TEST_LIMIT", 6.0)
        message = tested(**changed)
        assert words in message
        assert "app-wrong" not in message

    @cases(
        ("hung", RequestFault.hung(), "list-workflows"),
        ("503", RequestFault.status(503), "list-workflows"),
        ("web page", RequestFault.html(), "Set the host of the Airflow connection"),
    )
    def test_connection_test_of_a_failing_service_ends_in_time(self, emulator, tested, monkeypatch, fault, words):
        monkeypatch.setattr(timings, "CONNECTION_TEST_LIMIT", 1.5)
        emulator.fault("list-workflows", fault)
        assert words in tested(LONGER_THAN_A_TEST)

    @pytest.mark.parametrize("prefix", ["", "/browseract"], ids=["at the root", "below the path of our routes"])
    def test_connection_test_reports_that_the_callback_route_responds(self, tested, api_server, prefix):
        app = FastAPI()
        app.mount(prefix, api_server)
        # As in Airflow's API server. Together, they send the body in pieces.
        app.middleware("http")(lambda request, call_next: call_next(request))
        app.add_middleware(GZipMiddleware, minimum_size=1024)
        with served(app) as port:
            tested({"webhook_base_url": f"http://127.0.0.1:{port}{prefix}/"}, succeeds=True)

    @pytest.mark.parametrize("path", ["/browseract", "/browseract/", "/team-a"])
    def test_connection_test_fails_when_the_path_of_webhook_base_url_is_wrong(self, tested, api_server, path):
        words = "is not the callback route (HTTP 404).\nCheck its path, and the log of the API server"
        with served(api_server) as port:
            assert words in tested({"webhook_base_url": f"http://127.0.0.1:{port}{path}"})

    @cases(
        ("login page", Response("<html>", media_type="text/html"), "a login page or another gateway responds"),
        ("redirect", Response(status_code=302, headers={"location": "/login"}), "Set up a relay there for callbacks"),
        ("no route", Response("{}", 404), "where the provider must be installed too"),
        ("more than the route sends", Response('{"outcome":"unknown"} ', 404), "is not the callback route (HTTP 404)"),
        ("another status", Response('{"outcome":"unknown"}', 200), "is not the callback route (HTTP 200)"),
    )
    def test_connection_test_reports_cause_when_callback_url_responds_wrongly(self, tested, answer, words):
        with responding(answer) as address:
            assert words in tested({"webhook_base_url": address})

    @cases(
        ("closed port", "http://127.0.0.1:9", "Connection refused"),
        ("unknown name", "http://nowhere.invalid", "(Name or service not known|Temporary failure in name resolution)"),
    )
    def test_connection_test_fails_with_the_reason_when_callbacks_cannot_arrive(self, tested, base_url, reason):
        message = tested({"webhook_base_url": base_url})
        assert re.search(rf"webhook_base_url does not respond to this machine \({reason}\)", message)
        assert "a machine cannot reach its own public address" in message
        assert "'Woken by a callback'" in message


@pytest.mark.parametrize("endpoint", [*V2.endpoints, *V3.endpoints])
def test_hook_has_a_method_for_each_endpoint_and_describes_its_arguments(endpoint):
    methods = [each for each in vars(BrowserActHook).values() if f"``{endpoint}``" in (inspect.getdoc(each) or "")]
    assert methods
    for method in methods:
        text = inspect.getdoc(method) or ""
        arguments = set(inspect.signature(method).parameters) - {"self"}
        assert [name for name in arguments if f":param {name}:" not in text] == []
