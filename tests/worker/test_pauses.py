import json
import time
from contextlib import nullcontext, suppress
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from airflow.sdk import DAG, BaseNotifier
from airflow.serialization import serialized_objects

from airflow_provider_browseract.api.models import ApiVersion, BotType, Step, Task, TaskStatus
from airflow_provider_browseract.compat import AirflowFailException, AirflowTaskTimeout, TaskDeferred
from airflow_provider_browseract.emulator import AGENT_HUMAN, HUMAN, RequestFault
from airflow_provider_browseract.exceptions import InputError, RunLostError, RunPausedError, RunTimedOutError
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.in_airflow import required_action
from airflow_provider_browseract.operators.browseract import AskPerson, RunBotOperator, RunWorkflowOperator
from airflow_provider_browseract.runs import timings
from airflow_provider_browseract.runs.options import Answer
from airflow_provider_browseract.runs.stored import from_json, to_json
from airflow_provider_browseract.runs.wait import FOREVER, Wait, WaitEvent, WokenBy
from airflow_provider_browseract.worker import execution, pauses
from tests.helpers.cases import cases
from tests.helpers.workers import BOTH_WAYS, FakeTaskInstance, calls_of

CONFIRMED = {"confirmed": True}
ONLY_CLOSES = (
    "**Resume** only closes this request: BrowserAct itself continues the run of an agent-built bot once the step is "
    "complete."
)
OF_BOT: dict[str, Any] = {"api_version": ApiVersion.V3, "bot_id": "82", "bot_type": BotType.WORKFLOW}


@pytest.fixture(autouse=True)
def _paused_for_ever(emulator):
    emulator.set_workflow(HUMAN.id, duration=60.0, pause_limit=36_000.0)


def until_asked(run) -> TaskDeferred:
    deferred: TaskDeferred = run.defer()
    while deferred.trigger.wait.required_action is None:
        deferred = run.defer_again(deferred, run.wait_in_triggerer(deferred))
    return deferred


@pytest.fixture
def asked(worker, people):
    def make(on_paused="ask", **arguments):
        run = worker(**{"workflow_id": HUMAN.id, "deferrable": True, **arguments}, on_paused=on_paused)
        return run, until_asked(run)

    return make


