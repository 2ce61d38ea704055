"""Checks of single arguments, before a run is started and uses credits."""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

from airflow_provider_browseract.api.arguments import LONGEST_TIME, InputError, read_id

RENAMED = {
    "reattach": "durable",
    "on_paused_timeout": "on_paused=AskPerson(timeout=...)",
    "on_paused_default": "on_paused=AskPerson(default=...)",
}
"""Arguments of earlier development versions, with what has replaced them."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return the known names that a wrong name resembles, as an addition to a message; "" if there are none.

    :param name: the wrong name. If it differs from a known name only in case or spaces, only that one is returned.
    """
    folded = {one.casefold(): one for one in known}
    same = name.strip().casefold()
    near = [same] if same in folded else difflib.get_close_matches(name.casefold(), folded, n=3)
    return f" (did you mean {' or '.join(repr(folded[one]) for one in near)}?)" if near else ""


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
        similar = [
            f"{name!r} (now {RENAMED[name]})" if name in RENAMED else f"{name!r}{did_you_mean(name, known)}"
            for name in given
            if name not in known
        ]
        if not similar:
            raise
        raise TypeError(f"{error}\nUnknown: {', '.join(similar)}.") from None


def check_rendered(argument: str, given: Any, rendered: Any) -> None:
    """Raise an error if Airflow rendered a given value to ``None``.

    Such a value would silently start, and bill, a run with other inputs than intended. A ``None`` that was given
    explicitly is accepted.

    :param given: its value before rendering: a template, an XCom, or a dict or list that contains them.
    :param rendered: its value after rendering.
    :raises InputError: a part of the value is ``None``, or the text ``None`` that a template was rendered to.
    """
    template = isinstance(given, str) and "{" in given
    if given is not None and (rendered is None or (template and rendered == "None")):
        raise InputError(
            f"{argument} was given, but Airflow rendered it to None.\n"
            f"Check the task or the template that the value comes from, or remove {argument}."
        )
    if isinstance(given, Mapping) and isinstance(rendered, Mapping):
        for name in given.keys() & rendered.keys():
            check_rendered(f"{argument}[{name!r}]", given[name], rendered[name])
    elif isinstance(given, list | tuple) and isinstance(rendered, list | tuple) and len(given) == len(rendered):
        for position, (before, after) in enumerate(zip(given, rendered, strict=True)):
            check_rendered(f"{argument}[{position}]", before, after)


def read_ids(argument: str, value: Any) -> list[str]:
    """Check one id or several, and return each once.

    :param value: an id, or a sequence of ids, such as the XComs of mapped tasks.
    :raises InputError: there is no id, or one of them cannot be used.
    """
    several = isinstance(value, Sequence) and not isinstance(value, str | bytes)
    if isinstance(value, str) and any(char in value for char in "[](), "):
        raise InputError(
            f"{argument} is {value!r}, a list that was rendered to a string. Set render_template_as_native_obj=True on "
            "the DAG, or pass the XCom itself."
        )
    ids = list(dict.fromkeys(read_id(argument, each) for each in (value if several else [value])))
    if not ids:
        raise InputError(f"{argument} is an empty list. Pass at least one id.")
    return ids


def read_seconds(argument: str, value: Any) -> float:
    """Check a duration, and return it in seconds.

    :param value: seconds, or a ``timedelta``.
    :raises InputError: the value is not a duration, not positive, or longer than a year.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST_TIME:
        raise InputError(f"{argument} is {value!r}. Use a positive number of seconds or a timedelta, at most a year.")
    return float(seconds)


def read_flag(argument: str, value: Any) -> bool:
    """Check an argument that is ``True`` or ``False``.

    :raises InputError: the value is neither.
    """
    if not isinstance(value, bool):
        raise InputError(f"{argument} is {value!r}. Use True or False.")
    return value


def read_output_path(value: Any) -> str:
    """Check a path in object storage without accessing the store, and return it without a trailing slash.

    :param value: the path, as ``ObjectStoragePath`` takes it.
    :raises InputError: the path is empty, the root of a store, or relative.
    """
    path = str(value).strip()
    scheme, host, below, *_ = urlsplit(path)
    local = scheme in ("", "file", "local")
    if path in ("", "None") or not (below.strip("/") if local else host):
        raise InputError(f"output_path is {path!r}. Use a folder such as /data/results or s3://conn@bucket/path.")
    if not scheme and not below.startswith("/"):
        raise InputError(f"output_path is {path!r}. Use an absolute path, or one like s3://conn@bucket/path.")
    return path.rstrip("/")
