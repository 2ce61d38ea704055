"""What README and docs say of the package is compared with the package. tests/test_code_blocks.py runs the code."""

from __future__ import annotations

import ast
import inspect
import json
import logging
import pydoc
import re
from collections.abc import Iterable
from functools import partial
from pathlib import Path
from pkgutil import resolve_name
from types import SimpleNamespace

import airflow.exceptions
import airflow.sdk
import pytest
from jinja2 import Environment, StrictUndefined, UndefinedError

from airflow_provider_browseract import __version__, emulator
from airflow_provider_browseract.api.models import Step, Task, TaskStatus
from airflow_provider_browseract.emulator import EXPORT, HUMAN, LOG_IN, ORDERS, SEARCH, TEMPLATE_SEARCH
from airflow_provider_browseract.exceptions import RunError
from airflow_provider_browseract.hooks.connection import STANDARD_FIELDS
from airflow_provider_browseract.operators import browseract as operators
from airflow_provider_browseract.operators.browseract import RunWorkflowOperator
from airflow_provider_browseract.runs.report import facts, step_lines
from airflow_provider_browseract.sensors.browseract import TaskSensor
from airflow_provider_browseract.triggers.browseract import TaskFinishedTrigger
from airflow_provider_browseract.worker.showing import showing_failure
from tests.helpers.pages import PAGES, ROOT, YOUR_WORKFLOW, block_of, public_names

ALL = "\n".join(PAGES.values())
PACKAGE = "airflow_provider_browseract"
SCRIPT = (ROOT / PACKAGE / "panel" / "static" / "panel.js").read_text()
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
    makefile = (ROOT / "Makefile").read_text()
    # A rule can have several targets.
    targets = {name for names in re.findall(r"^([\w -]+):(?!=)", makefile, re.MULTILINE) for name in names.split()}
    # The head of the Makefile has a line for each target, or for several.
    head = re.findall(r"^#   make ([a-z0-9-]+(?:, [a-z0-9-]+)*)", makefile, re.MULTILINE)
    described = {name for names in head for name in names.split(", ")}
    workflows = "".join(path.read_text() for path in (ROOT / ".github" / "workflows").glob("*.yml"))
    named = re.findall(r"`make ([\w-]+)", ALL + (ROOT / "CONTRIBUTING.md").read_text())
    run = re.findall(r"\bmake ([a-z-]+)", workflows)
    assert "demo" in named
    assert "dist" in run
    assert {*named, *run, *described} <= targets
    assert described >= {"demo", "short-faults", "pods", "site", "live", "workflows"}


def test_documented_workflow_ids_are_those_of_the_emulator():
    shown = set(re.findall(r'workflow(?:_template)?_id="(\d{17})"|run_task\("(\d{17})"', ALL))
    known = {each.id for each in (EXPORT, HUMAN, LOG_IN, ORDERS, SEARCH, TEMPLATE_SEARCH)}
    # The reader's own workflow, which the pages add to the emulator in a test.
    assert f'id="{YOUR_WORKFLOW}",  # the id in your DAG' in PAGES["docs/testing.md"]
    assert {one or other for one, other in shown} == {*known, YOUR_WORKFLOW}


def arguments_of(cls: type) -> set[str]:
    """Return the names of all arguments of a class that the package defines."""
    ours = [vars(each) for each in cls.__mro__ if each.__module__.startswith(f"{PACKAGE}.")]
    methods = [each["__init__"] for each in ours if "__init__" in each]
    return {name for method in methods for name in inspect.signature(method).parameters} - {"self", "kwargs"}


def test_help_lists_every_operator_argument_and_which_are_templated():
    shown = pydoc.plain(pydoc.render_doc(RunWorkflowOperator)).replace("\n |", "\n")
    described = dict(re.findall(r":param (\w+): (.+?)(?=\n *:)", shown, re.DOTALL))
    assert arguments_of(RunWorkflowOperator) <= described.keys()
    templated = {name for name, text in described.items() if text.endswith("Templated.")}
    assert templated == set(RunWorkflowOperator.template_fields)


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


PLACEHOLDER = re.compile(r"%[.\d]*[a-z]|\{[\w:]*\}")
"""What stands for a value in a text of the logger or of ``str.format``."""


def text_of(node: ast.AST) -> str | None:
    """Return a text of the code with "…" for each value; None if the node is none."""
    match node:
        case ast.JoinedStr(values=parts):
            return "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
        case ast.Constant(value=str(text)):
            return PLACEHOLDER.sub("…", text)
    return None


