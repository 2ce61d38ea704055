"""The text of a DAG file and of its test: what the panel shows, and what the command ``new-dag`` prints."""

from __future__ import annotations

import ast
import json
import shlex
import subprocess
import sys
import time
from typing import Any

import jinja2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_browseract.api.models import InputParameter, SourceInfo
from airflow_provider_browseract.api.versions import SOURCES, SourceKind
from airflow_provider_browseract.compat import dags_of, is_secret
from airflow_provider_browseract.dag_file import MAX_SCHEMA_VALUES, MAX_VALUES, TEST, Runnable, dag_file, dag_id_of
from airflow_provider_browseract.emulator import LOG_IN, SEARCH, TEMPLATE_SEARCH, EmulatedWorkflow
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.runs.bot_input import conform
from tests.helpers.cases import cases
from tests.helpers.catalogue import PLAIN_TEXT, PRICES
from tests.helpers.separate_pytest import assert_passed

WORKFLOW, TEMPLATE, BOT, BOT_TEMPLATE = SourceKind
ID = "71002814653029437"
HOSTILE = (
    "",
    '"""',
    "'''\"\"\"\\",
    "\n    import os\n",
    "\r\x0c\x85\u2028\u2029import os",
    "{name}{0}",
    "{{ 1 + 1 }}{% if %}{# #}",
    "}} {{ conn.shop.password",
    "\u202erecivederp\u200f",
    "\ud800\x00",
    "\U0001f600\u4e2d\u6587\u0627\u0644",
    "items",
    "None",
    "a b-c.d",
    "it's",
    "n" * 200,
)
"""Texts that a file must only have in literals."""

TEXTS = st.text(st.characters(), max_size=30) | st.sampled_from(HOSTILE)
NAMES = st.lists(TEXTS, max_size=3, unique=True)
RULES = st.sampled_from(
    ("type", "properties", "required", "items", "enum", "const", "default", "anyOf", "$ref", "object", "array")
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS | RULES,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(TEXTS | RULES, each, max_size=3),
    max_leaves=8,
)


def workflow(
    *required: str, optional: Any = (), kind: SourceKind = WORKFLOW, id: str = ID, name: str = "Search"
) -> Runnable:
    declared = [InputParameter(name=each, default_enabled=False) for each in required]
    declared += [InputParameter(name=each, default_enabled=True) for each in optional if each not in required]
    return Runnable.of(kind, SourceInfo(id=id, name=name, input_parameters=tuple(declared)))


def bot(schema: Any, kind: SourceKind = BOT, **fields: Any) -> Runnable:
    return Runnable.of(kind, SourceInfo(**{"id": ID, "name": "Search", "input_schema": schema, **fields}))


def bot_with(**inputs: Any) -> Runnable:
    return bot({"type": "object", "properties": inputs, "required": [*inputs]})


def dag_of(source: Runnable, given: Any = None, conn_id: str = "browseract_default") -> str:
    return dag_file(source, conn_id, given)


def written_test(source: Runnable, given: Any = None, conn_id: str = "browseract_default") -> str:
    return dag_file(source, conn_id, given, template=TEST)


def shape(text: str) -> str:
    """Return the code of a file without the texts in its literals."""
    tree = ast.parse(text)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = "text"
    return ast.dump(tree)


def arguments_of(text: str) -> dict[str, Any]:
    calls = [node for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Call)]
    return {word.arg: word.value for call in calls for word in call.keywords if word.arg}


def inputs_of(text: str) -> Any:
    found = arguments_of(text)
    return ast.literal_eval(found.get("input_parameters") or found["input"])


def values_of(test: str) -> dict[str, Any]:
    tree = ast.parse(test)
    tree.body = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
    found: dict[str, Any] = {}
    exec(compile(tree, "test", "exec"), found)
    return found


def rendered(value: Any, **names: Any) -> Any:
    if isinstance(value, str):
        return jinja2.Environment().from_string(value).render(**names)
    if isinstance(value, dict):
        return {name: rendered(member, **names) for name, member in value.items()}
    return [rendered(member, **names) for member in value] if isinstance(value, list) else value


