"""Make the most likely mistakes of a new user, and show what the user sees: ``python -m dev.mistakes``.

Each mistake is a DAG that ``dag.test()`` runs against the emulator. What is shown is the message at the end of the log.

``tests/mistakes.md`` has what was shown last: ``python -m dev.mistakes > tests/mistakes.md`` writes it again.
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
    ORDERS,
    SEARCH,
    TEMPLATE_SEARCH,
    Emulator,
)
from airflow_provider_browseract.runs import timings
from tests.catalogue import UNPUBLISHED, add

CONNECTION = "AIRFLOW_CONN_BROWSERACT_DEFAULT"
DAG_FILE = """\
from airflow.sdk import DAG, task, task_group

from airflow_provider_browseract.operators.browseract import RunBotOperator, RunWorkflowOperator, StopTaskOperator

with DAG("{dag_id}", schedule=None, params={params!r}) as dag:
{tasks}
"""
LOG_LINE = re.compile(r"\d{4}-\d\d-\d\dT\S+ \[\w+ *\] (.*)")
LOGGER = re.compile(r" +\[airflow\.task\..*")
FRAME = re.compile(r'  File "|    ')
CHANGES = {
    r"^[\w.]+\.(\w+): ": r"\1: ",
    r"BrowserAct task \d+": "BrowserAct task …",
    r"browseract_task_id '\d+'": "browseract_task_id '…'",
    r"(http://127\.0\.0\.1:)\d+": r"\1…",
    r"(/\w+/)\d{17}": r"\1…",
    r"traceId \w+": "traceId …",
    r"\(/\S+\.py\)": "(…)",
    # before Airflow 3.3
    r"No filesystem registered for scheme s5": "Unsupported filesystem: 's5'",
    r"another run would probably use as much": "the tries of a task instance share max_credits",
}
"""What differs each time, or with the version of Airflow, and what is shown instead."""


@dataclass(frozen=True)
class Mistake:
    """A mistake.

    :param name: what is wrong.
    :param tasks: the body of the DAG with the mistake.
    :param connection: fields of the connection that differ from the right ones; None for no connection.
    :param runs: how many runs are started.
    :param duration: seconds that a run takes. One that has ended when it is first read is not deferred.
    :param params: the params of the DAG.
    :param conf: the params with which the DAG is triggered.
    :param credits: credits of the account; None for no limit.
    :param line: how a line of the log begins that is shown too.
    :param tracebacks: the number of tracebacks in the log. Airflow adds one to each error of a task instance.
    """

    name: str
    tasks: str
    connection: Mapping[str, str] | None = field(default_factory=dict)
    runs: int = 0
    duration: float = 0.1
    params: Mapping[str, Any] = field(default_factory=dict)
    conf: Mapping[str, Any] | None = None
    credits: int | None = None
    line: str = ""
    tracebacks: int = 1


@dataclass(frozen=True)
class Seen:
    """What the user sees.

    :param message: the message at the end of the log, with "…" for what differs each time, such as an address.
    :param tracebacks: the number of tracebacks in the log.
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


def expanded(arguments: str, fixed: str = f'workflow_id="{SEARCH.id}"') -> str:
    """Return the code of a mapped task that runs a workflow."""
    return f'RunWorkflowOperator.partial(task_id="run", {fixed}).expand({arguments})'


