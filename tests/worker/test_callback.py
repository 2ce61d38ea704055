"""How the operator sets up callbacks, and how it handles one."""

from __future__ import annotations

import json

import pytest

from airflow_provider_browseract.compat import AirflowFailException, TaskDeferred
from airflow_provider_browseract.emulator import ORDERS, RequestFault
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.callback_url import TOKEN_KEY, WAIT_XCOM, TaskInstanceKey
from airflow_provider_browseract.runs.request import digest
from airflow_provider_browseract.runs.resuming import WaitEvent
from airflow_provider_browseract.runs.stored import from_json, to_json
from airflow_provider_browseract.runs.waiting import End, Wait, WokenBy
from tests.steps import replace
from tests.workers import ORDERS_RESULT, refuse_xcoms
from tests.world import browseract_emulator, emulator, worker, world

__all__ = ["browseract_emulator", "emulator", "worker", "world"]

WAITING = TaskInstanceKey("shop", "manual__1", "run", 3)
MINE = "http://127.0.0.1:1/mine"


PATIENCE = {"retry_budget": 1, "read_timeout": 10}


@pytest.fixture(autouse=True)
def _short_patience(connect):
    connect(PATIENCE)


@pytest.fixture
def webhooks(connect) -> str:
    """A connection with callbacks to an address where nothing listens."""
    connect({**PATIENCE, "webhook_base_url": "http://127.0.0.1:1/team-a/"})
    return "http://127.0.0.1:1/team-a/browseract/callback/"


def wait_of(deferral: TaskDeferred) -> dict:
    """The wait as the trigger stores it."""
    wait: dict = deferral.trigger.serialize()[1]["wait"]
    return wait


def callback_event(deferral: TaskDeferred) -> dict:
    """The event that the callback route creates from the trigger's wait."""
    return to_json(WaitEvent(from_json(Wait, wait_of(deferral)), End.ENDED, WokenBy.CALLBACK))


class TestCallbackUrl:
    def test_callback_url_names_the_task_instance_and_only_its_token_digest_is_stored(self, worker, emulator, webhooks):
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        run.ti.map_index = 3
        arguments = wait_of(run.defer())
        url = emulator.tasks[0].callback_url
        assert url.startswith(webhooks)
        encoded, token = url.removeprefix(webhooks).split("/")
        assert TaskInstanceKey.decode(encoded) == WAITING
        assert arguments[TOKEN_KEY] == run.ti.xcoms[WAIT_XCOM][TOKEN_KEY] == digest(token)
        assert token not in json.dumps([arguments, run.ti.xcoms])
        assert emulator.tasks[0].status_change_callback_url is None

    @pytest.mark.parametrize("mine", ["callback_url", "status_change_callback_url"])
    def test_callback_url_of_the_user_is_kept_and_the_other_field_is_used(self, worker, emulator, webhooks, mine):
        worker(workflow_id=ORDERS.id, deferrable=True, **{mine: MINE}).defer()
        [task] = emulator.tasks
        other = {"callback_url", "status_change_callback_url"} - {mine}
        assert getattr(task, mine) == MINE
        assert getattr(task, other.pop()).startswith(webhooks)

    def test_two_callback_urls_of_the_user_switch_to_polling_and_this_is_logged(
        self, worker, emulator, webhooks, capfd
    ):
        run = worker(
            workflow_id=ORDERS.id,
            deferrable=True,
            callback_url=MINE,
            status_change_callback_url=MINE,
            poll_interval=None,
        )
        arguments = wait_of(run.defer())
        assert (arguments[TOKEN_KEY], arguments["interval"]) == (None, timings.DEFAULT_POLL_INTERVAL)
        assert emulator.tasks[0].callback_url == emulator.tasks[0].status_change_callback_url == MINE
        assert "no place for the callback address that resumes this task. This task polls." in "".join(
            capfd.readouterr()
        )

    @pytest.mark.parametrize(
        ("name", "why"), [("発" * 250, "2048"), ("🛒", "do not fit")], ids=["too long", "beyond U+FFFF"]
    )
    def test_dag_and_run_ids_that_do_not_fit_into_a_callback_url_switch_to_polling(
        self, worker, emulator, webhooks, capfd, name, why
    ):
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        run.ti.dag_id = run.ti.run_id = name
        assert wait_of(run.defer())[TOKEN_KEY] is None
        logged = "".join(capfd.readouterr())
        assert why in logged
        assert "This task polls." in logged

    def test_callback_url_is_not_in_any_template_field(self, worker, emulator, webhooks):
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        operator = run.operator()
        with pytest.raises(TaskDeferred):
            operator.execute(run.context)
        shown = [getattr(operator, name) for name in operator.template_fields]
        assert not any("browseract/callback" in str(value) for value in shown)

    def test_callback_token_is_not_logged(self, worker, emulator, webhooks, capfd, caplog):
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        run.run()
        token = emulator.tasks[0].callback_url.rpartition("/")[2]
        assert token not in "".join(capfd.readouterr()) + caplog.text

    def test_callback_token_digest_is_pushed_before_the_start(self, worker, emulator, webhooks):
        emulator.fault("run-task", RequestFault.refused(99001))
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        with pytest.raises(AirflowFailException, match="99001"):
            run.run()
        assert TOKEN_KEY in run.ti.xcoms[WAIT_XCOM]


