"""Checks of single arguments, before a run is started and money is spent."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import Enum
from typing import Any, TypeVar
from urllib.parse import urlsplit

E = TypeVar("E", bound=Enum)

LONGEST_TIME = 366 * 24 * 3600.0
"""The longest length of time that an argument can have, in seconds."""


class InputError(ValueError):
    """An argument is not usable; the message names it and says what would be."""


def check_rendered(argument: str, given: Any, rendered: Any) -> None:
    """Make sure that nothing that was given has become ``None`` when Airflow rendered it.

    Such a value would silently start, and bill, a run with other inputs than wanted. A ``None`` that was given stands.

    :param argument: name of the operator's argument, for the message.
    :param given: its value before rendering: a template, an XCom, or a dict or list with such.
    :param rendered: its value now.
    :raises InputError: a part of it is ``None``, or the text ``None`` that a template renders it to.
    """
    template = isinstance(given, str) and "{" in given
    if given is not None and (rendered is None or (template and rendered == "None")):
        raise InputError(
            f"{argument} was given, but Airflow rendered it to None.\n"
            f"Check the task or the template that the value comes from, or leave {argument} out."
        )
    if isinstance(given, Mapping) and isinstance(rendered, Mapping):
        for name in given.keys() & rendered.keys():
            check_rendered(f"{argument}[{name!r}]", given[name], rendered[name])
    elif isinstance(given, list | tuple) and isinstance(rendered, list | tuple) and len(given) == len(rendered):
        for position, (before, after) in enumerate(zip(given, rendered, strict=True)):
            check_rendered(f"{argument}[{position}]", before, after)


def read_id(argument: str, value: Any) -> str:
    """Check an id that has to be given, and return it as a string.

    :param argument: name of the operator's argument, for the message.
    :param value: the id, a string or a whole number.
    :raises InputError: it is empty, ``None``, or something else.
    """
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value)
    # Jinja renders a value that is not there as the word None.
    if not isinstance(value, str) or value.strip() in ("", "None"):
        raise InputError(
            f"{argument} is {value!r}. Give the id that the BrowserAct dashboard or an earlier task shows."
        )
    return value.strip()


def read_ids(argument: str, value: Any) -> list[str]:
    """Check one id or several, and return each once.

    :param argument: name of the operator's argument, for the message.
    :param value: an id, or a sequence of ids, such as the XComs of mapped tasks.
    :raises InputError: there is none, or one of them is not usable.
    """
    several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if isinstance(value, str) and any(char in value for char in "[](), "):
        raise InputError(
            f"{argument} is {value!r}, a list that was rendered into a text. Set render_template_as_native_obj=True on "
            "the DAG, or give the XCom itself."
        )
    ids = list(dict.fromkeys(read_id(argument, each) for each in (value if several else [value])))
    if not ids:
        raise InputError(f"{argument} is an empty list. Give one id at least.")
    return ids


def read_seconds(argument: str, value: Any) -> float:
    """Check a length of time that has to be positive, and return it in seconds.

    :param argument: name of the operator's argument, for the message.
    :param value: seconds, or a ``timedelta``.
    :raises InputError: it is not a length of time, or not positive.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_TIME:
        raise InputError(
            f"{argument} is {value!r}. Give a positive number of seconds, or a timedelta, of a year at most."
        )
    return float(seconds)


def read_choice(argument: str, value: Any, choices: type[E]) -> E:
    """Check an argument that is one of some words.

    :param argument: name of the operator's argument, for the message.
    :param value: the word.
    :param choices: what it can be.
    :raises InputError: it is something else.
    """
    try:
        return choices(value)
    except ValueError:
        words = ", ".join(repr(choice.value) for choice in choices)
        raise InputError(f"{argument} is {value!r}. Give one of {words}.") from None


def read_flag(argument: str, value: Any) -> bool:
    """Check an argument that is true or false.

    :param argument: name of the operator's argument, for the message.
    :raises InputError: it is neither.
    """
    if not isinstance(value, bool):
        raise InputError(f"{argument} is {value!r}. Give True or False.")
    return value


def read_output_path(value: Any) -> str:
    """Check a path in object storage as far as it can be told from the path, and return it without a slash behind.

    :param value: the path, as ``ObjectStoragePath`` takes it.
    :raises InputError: it is empty, the root of a store, or depends on the folder in which a process runs.
    """
    path = str(value).strip()
    scheme, host, below, *_ = urlsplit(path)
    local = scheme in ("", "file", "local")
    if path in ("", "None") or not (below.strip("/") if local else host):
        raise InputError(f"output_path is {path!r}. Give a folder, or one like s3://conn@bucket/path.")
    if not scheme and not below.startswith("/"):
        raise InputError(f"output_path is {path!r}. Give a whole path, or one like s3://conn@bucket/path.")
    return path.rstrip("/")
