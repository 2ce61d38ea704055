from __future__ import annotations

import asyncio
import json
from datetime import datetime

import pytest
from fastapi import FastAPI, Response

from airflow_provider_browseract.api.client import AsyncBrowserActClient
from airflow_provider_browseract.api.errors import (
    AnswerTooLargeError,
    AuthenticationError,
    ConcurrencyLimitError,
    InvalidRequestError,
    RunStartUnknownError,
    TaskNotPausedError,
)
from airflow_provider_browseract.api.models import TaskStatus
from airflow_provider_browseract.compat import AirflowNotFoundException
from airflow_provider_browseract.emulator import (
    HUMAN,
    LOG_IN,
    ORDERS,
    SEARCH,
    TEMPLATE_SEARCH,
    TEMPLATE_TEXT,
    RequestFault,
)
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs.inputs import InputError
from tests.served import served


@pytest.fixture
def emulator(browseract_emulator):
    return browseract_emulator.emulator


@pytest.fixture
def connect(browseract_emulator, monkeypatch):
    """Change the connection."""

    def change(**fields):
        connection = {**browseract_emulator.connection, "extra": {"retry_budget": 0.5, "read_timeout": 0.5}, **fields}
        monkeypatch.setenv("AIRFLOW_CONN_BROWSERACT_DEFAULT", json.dumps(connection))

    return change


def test_a_hook_can_be_made_without_a_connection():
    assert BrowserActHook("nowhere").browseract_conn_id == "nowhere"


def test_each_thing_that_an_author_does_has_a_method(emulator):
    hook = BrowserActHook()
    created = hook.run_task(SEARCH.id, {"keyword": "pens", "max_items": 2})
    assert hook.get_task_status(created.id) in ("created", "running")
    assert hook.get_task(created.id).workflow_id == SEARCH.id
    assert [task.id for task in hook.iter_tasks(workflow_id=SEARCH.id)] == [created.id]
    assert hook.stop_task(created.id) is True
    assert hook.stop_task(created.id) is False
    assert {workflow.id for workflow in hook.iter_workflows()} == set(emulator.workflows)
    assert [entry.name for entry in hook.get_workflow(LOG_IN.id).input_parameters] == ["username", "password"]
    template = next(hook.iter_official_workflow_templates())
    assert hook.get_official_workflow_template(template.id).id == template.id
    assert "US" in {region.code for region in hook.get_region_list()}
    from_template = hook.run_task_by_template(template.id, {"keyword": "pens"}, region="DE")
    assert from_template.id in {task.id for task in emulator.tasks}


def test_a_paused_task_can_be_resumed(emulator):
    emulator.set_workflow(HUMAN.id, pause_at=0.1, duration=0.5)
    hook = BrowserActHook()
    created = hook.run_task(HUMAN.id)
    emulator.wait_until(lambda: emulator.tasks[0].status == "paused")
    hook.resume_task(created.id)
    emulator.wait_until(lambda: emulator.tasks[0].status == "finished")
    with pytest.raises(TaskNotPausedError):
        hook.resume_task(created.id)


def test_lists_go_over_all_pages_with_full_pages(emulator):
    list(BrowserActHook().iter_workflows())
    assert len([request for request in emulator.requests if request.endpoint == "list-workflows"]) == 1


BAD_ARGUMENTS = [
    ("run_task", [""], {}),
    ("run_task", [ORDERS.id, "keyword=pens"], {}),
    ("run_task", [ORDERS.id], {"callback_url": "ftp://x"}),
    ("run_task_by_template", [None], {}),
    ("run_task_by_template", [TEMPLATE_SEARCH.id], {"region": ""}),
    ("run_task_by_template", [TEMPLATE_SEARCH.id], {"status_change_callback_url": "ftp://x"}),
    ("get_task", [""], {}),
    ("get_task_status", ["None"], {}),
    ("iter_tasks", [], {"workflow_id": ""}),
    ("iter_tasks", [], {"status": "done"}),
    ("iter_tasks", [], {"created_at_from": datetime(2026, 1, 31)}),
    ("iter_tasks", [], {"created_at_to": datetime(2026, 1, 31)}),
    ("stop_task", [""], {}),
    ("resume_task", [""], {}),
    ("get_workflow", [""], {}),
    ("get_official_workflow_template", [""], {}),
]


@pytest.mark.parametrize(("name", "arguments", "options"), BAD_ARGUMENTS)
async def test_bad_arguments_are_refused_before_anything_is_sent(emulator, name, arguments, options):
    hook = BrowserActHook()
    with pytest.raises(InputError):
        getattr(hook, name)(*arguments, **options)
    with pytest.raises(InputError):
        await getattr(hook, f"a{name}")(*arguments, **options)
    assert emulator.requests == []


