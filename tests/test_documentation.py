"""What README and docs say of the package is compared with the package. tests/test_code_blocks.py runs the code."""

from __future__ import annotations

import ast
import inspect
import logging
import pydoc
import re
from pkgutil import resolve_name
from types import SimpleNamespace

import pytest

from airflow_provider_browseract import __version__, emulator
from airflow_provider_browseract.api.models import Task, TaskStatus
from airflow_provider_browseract.emulator import EXPORT, HUMAN, LOG_IN, ORDERS, SEARCH, TEMPLATE_SEARCH
from airflow_provider_browseract.exceptions import RunError
from airflow_provider_browseract.hooks.connection import STANDARD_FIELDS
from airflow_provider_browseract.operators import browseract as operators
from airflow_provider_browseract.operators.base import InputParametersOperator, RunOperator
from airflow_provider_browseract.operators.browseract import RunWorkflowOperator
from airflow_provider_browseract.runs.report import facts
from airflow_provider_browseract.sensors.browseract import TaskSensor
from airflow_provider_browseract.triggers.browseract import TaskFinishedTrigger
from airflow_provider_browseract.worker.showing import showing_failure
from tests.helpers.pages import PAGES, ROOT, YOUR_WORKFLOW, block_of, public_names

ALL = "\n".join(PAGES.values())
PACKAGE = "airflow_provider_browseract"
ADDRESS = re.compile(r"browseract-ai/airflow-provider-browseract")


def test_readme_has_at_most_110_lines():
    assert len(PAGES["README.md"].splitlines()) <= 110


def test_tutorial_has_the_first_dag_of_the_readme():
    assert block_of("docs/tutorial.md", 'DAG("prices"').code == block_of("README.md", 'DAG("prices"').code


def test_only_contributing_names_a_repository_because_none_is_public():
    names = ("pyproject.toml", "docs/conf.py", "SECURITY.md", ".airflow-registry.yaml", "CHANGELOG.md")
    files = [*map(ROOT.joinpath, names), *(ROOT / ".github").rglob("*.yml"), *(ROOT / PACKAGE).rglob("*.py")]
    named = [str(path) for path in files if ADDRESS.search(path.read_text())]
    assert [page for page, text in PAGES.items() if ADDRESS.search(text)] + named == []
    assert len(ADDRESS.findall((ROOT / "CONTRIBUTING.md").read_text())) == 1


def test_each_page_names_the_wheel_of_this_version():
    wheels = {page: set(re.findall(r"[\w.-]+\.whl", text)) for page, text in PAGES.items()}
    wheels = {page: found for page, found in wheels.items() if found}
    assert wheels.keys() >= {"docs/testing.md", "docs/deployment.md"}
    assert set.union(*wheels.values()) == {f"{PACKAGE}-{__version__}-py3-none-any.whl"}


def test_badges_of_the_readme_are_true():
    badges = re.findall(r"https://img\.shields\.io/badge/(\w+)-([^-]+)-", PAGES["README.md"])
    project = (ROOT / "pyproject.toml").read_text()
    pythons = re.findall(r"Programming Language :: Python :: (3\.\d+)", project)
    [airflow] = re.findall(r'"apache-airflow>=([\d.]+)"', project)
    assert badges == [
        ("Airflow", f"{airflow}%2B"),
        ("Python", f"{pythons[0]}_to_{pythons[-1]}"),
        ("License", re.findall(r'^license = "(.*)"', project, re.MULTILINE)[0].replace("-", "_")),
    ]


def test_documented_public_names_exist():
    assert len({name.rpartition(".")[0] for name in public_names()}) == 8
    for name in public_names():
        assert resolve_name(name)


def test_page_about_the_emulator_describes_every_public_name():
    described = set(re.findall(r"`(\w+)[`(]", PAGES["docs/emulator.md"]))
    public = {name for name, each in vars(emulator).items() if name[0] != "_" and not inspect.ismodule(each)}
    assert public - {"annotations"} <= described


