from __future__ import annotations

import json

import pytest

from airflow_provider_browseract.api.errors import (
    InvalidRequestError,
    RunStartUnknownError,
    TaskNotPausedError,
)
from airflow_provider_browseract.emulator import HUMAN, LOG_IN, ORDERS, SEARCH, RequestFault
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


@pytest.mark.parametrize(
    "call",
    [
        lambda hook: hook.run_task(""),
        lambda hook: hook.run_task(ORDERS.id, "keyword=pens"),
        lambda hook: hook.run_task(ORDERS.id, callback_url="ftp://x"),
        lambda hook: hook.run_task_by_template(None),
        lambda hook: hook.get_task(""),
        lambda hook: hook.get_task_status("None"),
        lambda hook: hook.stop_task(""),
        lambda hook: hook.resume_task(""),
        lambda hook: hook.get_workflow(""),
        lambda hook: hook.get_official_workflow_template(""),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_sent(emulator, call):
    with pytest.raises(InputError):
        call(BrowserActHook())
    assert emulator.requests == []


def test_a_start_without_a_usable_answer_says_that_a_run_may_go_on(emulator, connect):
    connect()
    emulator.fault("run-task", RequestFault.lost_answer(), times=1)
    with pytest.raises(RunStartUnknownError, match=r"not known whether.*iter_tasks") as caught:
        BrowserActHook().run_task(ORDERS.id)
    assert caught.value.temporary is False
    assert len(emulator.tasks) == 1


def test_the_connection_is_read_once_and_not_blocking_in_a_trigger(emulator, monkeypatch):
    import asyncio

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
