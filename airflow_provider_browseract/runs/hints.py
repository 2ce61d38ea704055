"""Hints for likely mistakes: a name that does not exist, and a value that was rendered to nothing."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow_provider_browseract.api.settings import EXTRA_FIELDS
from airflow_provider_browseract.exceptions import InputError

RUN_BY = {
    "workflow_id": "RunWorkflowOperator",
    "workflow_template_id": "RunTemplateOperator",
    "bot_id": "RunBotOperator",
    "template_id": "RunBotTemplateOperator",
}
"""The operator for each argument with the id of what is run."""

WRONG_NAMES = {
    "input_parameters": "input inputs",
    "input": "input_parameters inputs",
    **dict.fromkeys(RUN_BY, "id"),
    "workflow_template_id": "id template",
    "browseract_task_id": "id task run run_id",
    "browseract_conn_id": "conn_id connection",
}
"""Wrong names of arguments that are not similar to the right ones."""

NOT_HERE = {
    **dict.fromkeys(
        ("api_key", "key", "password", "token", "host", "base_url", *EXTRA_FIELDS),
        "It is a field of the Airflow connection whose id browseract_conn_id is.",
    ),
    **dict.fromkeys(
        ("profile_id", "save_browser_data"),
        "Only RunWorkflowOperator takes a browser profile. To keep a login, set the browser of a bot to Standard "
        "Browser in the BrowserAct dashboard, or copy a template to a workflow.",
    ),
    "region": "Only RunTemplateOperator and RunBotTemplateOperator take a region.",
}
"""What to do instead of passing a field of the connection, or an argument that few operators have."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the known name that a wrong name resembles most, as an addition to a message; "" if there is none."""
    similar = _closest(name, {each: each for each in known}, 0.6)
    return f" (did you mean {similar!r}?)" if similar else ""


def _closest(name: str, known: Mapping[str, str], similarity: float) -> str | None:
    """Return the value of the name that a wrong name resembles most. Only letters and digits count, in any case.

    :param similarity: how similar they have to be, as difflib defines it.
    """
    by_letters = {_letters(each): value for each, value in known.items()}
    near = difflib.get_close_matches(_letters(name), by_letters, n=1, cutoff=similarity)
    return by_letters[near[0]] if near else None


def _letters(name: str) -> str:
    return re.sub(r"[\W_]", "", name).casefold()


@contextmanager
def naming_task(task_id: object) -> Iterator[None]:
    """Begin the errors of a task's arguments with the task, because Airflow shows no line of the DAG file."""
    try:
        yield
    except InputError as error:
        raise InputError(f"Task {task_id!r}: {error}") from None


def check_arguments(operator: type, given: Mapping[str, Any]) -> None:
    """Raise an error that states what to write instead of arguments that an operator does not have.

    Airflow's own error only repeats them, and comes after that about a missing argument.

    :raises TypeError: the operator does not have one of the arguments.
    :raises InputError: there is no id of a connection.
    """
    task, known = f"Task {given.get('task_id')!r}: ", _arguments_of(operator)
    # Airflow adds arguments of its own.
    unknown = [name for name in given if name not in known and not name.startswith("_")]
    if unknown:
        # A decorator has another name than its operator.
        what = getattr(operator, "custom_operator_name", operator.__name__)
        lines = [f"{what} has no argument {name!r}. {_instead_of(name, operator, known)}" for name in unknown]
        raise TypeError(task + "\n".join(lines))
    if not given.get("browseract_conn_id", True):
        remedy = "Pass the id of an Airflow connection, or leave it out for browseract_default."
        raise InputError(f"{task}browseract_conn_id is {given['browseract_conn_id']!r}. {remedy}")


def _arguments_of(operator: type) -> set[str]:
    constructors = [vars(each)["__init__"] for each in operator.__mro__ if "__init__" in vars(each)]
    found = [each for constructor in constructors for each in inspect.signature(constructor).parameters.values()]
    return {each.name for each in found if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)} - {"self"}


def _instead_of(name: str, operator: type, known: set[str]) -> str:
    """Return what to do instead of passing an argument that an operator does not have."""
    if name in NOT_HERE:
        return NOT_HERE[name]
    if name in RUN_BY and (mine := next((each for each in RUN_BY if each in known), None)):
        return f"Pass {mine}, or use {RUN_BY[name]}, which takes {name}."
    names = {wrong: each for each in known for wrong in (each, *WRONG_NAMES.get(each, "").split())}
    if similar := _closest(name, names, 0.75):
        return f"Did you mean {similar!r}?"
    if (inputs := getattr(operator, "inputs_argument", None)) is None:
        return "Remove it, or set it on the task that starts the run."
    if hasattr(operator, "custom_operator_name"):
        return f'If it is an input, return it from the function: return {{"{name}": ...}}'
    return f'Names of inputs go into {inputs}: {inputs}={{"{name}": ...}}'


def not_a_dict(argument: str, value: Any, forms: str) -> InputError:
    """Return the error for inputs of a wrong type, without their value, which can be secret.

    Airflow's ``expand`` turns a dict into one tuple for each name.

    :param forms: what to pass, as the rest of a sentence.
    """
    what = "a text" if isinstance(value, str) else f"a value of type {type(value).__name__}"
    remedy = f'In expand, pass a list of dicts, one for each run: expand({argument}=[{{"keyword": "laptops"}}, ...]).'
    if isinstance(value, str) and value.lstrip()[:1] in ("{", "["):
        remedy = (
            "If a template was rendered to it, set render_template_as_native_obj=True on the DAG. Otherwise remove the "
            "quotes around it."
        )
    return InputError(f"{argument} is {what} instead of {forms}. {remedy}")


_MISSING_VARIABLE = re.compile(r"NOTSET|<[\w.]+\.ArgNotSet object at 0x\w+>")
"""The text of what ``var.value.get`` of a missing Variable is; the second one on Airflow 3.1."""


def check_rendered(argument: str, given: Any, rendered: Any) -> None:
    """Raise an error if Airflow rendered a given value to ``None``.

    Such a value would silently start, and bill, a run with other inputs than intended. A ``None`` that was given
    explicitly is accepted.

    :param given: its value before rendering: a template, an XCom, or a dict or list that contains them.
    :param rendered: its value after rendering.
    :raises InputError: a part of the value is ``None`` or a missing Variable, or the text of one that a template was
        rendered to.
    """
    template = isinstance(given, str) and "{" in given
    text = rendered if isinstance(rendered, str) and template else ""
    unset = type(rendered).__name__ == "ArgNotSet" or _MISSING_VARIABLE.fullmatch(text) is not None
    if given is not None and (rendered is None or text == "None" or unset):
        word = "NOTSET, as it does for a missing Variable" if unset else "None"
        raise InputError(
            f"{argument} was given, but Airflow rendered it to {word}.\n"
            f"Check the task, the Variable or the template that the value comes from, or remove {argument}."
        )
    if isinstance(given, list | tuple) and isinstance(rendered, list | tuple):
        given, rendered = dict(enumerate(given)), dict(enumerate(rendered))
    if isinstance(given, Mapping) and isinstance(rendered, Mapping):
        for name in given.keys() & rendered.keys():
            check_rendered(f"{argument}[{name!r}]", given[name], rendered[name])
