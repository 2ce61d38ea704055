"""Make the most likely mistakes of a new user, and show what the user sees: ``python -m dev.mistakes``.

Each mistake is a DAG that ``dag.test()`` runs against the emulator. What is shown is the message at the end of the log.
"""

from __future__ import annotations

import json
import os
import re
import runpy
import sys
import tempfile
import textwrap
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from airflow_provider_browseract.emulator import (
    CONTACTS,
    ENDLESS,
    LOG_IN,
    NOT_READY,
    ORDERS,
    SEARCH,
    UNPUBLISHED,
    Emulator,
    RunningEmulator,
)
from airflow_provider_browseract.runs import timings

CONNECTION = "AIRFLOW_CONN_BROWSERACT_DEFAULT"
DAG_FILE = """\
from airflow.sdk import DAG

from airflow_provider_browseract.operators.browseract import RunBotOperator, RunWorkflowOperator, StopTaskOperator

with DAG("{dag_id}", schedule=None) as dag:
{tasks}
"""
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\S+ \[\w+ *\] (.*)")
FRAME = re.compile(r'  File "|    ')


@dataclass(frozen=True)
class Mistake:
    """A mistake.

    :param name: what is wrong.
    :param tasks: the body of the DAG with the mistake.
    :param remedy: what the message has to name.
    :param connection: fields of the connection that differ from the right ones; None for no connection.
    :param runs: how many runs are started.
    :param duration: seconds that a run takes. One that has ended when it is first read is not deferred.
    """

    name: str
    tasks: str
    remedy: str
    connection: Mapping[str, str] | None = field(default_factory=dict)
    runs: int = 0
    duration: float = 0.1


@dataclass(frozen=True)
class Seen:
    """What the user sees.

    :param message: the message at the end of the log.
    :param tracebacks: the number of tracebacks in the log. Airflow adds one to each error.
    :param runs: how many runs were started.
    """

    message: str
    tracebacks: int
    runs: int


def task(workflow_id: str, *arguments: str, task_id: str = "run") -> str:
    """Return the code of a task."""
    given = ", ".join((f'task_id="{task_id}"', f'workflow_id="{workflow_id}"', *arguments))
    return f"RunWorkflowOperator({given})"


def bot(bot_id: str, *arguments: str) -> str:
    """Return the code of a task that runs a bot."""
    given = ", ".join(('task_id="run"', f'bot_id="{bot_id}"', *arguments))
    return f"RunBotOperator({given})"


