"""The text of a DAG file: what the panel shows, and what the command ``new-dag`` writes."""

from __future__ import annotations

import ast
from types import SimpleNamespace
from typing import Any

import jinja2
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from airflow_provider_browseract.api.versions import SOURCES, SourceKind
from airflow_provider_browseract.compat import dags_of, is_secret
from airflow_provider_browseract.dag_files.dag_file import DagFile, dag_file
from airflow_provider_browseract.dag_files.runnable import Input, Runnable
from airflow_provider_browseract.emulator import CONTACTS, EXPORT, LOG_IN, ORDERS, SEARCH, EmulatedWorkflow, Emulator
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from tests.cases import cases
from tests.catalogue import PLAIN_TEXT, PRICES

ID = "71002814653029437"
BOT = SourceKind.BOT
HOSTILE = (
    "",
    " ",
    '"""',
    "'''\"\"\"\\",
    "\\",
    "\n    import os\n",
    "\r\x0c\x85\u2028\u2029import os",
    "{name}{0}",
    "{{ 1 + 1 }}{% if %}{# #}",
    "}} {{ conn.shop.password",
    "\u202erecivederp\u200f",
    "\ud800\x00",
    "\U0001f600\u4e2d\u6587\u0627\u0644",
    "items",
    "class",
    "None",
    "__class__",
    "a b-c.d",
    "it's",
    "n" * 1_000_000,
)
"""Texts that a file must only have in literals."""

TEXTS = st.text(st.characters(), max_size=30) | st.sampled_from(HOSTILE)

NAMES = st.lists(TEXTS, max_size=3, unique=True)

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda each: st.lists(each, max_size=3) | st.dictionaries(TEXTS, each, max_size=3),
    max_leaves=8,
)


def made(
    *inputs: Input,
    source_id: str = ID,
    kind: SourceKind = SourceKind.WORKFLOW,
    name: str = "Search",
    conn_id: str = "browseract_default",
    **options: Any,
) -> DagFile:
    return dag_file(Runnable(kind, source_id, name, inputs=inputs), conn_id, **options)


def required(*names: str) -> list[Input]:
    return [Input(name, required=True) for name in names]


def optional_inputs(*names: str) -> list[Input]:
    return [Input(name, required=False) for name in names]


def shape(file: DagFile) -> str:
    """Return the code of a file without the texts in its literals."""
    tree = ast.parse(file.source)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = "text"
    return ast.dump(tree)


def arguments_of(file: DagFile) -> dict[str, Any]:
    calls = [node for node in ast.walk(ast.parse(file.source)) if isinstance(node, ast.Call)]
    return {word.arg: word.value for call in calls for word in call.keywords if word.arg}


def inputs_of(file: DagFile) -> Any:
    return ast.literal_eval(arguments_of(file)["input_parameters"])


def rendered(template: str, **params: str) -> str:
    return jinja2.Environment().from_string(template).render(params=params)


def rendered_values(value: Any) -> Any:
    if isinstance(value, str):
        return rendered(value)
    if isinstance(value, dict):
        return {name: rendered_values(member) for name, member in value.items()}
    return [rendered_values(member) for member in value] if isinstance(value, list) else value


@given(TEXTS, TEXTS, TEXTS, NAMES, st.lists(TEXTS, max_size=3), st.sampled_from(SourceKind))
@example('"""', ID, "browseract_default", list(HOSTILE), list(HOSTILE), SourceKind.WORKFLOW)
@example('"""', ID, "browseract_default", list(HOSTILE), list(HOSTILE), SourceKind.BOT)
def test_texts_from_outside_are_nothing_but_literals_and_comments(name, source_id, conn_id, needed, optional, kind):
    more = optional_inputs(*optional)
    file = made(*required(*needed), *more, name=name, source_id=source_id, conn_id=conn_id, kind=kind)
    compile(file.source.encode(), file.file_name, "exec")
    plain = optional_inputs("optional") if set(optional) - set(needed) else []
    conn = conn_id if conn_id == "browseract_default" else "other"
    names = (f"{'password' if is_secret(name) else 'name'}_{number}" for number, name in enumerate(needed))
    harmless = required(*names)
    assert shape(file) == shape(made(*harmless, *plain, kind=kind, conn_id=conn))


