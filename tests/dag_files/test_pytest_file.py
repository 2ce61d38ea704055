from __future__ import annotations

import ast
import subprocess
import sys
from typing import Any

from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from airflow_provider_browseract.api.models import ApiVersion, BotType, InputParameter, SourceInfo
from airflow_provider_browseract.api.versions import SOURCES, SourceKind
from airflow_provider_browseract.dag_files.dag_file import dag_file
from airflow_provider_browseract.dag_files.pytest_file import dag_test_file
from airflow_provider_browseract.dag_files.runnable import Runnable
from airflow_provider_browseract.emulator import SEARCH, TEMPLATE_SEARCH, EmulatedWorkflow, Emulator
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from tests.cases import cases
from tests.dag_files.test_dag_file import HOSTILE, JSON, NAMES, TEXTS

PATH = "../dags/search.py"
SCHEMA = {"type": "object", "properties": {"pages": {"type": "integer"}}, "required": ["pages"]}


def files_of(source: Any, kind: SourceKind, conn_id: str, path: str = PATH, **options: Any) -> tuple[str, str]:
    runnable = Runnable.of(kind, source)
    file = dag_file(runnable, conn_id, **options)
    return file.source, dag_test_file(source, runnable, file, path, conn_id)


def text_of(source: Any, kind: SourceKind, conn_id: str = "browseract_default", **options: Any) -> str:
    return files_of(source, kind, conn_id, **options)[1]


def workflow(*names: str, optional: tuple[str, ...] = (), name: str = "Search") -> SourceInfo:
    declared = [InputParameter(name=each, default_enabled=False) for each in names]
    declared += [InputParameter(name=each, default_enabled=True) for each in optional]
    return SourceInfo(id="71", name=name, input_parameters=tuple(declared))


def bot(schema: Any = SCHEMA, output_schema: Any = None, name: str = "Search") -> SourceInfo:
    return SourceInfo(id="82", type=BotType.AGENT, name=name, input_schema=schema, output_schema=output_schema)


def values_of(test: str) -> dict[str, Any]:
    tree = ast.parse(test)
    tree.body = [node for node in tree.body if not isinstance(node, ast.FunctionDef)]
    found: dict[str, Any] = {}
    exec(compile(tree, "test", "exec"), found)
    return found


@given(TEXTS, NAMES, st.lists(TEXTS, max_size=3), TEXTS)
@example('"""', list(HOSTILE), list(HOSTILE), "it's")
def test_test_of_a_workflow_has_its_names_as_they_are(name, needed, optional, conn_id):
    source = workflow(*needed, optional=tuple(optional), name=name)
    found = values_of(text_of(source, SourceKind.WORKFLOW, conn_id))
    emulated = found["WORKFLOW"]
    assert emulated.kind == "workflow"
    expected = [(each, True) for each in needed] + [(each, False) for each in optional]
    assert [(each.name, each.required) for each in emulated.inputs] == expected
    assert list(found["INPUTS"]) == needed


@given(JSON, JSON)
@example({"properties": {"x": {"default": float("inf")}}}, None)
def test_test_of_a_bot_can_be_read_whatever_its_schemas_are(schema, output_schema):
    source = bot({"type": "object", "properties": {"x": schema}, "required": ["x"]}, output_schema)
    found = values_of(text_of(source, SourceKind.BOT))
    assert found["BOT"].kind == "bot"
    assert found["BOT"].schema["type"] == "object"


SHORT_NAMES = st.lists(TEXTS.filter(lambda text: len(text) < 1000), max_size=3, unique=True)
CASES = st.tuples(st.sampled_from(SourceKind), TEXTS, SHORT_NAMES, JSON, st.integers(1, 200))