def test_make_targets_of_pages_and_workflows_exist():
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    workflows = "".join(path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yml"))
    named = re.findall(r"`make ([\w-]+)", ALL + (ROOT / "CONTRIBUTING.md").read_text())
    run = re.findall(r"\bmake ([a-z-]+)", workflows)
    assert "demo" in named
    assert "dist" in run
    assert {*named, *run} <= targets


def test_documented_workflow_ids_are_those_of_the_emulator():
    shown = set(re.findall(r'workflow(?:_template)?_id="(\d{17})"|run_task\("(\d{17})"', ALL))
    known = {each.id for each in (EXPORT, HUMAN, LOG_IN, ORDERS, SEARCH, TEMPLATE_SEARCH)}
    # The reader's own workflow, which the pages add to the emulator in a test.
    assert f'id="{YOUR_WORKFLOW}",  # the id in your DAG' in PAGES["docs/testing.md"]
    assert {one or other for one, other in shown} == {*known, YOUR_WORKFLOW}


def operator_arguments() -> list[str]:
    """Return the names of all arguments of RunWorkflowOperator, without those of BaseOperator."""
    return [
        name
        for operator in (RunWorkflowOperator, InputParametersOperator, RunOperator)
        for name in inspect.signature(operator.__init__).parameters
        if name not in ("self", "kwargs")
    ]


def test_help_lists_every_operator_argument_and_which_are_templated():
    shown = pydoc.plain(pydoc.render_doc(RunWorkflowOperator)).replace("\n |", "\n")
    described = re.findall(r":param (\w+): (.+?)(?=\n *:)", shown, re.DOTALL)[: len(operator_arguments())]
    assert [name for name, _ in described] == operator_arguments()
    assert {name for name, text in described if text.endswith("Templated.")} == set(RunWorkflowOperator.template_fields)


def arguments_of(cls: type) -> set[str]:
    """Return the names of all arguments of a class that the package defines."""
    ours = [vars(each) for each in cls.__mro__ if each.__module__.startswith(f"{PACKAGE}.")]
    methods = [each["__init__"] for each in ours if "__init__" in each]
    return {name for method in methods for name in inspect.signature(method).parameters} - {"self"}


@pytest.mark.parametrize(
    "cls", [*(vars(operators)[name] for name in operators.__all__), TaskSensor, TaskFinishedTrigger]
)
def test_pages_describe_every_argument(cls):
    pages = PAGES["docs/operator.md"] + PAGES["docs/other-runs.md"]
    described = set(re.findall(r"^\| `(\w+)` \|", pages, re.MULTILINE))
    assert arguments_of(cls) <= described


def test_connection_page_describes_every_field_of_the_form_beside_the_extra():
    labels = STANDARD_FIELDS["relabeling"]
    fields = re.findall(r"^\| (API .*?) \((\w+)\) \|", PAGES["docs/connection.md"], re.MULTILINE)
    assert {name: label for label, name in fields} == labels


OTHER_MESSAGES = (
    # Airflow's and Python's
    'XComNotFound: XComArg result from search at demo with key="title" is not found!',
    "XComArg only supports str lookup, received int",
    "XComForMappingNotPushed: did not push XCom for task mapping",
    "RunWorkflowOperator.expand() got an unexpected keyword argument 'keyword'",
    "VARIABLE_NOT_FOUND: {'message': 'Variable shop_profil not found'}",
    "'dict object' has no attribute 'keywrd'",
    "string indices must be integers, not 'str'",
    "cannot import name 'RunWorkflowOperator' from 'airflow_provider_browseract.operators' (unknown location)",
    # ours, put together from parts
    "The response to run-task is not from BrowserAct's API (API address http://browseract.invalid/v2).",
    "input is a text instead of a dict of names and values.",
    "input is a value of type tuple instead of a dict of names and values.",
)


def test_documented_log_lines_and_headings_are_messages_of_the_provider():
    constants = [
        node.value
        for path in (ROOT / "airflow_provider_browseract").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    texts = [re.sub(r"%[.\d]*[a-z]", "", constant) for constant in constants]
    texts += OTHER_MESSAGES
    headings = re.findall(r"^### `(.*)`$", PAGES["docs/troubleshooting.md"], re.MULTILINE)
    section = PAGES["docs/xcoms-and-metrics.md"].partition("## Log lines")[2].partition("\n## ")[0]
    lines = re.findall(r"^\| `(.*?)` \|", section, re.MULTILINE)
    assert headings
    assert lines
    for message in (*headings, *lines):
        for part in message.split("…"):
            assert any(part.strip(" ,") in text for text in texts), part


def keys_of(heading: str) -> list[str]:
    """Return the names in the first column of the table below a heading of the page about XComs."""
    section = PAGES["docs/xcoms-and-metrics.md"].partition(f"\n{heading}\n")[2].partition("\n#")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    return sorted(key for row in rows for key in re.findall(r"`([\w.]+)`", row))


def values_in_calls(function: str, position: str | int) -> list[str]:
    """Return the different values of an argument in all calls of a function that pass a constant."""
    found = set()
    for path in (ROOT / PACKAGE).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call) and ast.unparse(node.func).rpartition(".")[2] == function:
                named = {keyword.arg: keyword.value for keyword in node.keywords}
                match named[position] if isinstance(position, str) else node.args[position]:
                    case ast.Constant(str() as value):
                        found.add(value)
                    case ast.Name(name):
                        module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
                        found.add(resolve_name(f"{module}:{name}"))
    return sorted(found)


def test_xcom_table_describes_every_xcom():
    # Airflow pushes the returned value.
    assert keys_of("## XComs") == sorted([*values_in_calls("xcom_push", "key"), "return_value"])


def test_metrics_table_describes_every_metric():
    section = PAGES["docs/xcoms-and-metrics.md"].partition("## Metrics")[2]
    metrics = re.findall(r"^\| `(browseract\..*?)` \|", section, re.MULTILINE)
    assert sorted(metrics) == values_in_calls("count_in_task", 0)


def test_xcom_table_describes_every_fact_of_a_run():
    known = facts(Task(id="1", status=TaskStatus.FINISHED), "browseract_default")
    assert keys_of("### The XCom `task`") == sorted([*known, "follows", "hidden", "proof"])


def test_xcom_table_describes_every_fact_of_a_failure():
    pushed: dict[str, dict[str, object]] = {}
    ti = SimpleNamespace(xcom_push=lambda key, value: pushed.update({key: value}))
    known = TaskSensor(task_id="wait", browseract_task_id="1")._failure_facts
    with pytest.raises(RunError), showing_failure(ti, known, logging.getLogger()):
        raise RunError("The run failed.")
    assert keys_of("### The XCom `failure`") == sorted(pushed["failure"])


def test_pictures_are_those_that_make_pictures_takes():
    # Only the tests of a tool import from dev.
    tree = ast.parse((ROOT / "dev" / "pictures.py").read_text())
    [pictures] = [node.value for node in tree.body if isinstance(node, ast.AnnAssign)]
    assert isinstance(pictures, ast.Dict)
    taken = [ast.literal_eval(name) for name in pictures.keys if name]
    assert sorted(taken) == sorted(path.stem for path in (ROOT / "docs").glob("*.png"))
    shown = re.findall(r'(?:!\[[^]]+\]\(|```\{image\} |(?:src|srcset)=")(?:docs/)?(\w+)\.png', ALL)
    assert set(taken) == set(shown)


def headings_of(text: str) -> set[str]:
    """Return the anchors that GitHub and MyST give to the headings of a page."""
    without_code = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#{1,3} (.*)$", without_code, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_to_existing_files_and_headings(page):
    links = re.findall(r"(?:\]\(|^\[.*\]: )(?!https?://)([^)\s#]*)(?:#([^)\s]+))?\)?", PAGES[page], re.MULTILINE)
    for path, heading in links:
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), path
        assert not heading or heading in headings_of(target.read_text()), (path, heading)