class TestRequiredAction:
    @BOTH_WAYS
    def test_required_action_shows_the_live_view_and_the_last_step(self, worker, emulator, people, deferrable, logs):
        until_asked(worker(workflow_id=HUMAN.id, on_paused="ask", deferrable=deferrable))
        assert (
            "Waiting in the triggerer for a person's answer at http://airflow.example/dags/shop/runs/manual__1/tasks/"
            "run/required_actions. If no line follows, check that a triggerer is running."
        ) in logs()
        question = people.question
        # A default would be highlighted in the UI, and so would both options without a list.
        assert (question["options"], question["defaults"]) == (["Resume", "Stop"], [])
        assert question["subject"] == (f"run: {HUMAN.name} (BrowserAct workflow {HUMAN.id}) waits for a person")
        first = f"BrowserAct task `{emulator.tasks[0].id}` of `{HUMAN.name}` has paused. Last step 2: `Wait for a human"
        assert first in question["body"]
        assert f"/live/{emulator.tasks[0].id})" in question["body"]
        ended = "Otherwise the Airflow task fails because its `timeout` expires, and the run is stopped."
        assert ended in question["body"]

    @pytest.mark.parametrize(
        ("text", "shown"),
        [
            ("www.evil.example, a@evil.example", "`www.evil.example, a@evil.example`"),
            ("![x](https://evil.example/t.png) <b> __b__", "`![x](https://evil.example/t.png) <b> __b__`"),
            ("a `www.evil.example` b", "`` a `www.evil.example` b ``"),
            ("` `` ``` https://evil.example ``", "```` ` `` ``` https://evil.example `` ````"),
            ("\\` https://evil.example \\", "`` \\` https://evil.example \\ ``"),
        ],
    )
    def test_required_action_shows_texts_of_strangers_as_code_so_that_no_address_becomes_a_link(self, text, shown):
        # Airflow renders the text with remark-gfm, which makes links of addresses also where they are escaped.
        steps, live_url = (Step(number=1, status="running", goal=text),), "https://live.example/a)(b?c=d"
        paused: Any = {"status": TaskStatus.PAUSED, "workflow_id": "70", "steps": steps, "live_url": live_url}
        wait = Wait("7", time.time() + 600, source_name=text)
        body = required_action._what_to_do(Task.model_construct(id=text, **paused), wait)
        first, links, *_ = body.split("\n\n")
        assert first == f"BrowserAct task {shown} of {shown} has paused. Last step 1: {shown}"
        assert "[Live view of the browser](https://live.example/a%29%28b?c=d)" in links

    @cases(
        ("workflow-built", OF_BOT, -1, "run: BrowserAct bot 82", "**Resume** continues the run."),
        ("of a mapped task", {}, 0, "run[0]: a run in BrowserAct", ""),
    )
    def test_required_action_names_what_waits_and_what_resume_does(self, people, fields, map_index, subject, resume):
        ti = FakeTaskInstance()
        ti.map_index = map_index
        required_action.ask(ti, Task(id="7", status=TaskStatus.PAUSED, **fields), Wait("7", time.time() + 600))
        assert people.question["subject"] == f"{subject} waits for a person"
        assert people.question["options"] == ["Resume", "Stop"]
        assert f"{resume} **Stop** cancels the run and fails" in people.question["body"]

    def test_name_in_the_required_action_is_one_line_of_limited_length(self, worker, emulator, people):
        emulator.add_workflow(replace(HUMAN, id="71002814653029999", name="Ask\nme " + "x" * 300))
        until_asked(worker(workflow_id="71002814653029999", on_paused="ask"))
        shown = f"Ask me {'x' * 93} (BrowserAct workflow 71002814653029999)"
        assert people.question["subject"] == f"run: {shown} waits for a person"

    def test_required_action_names_the_default_answer_and_its_time_limit(self, worker, emulator, people):
        before = time.time()
        wait = until_asked(worker(workflow_id=HUMAN.id, on_paused=AskPerson(600, "resume"))).trigger.wait
        assert before + 600 <= wait.answer_by <= time.time() + 600
        answer_by = datetime.fromtimestamp(wait.answer_by, timezone.utc).strftime("%Y-%m-%d %H:%M:%S UTC")
        assert f"Answer by **{answer_by}**. Otherwise **Resume** is chosen." in people.question["body"]
        # No sooner may the task be resumed: the scheduler could take that for a crash.
        assert wait.first_pause(wait.began_at) >= timings.CORE_RACE_GRACE + timings.CALLBACK_GRACE

    # From Airflow 3.3 on, Airflow itself resumes the task with the answer.
    BY_WHOM = pytest.mark.parametrize("by_airflow", [False, True], ids=["read by the trigger", "passed on by Airflow"])

    @BY_WHOM
    @BOTH_WAYS
    def test_answer_resume_resumes_run_and_returns_result(self, asked, emulator, people, deferrable, by_airflow, logs):
        run, deferred = asked(deferrable=deferrable)
        answer = people.answer("Resume")
        assert run.resume(deferred, answer if by_airflow else None) == CONFIRMED
        assert emulator.tasks[0].status == "finished"
        assert calls_of(emulator, "resume-task") == 1
        assert ": ada chose Resume." in logs()

    def test_run_that_is_still_shown_as_paused_is_resumed_once(self, asked, emulator, people, logs):
        def while_it_changes(body):
            seen.append(body["status"])
            return {**body, "status": "paused"} if seen[-2:] == ["paused", "running"] else body

        seen: list[str] = []
        emulator.rewrite("get-task", while_it_changes)
        run, deferred = asked()
        people.answer("Resume")
        assert run.resume(deferred) == CONFIRMED
        assert (calls_of(emulator, "resume-task"), people.asked) == (1, 1)
        assert "The run was resumed." in logs()

    @BY_WHOM
    def test_answer_stop_stops_the_run_and_fails_without_a_retry(self, asked, emulator, people, by_airflow):
        run, deferred = asked()
        answer = people.answer("Stop")
        stopped = r"paused for a person, and ada chose Stop\.\nThe run was stopped\."
        with pytest.raises(AirflowFailException, match=stopped):
            run.resume(deferred, answer if by_airflow else None)
        assert emulator.tasks[0].status == "canceled"

    @pytest.mark.parametrize("option", ["Resume", "Stop"])
    def test_answer_after_the_run_has_ended_is_ignored_and_logged(self, asked, emulator, people, option, logs):
        run, deferred = asked()
        BrowserActHook().resume_task(emulator.tasks[0].id)
        emulator.wait_until(lambda: emulator.tasks[0].finished_at)
        assert run.resume(deferred, people.answer(option)) == CONFIRMED
        assert emulator.tasks[0].status == "finished"
        assert calls_of(emulator, "stop-task") == 0
        assert f"so the answer {option} has no effect" in logs()

    @cases(
        {"run is not paused": (RequestFault.refused(10127), False), "resume fails": (RequestFault.status(500), True)},
    )
    def test_person_is_asked_again_only_when_the_resume_fails(self, asked, emulator, people, fault, asked_again):
        emulator.fault("resume-task", fault)
        run, deferred = asked()
        again = run.defer_again(deferred, people.answer("Resume"))
        assert bool(again.trigger.wait.required_action) is asked_again
        assert (people.asked, people.question["chosen"]) == ((2, None) if asked_again else (1, ["Resume"]))

    def test_required_action_stays_open_when_the_wait_ends_while_the_run_is_paused(self, asked, people):
        told: list[Any] = []
        run, deferred = asked(AskPerson(60), on_paused_callback=told.append)
        wait = deferred.trigger.wait
        again = run.defer_again(deferred, to_json(WaitEvent(wait)))
        next_wait = again.trigger.wait
        assert (next_wait.required_action, next_wait.answer_by) == (wait.required_action, wait.answer_by)
        assert next_wait.ignore_pause_until == FOREVER
        assert (people.asked, len(told)) == (1, 1)
        people.answer("Resume")
        assert run.resume(again) == CONFIRMED

    def test_required_action_is_created_again_if_the_run_is_paused_after_the_first_was_closed(self, asked, people):
        run, deferred = asked(AskPerson(60))
        wait = deferred.trigger.wait
        again = run.defer_again(deferred, to_json(WaitEvent(wait.unasked())))
        assert again.trigger.wait.required_action
        assert people.asked == 2

    def test_answer_to_an_earlier_required_action_is_ignored_and_logged(self, worker, emulator, people, logs):
        run = worker(workflow_id=HUMAN.id, on_paused="ask", deferrable=True)
        deferral = run.defer()
        people._ask(run.ti.id)
        stop = people.answer("Stop")
        again = run.defer_again(deferral, stop)
        assert again.trigger.wait.required_action is None
        assert emulator.tasks[0].status != "canceled"
        assert "The answer Stop was for an earlier Required Action" in logs()

    def test_dag_test_asks_nobody_and_waits_for_the_end_of_the_pause(self, worker, emulator, people, monkeypatch, logs):
        monkeypatch.setattr(pauses, "in_dag_test", lambda: True)
        monkeypatch.setattr(execution, "in_dag_test", lambda: True)
        emulator.set_workflow(HUMAN.id, pause_limit=60.0)
        assert worker(workflow_id=HUMAN.id, on_paused="ask", deferrable=True).run() == {"confirmed": False}
        assert people.asked == 0
        assert "dag.test() has no UI for Required Actions" in logs()

    def test_required_action_is_closed_by_the_worker_that_first_sees_the_end_of_a_pause(self, asked, emulator, people):
        run, deferred = asked()
        BrowserActHook().resume_task(emulator.tasks[0].id)
        called_back = to_json(WaitEvent(deferred.trigger.wait, WokenBy.CALLBACK))
        assert run.defer_again(deferred, called_back).trigger.wait.required_action is None
        assert people.question["chosen"] == ["Resume"]

    def test_required_action_is_closed_by_the_worker_that_ends_the_wait_at_the_deadline(self, asked, emulator, people):
        run, deferred = asked()
        over = to_json(WaitEvent(replace(deferred.trigger.wait, deadline=0.0), WokenBy.CALLBACK))
        with pytest.raises(RunTimedOutError, match="The run was stopped"):
            run.operator().execute_complete(run.context, over)
        assert people.question["chosen"] == ["Stop"]

    def test_time_limit_that_expires_after_a_stop_does_not_let_airflow_retry(self, asked, emulator, people):
        run, deferred = asked()

        def expire(_) -> None:
            if calls_of(emulator, "stop-task"):
                raise AirflowTaskTimeout("execution_timeout")

        run.at_calls("get-task", before=expire)
        with pytest.raises(AirflowFailException, match="The run was stopped"):
            run.resume(deferred, people.answer("Stop"))

    def test_unknown_answer_to_a_required_action_raises_an_error(self, asked, people):
        run, deferred = asked()
        with pytest.raises(RunLostError, match=r"cannot be read: the answer is \['Perhaps'\]"):
            run.resume(deferred, people.answer("Perhaps"))


