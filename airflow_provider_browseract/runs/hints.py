"""Hints for likely mistakes: a name that does not exist, and a value that was rendered to nothing."""

from __future__ import annotations

import difflib
import inspect
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from airflow_provider_browseract.exceptions import InputError

RUN_BY = {
    "workflow_id": "RunWorkflowOperator",
    "workflow_template_id": "RunTemplateOperator",
    "bot_id": "RunBotOperator",
    "template_id": "RunBotTemplateOperator",
}
"""The operator for each argument with the id of what is run."""

_INPUTS, _RUN = ("input_parameters", "input"), ("browseract_task_id",)

MEANT = {
    **dict.fromkeys((*_INPUTS, "inputs", "data", "body", "payload", "json", "arguments", "variables"), _INPUTS),
    **dict.fromkeys(("parameters", "args", "kwargs", "conf"), _INPUTS),
    **dict.fromkeys(("conn_id", "conn", "connection", "connection_id"), ("browseract_conn_id",)),
    **dict.fromkeys(("id", "ids"), (*RUN_BY, *_RUN)),
    **dict.fromkeys(("task", "tasks", "task_ids", "run", "run_id"), _RUN),
    **dict.fromkeys(("bot", "agent", "agent_id"), ("bot_id",)),
    **{"workflow": ("workflow_id",), "template": ("workflow_template_id", "template_id")},
    **{"profile": ("profile_id",), "save_profile": ("save_browser_data",)},
    **{"wait": ("wait_for_completion",), "max_wait": ("timeout",)},
}
"""Wrong names that difflib does not connect with the right ones."""

KEYS = ("api_key", "key", "password", "token", "host", "base_url")
"""What is in the connection, and never an argument."""

SURE = 0.8
"""Similarity, as difflib defines it, from which a wrong name is certainly a mistyped one."""

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
    known, own = _arguments_of(operator), _arguments_of(operator, own=True)
    # Airflow adds arguments of its own.
    unknown = [name for name in given if name not in known and not name.startswith("_")]
    if unknown:
        # A decorator has another name than its operator.
        what = getattr(operator, "custom_operator_name", operator.__name__)
        lines = [f"{what} has no argument {name!r}. {_instead_of(name, operator, known, own)}" for name in unknown]
        raise TypeError(f"Task {given.get('task_id')!r}: " + "\n".join(lines))


def _arguments_of(operator: type, *, own: bool = False) -> set[str]:
    """Return the names of an operator's arguments, all of them or those that are not Airflow's."""
    classes = [each for each in operator.__mro__ if "__init__" in vars(each)]
    package = __name__.partition(".")[0]
    constructors = [vars(each)["__init__"] for each in classes if not own or each.__module__.startswith(package)]
    found = [each for constructor in constructors for each in inspect.signature(constructor).parameters.values()]
    return {each.name for each in found if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)} - {"self"}


def _instead_of(name: str, operator: type, known: Collection[str], own: Collection[str]) -> str:
    """Return what to do instead of passing an argument that an operator does not have, as sentences."""
    from airflow_provider_browseract.api.settings import EXTRA_FIELDS

    if name in NOT_HERE:
        return NOT_HERE[name]
    if name in KEYS or name in EXTRA_FIELDS:
        return "It is a field of the Airflow connection whose id browseract_conn_id is."
    if name in RUN_BY and (mine := next((each for each in RUN_BY if each in known), None)):
        return f"Pass {mine}, or use {RUN_BY[name]}, which takes {name}."
    is_sure = name in MEANT or difflib.get_close_matches(name.casefold(), known, n=1, cutoff=SURE)
    similar = _similar(name, known if is_sure else own, MEANT.get(name, ()))
    if similar and (is_sure or not hasattr(operator, "inputs_argument")):
        return f"Did you mean {similar}?"
    hint = _place_of_inputs(name, operator)
    return f"Did you mean {similar}? {hint}" if similar else hint


def _place_of_inputs(name: str, operator: type) -> str:
    """Return where a name belongs if it is one of an input."""
    inputs = getattr(operator, "inputs_argument", None)
    if inputs is None:
        return "Remove it, or set it on the task that starts the run."
    if hasattr(operator, "custom_operator_name"):
        return f'If it is an input, return it from the function: return {{"{name}": ...}}'
    return f'Names of inputs go into {inputs}: {inputs}={{"{name}": ...}}'


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