@given(TEXTS, TEXTS, NAMES, NAMES, st.sampled_from(SourceKind))
@example('"""', "browseract_default", list(HOSTILE), list(HOSTILE), WORKFLOW)
@example('"""', "browseract_default", list(HOSTILE), [], BOT)
@example("n" * 1_000_000, "n" * 1_000_000, [], [], BOT)
def test_texts_from_outside_are_nothing_but_literals_and_comments(name, conn_id, needed, more, kind):
    def shapes(name: str, conn_id: str, needed: list[str], more: list[str]) -> list[str]:
        if kind in (WORKFLOW, TEMPLATE):
            source = workflow(*needed, optional=more, kind=kind, name=name)
        else:
            properties = {each: {"type": "string", "default": each} for each in [*needed, *more]}
            source = bot({"properties": properties, "required": needed}, kind, name=name)
        return [shape(dag_of(source, None, conn_id)), shape(written_test(source, None, conn_id))]

    harmless = [f"{'password' if is_secret(each) else 'name'}_{number}" for number, each in enumerate(needed)]
    others = [f"other_{number}" for number in range(len({*more} - {*needed}))]
    conn = conn_id if conn_id == "browseract_default" else "other"
    assert shapes(name, conn_id, needed, more) == shapes("Search", conn, harmless, others)


@given(st.lists(TEXTS.filter(lambda name: not is_secret(name)), min_size=1, max_size=3, unique=True))
@example([name for name in HOSTILE if not is_secret(name)])
def test_each_input_gets_the_param_of_the_same_name_whatever_the_name(names):
    templates = inputs_of(dag_of(workflow(*names)))
    assert list(templates) == names
    for name, template in templates.items():
        assert rendered(template, params={name: "the value", "name": "another"}) == "the value"


@given(TEXTS)
def test_id_of_the_connection_is_used_as_it_is_although_the_argument_is_a_template(text):
    found = arguments_of(dag_of(workflow(), None, f"{text}2"))
    assert rendered(ast.literal_eval(found["browseract_conn_id"])) == f"{text}2"


@given(TEXTS.filter(lambda name: not is_secret(name)), TEXTS)
@example("keyword", "it's \r\n")
@example("keyword", "n" * 1_000_000)
def test_value_of_a_workflow_is_the_default_of_its_param(name, value):
    for source in (workflow(name), workflow(optional=[name])):
        text = dag_of(source, {name: value})
        [call] = arguments_of(text)["params"].values
        assert [ast.literal_eval(each) for each in call.args] == [value]
        assert rendered(inputs_of(text)[name], params={name: value}) == value
        assert values_of(written_test(source, {name: value}))["INPUTS"] == {name: value}


@given(JSON)
def test_value_of_a_bot_renders_to_itself(value):
    source, values = bot({"properties": {"a": {}}}), {"a": value}
    assert rendered(inputs_of(dag_of(source, values))) == values
    assert values_of(written_test(source, values))["INPUTS"] == values


@given(JSON)
@example({"default": "hunter2", "type": {}})
@example({"type": "object", "properties": [], "required": {}})
def test_any_schema_gives_an_input_that_the_written_schema_and_test_accept(schema):
    for source in (bot(schema), bot_with(x=schema)):
        found = values_of(written_test(source))
        assert found["EMULATED"].input_schema == source.schema
        assert conform(found["INPUTS"], source.schema, "bot 1").input == found["INPUTS"]
        compile(dag_of(source), "dag", "exec")


@cases(
    ("text", {"type": "string", "maxLength": 2}, "text"),
    ("integer", {"type": "integer"}, 1),
    ("list", {"type": "array", "minItems": 2}, []),
    ("object", {"type": "object", "properties": {"a": {"default": "x"}, "b": {}}, "required": ["a"]}, {"a": "x"}),
    ("type or null", {"type": ["null", "integer"]}, 1),
    ("text or number", {"type": ["integer", "string"]}, "text"),
    ("choice or null", {"anyOf": [{"type": "null"}, {"type": "integer"}], "default": 7}, 7),
    ("choice of schemas", {"oneOf": [{"type": "integer"}]}, 1),
    ("default that is no JSON", {"type": "number", "default": float("inf")}, 1),
    ("default with a lone surrogate", {"default": "\ud800"}, "text"),
    ("constant", {"const": "US", "default": "DE"}, "US"),
    ("default", {"type": "integer", "default": 3, "enum": [1, 3]}, 3),
    ("default of a number", {"type": "number", "default": 0.5}, 0.5),
    ("default of another type", {"type": "integer", "default": True}, 1),
    ("long default", {"type": "string", "default": "x" * 201}, "text"),
    ("nothing", {}, "text"),
)
def test_example_is_a_value_that_the_schema_names_or_of_its_type(schema, value):
    assert bot_with(x=schema).example == {"x": value}