INPUTS = 'input_parameters={"keyword": "laptops"}'
COMPANY = 'input={"company_name": "Example Corp"}'
MISTAKES = (
    Mistake("Id of a bot as workflow_id", task(CONTACTS.id), "if it is the id of a bot, use RunBotOperator"),
    Mistake("Wrong bot id", bot("71002814653029400"), "if it is the id of a workflow, use RunWorkflowOperator"),
    Mistake("Profile for a bot", bot(CONTACTS.id, COMPANY, 'profile_id="7"'), "because API v3 has no profiles"),
    Mistake(
        "Workflow of a bot", f'RunBotOperator(task_id="run", workflow_id="{SEARCH.id}")', "id of the bot as bot_id"
    ),
    Mistake(
        "Input of a bot as a list of pairs",
        bot(CONTACTS.id, 'input=[{"name": "company_name", "value": "Example Corp"}]'),
        "RunWorkflowOperator takes as input_parameters",
    ),
    Mistake(
        "Words for a number",
        bot(CONTACTS.id, 'input={"company_name": "Example Corp", "max_pages": "two"}'),
        "input['max_pages'] must be an integer, but a text was given",
    ),
    Mistake("Unpublished bot", bot(UNPUBLISHED.id), "Publish the bot in the BrowserAct dashboard"),
    Mistake("Bot without a language model", bot(NOT_READY.id), "choose its language model"),
    Mistake(
        "Stop of a bot's run in version 2",
        "run = "
        + bot(CONTACTS.id, COMPANY)
        + '\nStopTaskOperator(task_id="stop", browseract_task_id=run.output["task_id"])',
        "If it is the run of a bot, set api_version='v3'",
        runs=1,
    ),
    Mistake(
        "Unknown version of the API",
        'StopTaskOperator(task_id="stop", browseract_task_id="1", api_version="3")',
        "Use one of 'v2', 'v3'",
    ),
    Mistake("Wrong workflow id", task("71002814653029400"), "Check workflow_id '71002814653029400'"),
    Mistake("No connection", task(SEARCH.id, INPUTS), CONNECTION, connection=None),
    Mistake("Wrong API key", task(SEARCH.id, INPUTS), "Put a valid API key", {"password": "app-wrong"}),
    Mistake("Misspelled input", task(SEARCH.id, 'input_parameters={"keywrod": "laptops"}'), "did you mean 'keyword'"),
    Mistake(
        "Profile from a task that saved none",
        "log_in = "
        + task(LOG_IN.id, 'input_parameters={"username": "ada", "password": "hunter2"}', task_id="log_in")
        + "\n"
        + task(ORDERS.id, 'profile_id=log_in.output["profile_id"]', task_id="orders"),
        "save_browser_data=True",
        runs=1,
    ),
    Mistake(
        "Callbacks without an address",
        task(SEARCH.id, INPUTS, "deferrable=True", "webhook=True"),
        "webhook_base_url in the extra of connection",
    ),
    Mistake(
        "Unknown object storage",
        task(SEARCH.id, INPUTS, 'output_path="s5://bucket/results"'),
        "Install the Airflow provider that contains it",
    ),
    Mistake(
        "Inputs as JSON text",
        task(SEARCH.id, 'input_parameters=\'{"keyword": "laptops"}\''),
        "Pass the dict or the list itself",
    ),
    Mistake("Cap that is not a number", task(SEARCH.id, INPUTS, 'max_credits="lots"'), "Use a whole number of credits"),
    Mistake("Workflow without an end", task(ENDLESS.id, "max_credits=5"), "Look for a loop in the last steps", runs=1),
    Mistake("Misspelled argument", task(SEARCH.id, 'input_parameter={"keyword": "laptops"}'), "input_parameters"),
    Mistake(
        "Unknown budget_action",
        task(SEARCH.id, INPUTS),
        "'budget_action' is 'stop'. Set it to refuse or warn",
        {"extra": '{"daily_credits": 2000, "budget_action": "stop"}'},
    ),
    Mistake("Unknown on_budget", task(SEARCH.id, INPUTS, 'on_budget="ask"'), "'fail', 'wait'"),
    Mistake(
        "Budget of 0 credits",
        task(SEARCH.id, INPUTS),
        "'daily_credits' is 0. Set it to a positive whole number of credits",
        {"extra": '{"daily_credits": 0}'},
    ),
    Mistake(
        "Budget that is not a number",
        task(SEARCH.id, INPUTS),
        "'daily_credits' is 'abc'. Set it to a positive whole number of credits",
        {"extra": '{"daily_credits": "abc"}'},
    ),
    Mistake(
        "No triggerer",
        task(SEARCH.id, INPUTS, "deferrable=True"),
        "check that a triggerer is running",
        runs=1,
        duration=5.0,
    ),
)
"""The most likely mistakes. The tests make them, too."""


@contextmanager
def everything_into(file: Any) -> Iterator[None]:
    """Write what this process prints into a file, whichever way it prints."""
    sys.stdout.flush()
    sys.stderr.flush()
    kept = [os.dup(1), os.dup(2)]
    try:
        for number in (1, 2):
            os.dup2(file.fileno(), number)
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, copy in zip((1, 2), kept, strict=True):
            os.dup2(copy, number)
            os.close(copy)


def after_traceback(lines: list[str]) -> list[str]:
    """Return what a traceback says after its frames."""
    frames = [number for number, line in enumerate(lines) if FRAME.match(line)]
    return lines[max(frames, default=-1) + 1 :]