@pytest.mark.parametrize(("default", "status"), [("stop", "canceled"), ("resume", "finished")])
def test_default_of_ask_person_is_carried_out_at_its_timeout(asked, emulator, people, default, status):
    run, deferred = asked(AskPerson(timedelta(minutes=2), default=default))
    words = r"nobody answered in time\.\nThe run was stopped\. To wait longer for"
    stopped = pytest.raises(RunPausedError, match=words)
    with stopped if default == "stop" else nullcontext():
        assert run.resume(deferred) == CONFIRMED
    assert emulator.tasks[0].status == status
    assert people.question["chosen"] == [default.capitalize()]


class TestPauseNotification:
    @BOTH_WAYS
    @pytest.mark.parametrize("on_paused", ["wait", "fail", "ask"])
    def test_on_paused_callback_gets_the_addresses(self, worker, emulator, people, deferrable, on_paused):
        told: list[Any] = []
        run = worker(workflow_id=HUMAN.id, on_paused=on_paused, deferrable=deferrable, on_paused_callback=told.append)
        emulator.set_workflow(HUMAN.id, pause_limit=60.0)
        with suppress(AirflowFailException):
            run.run()
        [context] = told
        assert context["ti"] is run.ti
        assert context["browseract_task"]["links"]["live"].endswith(f"/live/{emulator.tasks[0].id}")
        where = "http://airflow.example/dags/shop/runs/manual__1/tasks/run/required_actions"
        assert context["required_action_url"] == where

    def test_on_paused_callback_after_the_question_can_be_a_notifier_with_a_template(self, worker, emulator, people):
        sent = []

        class Chat(BaseNotifier):
            template_fields = ("message",)
            message = "{{ browseract_task.task_id }} waits: {{ browseract_task.links.live }}"

            def notify(self, context):
                sent.append((self.message, people.asked))

        until_asked(worker(workflow_id=HUMAN.id, on_paused="ask", on_paused_callback=[Chat()]))
        task_id = emulator.tasks[0].id
        assert sent == [(f"{task_id} waits: {emulator.url}/live/{task_id}", 1)]

    @pytest.mark.parametrize("error", [RuntimeError, SystemExit])
    def test_failing_on_paused_callback_stops_neither_other_callbacks_nor_the_run(self, worker, emulator, logs, error):
        told: list[Any] = []

        def fails(context):
            raise error("the chat is away")

        emulator.set_workflow(HUMAN.id, pause_limit=60.0)
        worker(workflow_id=HUMAN.id, on_paused_callback=[fails, told.append]).run()
        assert len(told) == 1
        assert "failed: the chat is away" in logs()