@given(st.lists(TEXTS.filter(lambda name: not is_secret(name)), min_size=1, max_size=3, unique=True))
@example([name for name in HOSTILE if not is_secret(name)])
def test_each_input_gets_the_param_of_the_same_name_whatever_the_name(names):
    templates = inputs_of(made(*required(*names)))
    assert list(templates) == names
    for name, template in templates.items():
        assert rendered(template, **{name: "the value", "name": "another"}) == "the value"


@given(TEXTS)
def test_ids_are_sent_as_they_are_although_the_arguments_are_templates(text):
    found = arguments_of(made(source_id=text, conn_id=f"{text}2"))
    for name, value in (("workflow_id", text), ("browseract_conn_id", f"{text}2")):
        assert rendered(ast.literal_eval(found[name])) == value


@given(TEXTS, TEXTS)
@example('"""', "it's \r\n")
@example("keyword", "n" * 1_000_000)
def test_value_of_a_workflow_is_the_default_of_its_param(name, value):
    for needed in (True, False):
        file = made(Input(name, needed), values={name: value})
        [call] = arguments_of(file)["params"].values
        assert [ast.literal_eval(each) for each in call.args] == [value]
        assert rendered(inputs_of(file)[name], **{name: value}) == value
        assert (file.asked, file.inputs) == ((), {name: value})


@given(JSON, JSON)
def test_values_and_examples_of_a_bot_render_to_themselves(value, other):
    file = made(Input("a", False), Input("b", True, other), kind=BOT, values={"a": value})
    found = rendered_values(ast.literal_eval(arguments_of(file)["input"]))
    assert found == file.inputs == {"a": value, "b": other}
    assert file.examples == ("b",)


def test_secrets_are_read_from_connections_of_their_own_and_are_nowhere_in_the_file():
    names = ["password", "API_KEY", "api_key", "{{ token }}", "\u5bc6 secret", "user"]
    file = made(*required(*names), dag_id="7 up")
    assert file.secrets == {
        "password": "dag_7_up_password",
        "API_KEY": "dag_7_up_api_key",
        "api_key": "dag_7_up_api_key_3",
        "{{ token }}": "dag_7_up_token",
        "\u5bc6 secret": "dag_7_up_secret",
    }
    templates = inputs_of(file)
    for name, conn_id in file.secrets.items():
        assert templates[name] == f"{{{{ conn.{conn_id}.password }}}}"
    assert file.asked == ("user",)


def test_secret_of_a_bot_is_read_from_a_connection_if_it_is_a_text():
    file = made(Input("password", True, "text"), Input("secrets", True, {"a": 1}), kind=BOT)
    assert list(file.secrets) == ["password"]
    assert ast.literal_eval(arguments_of(file)["input"])["secrets"] == {"a": 1}


@given(TEXTS, TEXTS)
def test_dag_id_is_a_short_id_and_file_name_whatever_the_names(name, source_id):
    file = made(name=name, source_id=source_id)
    assert len(file.dag_id) < 100
    assert file.dag_id.isascii()
    assert file.dag_id.isidentifier() or file.dag_id[0].isdigit()
    assert file.file_name == f"{file.dag_id}.py"


@cases(
    "name, source_id, dag_id",
    {
        "name": ("Search", ID, "search_029437"),
        "name of another workflow": ("Search", "71002814653029411", "search_029411"),
        "other letters": ("Pr\u00fcfe  Preise (DE)", ID, "prufe_preise_de_029437"),
        "no letters": ("\u641c\u7d22", ID, "workflow_029437"),
        "no name": ("", ID, "workflow_029437"),
        "long name": ("x" * 1_000_000, ID, f"{'x' * 50}_029437"),
    },
)
def test_dag_id_has_the_words_of_the_name_and_the_end_of_the_id(name, source_id, dag_id):
    assert made(name=name, source_id=source_id).dag_id == dag_id


