from dataclasses import replace

import pytest

from airflow_provider_browseract.compat import AirflowFailException as FAILS
from airflow_provider_browseract.compat import TaskDeferred
from airflow_provider_browseract.emulator import SEARCH, RequestFault
from airflow_provider_browseract.exceptions import RunCanceledError, RunFailedError, RunLostError
from airflow_provider_browseract.runs.stored import from_json, to_json
from airflow_provider_browseract.runs.wait import MAX_STOPS, WaitEvent, WokenBy
from airflow_provider_browseract.worker import no_result, showing
from tests.helpers.cases import cases
from tests.helpers.demos import accept_stops_of_ended_runs
from tests.helpers.workers import calls_of
from tests.helpers.world import TaskInstance
from tests.stories.player import KINDS, PENS, WAYS, Try

DOWN = {"stop": (RequestFault.status(503), None)}
CAP, BOUND = 100, 130
"""The cap, and what an endless run with a step every 2 seconds uses in 10 seconds and at its end."""
CAPPED = {"max_credits": CAP}
NO_STATE = {**CAPPED, "durable": False}
ENDLESS = {"step_every": 2.0}
LONG = {"duration": 24.0, "steps": ("Read a page",) * 40}
"""A run that is above the cap at the poll after 20 seconds, and then ends soon."""
STOPPED = "The run was stopped, because more credits were used than max_credits=100"
OVER = Try(FAILS, run=ENDLESS, args=CAPPED, says=f"{STOPPED} ... tries of a task instance share", runs="canceled")
USED_BY_ALL = "The runs of this task instance used"
NOT_STOPPED = replace(OVER, gives=RunLostError, faults=DOWN, says="The next try reattaches to the run, and stops")