class TestWithoutCallbacks:
    @pytest.mark.parametrize(
        "arguments",
        [
            {"webhook": False, "deferrable": True},
            {"deferrable": False},
            {"deferrable": True, "wait_for_completion": False},
        ],
        ids=["switched off", "waiting in the worker", "not waiting"],
    )
    def test_no_callback_url_is_sent_if_webhook_is_off_or_nothing_is_deferred(
        self, worker, emulator, webhooks, arguments
    ):
        run = worker(workflow_id=ORDERS.id, **arguments)
        run.run()
        assert emulator.tasks[0].callback_url is None
        assert TOKEN_KEY not in json.dumps(run.ti.xcoms)

    def test_connection_without_webhook_base_url_polls_and_logs_nothing_about_callbacks(
        self, worker, emulator, connect, capfd
    ):
        run = worker(workflow_id=ORDERS.id, deferrable=True, poll_interval=None)
        assert wait_of(run.defer())["interval"] == timings.DEFAULT_POLL_INTERVAL
        assert "callback" not in "".join(capfd.readouterr())
        assert run.ti.xcoms["wait"] == {"waits_for": "poll", "poll_interval": timings.DEFAULT_POLL_INTERVAL}


class TestSafetyPolls:
    def test_safety_poll_interval_is_two_minutes_by_default(self, worker, emulator, webhooks, capfd):
        run = worker(workflow_id=ORDERS.id, deferrable=True, poll_interval=None)
        deferral = run.defer()
        assert wait_of(deferral)["interval"] == timings.SAFETY_POLL_INTERVAL
        log = "".join(capfd.readouterr())
        assert "Waiting in the triggerer for BrowserAct's callback." in log
        assert "polls the run at intervals that grow from 10 to 120 seconds. If no line follows, check" in log
        wait = run.ti.xcoms["wait"]
        assert (wait["waits_for"], wait["poll_interval"]) == ("callback", timings.SAFETY_POLL_INTERVAL)
        assert wait[TOKEN_KEY] == wait_of(deferral)[TOKEN_KEY]

    def test_safety_poll_interval_is_the_poll_interval_of_the_user(self, worker, emulator, webhooks, capfd):
        deferral = worker(workflow_id=ORDERS.id, deferrable=True, poll_interval=33).defer()
        assert wait_of(deferral)["interval"] == 33
        assert "polls the run every 33 seconds. If no line follows" in "".join(capfd.readouterr())

    def test_run_with_a_callback_and_the_check_of_its_inputs_takes_four_requests_besides_polls(
        self, worker, emulator, webhooks
    ):
        run = worker(workflow_id=ORDERS.id, deferrable=True, poll_interval=None)
        deferral = run.defer()
        emulator.wait_until(lambda: emulator.tasks[0].finished_at)
        run.operator().execute_complete(run.context, callback_event(deferral))
        requested = [request.endpoint for request in emulator.requests]
        assert requested == ["get-workflow", "run-task", "get-task", "get-task"]

    def test_first_safety_poll_comes_after_the_callback_grace(self, worker, emulator, webhooks):
        wait = wait_of(worker(workflow_id=ORDERS.id, deferrable=True).defer())
        assert wait["first_poll_at"] >= emulator.clock() + timings.CORE_RACE_GRACE + timings.CALLBACK_GRACE

    def test_safety_poll_returns_the_result_after_a_lost_callback_logs_and_counts_it(
        self, worker, emulator, webhooks, monkeypatch, capfd
    ):
        counted: list[str] = []
        monkeypatch.setattr("airflow_provider_browseract.worker.waiter.count_in_task", counted.append)
        emulator.next_run(ORDERS.id, duration=600.0)
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        assert run.run() == ORDERS_RESULT
        assert run.ti.xcoms["wait"]["woken_by"] == "poll"
        log = "".join(capfd.readouterr())
        assert "Woken by a poll" in log
        assert "airflow_provider_browseract check browseract_default`: it sends a callback through" in log
        assert counted == ["browseract.callbacks_missed"]

    def test_poll_interval_is_normal_again_after_a_poll_found_the_end(self, worker, emulator, webhooks):
        run = worker(workflow_id=ORDERS.id, deferrable=True, poll_interval=None)
        first = wait_of(run.defer())
        event = to_json(WaitEvent(from_json(Wait, first), End.ENDED))
        emulator.fault("get-task", RequestFault.status(503))
        with pytest.raises(TaskDeferred) as again:
            run.operator().execute_complete(run.context, event)
        assert first["interval"] == timings.SAFETY_POLL_INTERVAL
        assert wait_of(again.value)["interval"] == timings.DEFAULT_POLL_INTERVAL

    @pytest.mark.parametrize("duration", [1.0, 9.0], ids=["ended within the grace", "callback may be on its way"])
    def test_no_missing_callback_is_logged_before_one_can_have_arrived(
        self, worker, emulator, webhooks, capfd, duration
    ):
        emulator.next_run(ORDERS.id, duration=duration)
        worker(workflow_id=ORDERS.id, deferrable=True).run()
        log = "".join(capfd.readouterr())
        assert "Woken by a poll" in log
        assert "no callback" not in log

    def test_no_missing_callback_is_logged_if_none_was_requested(self, worker, emulator, connect, capfd):
        worker(workflow_id=ORDERS.id, deferrable=True).run()
        log = "".join(capfd.readouterr())
        assert "Woken by a poll" in log
        assert "callback" not in log.replace("callback_", "")