@cases(
    ("timeout", {"timeout": 0}, "timeout of AskPerson is 0. Use a positive number of seconds or a timedelta"),
    ("default", {"default": "Perhaps"}, "default of AskPerson is 'Perhaps'. Use one of 'resume', 'stop'"),
)
def test_invalid_argument_of_ask_person_fails_at_dag_parse(arguments, message):
    with pytest.raises(InputError, match=message):
        AskPerson(**arguments)


def test_ask_person_works_in_default_args_partial_and_expand_and_in_the_stored_dag():
    ask = AskPerson(timedelta(hours=1), default="resume")
    with DAG("shop", schedule=None, default_args={"on_paused": ask}) as dag:
        RunWorkflowOperator(task_id="plain", workflow_id=HUMAN.id)
        RunWorkflowOperator.partial(task_id="partial", workflow_id=HUMAN.id, on_paused=ask).expand(profile_id=["1"])
        RunWorkflowOperator.partial(task_id="expand", workflow_id=HUMAN.id).expand(on_paused=[ask, "wait"])
    tasks: dict[str, Any] = dag.task_dict
    assert tasks["plain"].on_paused is ask
    assert tasks["partial"].unmap({"profile_id": "1"}).on_paused is ask
    assert tasks["expand"].unmap({"on_paused": ask}).on_paused is ask
    module: Any = serialized_objects
    serialization = getattr(module, "DagSerialization", None) or module.SerializedDAG
    stored = json.loads(json.dumps(serialization.to_dict(dag)))
    assert serialization.from_dict(stored).task_ids == ["plain", "partial", "expand"]


