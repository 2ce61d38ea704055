"""Hints for likely mistakes: a name that does not exist, and a value that was rendered to nothing."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow_provider_browseract.exceptions import InputError

MEANT = {
    **dict.fromkeys(("inputs", "input", "input_parameters"), ("input_parameters", "input")),
    "conn_id": ("browseract_conn_id",),
}
"""Wrong names that difflib does not connect with the right ones."""

SURE = 0.8
"""Similarity, as difflib defines it, from which a wrong name is certainly a mistyped one."""

RUN_BY = {
    "workflow_id": "RunWorkflowOperator",
    "workflow_template_id": "RunTemplateOperator",
    "bot_id": "RunBotOperator",
    "template_id": "RunBotTemplateOperator",
}
"""The operator for each argument with the id of what is run."""

PROFILES = (
    "Only RunWorkflowOperator takes a browser profile. To keep a login, set the browser of a bot to Standard Browser "
    "in the BrowserAct dashboard, or copy a template to a workflow."
)
NOT_HERE = {
    "profile_id": PROFILES,
    "save_browser_data": PROFILES,
    "region": "Only RunTemplateOperator and RunBotTemplateOperator take a region.",
}
"""What to do instead of passing an argument of another operator."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the known names that a wrong name resembles, as an addition to a message; "" if there are none.

    :param name: the wrong name. If it differs from a known name only in case or spaces, only that one is returned.
    """
    similar = _similar(name, known)
    return f" (did you mean {similar}?)" if similar else ""


def _similar(name: str, known: Iterable[str], meant: Collection[str] = ()) -> str:
    folded = {one.casefold(): one for one in known}
    same = name.strip().casefold()
    near = [same] if same in folded else [one for one in meant if one in folded]
    near = near or next(filter(None, (difflib.get_close_matches(same, folded, cutoff=at) for at in (SURE, 0.6))), [])
    return " or ".join(repr(folded[one]) for one in near)


@contextmanager
def naming_task(task_id: object) -> Iterator[None]:
    """Begin the errors of a task's arguments with the task: of an import error, Airflow shows no line of the DAG file.

    :param task_id: the id; None if the task has none.
    """
    try:
        yield
    except InputError as error:
        if task_id is None:
            raise
        raise InputError(f"Task {task_id!r}: {error}") from None


def refuse_unknown_arguments(operator: type, given: Mapping[str, Any]) -> None:
    """Raise an error that states what to write instead of arguments that an operator does not have.

    Airflow's own error only repeats them, and comes after that about a missing argument.

    :raises TypeError: the operator does not have one of them.
    """
    constructors = [vars(each)["__init__"] for each in operator.__mro__ if "__init__" in vars(each)]
    known = {name for constructor in constructors for name in inspect.signature(constructor).parameters}
    # Airflow adds arguments of its own.
    unknown = [name for name in given if name not in known and not name.startswith("_")]
    if unknown:
        lines = [
            f"{operator.__name__} has no argument {name!r}. {_instead_of(name, operator, known)}" for name in unknown
        ]
        raise TypeError(f"Task {given.get('task_id')!r}: " + "\n".join(lines))


def _instead_of(name: str, operator: type, known: Collection[str]) -> str:
    """Return what to do instead of passing an argument that an operator does not have, as sentences."""
    if name in NOT_HERE:
        return NOT_HERE[name]
    if name in RUN_BY and (own := next((each for each in RUN_BY if each in known), None)):
        return f"Pass {own}, or use {RUN_BY[name]}, which takes {name}."
    similar = _similar(name, known, MEANT.get(name, ()))
    question = f"Did you mean {similar}?" if similar else "Remove it."
    inputs = getattr(operator, "inputs_argument", None)
    if inputs is None or name in MEANT or difflib.get_close_matches(name.casefold(), known, n=1, cutoff=SURE):
        return question
    hint = f'Names of inputs go into {inputs}: {inputs}={{"{name}": ...}}'
    return f"{question} {hint}" if similar else hint


def check_not_expanded_dict(argument: str, value: Any) -> None:
    """Raise an error if Airflow has expanded a dict: each mapped task instance gets one of its items.

    :raises InputError: the value is such an item.
    """
    if isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str):
        raise InputError(
            f"expand got a dict for {argument}, so Airflow made one task instance for each of its names. Pass "
            f"{_list_of_dicts(argument)}"
        )


def not_a_dict(argument: str, value: Any, forms: str) -> InputError:
    """Return the error for inputs of a wrong type, without their value, which can be secret.

    :param forms: what to pass, as the rest of a sentence.
    """
    if not isinstance(value, str):
        return InputError(f"{argument} is of type {type(value).__name__}. Pass {forms}.")
    if value.lstrip()[:1] in ("{", "["):
        return InputError(
            f"{argument} is a text instead of {forms}. If a template was rendered to it, set "
            "render_template_as_native_obj=True on the DAG. Otherwise remove the quotes around it."
        )
    return InputError(f"{argument} is a text instead of {forms}. In expand, pass {_list_of_dicts(argument)}")


def _list_of_dicts(argument: str) -> str:
    return f'a list of dicts, one for each run: expand({argument}=[{{"keyword": "laptops"}}, {{"keyword": "phones"}}]).'


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
    if isinstance(given, Mapping) and isinstance(rendered, Mapping):
        for name in given.keys() & rendered.keys():
            check_rendered(f"{argument}[{name!r}]", given[name], rendered[name])
    elif isinstance(given, list | tuple) and isinstance(rendered, list | tuple) and len(given) == len(rendered):
        for position, (before, after) in enumerate(zip(given, rendered, strict=True)):
            check_rendered(f"{argument}[{position}]", before, after)