class TestCallback:
    def test_callback_returns_the_result_and_is_recorded_in_the_log_and_an_xcom(
        self, worker, emulator, webhooks, capfd
    ):
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        deferral = run.defer()
        emulator.wait_until(lambda: emulator.tasks[0].finished_at)
        assert run.operator().execute_complete(run.context, callback_event(deferral)) == ORDERS_RESULT
        wait = run.ti.xcoms["wait"]
        assert wait["woken_by"] == "callback"
        assert wait[TOKEN_KEY] == wait_of(deferral)[TOKEN_KEY]
        assert 0 <= wait["seconds_after_end"] < 30
        log = "".join(capfd.readouterr())
        assert f"Woken by a callback, {wait['seconds_after_end']:g} seconds after the end of the run." in log

    def test_callback_before_the_end_of_the_run_defers_again_on_the_same_run(self, worker, emulator, webhooks, capfd):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        first = run.defer()
        with pytest.raises(TaskDeferred) as again:
            run.operator().execute_complete(run.context, callback_event(first))
        kept = ("browseract_task_id", "deadline", "interval", TOKEN_KEY)
        assert [wait_of(again.value)[name] for name in kept] == [wait_of(first)[name] for name in kept]
        assert (wait_of(first)["callbacks_in_vain"], wait_of(again.value)["callbacks_in_vain"]) == (0, 1)
        assert "is running, although the callback reported that it had ended" in "".join(capfd.readouterr())
        assert len(emulator.tasks) == 1

    def test_callback_with_an_unreadable_result_defers_again(self, worker, emulator, webhooks):
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        first = run.defer()
        emulator.fault("get-task", RequestFault.status(503))
        with pytest.raises(TaskDeferred) as again:
            run.operator().execute_complete(run.context, callback_event(first))
        assert wait_of(again.value)[TOKEN_KEY] == wait_of(first)[TOKEN_KEY]

    def test_callback_of_a_run_without_an_end_time_reports_no_delay(
        self, worker, emulator, webhooks, monkeypatch, capfd
    ):
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        deferral = run.defer()
        emulator.wait_until(lambda: emulator.tasks[0].finished_at)
        operator = run.operator()
        client = operator.hook.client
        send = client.send
        monkeypatch.setattr(client, "send", lambda call: replace(send(call), finished_at=None))
        operator.execute_complete(run.context, callback_event(deferral))
        assert run.ti.xcoms["wait"]["woken_by"] == "callback"
        assert "seconds_after_end" not in run.ti.xcoms["wait"]
        assert "Woken by a callback." in "".join(capfd.readouterr())

    def test_callback_token_that_cannot_be_stored_switches_to_polling(self, worker, emulator, webhooks, capfd):
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        refuse_xcoms(run, "wait")
        assert wait_of(run.defer())[TOKEN_KEY] is None
        assert emulator.tasks[0].callback_url is None
        assert "This task polls, because no callback can resume it" in "".join(capfd.readouterr())

    def test_callback_token_that_cannot_be_stored_in_a_later_try_keeps_the_run_running(
        self, worker, emulator, webhooks, store
    ):
        emulator.set_workflow(ORDERS.id, duration=60.0)
        first = worker(workflow_id=ORDERS.id, deferrable=True, store=store)
        first.defer()
        last = worker(workflow_id=ORDERS.id, deferrable=True, store=store)
        refuse_xcoms(last, "wait")
        last.defer()
        assert [task.status for task in emulator.tasks] == ["running"]

    def test_callback_returns_the_result_even_if_the_xcom_cannot_be_pushed(self, worker, emulator, webhooks):
        run = worker(workflow_id=ORDERS.id, deferrable=True)
        deferral = run.defer()
        emulator.wait_until(lambda: emulator.tasks[0].finished_at)
        refuse_xcoms(run, "wait")
        assert run.operator().execute_complete(run.context, callback_event(deferral)) == ORDERS_RESULT


