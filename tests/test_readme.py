"""What the README shows is run, and what it says of the operator is compared with the operator."""

from __future__ import annotations

import inspect
import json
import re
import runpy
import shlex
from pathlib import Path

import pytest

from airflow_provider_browseract.emulator import EXPORT, HUMAN, LOG_IN, ORDERS, SEARCH, TEMPLATE_SEARCH
from airflow_provider_browseract.hooks.connection import EXTRA_FIELDS
from airflow_provider_browseract.operators.browseract import RunWorkflowOperator
from airflow_provider_browseract.operators.run import RunOperator
from airflow_provider_browseract.runs import timings

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def named(text: str) -> str:
    """Find the one block that contains a text."""
    [block] = [block for block in BLOCKS if text in block]
    return block


@pytest.mark.parametrize(
    "dag_id",
    [
        "prices",
        "orders",
        "shop_login",
        "shop_orders",
        "keywords",
        "export",
        "person",
        "decorated",
        "template",
        "by_hand",
        "outside",
    ],
)
def test_readme_dag_can_be_parsed(dag_id, tmp_path, parse):
    file = tmp_path / f"{dag_id}.py"
    file.write_text(named(f'DAG("{dag_id}"'))
    assert parse(file)[dag_id].tasks


def test_first_readme_dag_has_ten_lines_besides_imports():
    lines = [line for line in named('DAG("prices"').splitlines() if line.strip(" )") and "import" not in line]
    assert len(lines) == 10


@pytest.mark.usefixtures("airflow_database")
def test_readme_dag_passes_login_profile_to_another_dag_through_variable(
    browseract_emulator, tmp_path, parse, add_dag_bundle, monkeypatch
):
    # The grace is for the scheduler, which has no part in this.
    monkeypatch.setattr(timings, "CORE_RACE_GRACE", 0.5)
    monkeypatch.setenv("AIRFLOW_CONN_SHOP", '{"conn_type": "generic", "password": "hunter2"}')
    add_dag_bundle(tmp_path)
    emulator = browseract_emulator.emulator
    for workflow in (LOG_IN, ORDERS):
        emulator.set_workflow(workflow.id, duration=0.2)
    file = tmp_path / "shop.py"
    file.write_text(named('DAG("shop_login"'))
    dags = parse(file)
    for dag_id in ("shop_login", "shop_orders"):
        assert dags[dag_id].test().state == "success"
    log_in, orders = emulator.tasks
    assert log_in.profile_id is not None
    assert orders.profile_id == log_in.profile_id


def added_connections():
    """Read the commands that add a connection, with Airflow's own parser."""
    from airflow.cli.cli_parser import get_parser

    commands = re.findall(r"^ *airflow (connections add(?:.*\\\n)*.*)$", README, re.MULTILINE)
    return [get_parser().parse_args(shlex.split(command.replace("\\\n", " "))) for command in commands]


def test_readme_connections_added_by_command_can_be_read():
    from airflow.sdk import Connection

    from airflow_provider_browseract.hooks.connection import read_settings

    added = added_connections()
    assert len(added) == README.count("airflow connections add") == 3
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


def test_readme_emulator_connection_matches_emulator_defaults(monkeypatch):
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


def test_readme_workflow_ids_are_those_of_the_emulator():
    shown = set(re.findall(r'workflow(?:_template)?_id="(\d{17})"|run_task\("(\d{17})"', README))
    known = {each.id for each in (EXPORT, HUMAN, LOG_IN, ORDERS, SEARCH, TEMPLATE_SEARCH)}
    assert {one or other for one, other in shown} == known


def test_readme_manifest_has_the_fields_of_a_real_manifest():
    from airflow_provider_browseract.worker.store import Results, StoredFile

    [text] = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    shown = json.loads(text)
    files = [StoredFile(**file) for file in shown["files"]]
    assert Results(shown["path"], files=files).manifest() == shown


def test_readme_hook_example_runs_and_prints_expected_text(browseract_emulator, tmp_path, capsys):
    file = tmp_path / "hook.py"
    file.write_text(named("hook = BrowserActHook()"))
    runpy.run_path(str(file))
    printed = capsys.readouterr().out
    assert f"{SEARCH.id} Search" in printed
    assert "canceled" in printed


def test_readme_emulator_test_passes_unchanged(run_pytest):
    run_pytest(named("def test_what_my_dag_does"))


@pytest.fixture
def run_pytest(tmp_path):
    """Run a test in a pytest of its own, as a DAG author would."""
    import subprocess
    import sys

    def run(source: str) -> None:
        file = tmp_path / "test_mine.py"
        file.write_text(source)
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", str(file), "-p", "no:cacheprovider"],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert "1 passed" in done.stdout, done.stdout + done.stderr

    return run


def test_readme_table_describes_every_operator_argument_and_no_other():
    own = [
        name
        for operator in (RunWorkflowOperator, RunOperator)
        for name in inspect.signature(operator.__init__).parameters
        if name not in ("self", "kwargs")
    ]
    table = README[README.index("## The operator") : README.index("## Profiles")]
    rows = re.findall(r"^\| `(\w+)`( \*)? \|", table, re.MULTILINE)
    assert [name for name, _ in rows] == own
    assert {name for name, star in rows if star} == set(RunWorkflowOperator.template_fields)


def test_readme_describes_every_extra_field_of_the_connection():
    assert re.findall(r"^\| Extra `(\w+)` \| (.*?) \|", README, re.MULTILINE) == [
        (field.name, field.description.replace(" to BrowserAct", "")) for field in EXTRA_FIELDS
    ]


def test_readme_connection_variables_can_be_read(monkeypatch):
    from airflow.sdk import Connection

    from airflow_provider_browseract.hooks.connection import read_settings

    shown = re.findall(r"AIRFLOW_CONN_BROWSERACT_DEFAULT='(.*)'", README)
    assert len(shown) == 2
    for value in shown:
        monkeypatch.setenv("AIRFLOW_CONN_BROWSERACT_DEFAULT", value)
        assert read_settings(Connection.get("browseract_default"), user_agent="").client.api_key == "app-..."


def test_readme_internal_links_lead_to_existing_headings_and_files():
    headings = {re.sub(r"[^a-z -]", "", h.lower()).replace(" ", "-") for h in re.findall(r"^###? (.*)$", README, re.M)}
    assert set(re.findall(r"\(#([a-z-]+)\)", README)) <= headings
    for path in re.findall(r"(?:/(?:tree|blob)/main/|!\[[\w ]+\]\()([\w./]+)\)", README):
        assert (ROOT / path).exists()


def test_changelog_has_entry_for_current_version():
    from airflow_provider_browseract import __version__

    assert f"## [{__version__}]" in (ROOT / "CHANGELOG.md").read_text()