INPUTS = 'input_parameters={"keyword": "laptops"}'
COMPANY = 'input={"company_name": "Example Corp"}'
MISTAKES = (
    Mistake("Id of a bot as workflow_id", task(CONTACTS.id)),
    Mistake("Id of a template as workflow_id", task(TEMPLATE_SEARCH.id, INPUTS)),
    Mistake("Wrong workflow id", task("71002814653029400")),
    Mistake("Wrong bot id", bot("71002814653029400")),
    Mistake("Id of a template as bot_id", bot(TEMPLATE_SEARCH.id)),
    Mistake("Workflow of a bot", f'RunBotOperator(task_id="run", workflow_id="{SEARCH.id}")'),
    Mistake("Unpublished bot", bot(UNPUBLISHED.id)),
    # The connection
    Mistake("No connection", task(SEARCH.id, INPUTS), connection=None),
    Mistake(
        "Connection of another type with the key as a header",
        task(SEARCH.id, INPUTS),
        {"conn_type": "http", "password": "", "extra": '{"Authorization": "Bearer app-emulator"}'},
    ),
    Mistake("Key in the field login", task(SEARCH.id, INPUTS), {"password": "", "login": "app-emulator"}),
    Mistake("Key in the extra", task(SEARCH.id, INPUTS), {"password": "", "extra": '{"api_key": "app-emulator"}'}),
    Mistake("Key with Bearer", task(SEARCH.id, INPUTS), {"password": "Bearer app-emulator"}),
    Mistake("Wrong API key", task(SEARCH.id, INPUTS), {"password": "app-wrong"}),
    Mistake("Host with a path", task(SEARCH.id, INPUTS), {"host": "{host}/v2"}),
    Mistake(
        "Nothing listens at the host",
        task(SEARCH.id, INPUTS),
        {"host": "http://127.0.0.1:9", "extra": '{"retry_budget": 2}'},
        line="No connection",
    ),
    Mistake("Callbacks without an address", task(SEARCH.id, INPUTS, "deferrable=True", "webhook=True")),
    Mistake(
        "Address of callbacks with the route",
        task(SEARCH.id, INPUTS, "deferrable=True"),
        {"extra": '{"webhook_base_url": "http://127.0.0.1:8080/browseract/callback"}'},
    ),
    Mistake(
        "Unknown budget_action",
        task(SEARCH.id, INPUTS),
        {"extra": '{"daily_credits": 2000, "budget_action": "stop"}'},
    ),
    Mistake("Budget of 0 credits", task(SEARCH.id, INPUTS), {"extra": '{"daily_credits": 0}'}),
    Mistake("Budget that is not a number", task(SEARCH.id, INPUTS), {"extra": '{"daily_credits": "abc"}'}),
    Mistake("Account without credits", task(SEARCH.id, INPUTS), credits=0),
    Mistake("Account without credits for a bot", bot(CONTACTS.id, COMPANY), credits=0),
    # Inputs
    Mistake("Misspelled input", task(SEARCH.id, 'input_parameters={"keywrod": "laptops"}')),
    Mistake("Empty input", task(SEARCH.id, 'input_parameters={"keyword": ""}')),
    Mistake("Empty input of a bot", bot(CONTACTS.id, 'input={"company_name": ""}')),
    Mistake("Input None", task(SEARCH.id, 'input_parameters={"keyword": "laptops", "max_items": None}')),
    Mistake("Input None of a bot", bot(CONTACTS.id, 'input={"company_name": None}')),
    Mistake("Inputs as JSON text", task(SEARCH.id, 'input_parameters=\'{"keyword": "laptops"}\'')),
    Mistake(
        "Inputs from a template",
        task(SEARCH.id, 'input_parameters="{{ params.inputs }}"'),
        params={"inputs": {"keyword": "laptops"}},
    ),
    Mistake(
        "Input of a bot from a template",
        bot(CONTACTS.id, 'input="{{ params.inputs }}"'),
        params={"inputs": {"company_name": "Example Corp"}},
    ),
    Mistake(
        "Input of a bot as a list of pairs",
        bot(CONTACTS.id, 'input=[{"name": "company_name", "value": "Example Corp"}]'),
    ),
    Mistake(
        "List as an input",
        task(SEARCH.id, 'input_parameters={"keyword": ["laptops", "phones"]}'),
        runs=1,
        line="Sent as one JSON text",
        tracebacks=0,
    ),
    Mistake("List as an input of a bot", bot(CONTACTS.id, 'input={"company_name": ["Example Corp", "Acme"]}')),
    Mistake(
        "Words for a number", task(SEARCH.id, 'input_parameters={"keyword": "laptops", "max_items": "three"}'), runs=1
    ),
    Mistake(
        "Words for a number of a bot",
        bot(CONTACTS.id, 'input={"company_name": "Example Corp", "max_pages": "two"}'),
    ),
    Mistake(
        "Wrong password of the website",
        task(LOG_IN.id, 'input_parameters={"username": "ada", "password": "wrong"}'),
        runs=1,
    ),
    Mistake("Function without return", f'@task.browseract(workflow_id="{SEARCH.id}")\ndef run():\n    {{}}\nrun()'),
    # expand
    Mistake("Dict in expand", expanded('input_parameters={"keyword": ["laptops", "phones"]}')),
    Mistake(
        "Dict in expand of a bot",
        f'RunBotOperator.partial(task_id="run", bot_id="{CONTACTS.id}").expand(input={{"company_name": ["A", "B"]}})',
    ),
    Mistake("List of texts in expand", expanded('input_parameters=["laptops", "phones"]'), tracebacks=2),
    Mistake(
        "List of texts in expand of a bot",
        f'RunBotOperator.partial(task_id="run", bot_id="{CONTACTS.id}").expand(input=["A", "B"])',
        tracebacks=2,
    ),
    Mistake("Name of an input in expand", expanded('keyword=["laptops", "phones"]')),
    Mistake("Wrong timeout in expand", expanded('timeout=["30m"]', f'workflow_id="{SEARCH.id}", {INPUTS}')),
    Mistake(
        "expand over a task that returns None",
        "@task\ndef nothing():\n    return None\n" + expanded("input_parameters=nothing()"),
    ),
    Mistake(
        "Rows of a search as inputs",
        task(SEARCH.id, 'input_parameters={"keyword": "laptops", "max_items": 1}', task_id="search").join(
            ("search = ", "\n")
        )
        + expanded("input_parameters=search.output"),
        runs=1,
    ),
    # Values of other tasks
    Mistake(
        "Profile from a task that saved none",
        "log_in = "
        + task(LOG_IN.id, 'input_parameters={"username": "ada", "password": "hunter2"}', task_id="log_in")
        + "\n"
        + task(ORDERS.id, 'profile_id=log_in.output["profile_id"]', task_id="orders"),
        runs=1,
    ),
    Mistake("Profile of another account", task(ORDERS.id, 'profile_id="12345678901234567"')),
    Mistake("Profile for a bot", bot(CONTACTS.id, COMPANY, 'profile_id="7"')),
    Mistake(
        "Profile from a task that returns None",
        "@task\ndef nothing():\n    return None\n" + task(ORDERS.id, "profile_id=nothing()"),
    ),
    Mistake(
        "Misspelled task in xcom_pull",
        task(SEARCH.id, """input_parameters={"keyword": "{{ ti.xcom_pull('serch') }}"}"""),
    ),
    Mistake(
        "Field of an output as an XCom",
        "search = "
        + task(SEARCH.id, INPUTS, task_id="search")
        + "\n"
        + task(SEARCH.id, 'input_parameters={"keyword": search.output["title"]}'),
        runs=1,
        tracebacks=2,
    ),
    Mistake(
        "Position in an output",
        "search = "
        + task(SEARCH.id, INPUTS, task_id="search")
        + "\n"
        + task(SEARCH.id, 'input_parameters={"keyword": search.output[0]["title"]}'),
    ),
    Mistake(
        "Output without a wait",
        "run = "
        + task(SEARCH.id, INPUTS, "wait_for_completion=False")
        + "\n@task\ndef use(rows):\n    print(rows[0]['title'])\nuse(run.output)",
        runs=1,
        line="Not waiting for",
    ),
    Mistake("Unknown variable", task(ORDERS.id, 'profile_id="{{ var.value.shop_profil }}"'), tracebacks=2),
    Mistake(
        "Misspelled param",
        task(SEARCH.id, 'input_parameters={"keyword": "{{ params.keywrd }}"}'),
        params={"keyword": "laptops"},
        tracebacks=2,
    ),
    Mistake(
        "Triggered with None",
        task(SEARCH.id, 'input_parameters={"keyword": "{{ params.keyword }}"}'),
        params={"keyword": "laptops"},
        conf={"keyword": None},
    ),
    # Arguments
    Mistake("Misspelled argument", task(SEARCH.id, 'input_parameter={"keyword": "laptops"}')),
    Mistake("timeout as a text", task(SEARCH.id, INPUTS, 'timeout="30m"')),
    Mistake(
        "timeout as a text in a task group",
        "@task_group\ndef shop():\n    " + task(SEARCH.id, INPUTS, 'timeout="30m"') + "\nshop()",
    ),
    Mistake("deferrable as a text", task(SEARCH.id, INPUTS, 'deferrable="False"')),
    Mistake("Unknown on_budget", task(SEARCH.id, INPUTS, 'on_budget="ask"')),
    Mistake("Cap that is not a number", task(SEARCH.id, INPUTS, 'max_credits="lots"')),
    Mistake("output_format in capitals", task(SEARCH.id, INPUTS, 'output_format="JSON"')),
    Mistake("Wrong output_format", task(SEARCH.id, INPUTS, 'output_format="csv"'), runs=1),
    Mistake("Folder that cannot be written", task(SEARCH.id, INPUTS, 'output_path="/proc/results"')),
    Mistake("Unknown object storage", task(SEARCH.id, INPUTS, 'output_path="s5://bucket/results"')),
    Mistake("Import from the package", "from airflow_provider_browseract.operators import RunWorkflowOperator"),
    # Runs
    Mistake("Workflow without an end", task(ENDLESS.id, "max_credits=5"), runs=1),
    Mistake("No triggerer", task(SEARCH.id, INPUTS, "deferrable=True"), runs=1, duration=3.0, tracebacks=0),
    Mistake(
        "Stop of a bot's run in version 2",
        "run = "
        + bot(CONTACTS.id, COMPANY)
        + '\nStopTaskOperator(task_id="stop", browseract_task_id=run.output["task_id"])',
        runs=1,
    ),
    Mistake("Unknown version of the API", 'StopTaskOperator(task_id="stop", browseract_task_id="1", api_version="3")'),
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
    return "\n".join(LOGGER.sub("", line) for line in said[-2:])


def make(mistake: Mistake, folder: Path) -> tuple[str, int]:
    """Make a mistake, and return the traceback if the DAG cannot be imported, and how many runs were started.

    :param folder: the DAGs folder of this process's Airflow.
    """
    dag_id = re.sub(r"\W+", "_", mistake.name.lower())
    file = folder / f"{dag_id}.py"
    tasks = textwrap.indent(mistake.tasks, "    ")
    file.write_text(DAG_FILE.format(dag_id=dag_id, params=mistake.params, tasks=tasks))
    # Some messages name steps, which the vendor's examples do not have.
    with add(Emulator(credits=mistake.credits)).serve() as running:
        connect(mistake, running)
        for workflow in (CONTACTS, LOG_IN, ORDERS, SEARCH):
            running.set_workflow(workflow.id, duration=mistake.duration)
        import_error = ""
        try:
            dag = runpy.run_path(str(file))["dag"]
        except Exception:  # noqa: BLE001
            import_error = traceback.format_exc()
        else:
            dag.test(run_conf=mistake.conf)
        file.unlink()
        return import_error, len(running.tasks)


def seen(mistake: Mistake, import_error: str, log: str, runs: int) -> Seen:
    """Return what the user sees of a mistake."""
    message = "\n".join(after_traceback(import_error.splitlines())) if import_error else message_of(log)
    if mistake.line:
        lines = (found[1] for line in log.splitlines() if (found := LOG_LINE.match(line)))
        logged = next(line for line in lines if line.startswith(mistake.line))
        message = f"{LOGGER.sub('', logged)}\n\n{message}"
    for pattern, shown in CHANGES.items():
        message = re.sub(pattern, shown, message, flags=re.MULTILINE)
    return Seen(message.strip(), (import_error or log).count("Traceback (most recent call last)"), runs)


def as_markdown(mistake: Mistake, message: str) -> str:
    """Return a section about a mistake."""
    given = (("Connection", mistake.connection), ("Params", mistake.params), ("Triggered with", mistake.conf))
    lines = [f"{name}: `{json.dumps(value)}`\n" for name, value in given if value]
    # As Python, ruff would format it.
    code, said = (f"```text\n{text}\n```\n" for text in (mistake.tasks, message))
    return "\n".join([f"## {mistake.name}\n", *lines, code, said])


def connect(mistake: Mistake, running: Emulator) -> None:
    """Set the connection to the emulator as the mistake has it."""
    os.environ.pop(CONNECTION, None)
    if mistake.connection is not None:
        own = {name: value.replace("{host}", running.connection["host"]) for name, value in mistake.connection.items()}
        os.environ[CONNECTION] = json.dumps({**running.connection, **own})


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
            yield mistake, seen(mistake, import_error, said.read(), runs)


def main() -> None:
    """Make all mistakes, and print what the user sees."""
    with tempfile.TemporaryDirectory(prefix="browseract-mistakes-") as folder:
        print("# What a new user sees of likely mistakes\n\nWritten by `python -m dev.mistakes`.")
        for mistake, each in make_all(Path(folder)):
            print(f"\n{as_markdown(mistake, each.message)}", end="", flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
