"""``make tables``: write the parts of the documentation that are made of docstrings and of declared settings.

A part stands between the lines ``<!-- NAME -->`` and ``<!-- end -->`` of its page. A test compares each part with what
this module makes.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection
from enum import Enum
from functools import partial
from inspect import Parameter, getdoc, getsource, signature
from pathlib import Path
from textwrap import fill
from types import UnionType
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

from airflow_provider_browseract import emulator, exceptions
from airflow_provider_browseract.api import models
from airflow_provider_browseract.api.calls import CODES
from airflow_provider_browseract.api.settings import EXTRA_FIELDS
from airflow_provider_browseract.decorators.browseract import browseract_task
from airflow_provider_browseract.emulator.__main__ import DELAYS, command_line
from airflow_provider_browseract.emulator.pages import render
from airflow_provider_browseract.hooks.browseract import BrowserActHook
from airflow_provider_browseract.operators import browseract as operators
from airflow_provider_browseract.sensors.browseract import TaskSensor
from airflow_provider_browseract.spending.spend import Spend, SpendRow
from airflow_provider_browseract.triggers.browseract import TaskFinishedTrigger

DOCS = Path(__file__).parents[1] / "docs"

SEE = {
    "save_browser_data": "[Profiles](profiles.md)",
    "output_path": "[Results in object storage](results.md)",
    "dry_run": "[Forecast a run](cost.md#forecast-a-run)",
    "webhook": "[Callbacks](callbacks.md)",
    "queue_timeout": "[Many inputs and slots](slots.md)",
    "max_credits": "[Cap one task](cost.md#cap-one-task)",
    "on_budget": "[Set a budget](cost.md#set-a-budget)",
    "durable": "[What a later try does](failures.md#what-a-later-try-does)",
    "on_paused": "[Runs that pause for a person](people.md)",
    "on_paused_callback": "[Notify people](people.md#notify-people)",
    "show_live_view": "[Who can see what](security.md#who-can-see-what)",
    "cancel_on_kill": "[When a task ends before its run](failures.md#when-a-task-ends-before-its-run)",
}
"""The pages about arguments."""


def in_one_line(docstring: str | None) -> str:
    """Return a docstring as a cell of a table: without examples, and each of its fields after a line break."""
    text = re.sub(r"::\n\n(?: +.*\n|\n)+", ".\n\n", docstring or "")
    text = re.sub(r":\w+:`~?(?:[\w.]+\.)?(\w+)`", r"`\1`", text).replace("``", "`").replace("|", "\\|")
    text = re.sub(r"\n+:param (\w+):", r"<br>`\1`:", text)
    text = re.sub(r"\n+:raises (\w+):", r"<br>Raises `\1`:", text)
    return " ".join(re.sub(r"\n+:returns:", "<br>Returns:", text).split())


def called(function: Any) -> str:
    """Return how a function, a method or a class is called, without types."""
    shown = signature(function)
    parameters = [each.replace(annotation=Parameter.empty) for each in shown.parameters.values() if each.name != "self"]
    return f"{function.__name__}{shown.replace(parameters=parameters, return_annotation=Parameter.empty)}"


def as_item(text: str) -> str:
    """Return a cell as the text of an item of a list: each of its fields is an item below it."""
    return text.replace("<br>", "\n  - ").replace("\\|", "|")


def calls(*functions: Any) -> str:
    """Return the list of what can be called: how, and its docstring."""
    return "\n".join(f"- `{called(function)}`: {as_item(in_one_line(getdoc(function)))}" for function in functions)


def arguments(described: Any) -> str:
    """Return the table of the arguments of a class or function, of what it returns and of what it raises."""
    fields = re.findall(r"^:(\w+) ?(\w*): (.*?)(?=^:|\Z)", getdoc(described) or "", re.MULTILINE | re.DOTALL)
    labels = {"param": "`{}`", "returns": "Returns", "raises": "Raises `{}`"}
    rows = []
    for field, name, text in fields:
        if name == "python_callable":
            # Python gives it to a decorator.
            continue
        see = f" See {SEE[name]}." if name in SEE else ""
        rows.append(f"| {labels[field].format(name)} | {in_one_line(text[0].upper() + text[1:])}{see} |")
    return "\n".join(("| Argument | Meaning |", "| --- | --- |", *rows))


def sections(**described: Any) -> str:
    """Return a section for each class or function, by its title: the description and the arguments."""
    parts = (f"### `{title}`\n\n{paragraphs(each)}\n\n{arguments(each)}" for title, each in described.items())
    return "\n\n".join(parts)


def paragraphs(described: Any) -> str:
    """Return the description of a class or function, without its fields."""
    parts = (getdoc(described) or "").partition("\n\n:")[0].split("\n\n")
    return "\n\n".join(fill(in_one_line(part), 118, break_long_words=False, break_on_hyphens=False) for part in parts)


def type_name(hint: Any) -> str:
    """Return the name of a type for a person."""
    names = [type_name(argument) for argument in get_args(hint)]
    if get_origin(hint) in (Union, UnionType):
        return " or ".join(names)
    name = "..." if hint is ... else "None" if hint is type(None) else getattr(hint, "__name__", str(hint))
    return f"{name}[{', '.join(names)}]" if names else name


def values(*classes: type, without: Collection[str] = ()) -> str:
    """Return the list of classes whose values are read: the docstring, the fields with their types, the properties."""
    items = []
    for cls in classes:
        if issubclass(cls, Enum):
            fields = f"Values: {', '.join(f'`{each.value}`' for each in cls)}"
        else:
            hints = {
                name: hint for name, hint in get_type_hints(cls).items() if ClassVar not in (hint, get_origin(hint))
            }
            named = (f"`{name}` ({type_name(hint)})" for name, hint in hints.items() if name not in without)
            fields = f"Fields: {', '.join(named)}"
        found = {name: each for name, each in vars(cls).items() if isinstance(each, property) and name not in without}
        properties = [f"`{name}`: {in_one_line(getdoc(each))}" for name, each in found.items()]
        items.append(f"- `{cls.__name__}`: " + as_item("<br>".join((in_one_line(getdoc(cls)), fields, *properties))))
    return "\n".join(items)


def attribute_docstrings(cls: type) -> dict[str, str]:
    """Return the docstrings of the attributes of a class, by name and in one line each."""
    [definition] = ast.parse(getsource(cls)).body
    assert isinstance(definition, ast.ClassDef)
    found = {}
    for attribute, text in zip(definition.body, definition.body[1:], strict=False):
        if isinstance(attribute, ast.AnnAssign) and isinstance(attribute.target, ast.Name):
            match text:
                case ast.Expr(ast.Constant(str() as docstring)):
                    found[attribute.target.id] = in_one_line(docstring)
    return found


def account_settings() -> str:
    """Return the table of the settings of an account, with the options of the command line."""
    options = {action.dest: action.option_strings[-1] for action in command_line()._actions}
    rows = (
        f"| `{name}` | {f'`{options[name]}`' if name in options else ''} | {text} |"
        for name, text in attribute_docstrings(emulator.Emulator).items()
    )
    return "\n".join(("| Argument of `Emulator` | Command line | Meaning |", "| --- | --- | --- |", *rows))


def workflow_settings() -> str:
    """Return the table of the settings of a workflow or one of its runs."""
    texts = attribute_docstrings(emulator.EmulatedWorkflow)
    rows = (f"| `{name}` | {text} |" for name, text in texts.items() if name not in ("id", "kind"))
    return "\n".join(("| Setting | Meaning |", "| --- | --- |", *rows))


def extra_fields() -> str:
    """Return the table of the fields of a connection's extra."""
    rows = (f"| `{name}` | {field.description} |" for name, field in EXTRA_FIELDS.items())
    return "\n".join(("| Key of the extra | Meaning |", "| --- | --- |", *rows))