STARTS = [
    lambda hook: hook.run_task(ORDERS.id),
    lambda hook: asyncio.run(hook.arun_task(ORDERS.id)),
    lambda hook: hook.run_task_by_template(TEMPLATE_TEXT.id),
    lambda hook: asyncio.run(hook.arun_task_by_template(TEMPLATE_TEXT.id)),
]


@pytest.mark.parametrize("start", STARTS)
def test_a_start_without_a_usable_answer_says_that_a_run_may_go_on(emulator, connect, start):
    connect()
    emulator.fault("*", RequestFault.lost_answer(), times=1)
    with pytest.raises(RunStartUnknownError, match=r"(?s)not known whether.*iter_tasks") as caught:
        start(BrowserActHook())
    assert caught.value.temporary is False
    assert len(emulator.tasks) == 1


@pytest.mark.parametrize("start", STARTS)
def test_a_start_that_is_refused_says_so_as_it_is(emulator, start):
    emulator.service.concurrency = 1
    BrowserActHook().run_task(SEARCH.id, {"keyword": "pens"})
    with pytest.raises(ConcurrencyLimitError):
        start(BrowserActHook())


@pytest.mark.parametrize("start", STARTS)
def test_a_start_that_is_refused_with_an_undocumented_code_may_have_made_a_run(emulator, start):
    emulator.fault("*", RequestFault.refused(4711), times=1)
    with pytest.raises(RunStartUnknownError, match="code 4711"):
        start(BrowserActHook())


class TestAChangedApiKey:
    """The key of the connection is replaced while a hook is in use, as when someone rotates keys."""

    @pytest.fixture
    def hook(self, emulator, connect):
        connect()
        hook = BrowserActHook()
        assert hook.settings.client.api_key == "app-emulator"
        emulator.rotate_key("app-new")
        connect(password="app-new")
        return hook

    @pytest.fixture
    def logged(self, hook, monkeypatch):
        lines: list[str] = []
        for level in ("info", "warning"):
            monkeypatch.setattr(hook.log, level, lambda message, *values: lines.append(message % values))
        return lines

    @pytest.mark.parametrize("start", STARTS)
    def test_is_used_for_a_start_that_then_makes_one_run(self, emulator, hook, start):
        created = start(hook)
        assert [task.id for task in emulator.tasks] == [created.id]

    def test_is_read_once_and_reported_once_without_any_key(self, emulator, hook, logged):
        for _ in range(2):
            hook.get_region_list()
            asyncio.run(hook.aget_region_list())
        assert [request.status for request in emulator.requests] == [401, 200, 200, 200, 200]
        assert logged == [
            "BrowserAct refused the API key of connection 'browseract_default'. The connection has another key now, "
            "which is used from here on."
        ]

    def test_is_used_by_calls_with_a_time_limit_of_their_own(self, emulator, hook):
        created = asyncio.run(hook.arun_task(ORDERS.id))
        emulator.rotate_key("app-emulator")
        assert hook.settings.client.api_key == "app-new"
        with pytest.raises(AuthenticationError):
            hook.stop_task(created.id, within=5)
        emulator.rotate_key("app-new")
        assert hook.stop_task(created.id, within=5) is True

    @pytest.mark.parametrize(
        "stop",
        [lambda hook: hook.stop_task("7", within=5), lambda hook: asyncio.run(hook.astop_task("7", within=5))],
    )
    def test_is_read_by_calls_with_a_time_limit_of_their_own(self, emulator, hook, stop):
        assert stop(hook) is False
        assert [request.status for request in emulator.requests] == [401, 400]

    async def test_is_used_by_an_open_client_and_by_the_hook_afterwards(self, emulator, hook):
        async with hook.async_client() as client:
            await hook.aget_region_list()
            assert client.settings.api_key == "app-new"
        assert hook.settings.client.api_key == "app-new"

    @pytest.mark.parametrize(
        "call", [lambda hook: hook.get_region_list(), lambda hook: asyncio.run(hook.aget_region_list())]
    )
    def test_that_cannot_be_read_leaves_the_error_as_it_is(self, emulator, hook, logged, monkeypatch, call):
        monkeypatch.delenv("AIRFLOW_CONN_BROWSERACT_DEFAULT")
        with pytest.raises(AuthenticationError):
            call(hook)
        assert len(logged) == 1
        assert logged[0].startswith("BrowserAct refused the API key of connection 'browseract_default', and the conn")
        assert "app-" not in logged[0]

    def test_that_is_refused_as_well_is_an_error(self, emulator, hook, connect):
        connect(password="app-wrong")
        with pytest.raises(AuthenticationError):
            hook.get_region_list()
        assert [request.status for request in emulator.requests] == [401, 401]


