"""The command ``new-dag``: what it prints, and how it refuses what it cannot use."""

from __future__ import annotations

import ast
from typing import NamedTuple

import pytest

from airflow_provider_browseract import __main__
from airflow_provider_browseract.api.versions import SOURCES, SourceKind
from airflow_provider_browseract.commands import new_dag
from airflow_provider_browseract.emulator import CONTACTS, LOG_IN, SEARCH, EmulatedWorkflow
from airflow_provider_browseract.emulator import TEMPLATE_SEARCH as TEMPLATE
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from tests.helpers.cases import cases, raising
from tests.helpers.catalogue import PRICES


class Result(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def new(browseract_emulator, monkeypatch, capsys):
    # It changes the environment of this process.
    monkeypatch.setattr(__main__, "load_airflow", lambda: True)

    def run(*words: str) -> Result:
        code = __main__.main(["new-dag", *words])
        return Result(code, *capsys.readouterr())

    return run


@pytest.fixture
def refused(new):
    """Run the command, which must print nothing, and return the reason."""

    def run(*words: str) -> str:
        code, out, err = new(*words)
        assert (code, out) == (1, "")
        assert "Traceback" not in err
        return err

    return run


def test_dag_is_printed_and_nothing_is_run(new, browseract_emulator):
    code, out, err = new(SEARCH.id, "--input", "keyword=laptops", "--conn-id", "browseract_default")
    assert (code, err) == (0, "Save it as dags/search_029437.py.\n")
    assert '        "keyword": Param("laptops", type="string", minLength=1),\n' in out
    assert f'        workflow_id="{SEARCH.id}",  # "Search"\n' in out
    ast.parse(out)
    assert {each.method for each in browseract_emulator.requests} == {"GET"}
    assert not browseract_emulator.tasks


def test_test_is_printed_instead(new):
    code, out, err = new(SEARCH.id, "--test", "--input", "keyword=laptops")
    assert (code, err) == (0, "Save it as tests/test_search_029437.py.\n")
    assert 'DAG_FILE = "../dags/search_029437.py"\n' in out
    assert 'INPUTS = {"keyword": "laptops"}\n' in out


@cases(
    ("workflow, which API v3 serves as a bot too", SEARCH.id, "RunWorkflowOperator"),
    ("template, which API v3 serves too", TEMPLATE.id, "RunTemplateOperator"),
    ("bot", CONTACTS.id, "RunBotOperator"),
    ("address of a template", TEMPLATE.detail_url, "RunTemplateOperator"),
    ("address", f"https://www.browseract.com/12/workflow/{SEARCH.id}/edit?ts={10**16}", "RunWorkflowOperator"),
    ("address without a scheme", f"www.browseract.com/workspace/{10**16}/{SEARCH.id}", "RunWorkflowOperator"),
)
def test_kind_is_found_by_the_id_or_by_an_address_with_it(new, source_id, operator):
    assert f"import {operator}\n" in new(source_id).out


def test_id_that_only_the_templates_of_bots_have_is_found(new, monkeypatch):
    # To version 2, the template is unknown.
    as_workflow = SOURCES[SourceKind.TEMPLATE]._replace(read=SOURCES[SourceKind.WORKFLOW].read)
    monkeypatch.setitem(SOURCES, SourceKind.TEMPLATE, as_workflow)
    assert "import RunBotTemplateOperator\n" in new(TEMPLATE.id).out


@cases(
    ("workflow and template", SourceKind.TEMPLATE, SourceKind.WORKFLOW, "workflow 'Search' and of the template"),
    ("workflow and bot", SourceKind.BOT, SourceKind.BOT, "workflow 'Search' and of the bot"),
)
def test_id_of_two_kinds_is_refused_with_both_names(refused, monkeypatch, kind, like, what):
    # The emulator has each id once.
    monkeypatch.setitem(SOURCES, kind, SOURCES[kind]._replace(read=SOURCES[like].read))
    # An agent-built bot is no workflow.
    monkeypatch.setattr(EmulatedWorkflow, "bot_type", "agent")
    assert f"{SEARCH.id!r} is the id of the {what} 'Search'" in refused(SEARCH.id)


def test_without_an_id_everything_is_listed_once_with_a_printable_name(new, browseract_emulator):
    browseract_emulator.add_workflow(EmulatedWorkflow(id="1", name="\x1b[31mred\nline\u202e"))
    code, out, err = new()
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert "workflow      1  [31mred line" in lines
    assert f"bot           {CONTACTS.id}  {CONTACTS.name}" in lines
    assert f"template      {TEMPLATE.id}  {TEMPLATE.name}" in lines
    assert out.count(SEARCH.id) == out.count(TEMPLATE.id) == 1


def test_empty_account_is_told_what_to_do(new, browseract_emulator):
    browseract_emulator.workflows = {}
    assert new().out.startswith("The account has nothing to run. Build a workflow in BrowserAct's dashboard")


# What is refused


@cases(
    ("unknown id", ["1"], "The account has nothing with the id '1': run new-dag without an id to list what it has."),
    ("id with a slash", ["a/b"], "The account has nothing with the id 'a/b'"),
    ("another endpoint", ["runs"], "The account has nothing with the id 'runs'"),
    ("address without an id", ["https://www.browseract.com/workflows"], "nothing with the id 'https://www.bro"),
    ("no connection", [SEARCH.id, "--conn-id", "nowhere"], "There is no connection 'nowhere'.\n"),
    (
        "unknown input",
        [SEARCH.id, "--input", "keywrod=x"],
        "There is no input 'keywrod' (did you mean 'keyword'?), only: 'keyword', 'max_items'.",
    ),
    ("input of what has none", ["71002814653029423", "--input", "a=b"], "There is no input 'a', only: none."),
    ("input without =", [SEARCH.id, "--input", "hunter2"], "--input needs a name and a value"),
    ("input without a name", [SEARCH.id, "--input", "=hunter2"], "--input needs a name and a value"),
    ("input twice", [SEARCH.id, "--input", "keyword=a", "--input", "keyword=b"], "--input has 'keyword' twice."),
    ("secret", [LOG_IN.id, "--input", "password=hunter2"], "--input password is or contains a secret: leave it"),
    ("secret in a value", [LOG_IN.id, "--input", 'username={"token": "hunter2"}'], "--input username is or conta"),
    ("no JSON", [PRICES.id, "--input", "products=pens"], "input['products'] must be of type array, not string"),
    ("test without an id", ["--test"], "--test and --input need the id of a workflow, bot or template."),
    ("input without an id", ["--input", "a=b"], "--test and --input need the id of a workflow, bot or template."),
)
def test_bad_input_is_refused_with_a_reason_and_without_the_value(refused, words, reason):
    found = refused(*words)
    assert reason in found
    assert "hunter2" not in found


def test_secret_of_a_schema_is_refused_at_any_depth(refused, browseract_emulator):
    schema = {"properties": {"login": {"properties": {"pin": {"format": "password"}}}, "code": {"writeOnly": True}}}
    browseract_emulator.add_workflow(EmulatedWorkflow(kind="bot", id="9", name="Log in", input_schema=schema))
    for given in ('login={"pin": "hunter2"}', "code=hunter2"):
        assert "is or contains a secret: leave it out" in refused("9", "--input", given)


def test_bot_that_is_not_published_is_refused(refused, browseract_emulator):
    browseract_emulator.add_workflow(EmulatedWorkflow(kind="bot", id="9", name="Draft", published=False))
    assert refused("9") == "The bot '9' is not published: publish it in BrowserAct's dashboard.\n"


@cases(
    ("wrong key", {"password": "app-wrong"}, "Put a valid API key"),
    ("nothing listens", {"host": "http://127.0.0.1:9"}, "http://127.0.0.1:9"),
    ("no key", {"password": ""}, "has no API key"),
    ("another type", {"conn_type": "generic", "host": "http://127.0.0.1:9"}, "is not of type BrowserAct."),
)
@pytest.mark.parametrize("words", [[SEARCH.id], []], ids=["id", "list"])
def test_connection_that_cannot_be_used_is_named(refused, connect, monkeypatch, words, fields, reason):
    monkeypatch.setattr(new_dag, "REQUEST_LIMIT", 0.5)
    connect(**fields)
    assert reason in refused(*words)


def test_secrets_backend_that_fails_is_reported_without_its_message(refused, monkeypatch):
    monkeypatch.setattr(BrowserActHook, "get_connection", raising(OSError("password is hunter2")))
    assert refused(SEARCH.id) == "Unexpected error (OSError). The command check may show more.\n"


def test_values_have_the_types_of_the_schema_and_an_object_also_its_secret(new, browseract_emulator):
    login = {"type": "object", "required": ["user", "password"], "properties": {"n": {"type": "number"}}}
    schema = {"type": "object", "properties": {"login": login, "n": {"type": "number"}}, "required": ["login"]}
    browseract_emulator.add_workflow(EmulatedWorkflow(kind="bot", id="9", name="Log in", input_schema=schema))
    out = new("9", "--input", 'login={"user": "ada", "n": 1}', "--input", "n=1.5").out
    assert '"password": "{{ conn.log_in_9_password.password }}"' in out
    assert '"user": "ada"' in out
    assert '"n": 1.5,' in out
    assert "Example values" not in out


def test_file_is_utf_8_whatever_the_terminal_is(new, browseract_emulator, tmp_path, monkeypatch):
    browseract_emulator.add_workflow(EmulatedWorkflow(id="9", name="Pr\u00fcfe"))
    with (tmp_path / "dag.py").open("w", encoding="latin-1") as file:
        monkeypatch.setattr("sys.stdout", file)
        assert new("9").code == 0
    assert '# "Pr\u00fcfe"'.encode() in (tmp_path / "dag.py").read_bytes()