def options() -> str:
    """Return the sentence about the options that are settings of all workflows."""
    named = [f"`--{name.replace('_', '-')}`" for name in DELAYS]
    return f"The command line has {', '.join(named[:-1])} and {named[-1]}, which apply to every workflow."


def errors(base: type[Exception]) -> str:
    """Return the table of the errors that have a base class, in the order of their definition.

    The remedy of an error is its attribute. Without one, it is what follows the first paragraph of the docstring.
    """
    rows = []
    for kind in vars(exceptions).values():
        if isinstance(kind, type) and issubclass(kind, base):
            text = re.split(r"\n\n(?:``str\(|:param )", getdoc(kind) or "")[0]
            remedy = vars(kind).get("remedy")
            cause, _, rest = text.partition("\n\n") if remedy is None else (text, "", remedy)
            rows.append(f"| `{kind.__name__}` | {in_one_line(cause)} | {in_one_line(rest)} |")
    return "\n".join(("| Exception | Cause | Remedy |", "| --- | --- | --- |", *rows))


def error_attributes() -> str:
    """Return the table of the attributes of an error of a call."""
    texts = attribute_docstrings(exceptions.BrowserActError)
    texts["brief"] = in_one_line(getdoc(exceptions.BrowserActError.brief))
    rows = (f"| `{name}` | {text} |" for name, text in texts.items())
    return "\n".join(("| Attribute | Meaning |", "| --- | --- |", *rows))


