"""Every code block of README and docs is run, and what the pages say of the package is compared with the package."""

from __future__ import annotations

import ast
import importlib
import inspect
import json
import os
import pydoc
import re
import runpy
import shlex
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from airflow_provider_browseract.api import errors
from airflow_provider_browseract.api.models import Task, TaskStatus
from airflow_provider_browseract.emulator import EXPORT, HUMAN, LOG_IN, ORDERS, SEARCH, TEMPLATE_SEARCH
from airflow_provider_browseract.hooks.connection import EXTRA_FIELDS, ConnectionFieldError
from airflow_provider_browseract.operators.browseract import RunWorkflowOperator
from airflow_provider_browseract.operators.run import RunOperator
from airflow_provider_browseract.runs import outcome, timings
from airflow_provider_browseract.runs.arguments import InputError
from airflow_provider_browseract.runs.report import facts
from airflow_provider_browseract.webhook.callback import CallbackOutcome, NoCallbackError
from tests.e2e.local_airflow import wait_for

ROOT = Path(__file__).parent.parent
DOCS = sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)
PAGES = {path.relative_to(ROOT).as_posix(): path.read_text() for path in (ROOT / "README.md", *DOCS)}
"""The text of each page, by its path."""

ALL = "\n".join(PAGES.values())
AIRFLOW_COMMAND = re.compile(r"^(?:\w+=\S+ )?airflow (.*)")


class Block(NamedTuple):
    """A code block: where it is, and what it says."""

    page: str
    language: str
    code: str

    @property
    def dag_ids(self) -> list[str]:
        """The DAGs of a Python block."""
        return re.findall(r'^with DAG\("(\w+)"', self.code, re.MULTILINE)

    @property
    def kind(self) -> str:
        """How a Python block is run."""
        if self.dag_ids:
            return "DAG"
        found = re.search(r"^(def test_|def handler\(|@pytest.fixture)", self.code, re.MULTILINE)
        kinds = {None: "script", "def test_": "test", "def handler(": "relay", "@pytest.fixture": "conftest"}
        return kinds[found and found[1]]

    @property
    def lines(self) -> list[str]:
        """The commands of a shell block, each in one line."""
        return [line.strip() for line in re.sub(r" *\\\n *", " ", self.code).splitlines() if line.strip()]


BLOCKS = [
    Block(page, language, code)
    for page, text in PAGES.items()
    for _, language, code in re.findall(r"^( *)```(\S*)\n(.*?)^\1```$", text, re.DOTALL | re.MULTILINE)
    # The others are directives of Sphinx, which `make docs` checks.
    if not language.startswith("{")
]
COMMANDS = [line for block in BLOCKS if block.language == "shell" for line in block.lines]


def every(kind: str) -> pytest.MarkDecorator:
    """Run a test with each Python block of a kind."""
    chosen = [block for block in BLOCKS if block.language == "python" and block.kind == kind]
    return pytest.mark.parametrize("block", chosen, ids=lambda block: "-".join((block.page, *block.dag_ids)))


def block_of(page: str, text: str) -> Block:
    """Find the one block of a page that contains a text."""
    [found] = [block for block in BLOCKS if block.page == page and text in block.code]
    return found


def test_every_code_block_has_a_language_that_is_tested():
    assert {block.language for block in BLOCKS} == {"python", "shell", "json", "nginx"}
    # These are run by tests/webhook/test_relays.py.
    relays = [block.page for block in BLOCKS if block.language == "nginx" or block.kind == "relay"]
    assert relays == ["docs/callbacks.md"] * 2


@every("DAG")
def test_documented_dag_can_be_parsed(block, tmp_path, parse):
    file = tmp_path / "documented.py"
    file.write_text(block.code)
    dags = parse(file)
    assert sorted(dags) == sorted(block.dag_ids)
    assert all(dag.tasks for dag in dags.values())


def test_readme_has_at_most_200_lines():
    assert len(PAGES["README.md"].splitlines()) <= 200


def test_first_readme_dag_has_ten_lines_besides_imports():
    code = block_of("README.md", 'DAG("prices"').code
    lines = [line for line in code.splitlines() if line.strip(" )") and "import" not in line]
    assert len(lines) == 10


def test_tutorial_has_the_first_dag_of_the_readme():
    assert block_of("docs/tutorial.md", 'DAG("prices"').code == block_of("README.md", 'DAG("prices"').code