def test_run_resumed_elsewhere_still_finishes_with_on_paused_fail(worker, emulator):
    run = worker(workflow_id=HUMAN.id, on_paused="fail", deferrable=True)
    deferral = run.defer()
    event = run.wait_in_triggerer(deferral)
    assert from_json(WaitEvent, event).wait.last_seen is TaskStatus.PAUSED
    BrowserActHook().resume_task(emulator.tasks[0].id)
    assert run.resume(deferral, event) == CONFIRMED


@BOTH_WAYS
def test_resume_only_closes_required_action_of_an_agent_built_bot(worker, emulator, people, deferrable, logs):
    emulator.set_workflow(AGENT_HUMAN.id, duration=60.0, pause_limit=600.0)
    run = worker(operator_class=RunBotOperator, bot_id=AGENT_HUMAN.id, on_paused="ask", deferrable=deferrable)
    deferred = until_asked(run)
    which = f"{AGENT_HUMAN.name} (BrowserAct bot {AGENT_HUMAN.id})"
    assert people.question["subject"] == f"run: {which} waits for a person"
    assert ONLY_CLOSES in people.question["body"]
    people.answer("Resume")
    assert run.resume(deferred) == {"confirmed": False}
    assert (calls_of(emulator, "resume-run"), people.asked) == (1, 1)
    assert "cannot be resumed from Airflow: BrowserAct itself continues runs of agent-built bots" in logs()


def test_default_answer_is_that_of_the_arguments_when_the_run_pauses(worker, people):
    run = worker(workflow_id=HUMAN.id, on_paused_callback=print, deferrable=True)
    deferral = run.defer()
    run.arguments |= {"on_paused": AskPerson(600, "resume"), "on_paused_callback": None}
    again = run.defer_again(deferral, run.wait_in_triggerer(deferral)).trigger.wait
    assert (again.default_answer, again.required_action is not None) == (Answer.RESUME, True)