# One failing example is enough: with each smaller one, ruff starts again.
@settings(max_examples=5, phases=(Phase.explicit, Phase.generate))
@given(st.lists(CASES, min_size=10, max_size=10))
@example(
    [
        (SourceKind.WORKFLOW, '"""', [*HOSTILE[:-1], "n" * 50, "n" * 100], None, 10),
        (SourceKind.BOT, "\\'\"", [*HOSTILE[:-1], "n" * 50], ["x" * 40, {"y" * 30: ["z" * 50, 1.5]}], 100),
    ]
)
def test_formatter_and_linter_leave_both_files_as_they_are(tmp_path_factory, cases):
    folder = tmp_path_factory.mktemp("formatted")
    for number, (kind, name, names, value, length) in enumerate(cases):
        if SOURCES[kind].api_version is ApiVersion.V3:
            properties = {each: {"type": "string", "default": value} for each in names}
            source: Any = bot({"type": "object", "properties": properties, "required": names}, name=name)
            values: dict[str, Any] = dict.fromkeys(names[:1], value)
        else:
            source = workflow(*names, optional=("x" * length,), name=name)
            values = dict.fromkeys(names[1:2], "v" * length)
        texts = files_of(source, kind, "c" * length, values=values, path=f"../{'p' * length}.py")
        for what, text in zip(("dag", "test"), texts, strict=True):
            (folder / f"{what}_{number}.py").write_text(text, encoding="utf-8")
    for line_length in (88, 120):
        ruff("format", "--diff", f"--line-length={line_length}", folder)
    ruff("check", "--select=E4,E7,E9,F,I,UP,B", folder)


def ruff(*words: object) -> None:
    command = [sys.executable, "-m", "ruff", *map(str, words), "--isolated", "--no-cache"]
    # The project is the current directory, and its package would be sorted as one of the project.
    done = subprocess.run(command, cwd=str(words[-1]), text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_schema_has_no_value_of_a_secret_and_a_long_one_is_left_out():
    secret = {"type": "string", "default": "hunter2", "enum": ["hunter2"]}
    nested = {"type": "object", "default": {"password": "hunter2"}, "properties": {"token": secret}}
    schema = {"type": "object", "properties": {"password": secret, "login": nested}, "required": ["password"]}
    text = text_of(bot(schema), SourceKind.BOT)
    assert "hunter2" not in text
    assert values_of(text)["BOT"].schema["properties"]["password"] == {"type": "string"}
    long = {"type": "object", "properties": {f"name_{number}": {"type": "string"} for number in range(2000)}}
    assert values_of(text_of(bot(long), SourceKind.BOT))["BOT"].schema == {"type": "object"}
    assert values_of(text_of(bot(None), SourceKind.BOT))["BOT"].schema == {"type": "object"}


def test_output_is_an_example_of_what_the_bot_declares():
    rows = {"type": "array", "items": {"type": "object", "properties": {"title": {}}, "required": ["title"]}}
    assert values_of(text_of(bot(output_schema=rows), SourceKind.BOT))["OUTPUT"] == [{"title": "text"}]
    assert values_of(text_of(workflow(), SourceKind.WORKFLOW))["OUTPUT"] == [{"title": "an example"}]


def test_test_enters_only_what_the_form_asks_for():
    test = text_of(workflow("keyword", "site"), SourceKind.WORKFLOW, values={"site": "shop"})
    found = values_of(test)
    assert found["INPUTS"] == {"keyword": "an example", "site": "shop"}
    assert found["CONF"] == {"keyword": "an example"}
    assert "dag.test(run_conf=CONF)" in test
    assert "dag.test(run_conf=INPUTS)" in text_of(workflow("keyword"), SourceKind.WORKFLOW)
    assert "dag.test()" in text_of(workflow(), SourceKind.WORKFLOW)


def test_another_connection_leads_to_the_emulator_too():
    words = text_of(workflow(), SourceKind.WORKFLOW, "second").split()
    assert '"AIRFLOW_CONN_SECOND", json.dumps(browseract_emulator.connection)' in " ".join(words)


SOURCES_OF_THE_EMULATOR = [
    *((SourceKind.WORKFLOW, each) for each in Emulator().of_kind("workflow")),
    *((SourceKind.BOT, each) for each in (*Emulator().of_kind("bot"), SEARCH)),
    *((kind, TEMPLATE_SEARCH) for kind in (SourceKind.TEMPLATE, SourceKind.BOT_TEMPLATE)),
]


@cases("kind, emulated", {f"{kind}-{each.name}": (kind, each) for kind, each in SOURCES_OF_THE_EMULATOR})
def test_test_of_each_emulated_source_can_be_added_to_the_emulator(kind, emulated, browseract_emulator):
    source = BrowserActHook().client.send(SOURCES[kind].read(emulated.id))
    found = values_of(text_of(source, kind))
    [added] = [value for value in found.values() if isinstance(value, EmulatedWorkflow)]
    browseract_emulator.add_workflow(added)
    assert (added.id, added.kind) == (emulated.id, emulated.kind)
    assert added.schema["properties"].keys() == emulated.schema["properties"].keys()