@pytest.fixture
def run_block(airflow_database, browseract_emulator, tmp_path, parse, add_dag_bundle, monkeypatch):
    """Run the DAGs of a block one after the other, against workflows that take less than the grace."""
    # The grace is for the scheduler, which has no part in this.
    monkeypatch.setattr(timings, "CORE_RACE_GRACE", 0.5)
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", '{"conn_type": "generic", "password": "hunter2"}')
    add_dag_bundle(tmp_path)
    for workflow in (LOG_IN, ORDERS, SEARCH):
        browseract_emulator.emulator.set_workflow(workflow.id, duration=0.2)

    def run(block: Block) -> list[Task]:
        file = tmp_path / "documented.py"
        file.write_text(block.code)
        dags = parse(file)
        for dag_id in block.dag_ids:
            assert dags[dag_id].test().state == "success"
        tasks: list[Task] = browseract_emulator.emulator.tasks
        return tasks

    return run


def test_first_dag_runs_to_its_end(run_block):
    [search] = run_block(block_of("README.md", 'DAG("prices"'))
    assert search.status == "finished"


@pytest.mark.parametrize(
    ("page", "dag"),
    [
        ("README.md", "orders"),
        ("docs/profiles.md", "orders"),
        ("docs/profiles.md", "shop_login"),
        ("docs/tutorial.md", "shop_login"),
    ],
)
def test_documented_dags_pass_login_profile_to_later_run(page, dag, run_block):
    log_in, orders = run_block(block_of(page, f'DAG("{dag}"'))
    assert log_in.profile_id is not None
    assert orders.profile_id == log_in.profile_id


def saved_profile(hook, workflow_id, inputs):
    """Run a workflow, and return the profile that it saved."""
    created = hook.run_task(workflow_id, inputs, save_browser_data=True)
    wait_for("the end of the run", lambda: hook.get_task_status(created.id).ended, timeout=60)
    return hook.get_task(created.id).profile_id


@pytest.mark.parametrize("logged_in", [True, False], ids=["valid login", "expired login"])
def test_documented_daily_dag_logs_in_only_if_the_login_has_expired(run_block, browseract_emulator, logged_in):
    from airflow.models import Variable

    from airflow_provider_browseract.hooks.browseract import BrowserActHook

    workflow, inputs = (LOG_IN, {"username": "ada", "password": "hunter2"}) if logged_in else (ORDERS, {})
    kept = saved_profile(BrowserActHook(), workflow.id, inputs)
    Variable.set("shop_profile", kept)
    try:
        _, orders, *later = run_block(block_of("docs/profiles.md", 'DAG("shop_daily"'))
        assert orders.profile_id == kept
        if logged_in:
            assert later == []
        else:
            log_in, orders_again = later
            assert log_in.workflow_id == LOG_IN.id
            assert orders_again.profile_id == log_in.profile_id == Variable.get("shop_profile")
            assert "order_id" in orders_again.output
    finally:
        Variable.delete("shop_profile")


def test_documented_public_names_exist():
    section = PAGES["docs/compatibility.md"].partition("## Public API")[2]
    rows = re.findall(r"^\| (`.*) \| `([\w.]+)` \|$", section, re.MULTILINE)
    assert len(rows) == 10
    for names, module in rows:
        for name in re.findall(r"`(\w+)`", names):
            assert hasattr(importlib.import_module(module), name), (module, name)


@every("script")
def test_documented_script_runs(block, browseract_emulator, tmp_path):
    file = tmp_path / "script.py"
    file.write_text(block.code)
    runpy.run_path(str(file))


def test_hook_example_prints_canceled_task_and_workflows(browseract_emulator, tmp_path, capsys):
    file = tmp_path / "hook.py"
    file.write_text(block_of("docs/hook.md", "hook.stop_task").code)
    runpy.run_path(str(file))
    printed = capsys.readouterr().out
    assert f"{SEARCH.id} Search" in printed
    assert "canceled" in printed


def test_active_runs_example_prints_active_run(browseract_emulator, tmp_path, capsys):
    from airflow_provider_browseract.hooks.browseract import BrowserActHook

    created = BrowserActHook().run_task(SEARCH.id, {"keyword": "laptops"})
    file = tmp_path / "active.py"
    file.write_text(block_of("docs/hook.md", '"pausing"').code)
    runpy.run_path(str(file))
    assert created.id in capsys.readouterr().out