async def test_a_start_that_is_broken_off_says_in_the_log_that_a_run_may_go_on(emulator, monkeypatch):
    emulator.fault("run-task", RequestFault.hung())
    hook, said = BrowserActHook(), []
    monkeypatch.setattr(hook.log, "error", lambda message, *values: said.append(message % values))
    starting = asyncio.create_task(hook.arun_task(ORDERS.id))
    await asyncio.to_thread(emulator.wait_until, lambda: emulator.requests)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert said == ["Interrupted during run-task: a run may go on, and cost credits, without its id known."]


def test_a_run_of_a_template_calls_back_where_it_is_told_to(emulator, browseract_emulator):
    end, change = f"{browseract_emulator.url}/end", f"{browseract_emulator.url}/change"
    hook = BrowserActHook()
    hook.run_task_by_template(TEMPLATE_TEXT.id, callback_url=end, status_change_callback_url=change)
    asyncio.run(hook.arun_task_by_template(TEMPLATE_TEXT.id, callback_url=end, status_change_callback_url=change))
    assert {(task.callback_url, task.status_change_callback_url) for task in emulator.tasks} == {(end, change)}
    assert len(emulator.tasks) == 2


def test_a_task_is_stopped_with_a_number_for_statistics(emulator):
    hook = BrowserActHook()
    assert hook.stop_task(hook.run_task(ORDERS.id).id, biz_code=7, within=5) is True
    assert asyncio.run(hook.astop_task(hook.run_task(ORDERS.id).id, biz_code=8)) is True
    assert [task.biz_code for task in emulator.tasks] == [7, 8]


def test_a_task_that_has_ended_or_is_not_known_needs_no_stop(emulator):
    emulator.next_run(ORDERS.id, duration=0)
    hook = BrowserActHook()
    for task_id in (hook.run_task(ORDERS.id).id, "12345678901234567"):
        assert hook.stop_task(task_id) is False
        assert asyncio.run(hook.astop_task(task_id)) is False


@pytest.mark.parametrize("status", [TaskStatus.FINISHED, "finished"])
def test_tasks_are_listed_by_a_status_or_its_word(emulator, status):
    emulator.next_run(ORDERS.id, duration=0)
    hook = BrowserActHook()
    finished, _ = hook.run_task(ORDERS.id), hook.run_task(ORDERS.id)
    assert [task.id for task in hook.iter_tasks(status=status)] == [finished.id]