class TestWebhookTrue:
    def test_webhook_true_with_two_callback_urls_of_the_user_fails_and_starts_no_run(self, worker, emulator, webhooks):
        mine = {"callback_url": MINE, "status_change_callback_url": MINE}
        with pytest.raises(AirflowFailException, match="remove webhook=True"):
            worker(workflow_id=ORDERS.id, deferrable=True, webhook=True, **mine).run()
        assert emulator.tasks == []

    def test_webhook_true_with_webhook_base_url_expects_a_callback(self, worker, emulator, webhooks):
        arguments = wait_of(worker(workflow_id=ORDERS.id, deferrable=True, webhook=True).defer())
        assert arguments[TOKEN_KEY]


class TestWebhookBaseUrl:
    def test_private_webhook_base_url_fails_if_the_api_is_public(self, worker, emulator, connect):
        connect({"webhook_base_url": "http://10.0.0.7"}, host=None)
        with pytest.raises(AirflowFailException, match=r"10\.0\.0\.7, which BrowserAct cannot reach"):
            worker(workflow_id=ORDERS.id, deferrable=True).run()

    def test_invalid_webhook_base_url_is_ignored_with_webhook_false(self, worker, emulator, connect):
        connect({"webhook_base_url": "ftp://airflow.example.com"})
        assert worker(workflow_id=ORDERS.id, deferrable=True, webhook=False).run() == ORDERS_RESULT