@cases(
    "inputs, options, text, count",
    {
        "optional input of a workflow": (optional_inputs("pages"), {}, '            # "pages": "...",\n', 1),
        "optional input that is required too": ([*required("a"), *optional_inputs("a")], {}, '            # "a"', 0),
        "optional inputs are no params": (optional_inputs("pages"), {}, "Param", 0),
        "optional input of a bot": ([Input("pages", False, 3)], {"kind": BOT}, '            # "pages": 3,\n', 1),
        "bot with values": ([Input("pages", True, 3)], {"kind": BOT}, "params", 0),
        "bot template without inputs": ([], {"kind": SourceKind.BOT_TEMPLATE}, "input=", 0),
        "cost of retries": ([], {}, "After a failed run, each retry pays for another one.", 1),
        "default connection": ([], {}, "browseract_conn_id", 0),
        "another connection": ([], {"conn_id": "second"}, 'browseract_conn_id="second"', 1),
    },
)
def test_file_names_what_the_reader_can_add_and_nothing_that_is_the_default(inputs, options, text, count):
    assert made(*inputs, **options).source.count(text) == count


VALUES = {"keyword": "pens", "username": "ada", "password": "hunter2"}


class TestInAirflow:
    @pytest.fixture
    def copied(self, tmp_path):
        def copy(file: DagFile):
            path = tmp_path / file.file_name
            path.write_text(file.source)
            [(dag_id, dag)] = dags_of(str(path)).items()
            assert dag_id == file.dag_id
            return dag

        return copy

    @pytest.fixture
    def run(self, copied, emulator, worker):
        def run_(kind: SourceKind, emulated: EmulatedWorkflow) -> Any:
            emulator.set_workflow(emulated.id, duration=0.2)
            source: Any = BrowserActHook().client.send(SOURCES[kind].read(emulated.id))
            file = dag_file(Runnable.of(kind, source), "browseract_default")
            dag = copied(file)
            assert dag.tags == {"browseract"}
            first = worker()
            secrets = {conn_id: SimpleNamespace(password=VALUES[name]) for name, conn_id in file.secrets.items()}
            names = {"params": {name: VALUES[name] for name in dag.params}, "conn": SimpleNamespace(**secrets)}

            def operator() -> Any:
                made = dag.get_task("run").prepare_for_execution()
                made.poll_interval = 0.05
                made.render_template_fields({**first.context, **names})
                return made

            first.operator = operator
            dag.get_task("use").python_callable(first.run())
            [task] = emulator.tasks
            assert first.ti.xcoms["task"]["task_id"] == task.id
            assert (task.workflow.id, task.api_version) == (emulated.id, SOURCES[kind].api_version)
            return task

        return run_

    @pytest.mark.parametrize("emulated", [LOG_IN, ORDERS, SEARCH, EXPORT, PLAIN_TEXT], ids=lambda each: each.name)
    def test_dag_of_an_emulated_workflow_runs_to_its_end(self, run, emulated):
        task = run(SourceKind.WORKFLOW, emulated)
        declared = {each.name for each in emulated.inputs}
        assert dict(task.inputs) == {name: value for name, value in VALUES.items() if name in declared}

    @pytest.mark.parametrize("emulated", [CONTACTS, PRICES], ids=lambda each: each.name)
    def test_dag_of_an_emulated_bot_runs_to_its_end(self, run, emulated):
        task = run(BOT, emulated)
        assert [name for name, _ in task.inputs] == emulated.input_schema["required"]

    @pytest.mark.parametrize("kind", [SourceKind.TEMPLATE, SourceKind.BOT_TEMPLATE])
    @pytest.mark.parametrize("emulated", Emulator().of_kind("template"), ids=lambda each: each.name)
    def test_dag_of_an_emulated_template_runs_to_its_end(self, run, emulated, kind):
        run(kind, emulated)

    def test_log_of_the_second_task_has_the_number_of_rows(self, run, capfd):
        run(SourceKind.WORKFLOW, SEARCH)
        assert "10 rows" in "".join(capfd.readouterr())

    def test_file_with_hostile_names_can_be_parsed(self, copied):
        dag = copied(made(*required(*HOSTILE), *optional_inputs(*HOSTILE), name=HOSTILE[3], conn_id="{{ 7 }}"))
        assert list(dag.params) == [name for name in HOSTILE if not is_secret(name)]