def test_inputs_are_the_required_ones_first_and_those_that_only_required_names():
    found = bot({"properties": {"a": {}, "b": {}, "c": {}}, "required": ["c", "d"]}).inputs
    assert [(each.name, each.required) for each in found] == [("c", True), ("d", True), ("a", False), ("b", False)]
    declared = [InputParameter(name="a", default_enabled=None), InputParameter(name="b", default_enabled=False)]
    found = Runnable.of(WORKFLOW, SourceInfo(id=ID, input_parameters=tuple(declared))).inputs
    assert [(each.name, each.required) for each in found] == [("b", True), ("a", False)]
    assert Runnable(WORKFLOW, ID).inputs == ()


@cases(("none", None), ("list", [1]), ("names", {"properties": ["x"]}))
def test_schema_without_names_declares_no_inputs(schema):
    assert bot(schema).inputs == ()
    assert "input=" not in dag_of(bot(schema))


def test_huge_schemas_cost_little():
    deep: dict[str, Any] = {}
    for _ in range(500):
        deep = {"properties": {"a": deep}, "required": ["a"]}
    nested: Any = []
    for _ in range(500):
        nested = [nested]
    names = {f"token_{number}": deep for number in range(100_000)}
    first = {"h": {"default": "x" * 10**6}, "n": {"type": "array", "default": nested}, "\x7f" * 10**6: {}}
    began = time.process_time()
    source = bot({"properties": {**first, **names}, "required": [*first, *names]})
    assert len(dag_of(source)) + len(written_test(source)) < 200_000
    assert time.process_time() - began < 1
    assert 2 < len(source.inputs) < MAX_VALUES
    assert len(workflow(*(f"{number}" for number in range(100_000))).inputs) == MAX_VALUES


# Secrets

VALUE = {"type": "string", "default": "hunter2", "enum": ["hunter2"], "const": "hunter2", "examples": ["hunter2"]}
OBJECT = {"type": "object", "properties": {"value": VALUE}, "required": ["value"]}
PIN, PAIRS = {"format": "password"}, [{"name": "pin", "value": "hunter2"}]
SHAPES = {
    "text": {"password": VALUE},
    "object with a default": {"secret": {"type": "object", "default": {"value": "hunter2"}}},
    "object below a secret": {"secret": OBJECT},
    "list below a secret": {"tokens": {"type": "array", "items": VALUE, "default": ["hunter2"]}},
    "secret in an object": {"login": {"properties": {"password": VALUE}, "required": ["password"]}},
    "object with a secret as default": {"login": {"type": "object", "default": {"password": "hunter2"}}},
    "pairs": {"pairs": {"type": "array", "default": [{"name": "password", "value": "hunter2"}]}},
    "pair": {"pair": {"properties": {"value": VALUE, "name": {"default": "password"}}, "required": ["value", "name"]}},
    "pair at the top": {"value": VALUE, "name": {"enum": ["password"]}},
    "pair with a key": {"value": VALUE, "key": {"const": "password"}},
    "text that is JSON": {"config": {"type": "string", "default": '{"password": "hunter2"}'}},
    "reference": {"password": {"$ref": "#/$defs/password"}},
    "choice of schemas": {"password": {"anyOf": [VALUE, {"type": "null"}]}},
    "further names of a secret": {"secret": {"type": "object", "additionalProperties": VALUE}},
    "patterns of names": {"secret": {"type": "object", "patternProperties": {"hunter2": VALUE}}},
    "format": {"pin": {**VALUE, "format": "password"}},
    "object that is only written": {"pin": {**OBJECT, "writeOnly": True}},
    "format in a choice": {"pin": {"anyOf": [{"format": "password"}, {"type": "null"}], "default": "hunter2"}},
    "format in a list of pairs": {"pins": {"type": "array", "default": PAIRS, "items": {"properties": {"value": PIN}}}},
    "more than is read of a schema": {"city": {"enum": ["hunter2"] * MAX_SCHEMA_VALUES}},
}


