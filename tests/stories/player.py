"""Plays stories: what happens in the tries of one task instance, and the result of each."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from airflow_provider_browseract.compat import TaskDeferred
from airflow_provider_browseract.emulator import SEARCH
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.operators.browseract import RunBotOperator, RunWorkflowOperator
from tests.helpers.world import TaskInstance

WAYS = ("in the worker", "deferred")
RESULT, DEFERS, DIES = "a result", "a deferral", "no more code"
PENS = {"keyword": "pens", "max_items": "2"}

CALLS = {
    "start": ("run-task", "create-run"),
    "read": ("get-task", "query-run"),
    "list": ("list-tasks", "page-runs"),
    "stop": ("stop-task", "cancel-run"),
    "resume": ("resume-task", "resume-run"),
    "look": ("get-workflow", "query-bot"),
    "*": ("*", "*"),
}
"""The names that stories have for calls, and the endpoints for workflows and for bots."""

KINDS: dict[str, tuple[Any, str, str]] = {
    "workflow": (RunWorkflowOperator, "workflow_id", "input_parameters"),
    "bot": (RunBotOperator, "bot_id", "input"),
}
"""An operator, and its arguments for what is run and for its inputs."""


SHAPES = ("as documented", "as in the demos")
"""The responses of BrowserAct: as in the vendor's documents, or as in its examples, which have other fields."""


class Death(BaseException):
    """The process is killed by SIGKILL."""


@dataclass(frozen=True)
class Try:
    """A try of the task instance.

    :param gives: the result, unless the process dies: RESULT, DEFERS or a class of exceptions
    :param runs: the statuses of all runs at the end of the story, oldest run first: only in its last try
    :param says: a text that is in the log or in the error, or several of them: ``one ... another``
    :param dies: the call before or after which the process dies, such as ``after start``
    :param killed: the call during which Airflow ends the task, while its state is ``state``
    :param faults: faults of calls, and how often they apply
    :param instead: what becomes of the responses to calls
    :param slow_start: see ``World``
    :param run: settings of the next run
    :param extra: the extra of the connection
    :param args: further arguments of the operator; ``source`` is the id of what is run, and ``inputs`` are its inputs
    :param cleared: whether a person cleared the task before
    :param later: seconds that pass before
    :param others: runs that somebody else starts before
    :param sibling: whether mapped siblings wait for those runs
    """

    gives: Any = RESULT
    runs: str = "finished"
    says: str = ""
    dies: str = ""
    killed: str = ""
    state: str = "running"
    faults: Mapping[str, tuple[Any, int | None]] = field(default_factory=dict)
    instead: Mapping[str, Any] = field(default_factory=dict)
    slow_start: tuple[float, int | None, float] | None = None
    run: Mapping[str, Any] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)
    args: Mapping[str, Any] = field(default_factory=dict)
    cleared: bool = False
    later: float = 0.0
    others: int = 0
    sibling: bool = False


class Player:
    """Plays a story in a world, of one of KINDS with one of SHAPES."""

    def __init__(self, world, kind, deferrable, shapes, read_log):
        world.emulator.as_in_the_demos = shapes == SHAPES[1]
        self.world, self.deferrable, self.read_log = world, deferrable, read_log
        self.version = list(KINDS).index(kind)
        self.operator_class, self.source, self.inputs = KINDS[kind]
        self.ti = TaskInstance(world, None)
        #: What the last try has logged.
        self.log = ""

    def play(self, *tries):
        """Play each try, and compare the statuses of all runs at the end with those that the last try names."""
        for one in tries:
            self.play_try(one)
        assert " ".join(run.status for run in self.world.emulator.tasks) == one.runs

    def play_try(self, one):
        assert not one.dies or one.gives == RESULT, "a try that dies gives nothing"
        emulator = self.world.emulator
        self.ti.max_tries += one.cleared
        self.world.clock.sleep(one.later)
        self.world.connect(extra=one.extra)
        emulator.clear_faults()
        theirs = [self.start_another() for _ in range(one.others)]
        self.world.instead = {self.endpoint(call): change for call, change in one.instead.items()}
        self.world.slow_start = one.slow_start
        for call, (fault, times) in one.faults.items():
            emulator.fault(self.endpoint(call), fault, times=times)
        if one.run:
            emulator.next_run(SEARCH.id, **one.run)
        context = self.ti.next_try()
        if one.sibling:
            context["ti"].map_index, context["ti"].siblings = 1, {"task_id": theirs}
        self.world.state = one.state
        self.ti.make = partial(self.operator, one)
        came_to = self.come_to(one, context)
        self.log = self.read_log()
        said = f"{self.log}\n{came_to!r} {came_to}"
        gives = DIES if one.dies else one.gives
        as_told = came_to == gives if isinstance(gives, str) else isinstance(came_to, gives)
        assert as_told, said
        assert all(text in said for text in one.says.split(" ... ")), said
        assert not re.search(r"\d{15}", str(came_to)[:60]) or not isinstance(came_to, Exception), said

    def come_to(self, one, context):
        try:
            result = self.ti.run(context, defers=one.gives == DEFERS)
        except TaskDeferred:
            return DEFERS
        except Death:
            return DIES
        except Exception as error:  # noqa: BLE001 - the story tells which
            return error
        return None if result is None else RESULT

    def start_another(self):
        hook = BrowserActHook()
        if self.version:
            return hook.run_bot(SEARCH.id, PENS).id
        return hook.run_task(SEARCH.id, PENS).id

    def endpoint(self, call):
        return CALLS[call][self.version]

    def operator(self, one):
        names = {"source": self.source, "inputs": self.inputs}
        args = {names.get(name, name): value for name, value in one.args.items()}
        given = {"task_id": "run", self.source: SEARCH.id, self.inputs: PENS, "durable": True, **args}
        operator = self.operator_class(**{"deferrable": self.deferrable, **given})
        when, _, dies_at = one.dies.partition(" ")
        send = operator.hook.client.send

        def sent(call, **how):
            if when == "before" and call.name == self.endpoint(dies_at):
                how.get("before", lambda: None)()
                raise Death
            if one.killed and call.name == self.endpoint(one.killed):
                how.pop("before", lambda: None)()
                operator.on_kill()
            received = send(call, **how)
            if when == "after" and call.name == self.endpoint(dies_at):
                raise Death
            return received

        operator.hook.client.send = sent
        return operator