def test_active_runs_example_lists_every_status_of_an_active_run():
    [listed] = re.findall(r"for status in \((.*)\):", block_of("docs/hook.md", '"pausing"').code)
    active = [status.value for status in TaskStatus if not status.ended and status is not TaskStatus.UNKNOWN]
    assert re.findall(r'"(\w+)"', listed) == active


@every("test")
def test_documented_test_passes_unchanged(block, tmp_path):
    """Run a test in a separate pytest, as a DAG author would."""
    (tmp_path / "test_mine.py").write_text(block.code)
    if "airflow_database" in block.code:
        [conftest] = [each for each in BLOCKS if each.kind == "conftest"]
        (tmp_path / "conftest.py").write_text(conftest.code)
        (tmp_path / "dags").mkdir()
        (tmp_path / "dags" / "prices.py").write_text(block_of("README.md", 'DAG("prices"').code)
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "test_mine.py", "-p", "no:cacheprovider"],
        cwd=tmp_path,
        # Without the settings of these tests.
        env={name: value for name, value in os.environ.items() if not name.startswith("AIRFLOW")}
        | {"HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_documented_shell_commands_are_known():
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert set(re.findall(r"`make (\w+)", ALL)) <= targets
    others = [
        line for line in COMMANDS if not AIRFLOW_COMMAND.match(line) and not line.startswith("export AIRFLOW_CONN_")
    ]
    assert set(others) == {
        'pip install "airflow-provider-browseract @ git+https://github.com/browseract-ai/airflow-provider-browseract"',
        "python -m airflow_provider_browseract.emulator",
    }


def airflow_commands():
    """Read the documented commands with Airflow's own parser, which refuses what it does not know."""
    from airflow.cli.cli_parser import get_parser

    found = [match[1] for line in COMMANDS if (match := AIRFLOW_COMMAND.match(line))]
    return [get_parser().parse_args(shlex.split(command)) for command in found]


def added_connections():
    """Return the connections to BrowserAct that documented commands add."""
    return [each for each in airflow_commands() if getattr(each, "conn_type", None) == "browseract"]


def test_documented_connections_added_by_command_can_be_read():
    from airflow.sdk import Connection

    from airflow_provider_browseract.hooks.connection import read_settings

    added = added_connections()
    # The others are those of the shop.
    assert len(added) == ALL.count("airflow connections add") - ALL.count("airflow connections add shop") > 0
    for each in added:
        connection = Connection(
            conn_id=each.conn_id,
            conn_type=each.conn_type,
            host=each.conn_host,
            port=each.conn_port and int(each.conn_port),
            password=each.conn_password,
            extra=each.conn_extra,
        )
        settings = read_settings(connection, user_agent="")
        assert settings.warning is None
        assert settings.client.base_url == (each.conn_host or "https://api.browseract.com")


def test_documented_emulator_connection_matches_emulator_defaults(monkeypatch):
    from airflow_provider_browseract.emulator import Emulator, __main__

    asked = []

    def serve(self, *address):
        asked.append((self.api_key, *address))
        raise OSError

    monkeypatch.setattr(Emulator, "serve", serve)
    assert __main__.main([]) == 1
    [(key, host, port)] = asked
    [to_emulator] = [each for each in added_connections() if each.conn_host]
    assert to_emulator.conn_host == f"http://{host}:{port}"
    assert to_emulator.conn_password == key


def test_documented_connection_variables_can_be_read(monkeypatch):
    from airflow.sdk import Connection

    from airflow_provider_browseract.hooks.connection import read_settings

    shown = re.findall(r"AIRFLOW_CONN_BROWSERACT_DEFAULT='(.*)'", ALL)
    assert len(shown) == 2
    for value in shown:
        monkeypatch.setenv("AIRFLOW_CONN_BROWSERACT_DEFAULT", value)
        assert read_settings(Connection.get("browseract_default"), user_agent="").client.api_key == "app-..."


def test_documented_workflow_ids_are_those_of_the_emulator():
    shown = set(re.findall(r'workflow(?:_template)?_id="(\d{17})"|run_task\("(\d{17})"', ALL))
    known = {each.id for each in (EXPORT, HUMAN, LOG_IN, ORDERS, SEARCH, TEMPLATE_SEARCH)}
    assert {one or other for one, other in shown} == known


def test_documented_manifest_has_the_fields_of_a_real_manifest():
    from airflow_provider_browseract.worker.store import Results, StoredFile

    [block] = [block for block in BLOCKS if block.language == "json"]
    shown = json.loads(block.code)
    files = [StoredFile(**file) for file in shown["files"]]
    assert Results(shown["path"], files=files).manifest() == shown


def operator_arguments() -> list[str]:
    """Return the names of all arguments of RunWorkflowOperator, without those of BaseOperator."""
    return [
        name
        for operator in (RunWorkflowOperator, RunOperator)
        for name in inspect.signature(operator.__init__).parameters
        if name not in ("self", "kwargs")
    ]


def test_help_lists_every_operator_argument_and_which_are_templated():
    shown = pydoc.plain(pydoc.render_doc(RunWorkflowOperator)).replace("\n |", "\n")
    described = re.findall(r":param (\w+): (.+?)(?=\n *:)", shown, re.DOTALL)
    arguments = dict(described[: len(operator_arguments())])
    assert list(arguments) == operator_arguments()
    templated = {name for name, text in arguments.items() if text.endswith("Templated.")}
    assert templated == set(RunWorkflowOperator.template_fields)


def test_arguments_table_describes_every_operator_argument_and_no_other():
    rows = re.findall(r"^\| `(\w+)`( \*)? \|", PAGES["docs/operator.md"], re.MULTILINE)
    assert [name for name, _ in rows] == operator_arguments()
    assert {name for name, star in rows if star} == set(RunWorkflowOperator.template_fields)


def test_connection_fields_page_describes_every_extra_field():
    page = PAGES["docs/reference/connection-fields.md"]
    assert re.findall(r"^\| Extra `(\w+)` \| (.*?) \|", page, re.MULTILINE) == [
        (field.name, field.description.replace(" to BrowserAct", "")) for field in EXTRA_FIELDS
    ]


def test_exceptions_page_gives_cause_and_remedy_of_every_exception():
    described = re.findall(r"^\| `(\w+)` \| [^|]+ \| [^|]+ \|$", PAGES["docs/reference/exceptions.md"], re.MULTILINE)
    ours = [
        name
        for module in (outcome, errors)
        for name, member in vars(module).items()
        if inspect.isclass(member) and issubclass(member, Exception) and member.__module__ == module.__name__
    ]
    ours += [each.__name__ for each in (InputError, ConnectionFieldError, NoCallbackError)]
    assert sorted(described) == sorted([*ours, "AirflowFailException", "AirflowSensorTimeout"])


def test_documented_log_lines_and_headings_are_messages_of_the_provider():
    constants = [
        node.value
        for path in (ROOT / "airflow_provider_browseract").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    texts = [re.sub(r"%[.\d]*[a-z]", "", constant) for constant in constants]
    headings = re.findall(r"^### `(.*)`$", PAGES["docs/troubleshooting.md"], re.MULTILINE)
    section = PAGES["docs/xcoms-and-metrics.md"].partition("## Log lines")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| `(.*?)` \|", section, re.MULTILINE)
    assert headings
    assert lines
    for message in (*headings, *lines):
        for part in message.split("…"):
            assert any(part.strip(" ,") in text for text in texts), part


def test_xcom_table_describes_every_fact_of_a_run():
    page = PAGES["docs/xcoms-and-metrics.md"]
    section = page[page.index("### The XCom `task`") : page.index("### Copy ids")]
    keys = [key for row in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for key in re.findall(r"`(\w+)`", row)]
    assert sorted(keys) == sorted(facts(Task("1", TaskStatus.FINISHED)))


def test_metrics_table_describes_every_outcome_of_a_callback():
    shown = re.findall(r"^\| `browseract\.callback\.(\w+)` \|", PAGES["docs/xcoms-and-metrics.md"], re.MULTILINE)
    others = ["busy", "unavailable", "method_not_allowed"]
    assert sorted(shown) == sorted([*(each.value.replace(" ", "_") for each in CallbackOutcome), *others])


def headings_of(text: str) -> set[str]:
    """Return the anchors that GitHub and MyST give to the headings of a page."""
    without_code = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#{1,3} (.*)$", without_code, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_existing_files_and_headings(page):
    links = re.findall(r"\]\((?!https?://)([^)\s#]*)(?:#([^)\s]+))?\)", PAGES[page])
    for path, heading in links:
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), path
        assert not heading or heading in headings_of(target.read_text()), (path, heading)


def test_changelog_has_entry_for_current_version():
    from airflow_provider_browseract import __version__

    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()