@pytest.mark.parametrize("is_required", [True, False], ids=["required", "optional"])
@pytest.mark.parametrize("kind", [BOT, BOT_TEMPLATE])
@cases("inputs", SHAPES)
def test_no_value_of_a_secret_is_in_a_file(inputs, kind, is_required):
    schema = {"type": "object", "properties": inputs, "required": [*inputs] if is_required else []}
    schema |= {"$defs": {"password": VALUE}, "default": {"password": "hunter2"}}
    source = bot(schema, kind)
    assert "hunter2" not in dag_of(source) + written_test(source)


def test_secret_texts_are_read_from_connections_of_their_own():
    names = ["password", "api_key_2", "API_KEY", "api_key", "{{ token }}", "\u5bc6 secret", "user"]
    text = dag_of(workflow(*names, name="7 up"))
    start = "workflow_7_up_029437"
    conns = {
        "password": f"{start}_password",
        "api_key_2": f"{start}_api_key_2",
        "API_KEY": f"{start}_api_key",
        "api_key": f"{start}_api_key_3",
        "{{ token }}": f"{start}_token",
        "\u5bc6 secret": f"{start}_secret",
    }
    templates = {name: f"{{{{ conn.{conn}.password }}}}" for name, conn in conns.items()}
    assert inputs_of(text) == {**templates, "user": "{{ params.user }}"}
    for conn in conns.values():
        assert f"airflow connections add {conn} --conn-type generic" in text


def test_secrets_of_a_bot_are_read_from_connections_at_any_depth():
    login = {"properties": {"user": {}, "password": {}, "pin": PIN}, "required": ["user", "password", "pin"]}
    found = inputs_of(dag_of(bot_with(login=login, secret=OBJECT, tokens={"type": "array"})))
    conn = "{{{{ conn.search_029437_{}.password }}}}"
    assert found["login"] == {"user": "text", "password": conn.format("password"), "pin": conn.format("pin")}
    assert (found["secret"], found["tokens"]) == ({"value": conn.format("value")}, [])


# Names and layout


@given(TEXTS, st.from_regex("[A-Za-z0-9_-]{1,200}", fullmatch=True))
def test_dag_id_is_a_short_identifier_whatever_the_names(name, source_id):
    dag_id = dag_id_of(workflow(name=name, id=source_id))
    assert len(dag_id) < 100
    assert dag_id.isascii()
    assert dag_id.isidentifier()


@cases(
    ("name", "Search", ID, "search_029437"),
    ("other letters", "Pr\u00fcfe  Preise (DE)", ID, "prufe_preise_de_029437"),
    ("no letters", "\u641c\u7d22", ID, "workflow_029437"),
    ("long name", "x" * 1_000_000, ID, f"{'x' * 50}_029437"),
    ("name that is cut before a word", "x" * 49 + " y", ID, f"{'x' * 49}_029437"),
    ("long id", "a", "1" * 190 + "_23456", "a_23456"),
)
def test_dag_id_has_the_words_of_the_name_and_the_end_of_the_id(name, source_id, dag_id):
    assert dag_id_of(workflow(name=name, id=source_id)) == dag_id


@cases(
    ("optional input", workflow(optional=["pages"]), '            # Optional: "pages": "...",\n', 1),
    ("optional secret", workflow(optional=["token"]), '# Optional: "token": "{{ conn.ID.password }}",\n', 1),
    ("optional pin", bot({"properties": {"pin": PIN}}), '# Optional: "pin": "{{ conn.ID.password }}",\n', 1),
    ("optional inputs are no params", workflow(optional=["pages"]), "Param", 0),
    ("examples of a bot", bot_with(pages={"type": "integer"}), "# Example values. Replace them.\n", 1),
    ("no examples but secrets", bot_with(password={}), "# Example values. Replace them.\n", 0),
    ("bot without params", bot_with(pages={}), "params", 0),
    ("bot without required inputs", bot({"properties": {"pages": {}}}), "# Example values. Replace them.\n", 0),
    ("no params", workflow(), "--conf", 0),
    ("cost of retries", workflow(), "After a failed run, each retry pays for another one.", 1),
    ("default connection", workflow(), "browseract_conn_id", 0),
)
def test_file_names_what_the_reader_can_add_and_nothing_that_is_the_default(source, text, count):
    assert dag_of(source).count(text) == count