def ended(outcome, used, **args):
    """A try whose run ends at once, and has used these credits."""
    error = RunFailedError if outcome == "failed" else RunCanceledError
    return Try(error, run={"outcome": outcome, "duration": 0.0, "steps": ("x",) * (used // 5)}, args={**CAPPED, **args})


USED_UP = {
    used: f"The runs of earlier tries have used {used} credits, and max_credits=100 allows no further run. No run was "
    "started.\nRaise max_credits if the task needs more. To begin a new count, clear the task."
    for used in (100, 120)
}
STORIES = {
    "no cap": [Try(run={"duration": 40.0, "credits_per_step": 1000})],
    "stop takes half a minute": [replace(OVER, run={**ENDLESS, "stop_after": 30.0}, runs="running")],
    "run finishes although a stop was accepted": [
        Try(run={**LONG, "stop_after": 1000.0}, args=CAPPED, faults={"stop": (RequestFault.slow(10), 1)})
    ],
    "each stop fails in the only try": [
        replace(OVER, faults=DOWN, args=NO_STATE, says="More credits were used ... until you stop it", runs="running")
    ],
    "one stop fails in the last try": [replace(OVER, faults={"stop": (RequestFault.status(403), 1)})],
    "each stop fails before a retry": [NOT_STOPPED, OVER],
    "run is canceled below the cap": [ended("canceled", 50), Try(args=CAPPED, runs="canceled finished")],
    "run is canceled above the cap between two polls": [
        Try(FAILS, run={"outcome": "canceled", "duration": 29.0, "steps": ("x",) * 28}, args=CAPPED, runs="canceled")
    ],
    "third run has what two have left": [
        ended("failed", 40),
        ended("failed", 40),
        replace(OVER, says=USED_BY_ALL, runs="failed failed canceled"),
    ],
    "reattached run shares the cap with the run before": [
        ended("failed", 80),
        Try(dies="after read", run=ENDLESS, args=CAPPED),
        replace(OVER, run={}, says=USED_BY_ALL, runs="failed canceled"),
    ],
    "cleared task begins a new count": [ended("failed", 90), replace(OVER, cleared=True, runs="failed canceled")],
    **{
        f"earlier try has used {used}": [ended("failed", used), Try(FAILS, args=CAPPED, says=text, runs="failed")]
        for used, text in USED_UP.items()
    },
    "tries without stored state": [
        ended("failed", 120, durable=False),
        replace(OVER, args=NO_STATE, says="another run would probably use as much", runs="failed canceled"),
    ],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", STORIES)
def test_story(name, way, kind, player):
    player(kind, way).play(*STORIES[name])


@pytest.mark.parametrize("credits_at_end", [False, True], ids=["credits at each step", "credits at the end"])
@pytest.mark.parametrize("extra", [{}, {"webhook_base_url": "https://airflow.example"}], ids=["", "with a callback"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("way", WAYS)
def test_endless_run_is_stopped_once_soon_after_the_cap(credits_at_end, extra, kind, way, world, player, monkeypatch):
    counted = []
    for module in (no_result, showing):
        monkeypatch.setattr(module, "count_in_task", lambda name, **how: counted.append((name, how)))
    world.emulator.credits_at_end = credits_at_end
    found = player(kind, way)
    found.play(replace(OVER, extra=extra))
    [run] = world.emulator.tasks
    assert CAP < run.credit <= BOUND
    assert [calls_of(world.emulator, found.endpoint(call)) for call in ("start", "stop")] == [1, 1]
    assert counted == [
        ("browseract.runs", {"tags": {"status": "canceled"}}),
        ("browseract.credits", {"by": run.credit}),
        ("browseract.runs.over_max_credits", {}),
    ]


@pytest.mark.parametrize("way", WAYS)
def test_log_reports_the_end_of_a_run_over_the_cap_and_each_stop_that_failed(way, player):
    found = player("workflow", way)
    found.play_try(OVER)
    assert "Canceled after " in found.log
    assert "could not be stopped" not in found.log
    found.play_try(replace(NOT_STOPPED, cleared=True))
    assert found.log.count("could not be stopped") == (2 * MAX_STOPS - 1 if way == "deferred" else MAX_STOPS - 1)
    assert "was stopped" not in found.log


@pytest.mark.parametrize("accepted", [False, True], ids=["stop is refused", "stop is accepted"])
@pytest.mark.parametrize("outcome", ["finished", "failed"])
@pytest.mark.parametrize("way", WAYS)
def test_end_before_the_stop_counts(way, outcome, accepted, world, player, monkeypatch):
    handle = world.emulator.handle

    def late(method, path, *request):
        if path.endswith("/stop-task"):
            world.clock.sleep(100)
        return handle(method, path, *request)

    monkeypatch.setattr(world.emulator, "handle", late)
    if accepted:
        accept_stops_of_ended_runs(world.emulator)
    one = Try(run={**LONG, "outcome": outcome, "failure": (1011, "No results")}, args=CAPPED, runs=outcome)
    if outcome == "failed":
        one = replace(one, gives=RunFailedError, says="No results")
    player("workflow", way).play(one)
    assert calls_of(world.emulator, "stop-task") == 1


@cases(
    ("stopped", OVER),
    ("had ended", Try(run=LONG, args=CAPPED, faults={"stop": (RequestFault.refused(10121), None)})),
)
@pytest.mark.parametrize("way", WAYS)
def test_run_that_cannot_be_read_after_the_stop_is_waited_for(way, world, player, one):
    def unreadable(body):
        if calls_of(world.emulator, "stop-task") == 1:
            world.emulator.fault("get-task", RequestFault.refused(500), times=1)
        return body

    world.emulator.rewrite("stop-task", unreadable)
    player("workflow", way).play(one)


class TestDeferral:
    """The worker after the triggerer, which has stopped the run or not."""

    @pytest.fixture
    def capped(self, world, player):
        world.emulator.next_run(SEARCH.id, **ENDLESS)
        found = player("workflow", "deferred")
        ti = TaskInstance(world, lambda: found.operator(Try(args={"inputs": PENS, **self.args})))
        context = ti.next_try()
        with pytest.raises(TaskDeferred) as deferral:
            ti.run(context, defers=True)
        return ti, context, deferral.value

    args: dict = CAPPED

    def resume(self, capped, event):
        ti, context, deferred = capped
        given = {**(deferred.kwargs or {}), "event": to_json(event)}
        return ti.make().resume_execution(deferred.method_name, given, context)

    def test_triggerer_stops_the_run_without_a_worker_and_one_that_takes_over_agrees(self, capped, world):
        trigger = capped[2].trigger
        events = [from_json(WaitEvent, world.fire(trigger)) for _ in range(2)]
        assert [event.wait.last_seen for event in events] == ["running", "canceled"]
        assert events[0].wait.over_cap
        assert world.emulator.tasks[0].status == "canceled"
        for event in (*events, replace(events[0], woken_by=WokenBy.CALLBACK)):
            with pytest.raises(FAILS, match=STOPPED):
                self.resume(capped, event)

    @cases(("later",), {"same cap": (CAP,), "cap is gone": (None,), "cap was raised": (1000,)})
    def test_cap_of_the_wait_counts_whatever_the_argument_is_now(self, capped, world, later, monkeypatch):
        world.clock.sleep(100)
        monkeypatch.setattr(self, "args", {"max_credits": later})
        event = WaitEvent(capped[2].trigger.wait, WokenBy.CALLBACK)
        with pytest.raises(FAILS, match="because more credits were used than max_credits=100 allows"):
            self.resume(capped, event)
        assert world.emulator.tasks[0].status == "canceled"
