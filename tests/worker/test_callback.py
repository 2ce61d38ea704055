import json
from datetime import datetime, timezone

import pytest

from airflow_provider_browseract.compat import TaskDeferred
from airflow_provider_browseract.emulator import ORDERS
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.request import digest
from airflow_provider_browseract.runs.stored import to_json
from airflow_provider_browseract.runs.wait import WaitEvent, WokenBy
from tests.helpers.cases import cases
from tests.helpers.workers import ORDERS_RESULT

TOKEN_KEY = "callback_token_sha256"
MINE = "http://127.0.0.1:1/mine"


@pytest.fixture
def webhooks(connect) -> str:
    """A connection with callbacks to an address where nothing listens."""
    connect({"webhook_base_url": "http://127.0.0.1:1/team-a/"})
    return "http://127.0.0.1:1/team-a/browseract/callback/"


@pytest.fixture
def orders(worker):
    return lambda **arguments: worker(**{"workflow_id": ORDERS.id, "deferrable": True, **arguments})


def wait_of(deferral: TaskDeferred) -> dict:
    return dict(deferral.trigger.serialize()[1]["wait"])


def callback_event(deferral: TaskDeferred) -> dict:
    return to_json(WaitEvent(deferral.trigger.wait, WokenBy.CALLBACK))


@pytest.fixture
def called_back(orders, emulator, webhooks):
    run = orders(poll_interval=None)
    deferral = run.defer()
    emulator.wait_until(lambda: emulator.tasks[0].finished_at)
    return run, callback_event(deferral)


@pytest.mark.usefixtures("webhooks")
class TestCallbackUrl:
    @pytest.mark.parametrize("webhook", [None, True])
    def test_callback_url_names_task_instance_and_only_its_digest_is_stored(self, orders, emulator, webhooks, webhook):
        run = orders(webhook=webhook)
        operator = run.operator()
        with pytest.raises(TaskDeferred) as deferral:
            operator.execute(run.context)
        wait = wait_of(deferral.value)
        url = emulator.tasks[0].callback_url
        assert url.startswith(webhooks)
        ti_id, token = url.removeprefix(webhooks).split("/")
        assert (ti_id, wait[TOKEN_KEY]) == (run.ti.id, digest(token))
        assert token not in json.dumps([wait, run.ti.xcoms])
        assert emulator.tasks[0].status_change_callback_url is None
        rendered = [getattr(operator, name) for name in operator.template_fields]
        assert not any("browseract/callback" in str(value) for value in rendered)

    @pytest.mark.parametrize("mine", ["callback_url", "status_change_callback_url"])
    def test_callback_url_of_the_user_lets_the_task_poll_and_this_is_logged(self, orders, emulator, logs, mine):
        wait = orders(**{mine: MINE}, poll_interval=None).defer().trigger.wait
        assert (wait.callback_token_sha256, wait.longest_pause) == (None, timings.DEFAULT_POLL_INTERVAL)
        [task] = emulator.tasks
        sent = {"callback_url": task.callback_url, "status_change_callback_url": task.status_change_callback_url}
        assert sent == {"callback_url": None, "status_change_callback_url": None, mine: MINE}
        assert "This task polls, because it has its own callback_url or status_change_callback_url." in logs()


class TestWithoutCallbacks:
    @cases("arguments", {"switched off": {"webhook": False}, "not waiting": {"wait_for_completion": False}})
    def test_no_callback_url_is_sent_if_webhook_is_off_or_nothing_defers(self, orders, emulator, webhooks, arguments):
        run = orders(**arguments)
        run.run()
        assert emulator.tasks[0].callback_url is None
        assert TOKEN_KEY not in json.dumps(run.ti.xcoms)

    def test_connection_without_webhook_base_url_polls_and_logs_nothing_about_callbacks(self, orders, connect, logs):
        run = orders(poll_interval=None)
        deferral = run.defer()
        assert deferral.trigger.wait.longest_pause == timings.DEFAULT_POLL_INTERVAL
        assert run.ti.xcoms["wait"] == {"waits_for": "poll", "poll_interval": timings.DEFAULT_POLL_INTERVAL}
        run.resume(deferral)
        log = logs()
        assert "Woken by a poll" in log
        assert "callback" not in log.replace("callback_", "")


@pytest.mark.usefixtures("webhooks")
class TestSafetyPolls:
    @pytest.mark.parametrize(("given", "seconds"), [(None, timings.SAFETY_POLL_INTERVAL), (33, 33)])
    def test_safety_polls_come_at_their_interval_after_the_callback_grace(self, orders, logs, given, seconds):
        run = orders(poll_interval=given)
        wait = run.defer().trigger.wait
        assert wait.longest_pause == seconds
        log = logs()
        assert "Waiting in the triggerer for BrowserAct's callback." in log
        assert f"polls the run at least every {seconds:g} seconds. If no line follows, check" in log
        assert run.ti.xcoms["wait"] == {"waits_for": "callback", "poll_interval": seconds}
        assert wait.first_pause(wait.began_at) >= timings.CORE_RACE_GRACE + timings.CALLBACK_GRACE

    def test_safety_poll_ends_the_wait_if_the_callback_is_lost_and_logs_no_token(self, orders, emulator, caplog, logs):
        emulator.next_run(ORDERS.id, duration=600.0)
        run = orders()
        assert run.run() == ORDERS_RESULT
        assert run.ti.xcoms["wait"]["woken_by"] == "poll"
        log = logs()
        assert "Woken by a poll" in log
        assert emulator.tasks[0].callback_url.rpartition("/")[2] not in log + caplog.text


@pytest.mark.usefixtures("webhooks")
class TestCallback:
    def test_callback_returns_the_result_with_one_request(self, called_back, emulator):
        run, event = called_back
        assert run.operator().execute_complete(run.context, event) == ORDERS_RESULT
        requested = [request.endpoint for request in emulator.requests]
        assert requested == ["get-workflow", "run-task", "get-task", "get-task"]

    @cases(
        ("minutes", 150.06, 150.1, ", 150.1 seconds after the end of the run"),
        ("BrowserAct's clock is ahead", -90.0, 0, ", 0 seconds after the end of the run"),
        ("end is not known", None, None, ""),
    )
    def test_time_since_the_end_has_one_decimal_and_is_never_negative(
        self, called_back, world, emulator, logs, after_end, seconds, words
    ):
        run, event = called_back
        ended = after_end and datetime.fromtimestamp(world.clock.now - after_end, timezone.utc).isoformat()
        emulator.rewrite("get-task", lambda body: {**body, "finished_at": ended})
        run.operator().execute_complete(run.context, event)
        assert run.ti.xcoms["wait"]["woken_by"] == "callback"
        assert run.ti.xcoms["wait"].get("seconds_after_end") == seconds
        assert f"Woken by a callback{words}." in logs()

    def test_callback_before_the_end_of_the_run_defers_again_on_the_same_run(self, orders, emulator, logs):
        run = orders()
        deferral = run.defer()
        first, again = wait_of(deferral), wait_of(run.defer_again(deferral, callback_event(deferral)))
        for name in ("browseract_task_id", "deadline", "poll_interval", TOKEN_KEY):
            assert again[name] == first[name]
        assert (first["callbacks_in_vain"], again["callbacks_in_vain"]) == (0, 1)
        assert "Woken by a callback, but the run has not ended" in logs()
        assert len(emulator.tasks) == 1


def test_invalid_webhook_base_url_is_ignored_with_webhook_false(orders, connect):
    connect({"webhook_base_url": "ftp://airflow.example.com"})
    assert orders(webhook=False).run() == ORDERS_RESULT