def test_command_in_the_file_has_a_place_for_each_param_without_a_default():
    names = ["a", "it's", '"\n']
    lines = dag_of(workflow(*names, "given"), {"given": "x"}).splitlines()
    [line] = [line for line in lines if "dags test" in line]
    *words, conf = shlex.split(line.partition(": ")[2])
    assert words == ["airflow", "dags", "test", "search_029437", "--conf"]
    assert json.loads(conf) == dict.fromkeys(names, "...")


def ruff(folder: Any, *words: str) -> None:
    command = [sys.executable, "-m", "ruff", *words, str(folder), "--isolated", "--no-cache"]
    # The project is the current directory, and its package would be sorted as one of the project.
    done = subprocess.run(command, cwd=folder, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


NESTED = {
    "type": "object",
    "properties": {
        "login": {"properties": {"user": {}, "password": {"type": "string"}}, "required": ["user", "password"]},
        "products": {"type": "array", "items": {"type": "string"}, "default": ["pens"]},
        "pages": {"type": "integer"},
    },
    "required": ["login", "products"],
}
SOURCES_TO_RUN = {
    "workflow": (WORKFLOW, LOG_IN),
    "workflow without inputs": (WORKFLOW, PLAIN_TEXT),
    "template": (TEMPLATE, TEMPLATE_SEARCH),
    "bot": (BOT, PRICES),
    "bot with a nested schema": (BOT, EmulatedWorkflow(kind="bot", id="82", name="Nested", input_schema=NESTED)),
    "bot template": (BOT_TEMPLATE, TEMPLATE_SEARCH),
}


@pytest.mark.timeout(300)
def test_files_are_as_ruff_lays_them_out_and_pass_as_they_are(tmp_path, browseract_emulator):
    for number, (kind, emulated) in enumerate(SOURCES_TO_RUN.values()):
        browseract_emulator.add_workflow(emulated)
        source = Runnable.of(kind, BrowserActHook().client.send(SOURCES[kind].read(emulated.id)))
        conn_id = "browseract_default" if number % 2 else "second"
        given = {"username": "ada"} if emulated is LOG_IN else {"pages": 3} if emulated.id == "82" else {}
        folder = tmp_path / f"{number}"
        for path, text in ((f"dags/{dag_id_of(source)}", dag_of), (f"tests/test_{number}", written_test)):
            (folder / path).parent.mkdir(parents=True)
            (folder / f"{path}.py").write_text(text(source, given, conn_id))
    ruff(tmp_path, "check", "--select=E4,E7,E9,F,I,UP,B")
    ruff(tmp_path, "format", "--diff")
    assert_passed(2 * len(SOURCES_TO_RUN), tmp_path, tmp_path)


def test_files_with_hostile_names_pass_the_linter_and_can_be_parsed(tmp_path):
    source = workflow(*HOSTILE, name=HOSTILE[2])
    for kind, each in ((WORKFLOW, source), (BOT, bot_with(**{name: {"default": name} for name in HOSTILE}))):
        (tmp_path / f"{kind}.py").write_text(dag_of(each, None, "{{ 7 }}"))
        (tmp_path / f"test_{kind}.py").write_text(written_test(each, None, "{{ 7 }}"))
    ruff(tmp_path, "check", "--select=E4,E7,E9,F,I,UP,B")
    [dag] = dags_of(str(tmp_path / "workflow.py")).values()
    assert list(dag.params) == [name for name in HOSTILE if not is_secret(name)]


def test_written_schema_of_a_search_is_the_one_of_the_emulator():
    emulated = values_of(written_test(workflow("keyword", optional=["max_items"])))["EMULATED"]
    assert emulated.inputs == SEARCH.inputs