def message_of(log: str) -> str:
    """Return the message of the last error in a log, or else the last lines of the task that was deferred."""
    lines = log.splitlines()
    errors = [number for number, line in enumerate(lines) if "Task failed with exception" in line]
    if errors:
        error = lines[errors[-1] + 1 :]
        ends = [number for number, line in enumerate(error) if LOG_LINE.match(line)]
        return "\n".join(after_traceback(error[: min(ends, default=len(error))]))
    deferral = next((number for number, line in enumerate(lines) if "Pausing task as DEFERRED" in line), 0)
    said = [found[1] for line in lines[:deferral] if (found := LOG_LINE.match(line)) and "[airflow.task." in line]
    return "\n".join(re.sub(r" +\[airflow\.task\..*", "", line) for line in said[-2:])


def make(mistake: Mistake, folder: Path) -> tuple[str, int]:
    """Make a mistake, and return the traceback if the DAG cannot be imported, and how many runs were started.

    :param folder: the DAGs folder of this process's Airflow.
    """
    dag_id = re.sub(r"\W+", "_", mistake.name.lower())
    file = folder / f"{dag_id}.py"
    file.write_text(DAG_FILE.format(dag_id=dag_id, tasks=textwrap.indent(mistake.tasks, "    ")))
    with Emulator().serve() as running:
        connect(mistake, running)
        for workflow in (CONTACTS, LOG_IN, ORDERS, SEARCH):
            running.emulator.set_workflow(workflow.id, duration=mistake.duration)
        import_error = ""
        try:
            dag = runpy.run_path(str(file))["dag"]
        except Exception:  # noqa: BLE001
            import_error = traceback.format_exc()
        else:
            dag.test()
        file.unlink()
        return import_error, len(running.emulator.tasks)


def seen(import_error: str, log: str, runs: int) -> Seen:
    """Return what the user sees of a mistake."""
    message = "\n".join(after_traceback(import_error.splitlines())) if import_error else message_of(log)
    return Seen(message.strip(), (import_error or log).count("Traceback (most recent call last)"), runs)


def connect(mistake: Mistake, running: RunningEmulator) -> None:
    """Set the connection to the emulator as the mistake has it."""
    os.environ.pop(CONNECTION, None)
    if mistake.connection is not None:
        os.environ[CONNECTION] = json.dumps({**running.connection, **mistake.connection})


def make_all(folder: Path) -> Iterator[tuple[Mistake, Seen]]:
    """Make all mistakes in a new Airflow, and return what the user sees."""
    os.environ.update(
        {
            # Airflow reads its settings when it is first imported.
            "AIRFLOW_HOME": str(folder),
            "AIRFLOW__CORE__DAGS_FOLDER": str(folder),
            "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
            "NO_COLOR": "1",
        }
    )
    timings.CORE_RACE_GRACE = timings.FIRST_POLL_JITTER = 0.05
    timings.DEFAULT_POLL_INTERVAL = 0.5
    timings.RECHECK_PAUSES = (0.05, 0.05, 0.05)
    with tempfile.TemporaryFile("w+") as said, everything_into(said):
        from airflow.utils.db import initdb

        initdb()
    for mistake in MISTAKES:
        with tempfile.TemporaryFile("w+") as said:
            with everything_into(said):
                import_error, runs = make(mistake, folder)
            said.seek(0)
            yield mistake, seen(import_error, said.read(), runs)


def main() -> None:
    """Make all mistakes, and print what the user sees."""
    with tempfile.TemporaryDirectory(prefix="browseract-mistakes-") as folder:
        for number, (mistake, each) in enumerate(make_all(Path(folder)), start=1):
            code, message = (textwrap.indent(text, "    ") for text in (mistake.tasks, each.message))
            print(f"{number}. {mistake.name}\n\n{code}\n\n{message}\n", flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