def texts_of(*paths: Path) -> set[str]:
    """Return the texts in Python modules and folders of them, without docstrings."""
    found = set()
    for file in (file for path in paths for file in (path.rglob("*.py") if path.is_dir() else [path])):
        nodes = [*ast.walk(ast.parse(file.read_text()))]
        left_out = {node.value for node in nodes if isinstance(node, ast.Expr)}
        left_out |= {part for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
        found |= {text for node in nodes if node not in left_out and (text := text_of(node))}
    return found


def foreign_texts() -> set[str]:
    """Return the texts in the parts of Airflow that execute tasks, and errors that Python and Jinja raise."""

    def import_operator() -> None:
        from airflow_provider_browseract.operators import RunWorkflowOperator  # type: ignore[attr-defined]  # noqa: F401

    template = Environment(undefined=StrictUndefined).from_string("{{ params.keywrd }}")
    texts = texts_of(Path(airflow.sdk.__file__).parent, Path(airflow.exceptions.__file__))
    for fail in (import_operator, partial(template.render, params={}), lambda: json.loads('"an id"')["title"]):
        with pytest.raises((ImportError, UndefinedError, TypeError)) as raised:
            fail()
        texts.add(str(raised.value))
    return texts


def messages_of(section: str) -> list[str]:
    """Return the messages in the first cells of tables, without the tables that are generated."""
    written = re.sub(r"<!-- \w+ -->\n.*?<!-- end -->", "", section, flags=re.DOTALL)
    cells = re.findall(r"^\| (`.*?`) \|", written, re.MULTILINE)
    return [message for cell in cells for message in re.findall(r"`(.*?)`", cell)]


def is_written(message: str, texts: Iterable[str]) -> bool:
    """Return whether one of the texts has all parts of a documented message, in their order."""
    parts = re.compile(".*".join(re.escape(part.strip()) for part in message.split("…")), re.DOTALL)
    return any(parts.search(text) for text in texts)


def section_of(page: str, heading: str) -> str:
    """Return a section of a page with its subsections."""
    text, level = PAGES[page], heading.partition(" ")[0]
    return re.split(rf"^#{{1,{len(level)}}} ", text.partition(f"\n{heading}\n")[2], flags=re.MULTILINE)[0]


def test_documented_log_lines_and_messages_are_texts_of_the_code():
    page = PAGES["docs/troubleshooting.md"]
    foreign = section_of("docs/troubleshooting.md", "## Messages of Airflow and Python")
    messages = messages_of(page.replace(foreign, ""))
    messages += messages_of(section_of("docs/xcoms-and-metrics.md", "## Log lines"))
    # The line of a step is put together from parts.
    step_line = step_lines(Task(id="1", status=TaskStatus.RUNNING, steps=(Step(),)), 0)
    texts_of_script = re.findall(r'"((?:[^"\\\n]|\\.)*)"', SCRIPT)
    texts = texts_of(ROOT / PACKAGE).union(texts_of_script, step_line)
    assert len(messages) > 50
    assert [message for message in messages if not is_written(message, texts)] == []
    messages, texts = messages_of(foreign), foreign_texts()
    assert len(messages) > 5
    assert [message for message in messages if not is_written(message, texts)] == []


def test_troubleshooting_has_each_warning_and_error_that_the_panel_shows():
    shown = re.findall(r'\bsay\("(.*?)", true\)', SCRIPT)
    for file in (ROOT / PACKAGE / "panel").glob("*.py"):
        for node in ast.walk(ast.parse(file.read_text())):
            match node:
                case ast.Call(func=ast.Name("Notice"), args=[ast.Constant("error" | "warning"), text, *_]):
                    shown.append(text_of(text))
                case ast.Dict(keys=[ast.Constant("error")], values=[text]):
                    shown.append(text_of(text))
    # Some texts are put together elsewhere.
    texts = {text for text in shown if text and re.search(r"\w", text)}
    assert len(texts) > 15
    messages = messages_of(section_of("docs/troubleshooting.md", "## The panel"))
    assert {text for text in texts if not any(is_written(message, [text]) for message in messages)} == set()


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


def headings_of(text: str) -> dict[str, str]:
    """Return the headings of a page by the anchors that GitHub and MyST give them; the first is the title."""
    without_code = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    titles = re.findall(r"^#{1,3} (.*)$", without_code, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-"): title for title in titles}


@pytest.mark.parametrize("page", sorted({*PAGES, "SECURITY.md", "CONTRIBUTING.md"}))
def test_links_lead_to_existing_files_and_their_texts_are_titles_of_pages_and_headings_or_parts_of_them(page):
    text = (ROOT / page).read_text()
    for shown, path, heading in re.findall(r"([^][]*)\]\((?!https?://)([^)\s#]*)(?:#([^)\s]+))?\)", text):
        target = (ROOT / page).parent / path if path else ROOT / page
        assert target.exists(), path
        # The text of a badge is a picture.
        if target.suffix == ".md" and not shown.endswith(")"):
            titles = headings_of(target.read_text())
            # The page of the changelog includes a file.
            title = titles[heading] if heading else next(iter(titles.values()), target.stem)
            assert f" {words_of(shown)} " in f" {words_of(title)} ", (path, heading)


def words_of(text: str) -> str:
    return " ".join(re.findall(r"\w+", text.lower()))