class TestAsynchronousCalls:
    @pytest.fixture
    def clients(self, monkeypatch):
        """The client that carried each call, in turn."""
        carried = []
        send = AsyncBrowserActClient.send

        async def recorded(client, call):
            carried.append(client)
            return await send(client, call)

        monkeypatch.setattr(AsyncBrowserActClient, "send", recorded)
        return carried

    async def test_open_a_client_each_and_close_it(self, emulator, clients):
        hook = BrowserActHook()
        await hook.aget_region_list()
        [one async for one in hook.aiter_workflows()]
        assert len(set(clients)) == 2
        assert all(client._opened is None for client in clients)

    async def test_share_the_client_that_is_open_around_them(self, emulator, clients):
        hook = BrowserActHook()
        async with hook.async_client() as client:
            await hook.aget_region_list()
            await asyncio.gather(*(hook.aget_workflow(one.id) for one in emulator.workflows.values()))
            await asyncio.create_task(hook.aget_region_list())
            async for one in hook.aiter_workflows():
                await hook.aget_workflow(one.id)
            assert set(clients) == {client}
            assert client._opened is not None
        await hook.aget_region_list()
        assert clients[-1] is not client
        assert client._opened is None

    async def test_use_the_innermost_of_several_clients(self, emulator, clients):
        hook = BrowserActHook()
        async with hook.async_client() as outer:
            async with hook.async_client(within=5) as inner:
                await hook.aget_region_list()
            await hook.aget_region_list()
        assert clients == [inner, outer]

    async def test_read_no_more_of_an_answer_than_the_client_around_them_accepts(self, emulator):
        hook = BrowserActHook()
        async with hook.async_client(max_answer=10):
            with pytest.raises(AnswerTooLargeError, match="larger than 10 bytes"):
                await hook.aget_region_list()
        assert await hook.aget_region_list()

    async def test_that_are_in_a_hurry_open_a_client_of_their_own(self, emulator, clients):
        hook = BrowserActHook()
        async with hook.async_client() as client:
            await hook.astop_task("12345678901234567", within=5)
            assert clients[0] is not client
            assert clients[0].settings.read_timeout < client.settings.read_timeout

    async def test_do_not_use_the_client_of_another_hook(self, emulator, clients):
        async with BrowserActHook().async_client() as client:
            await BrowserActHook().aget_region_list()
        assert clients[0] is not client

    async def test_do_not_use_the_client_of_another_event_loop(self, emulator, clients):
        hook = BrowserActHook()
        async with hook.async_client() as client:
            await asyncio.to_thread(lambda: asyncio.run(hook.aget_region_list()))
        assert clients[0] is not client

    async def test_do_not_use_the_client_of_a_neighbour(self, emulator, clients):
        hook, closed = BrowserActHook(), asyncio.Event()

        async def first():
            async with hook.async_client() as client:
                await hook.aget_region_list()
            closed.set()
            return client

        async def second():
            async with hook.async_client() as client:
                await closed.wait()
                await hook.aget_region_list()
            return client

        assert clients == list(await asyncio.gather(first(), second()))

    async def test_that_outlast_the_client_around_them_open_one(self, emulator, clients):
        hook, closed = BrowserActHook(), asyncio.Event()

        async def later():
            await closed.wait()
            await hook.aget_region_list()

        async with hook.async_client() as client:
            late = asyncio.create_task(later())
        closed.set()
        await late
        assert clients[0] is not client
        assert clients[0]._opened is None

    async def test_do_not_use_a_client_that_was_closed_from_elsewhere(self, emulator, clients):
        hook = BrowserActHook()

        async def opened():
            async with hook.async_client() as client:
                yield client

        generator = opened()
        client = await anext(generator)
        await asyncio.create_task(generator.aclose())
        await hook.aget_region_list()
        assert clients[0] is not client

    async def test_that_iterate_close_their_client_when_the_iteration_is_closed(self, emulator, clients):
        iteration = BrowserActHook().aiter_workflows()
        assert await anext(iteration)
        assert clients[0]._opened is not None
        await iteration.aclose()
        assert clients[0]._opened is None


class TestTheConnectionInATask:
    @pytest.fixture
    def supervisor(self, browseract_emulator, monkeypatch):
        """What a task asks for connections; on Airflow 3.1, and under ``dag.test()``, in the blocking way alone."""
        from airflow.sdk.execution_time import task_runner
        from airflow.sdk.execution_time.comms import ConnectionResult, ErrorResponse

        empty = dict.fromkeys(["schema", "login", "port", "extra"])
        stored = {**empty, **browseract_emulator.connection, "conn_id": "stored"}

        class Supervisor:
            def send(self, message):
                # It is also told of secrets that have to be masked.
                asked = getattr(message, "conn_id", None)
                return ConnectionResult.model_validate(stored) if asked == "stored" else ErrorResponse()

        monkeypatch.setattr(task_runner, "SUPERVISOR_COMMS", Supervisor(), raising=False)

    @pytest.fixture
    def in_a_task(self):
        from airflow.sdk.execution_time.context import set_current_context

        with set_current_context({}):
            yield

    @pytest.mark.usefixtures("supervisor", "in_a_task")
    async def test_is_found_where_it_can_be_asked_for_in_the_blocking_way_alone(self, emulator):
        assert await BrowserActHook("stored").aget_region_list()

    @pytest.mark.usefixtures("supervisor", "in_a_task")
    async def test_is_said_to_be_missing_if_it_is(self):
        with pytest.raises(AirflowNotFoundException):
            await BrowserActHook("nowhere").aget_region_list()

    @pytest.mark.usefixtures("supervisor")
    async def test_is_not_asked_for_in_the_blocking_way_in_a_trigger(self):
        with pytest.raises(AirflowNotFoundException):
            await BrowserActHook("stored").aget_region_list()


def test_the_connection_is_read_once_and_not_blocking_in_a_trigger(emulator, monkeypatch):
    from airflow_provider_browseract.api import calls

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
            async with hook.async_client() as client:
                assert await client.send(calls.get_region_list())

    asyncio.run(use())
    assert looked_up == ["browseract_default"]


def test_requests_name_the_versions_of_provider_and_airflow(emulator):
    from airflow import __version__ as airflow_version

    from airflow_provider_browseract import __version__

    agent = BrowserActHook().settings.client.user_agent
    assert agent == f"airflow-provider-browseract/{__version__} apache-airflow/{airflow_version}"


