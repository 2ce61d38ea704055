"""Hints for likely mistakes: a name that does not exist, and a value that was rendered to nothing."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow_provider_browseract.exceptions import InputError

MEANT = {"inputs": ("input_parameters", "input"), "conn_id": ("browseract_conn_id",)}
"""Arguments that people expect, and those that they resemble too little."""


def did_you_mean(name: str, known: Iterable[str], meant: Collection[str] = ()) -> str:
    """Return the known names that a wrong name resembles, as an addition to a message; "" if there are none.

    :param name: the wrong name. If it differs from a known name only in case or spaces, only that one is returned.
    :param meant: names that are returned instead, as far as they are known.
    """
    folded = {one.casefold(): one for one in known}
    same = name.strip().casefold()
    near = [same] if same in folded else [one for one in meant if one in folded]
    near = near or difflib.get_close_matches(name.casefold(), folded, n=3)
    return f" (did you mean {' or '.join(repr(folded[one]) for one in near)}?)" if near else ""


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


@contextmanager
def naming_similar_arguments(operator: type, given: Iterable[str]) -> Iterator[None]:
    """Add to the error about unknown arguments which arguments they resemble.

    :raises TypeError: Airflow does not know one of the arguments.
    """
    try:
        yield
    except TypeError as error:
        constructors = [vars(each)["__init__"] for each in operator.__mro__ if "__init__" in vars(each)]
        known = {name for constructor in constructors for name in inspect.signature(constructor).parameters}
        similar = [f"{name!r}{did_you_mean(name, known, MEANT.get(name, ()))}" for name in given if name not in known]
        if not similar:
            raise
        raise TypeError(f"{error}\nUnknown: {', '.join(similar)}.") from None


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