def codes() -> str:
    """Return the table of BrowserAct's codes."""
    rows = (f"| {code} | `{kind.__name__}` | {remedy or ''} |" for code, (kind, remedy) in CODES.items())
    return "\n".join(("| Code | Exception | Remedy, if not that of the exception |", "| --- | --- | --- |", *rows))


INTERNAL = {"begun_statuses", "has_output", "profile_given", "shown_workflow_id", "steps_begun", "worked"}
"""Fields and properties that are not for users."""


def methods(cls: type, names: str = "[a-z]") -> list[Any]:
    """Return the methods of a class whose names begin with a pattern, in the order of their definition."""
    return [method for name in vars(cls) if re.match(names, name) and callable(method := getattr(cls, name))]


HOOK_METHODS = methods(BrowserActHook, "(run|stop|resume|iter|test)_|get_(task|spend|workflow|official|bot|region)")
EMULATOR_METHODS = methods(
    emulator.Emulator, "(add|set)_|next_run|wait|fault|clear_faults|rewrite$|serve|handle|receive"
)
"""The methods that users call."""

RECORDS = (emulator.Run, emulator.RequestRecord, emulator.DeliveryRecord, emulator.Response, emulator.RunContext)

PARTS: dict[str, dict[str, Callable[[], object]]] = {
    "emulator.md": {
        "account": account_settings,
        "workflow": workflow_settings,
        "options": options,
        "methods": partial(calls, *EMULATOR_METHODS),
        "request-faults": partial(calls, *methods(emulator.RequestFault)),
        "callback-faults": partial(calls, *methods(emulator.CallbackFault)),
        "made": partial(calls, emulator.WorkflowInput, emulator.EmulatedFile, emulator.Output, emulator.RunFailed),
        "records": partial(values, *RECORDS, without=INTERNAL),
        "differences": partial(render, "differences.md"),
    },
    "operator.md": {
        "arguments": partial(arguments, operators.RunWorkflowOperator),
        "others": partial(
            sections,
            RunTemplateOperator=operators.RunTemplateOperator,
            RunBotOperator=operators.RunBotOperator,
            RunBotTemplateOperator=operators.RunBotTemplateOperator,
            AskPerson=operators.AskPerson,
            **{"@task.browseract": browseract_task},
        ),
    },
    "connection.md": {"extra": extra_fields},
    "other-runs.md": {
        "operators": partial(arguments, operators.TaskOperator),
        "sensor": partial(arguments, TaskSensor),
        "watcher": partial(arguments, TaskFinishedTrigger),
        "hook": partial(paragraphs, BrowserActHook),
        "methods": partial(calls, *HOOK_METHODS),
        "returned": partial(
            values,
            *(models.CreatedTask, models.Task, models.TaskStatus, models.ApiVersion, models.Step, models.Failure),
            *(models.Output, models.OutputFile, models.DownloadFile, models.SourceInfo, models.InputParameter),
            *(models.BotType, models.Region, Spend, SpendRow),
        ),
    },
    "troubleshooting.md": {
        "runs": partial(errors, exceptions.RunError),
        "arguments": partial(errors, exceptions.InputError),
        "calls": partial(errors, exceptions.BrowserActError),
        "attributes": error_attributes,
        "codes": codes,
    },
}
"""What makes each part, by page and name."""


def written(page: str, text: str) -> str:
    """Return the text of a page with its parts as they should be."""
    for name, make in PARTS[page].items():
        part = f"<!-- {name} -->\n{str(make()).strip()}\n<!-- end -->"
        text, count = re.subn(rf"<!-- {name} -->\n.*?<!-- end -->", part.replace("\\", r"\\"), text, flags=re.DOTALL)
        if count != 1:
            raise ValueError(f"docs/{page} has to have the part {name!r} once, found {count}")
    return text


def main() -> None:
    """Write all pages."""
    for page in PARTS:
        (DOCS / page).write_text(written(page, (DOCS / page).read_text()))


if __name__ == "__main__":
    main()