class TestTestingTheConnection:
    def test_a_good_one_says_what_was_found_and_starts_nothing(self, emulator):
        good, message = BrowserActHook().test_connection()
        assert good is True
        assert f"{len(emulator.workflows)} workflows are visible" in message
        assert emulator.tasks == []
        assert [request.method for request in emulator.requests] == ["GET"]

    @pytest.mark.parametrize(
        ("change", "blamed"),
        [
            ({"password": "app-wrong"}, "The API key is wrong"),
            ({"password": None}, "has no API key"),
            ({"host": "gopher://x"}, "the host is not an http or https address"),
            ({"host": "http://127.0.0.1:9"}, "The network or the host is wrong: No connection"),
            ({"host": "http://nowhere.invalid"}, "The network or the host is wrong: No connection"),
        ],
    )
    def test_a_bad_one_says_which_of_key_host_or_network_is_wrong(self, emulator, connect, change, blamed):
        connect(**change)
        good, message = BrowserActHook().test_connection()
        assert good is False
        assert blamed in message
        assert "app-wrong" not in message

    def test_a_web_page_is_a_wrong_host(self, emulator):
        emulator.fault("list-workflows", RequestFault.html())
        assert BrowserActHook().test_connection()[1].startswith("The host is wrong")

    def test_a_hung_service_is_said_after_a_bounded_time(self, emulator, connect):
        connect()
        emulator.fault("list-workflows", RequestFault.hung())
        assert BrowserActHook().test_connection()[1].startswith("The network or the host is wrong")

    def test_airflow_finds_it_through_the_connection(self, emulator):
        from airflow.models.connection import Connection

        good, message = Connection.get_connection_from_secrets("browseract_default").test_connection()
        assert good is True, message

    def test_callbacks_that_lead_to_the_route_are_said_to_arrive(self, emulator, connect, api_server):
        with served(api_server) as port:
            connect(extra={"webhook_base_url": f"http://127.0.0.1:{port}/"})
            good, message = BrowserActHook().test_connection()
        assert good is True, message
        assert f"Callbacks arrive at http://127.0.0.1:{port}/." in message

    def test_callbacks_that_lead_elsewhere_are_a_fault_of_the_connection(self, emulator, connect, browseract_emulator):
        connect(extra={"webhook_base_url": browseract_emulator.url})
        good, message = BrowserActHook().test_connection()
        assert good is False
        assert "does not lead to the callback route: it answered HTTP 404" in message

    @pytest.mark.parametrize(
        ("answer", "message"),
        [
            (Response('{"outcome":"unavailable"}', 503), "cannot handle callbacks now (HTTP 503): Airflow's database"),
            (
                Response("<html>", 503, media_type="text/html"),
                "does not lead to the callback route: it answered HTTP 503",
            ),
            (Response(status_code=302, headers={"location": "/login"}), "a login, or another gateway, answers at"),
            (Response(status_code=401), "(HTTP 401) in place of the callback route. Callbacks need a relay"),
            (Response("<html>log in", media_type="text/html"), "a login, or another gateway, answers at"),
            (Response("{}", 404), "Check its path, and that the provider is installed"),
        ],
        ids=["no database", "a page with 503", "a redirect", "401", "a login page", "no route"],
    )
    def test_callbacks_that_do_not_arrive_are_told_apart_by_the_answer(self, emulator, connect, answer, message):
        app = FastAPI()
        app.add_api_route("/{path:path}", lambda: answer, methods=["POST"])
        with served(app) as port:
            connect(extra={"webhook_base_url": f"http://127.0.0.1:{port}"})
            good, said = BrowserActHook().test_connection()
        assert good is False
        assert message in said

    def test_callbacks_that_cannot_be_tried_from_here_are_no_fault(self, emulator, connect):
        connect(extra={"webhook_base_url": "http://127.0.0.1:9"})
        good, message = BrowserActHook().test_connection()
        assert good is True
        assert "cannot be reached from here (ConnectionError)" in message

    def test_callbacks_to_an_impossible_address_are_a_fault(self, emulator, connect):
        connect(extra={"webhook_base_url": "ftp://airflow.example.com"})
        good, message = BrowserActHook().test_connection()
        assert good is False
        assert "webhook_base_url of connection 'browseract_default' is not an http or https address" in message

    def test_without_callbacks_polling_is_said(self, emulator, connect):
        connect()
        assert "Deferred tasks poll" in BrowserActHook().test_connection()[1]


def test_what_the_api_refuses_comes_with_its_words(emulator):
    with pytest.raises(InvalidRequestError, match="nonsense") as caught:
        BrowserActHook().run_task(SEARCH.id, {"max_items": 2, "keyword": "x", "nonsense": 1})
    assert caught.value.trace_id
