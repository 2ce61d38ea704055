"""The command ``new-dag``: what it writes and prints, and how it refuses what it cannot use."""

from __future__ import annotations

import json
import os
import shlex
from pathlib import Path
from typing import NamedTuple

import pytest

from airflow_provider_browseract import __main__
from airflow_provider_browseract.commands import dag_writer
from airflow_provider_browseract.emulator import CONTACTS, LOG_IN, SEARCH, EmulatedWorkflow, WorkflowInput
from airflow_provider_browseract.emulator import TEMPLATE_SEARCH as TEMPLATE
from tests.cases import cases
from tests.catalogue import PRICES
from tests.dag_files.test_dag_file import HOSTILE
from tests.separate_pytest import assert_passed


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def dags_folder(tmp_path, monkeypatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    folder = tmp_path / "airflow" / "dags"
    monkeypatch.setenv("AIRFLOW__CORE__DAGS_FOLDER", str(folder))
    return folder


@pytest.fixture
def new(browseract_emulator, dags_folder, monkeypatch, capsys):
    # It changes the environment of this process.
    monkeypatch.setattr(__main__, "load_airflow", lambda: True)

    def run(*words: str) -> Result:
        code = __main__.main(["new-dag", *words])
        return Result(code, *capsys.readouterr())

    return run


def files_in(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


@pytest.fixture
def refused(new, tmp_path):
    """Run the command, which must refuse to write, and return the reason."""

    def run(*words: str) -> str:
        before = files_in(tmp_path)
        code, out, err = new(*words)
        assert (code, out) == (1, "")
        assert files_in(tmp_path) == before
        assert "Traceback" not in err
        return err

    return run


NAME = "search_029437"


def test_dag_is_in_the_dags_folder_its_test_beside_it_and_nothing_is_run(new, dags_folder, browseract_emulator):
    code, out, err = new(SEARCH.id, "--input", "keyword=laptops")
    assert (code, err) == (0, "")
    dag, test = dags_folder / f"{NAME}.py", dags_folder.parent / "tests" / f"test_{NAME}.py"
    assert '"keyword": Param("laptops", type="string", minLength=1),' in dag.read_text()
    assert f'browseract_load_dag("../dags/{NAME}.py")' in test.read_text()
    lines = [line.strip() for line in out.splitlines()]
    assert {str(dag), str(test), f"airflow dags test {NAME}", f"python -m pytest {test}"} <= set(lines)
    assert [each.endpoint for each in browseract_emulator.requests] == ["get-workflow"]
    assert not browseract_emulator.tasks


def test_printed_command_has_the_inputs_that_nobody_has_given(new):
    out = new(SEARCH.id).out
    [line] = [line for line in out.splitlines() if "airflow dags test" in line]
    assert shlex.split(line) == ["airflow", "dags", "test", "search_029437", "--conf", '{"keyword": "..."}']


def test_json_has_paths_and_commands(new, dags_folder):
    test = dags_folder.parent / "tests" / "test_find_a_contact_027715.py"
    assert json.loads(new(CONTACTS.id, "--kind", "bot", "--json").out) == {
        "dag_id": "find_a_contact_027715",
        "dag_file": str(dags_folder / "find_a_contact_027715.py"),
        "test_file": str(test),
        "kind": "bot",
        "id": CONTACTS.id,
        "name": CONTACTS.name,
        "params": [],
        "examples": ["company_name"],
        "secrets": {},
        "notes": [],
        "run_command": "airflow dags test find_a_contact_027715",
        "test_command": f"python -m pytest {test}",
    }


def test_json_of_an_error_is_one_value_too(new):
    code, out, _ = new("1", "--json")
    assert (code, list(json.loads(out))) == (1, ["error"])


def test_secret_is_stored_in_a_connection_that_the_command_names(new, dags_folder):
    out = new(LOG_IN.id, "--input", "username=ada").out
    assert "airflow connections add log_in_029411_password --conn-type generic --conn-password ..." in out
    assert "{{ conn.log_in_029411_password.password }}" in (dags_folder / "log_in_029411.py").read_text()


@cases(
    "directory, words, dag, test",
    {
        "file below the current directory": ("here", ["dags/a.py"], "here/dags/a.py", "here/tests/test_a.py"),
        "file in the current directory": ("here", ["a.py"], "here/a.py", "here/tests/test_a.py"),
        "in the DAGs folder": ("airflow/dags", ["a.py"], "airflow/dags/a.py", "airflow/tests/test_a.py"),
        "below it": ("airflow/dags", ["team/a.py"], "airflow/dags/team/a.py", "airflow/tests/test_a.py"),
        "folders": ("here", ["tests", "--test", "dags"], f"here/tests/{NAME}.py", f"here/dags/test_{NAME}.py"),
    },
)
def test_output_names_the_dag_and_places_its_test(new, tmp_path, dags_folder, monkeypatch, directory, words, dag, test):
    for folder in (dags_folder / "team", tmp_path / "here" / "dags", tmp_path / "here" / "tests"):
        folder.mkdir(parents=True)
    monkeypatch.chdir(tmp_path / directory)
    code, out, _ = new(SEARCH.id, "--output", *words)
    assert (code, files_in(tmp_path)) == (0, sorted([dag, test]))
    assert f'with DAG(\n    "{Path(dag).stem}",' in (tmp_path / dag).read_text()
    path = os.path.relpath(tmp_path / dag, (tmp_path / test).parent)
    assert f'browseract_load_dag("{path}")' in (tmp_path / test).read_text()
    assert ("Copy the DAG file there" in out) == (directory == "here")


def test_values_of_a_bot_get_the_types_of_its_schema(new, dags_folder):
    words = ["products=" + json.dumps(["pens", "ink"]), "country=DE", "max_offers=2", "in_stock=true"]
    assert new(PRICES.id, "--kind", "bot", *(word for each in words for word in ("--input", each))).code == 0
    text = (dags_folder / "compare_prices_027729.py").read_text()
    for line in ('"products": ["pens", "ink"],', '"country": "DE",', '"max_offers": 2,', '"in_stock": True,'):
        assert line in text
    assert "Examples" not in text


def test_value_is_checked_also_if_the_bot_has_a_secret_with_rules_of_its_own(new, dags_folder, browseract_emulator):
    properties = {"password": {"type": "string", "pattern": "^[0-9]{8}$"}, "pages": {"type": "integer"}}
    schema = {"type": "object", "properties": properties, "required": ["password", "pages"]}
    browseract_emulator.add_workflow(EmulatedWorkflow(kind="bot", id="9", name="Log in", input_schema=schema))
    assert "input['pages'] must be an integer" in new("9", "--kind", "bot", "--input", "pages=many").err
    assert new("9", "--kind", "bot", "--input", "pages=7").code == 0
    assert '"pages": 7,' in (dags_folder / "log_in_9.py").read_text()
    assert "pattern" not in (dags_folder.parent / "tests" / "test_log_in_9.py").read_text()


def test_list_has_a_line_for_each_source_with_a_printable_name_and_is_bounded(new, browseract_emulator, monkeypatch):
    browseract_emulator.add_workflow(EmulatedWorkflow(id="1", name="\x1b[31mred\nline\u202e"))
    code, out, _ = new("--list")
    assert code == 0
    assert "workflow      1  [31mred line" in out.splitlines()
    assert f"bot           {CONTACTS.id}  {CONTACTS.name}" in out.splitlines()
    assert f"bot-template  {TEMPLATE.id}  {TEMPLATE.name}" in out.splitlines()
    monkeypatch.setattr(dag_writer, "MAX_LISTED", 3)
    out = new("--list").out
    assert len([line for line in out.splitlines() if line.startswith("workflow ")]) == 3
    assert "There are more workflows. Only 3 are listed." in out


def test_list_of_one_kind_as_json(new):
    found = json.loads(new("--list", "--kind", "template", "--json").out)
    assert {"kind": "template", "id": TEMPLATE.id, "name": TEMPLATE.name} in found
    assert {each["kind"] for each in found} == {"template"}


def test_empty_list_names_what_to_do():
    assert "Build a workflow in BrowserAct's dashboard" in next(dag_writer.Listed([]).lines)


def test_missing_pytest_is_installed_first(new, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "  pip install pytest\n  python -m pytest " in new(SEARCH.id).out


def test_bot_that_is_not_published_is_reported(new, browseract_emulator):
    browseract_emulator.add_workflow(EmulatedWorkflow(kind="bot", id="9", name="Draft", published=False))
    code, out, _ = new("9", "--kind", "bot")
    assert (code, "The bot is not published" in out) == (0, True)


def test_hostile_names_of_inputs_are_written_as_they_are(new, browseract_emulator, dags_folder):
    names = [name for name in HOSTILE if name.strip() and len(name) < 1000]
    inputs = tuple(WorkflowInput(name) for name in names)
    browseract_emulator.add_workflow(EmulatedWorkflow(id="9", name='"""\n', inputs=inputs))
    code, _, err = new("9")
    assert (code, err) == (0, "")
    for file in (dags_folder / "workflow_9.py", dags_folder.parent / "tests" / "test_workflow_9.py"):
        compile(file.read_bytes(), file.name, "exec")


# What is refused


@cases(
    "words, parts",
    {
        "unknown id": (["1"], ["There is no workflow with the id '1'.", "new-dag --list --conn-id browseract_default"]),
        "one digit too many": ([f"{SEARCH.id}7"], [f"(did you mean {SEARCH.id}, 'Search' or "]),
        "name instead of id": (["search"], [f"(did you mean {SEARCH.id}, 'Search'?)"]),
        "id with a slash": (["a/b", "--kind", "bot"], ["There is no bot with the id 'a/b'."]),
        "empty id": ([""], ["There is no workflow with the id ''."]),
        "id of a template": ([TEMPLATE.id], ["is not the id of a workflow, but of the template"]),
        "id of a bot": ([CONTACTS.id], ["but of the bot 'Find a contact'", "Add --kind bot."]),
        "workflow's id": ([SEARCH.id, "--kind", "template"], ["is not the id of a template", "Add --kind workflow."]),
        "no connection": (
            [SEARCH.id, "--conn-id", "nowhere"],
            ["There is no connection 'nowhere'.", "airflow connections add nowhere --conn-type browseract"],
        ),
        "unknown input": (
            [SEARCH.id, "--input", "keywrod=x"],
            ["unknown names: 'keywrod' (did you mean 'keyword'?). The workflow has the inputs 'keyword', 'max_items'."],
        ),
        "input of what has none": (["71002814653029423", "--input", "a=b"], ["The workflow has no inputs."]),
        "input without =": ([SEARCH.id, "--input", "hunter2"], ["--input needs a name and a value"]),
        "input without a name": ([SEARCH.id, "--input", "=x"], ["--input needs a name and a value"]),
        "input without a value": ([SEARCH.id, "--input", "keyword="], ["--input keyword= has no value"]),
        "input twice": ([SEARCH.id, "--input", "keyword=a", "--input", "keyword=b"], ["has 'keyword' twice"]),
        "value of the wrong type": (
            [PRICES.id, "--kind", "bot", "--input", "products=pens"],
            ["input['products'] must be a list", "--input NAME=VALUE"],
        ),
        "output without .py": ([SEARCH.id, "--output", "prices"], ["'prices' is no name for a DAG file"]),
        "output that is no DAG id": ([SEARCH.id, "--output", "my prices.py"], ["is no name for a DAG file"]),
        "folder of the output missing": ([SEARCH.id, "--output", "no/prices.py"], ["here/no, does not exist"]),
        "folder of the test missing": ([SEARCH.id, "--test", "no/test.py"], ["The folder of --test,"]),
        "test without .py": ([SEARCH.id, "--test", "test"], ["'test' is neither a Python file nor a folder"]),
        "one file for both": (
            [SEARCH.id, "--output", "both.py", "--test", "both.py"],
            ["--test is the DAG file itself, ", "here/both.py"],
        ),
        "output not writable": (
            [SEARCH.id, "--output", "/proc/prices.py", "--test", "."],
            ["/proc/prices.py cannot be written: ", "No file was written."],
        ),
    },
)
def test_bad_input_is_refused_with_a_reason(refused, words, parts):
    reason = refused(*words)
    assert all(part in reason for part in parts), reason


def test_secret_is_refused_and_not_repeated(refused):
    for given in ("password=hunter2", 'username={"password": "hunter2"}', "hunter2"):
        reason = refused(LOG_IN.id, "--input", given)
        assert "hunter2" not in reason


@cases(
    "fields, reason",
    {
        "wrong key": ({"password": "app-wrong"}, "Put a valid API key"),
        "nothing listens": ({"host": "http://127.0.0.1:9"}, "http://127.0.0.1:9"),
        "no key": ({"password": ""}, "has no API key"),
    },
)
def test_connection_that_cannot_be_used_is_named(refused, connect, monkeypatch, fields, reason):
    monkeypatch.setattr(dag_writer, "REQUEST_LIMIT", 0.5)
    connect(**fields)
    assert reason in refused(SEARCH.id)


@pytest.mark.parametrize("existing", ["dags/search_029437.py", "tests/test_search_029437.py"])
@pytest.mark.parametrize("is_link", [False, True], ids=["file", "link that leads nowhere"])
def test_existing_file_is_kept_and_the_other_one_not_written(refused, dags_folder, existing, is_link):
    path = dags_folder.parent / existing
    path.parent.mkdir(parents=True)
    path.symlink_to("nowhere") if is_link else path.write_text("# mine")
    assert f"{path} exists" in refused(SEARCH.id)
    assert path.is_symlink() if is_link else path.read_text() == "# mine"


@pytest.mark.parametrize(
    "code",
    [
        'from airflow.sdk import DAG\nwith DAG("search_029437"): ...',
        'import airflow.sdk\nairflow.sdk.DAG(dag_id="search_029437")',
        "from airflow.sdk import dag\n@dag(schedule=None)\ndef search_029437(): ...",
        'from airflow.sdk import DAG\ndef search_029437(): ...\nif True: DAG("search_029437")',
    ],
)
def test_dag_id_of_another_file_is_refused(refused, dags_folder, code):
    (dags_folder / "team").mkdir(parents=True)
    (dags_folder / "team" / "other.py").write_text(code)
    reason = refused(SEARCH.id)
    assert "other.py already has a DAG with the id 'search_029437'" in reason


def test_other_files_that_only_name_the_dag_do_not_matter(new, dags_folder):
    dags_folder.mkdir(parents=True)
    (dags_folder / "other.py").write_text('TriggerDagRunOperator(trigger_dag_id="search_029437")')
    (dags_folder / "broken.py").write_text('DAG("search_029437"')
    (dags_folder / "gone.py").symlink_to("nowhere")
    os.mkfifo(dags_folder / "pipe.py")
    assert new(SEARCH.id).code == 0


def test_first_file_is_removed_if_the_second_cannot_be_written(refused, dags_folder):
    dags_folder.parent.mkdir()
    dags_folder.write_text("no folder")
    assert "No file was written." in refused(SEARCH.id)


def test_id_and_list_exclude_each_other(new, capsys):
    for words in ((), ("1", "--list")):
        with pytest.raises(SystemExit) as error:
            new(*words)
        assert error.value.code == 2
        assert "give either an ID or --list" in capsys.readouterr().err


# Run as they are


def test_written_tests_pass_in_a_pytest_of_their_own(new, dags_folder, tmp_path):
    assert new(LOG_IN.id, "--input", "username=ada").code == 0
    assert new(PRICES.id, "--kind", "bot").code == 0
    assert new(TEMPLATE.id, "--kind", "template").code == 0
    assert_passed(6, dags_folder.parent, tmp_path)
    assert not (tmp_path / "airflow.db").exists()
