"""Checking what a user asks for, before a run is started and money is spent."""

from __future__ import annotations

import ipaddress
import json
from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

from airflow_provider_browseract.api import calls

if TYPE_CHECKING:
    from airflow_provider_browseract.api.models import CreatedTask

URL_LENGTH = 2048
"""The longest callback address that the API takes, in characters."""

E = TypeVar("E", bound=Enum)

LONGEST = 366 * 24 * 3600.0
"""The longest length of time that an argument can have, in seconds."""


class InputError(ValueError):
    """An argument is not usable; the message names it and says what would be."""


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


def read_run(
    workflow_id: Any,
    input_parameters: Any,
    *,
    save_browser_data: bool,
    profile_id: Any,
    callback_url: Any,
    status_change_callback_url: Any,
    api_base_url: str,
) -> calls.Call[CreatedTask]:
    """Check everything that a run is started with, and make the call that starts it (``run-task``).

    :param workflow_id: the workflow to run.
    :param input_parameters: see :func:`read_input_parameters`.
    :param save_browser_data: keep cookies and logins of the run.
    :param profile_id: browser profile of an earlier run, or nothing.
    :param callback_url: see :func:`check_callback_url`.
    :param status_change_callback_url: likewise.
    :param api_base_url: address of the API.
    :raises InputError: something of it is not usable.
    """
    return calls.run_task(
        read_id("workflow_id", workflow_id),
        input_parameters=read_input_parameters(input_parameters),
        save_browser_data=save_browser_data,
        profile_id=read_id("profile_id", profile_id) if profile_id else None,
        callback_url=check_callback_url("callback_url", callback_url, api_base_url=api_base_url),
        status_change_callback_url=check_callback_url(
            "status_change_callback_url", status_change_callback_url, api_base_url=api_base_url
        ),
    )


def read_input_parameters(value: Any) -> list[dict[str, str]]:
    """Turn ``input_parameters`` into the pairs that the API takes.

    :param value: a mapping of names to values, or a sequence of ``{"name": ..., "value": ...}``. Values that are
        strings stay as they are, any other JSON value becomes JSON text; ``None`` stands for no inputs.
    :returns: pairs of strings, in the order given.
    :raises InputError: it is something else, a name is empty or given twice, or a value is not JSON.
    """
    if value is None:
        return []
    if isinstance(value, Mapping):
        named = list(value.items())
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        named = [_read_pair(position, pair) for position, pair in enumerate(value)]
    else:
        raise InputError(
            f"input_parameters is of type {type(value).__name__}. Give a dict of names and values, or a list of "
            '{"name": ..., "value": ...}; for a template that renders one, set render_template_as_native_obj=True.'
        )
    pairs: dict[str, str] = {}
    for name, given in named:
        if not isinstance(name, str) or not name.strip():
            raise InputError(f"input_parameters has the name {name!r}. Names are strings that are not empty.")
        if name in pairs:
            raise InputError(f"input_parameters names {name!r} twice. Keep one of the two.")
        pairs[name] = given if isinstance(given, str) else _json_text(name, given)
    return [{"name": name, "value": text} for name, text in pairs.items()]


def _read_pair(position: int, pair: Any) -> tuple[Any, Any]:
    if not isinstance(pair, Mapping) or set(pair) != {"name", "value"}:
        keys = sorted(map(str, pair)) if isinstance(pair, Mapping) else type(pair).__name__
        raise InputError(
            f"input_parameters[{position}] is not a pair but {keys}. Each element needs exactly the keys name "
            "and value."
        )
    return pair["name"], pair["value"]


def _json_text(name: str, value: Any) -> str:
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False, default=_plain)
    except (TypeError, ValueError, RecursionError) as error:
        raise InputError(
            f"input_parameters[{name!r}] cannot be written as JSON ({error}). Give a string or a JSON value, "
            "such as a time as .isoformat()."
        ) from None


def _plain(value: Any) -> Any:
    """Open the lazy sequences that Airflow hands out for the results of mapped tasks."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray | memoryview):
        return list(value)
    raise TypeError(f"a value of type {type(value).__name__} is not JSON")


def read_seconds(argument: str, value: Any) -> float:
    """Check a length of time that has to be positive, and return it in seconds.

    :param argument: name of the operator's argument, for the message.
    :param value: seconds, or a ``timedelta``.
    :raises InputError: it is not a length of time, or not positive.
    """
    seconds = value.total_seconds() if isinstance(value, timedelta) else value
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 < seconds <= LONGEST:
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


def check_callback_url(argument: str, url: Any, *, api_base_url: str) -> str | None:
    """Check a callback address as the API would.

    :param argument: name of the operator's argument, for the message.
    :param url: the address; ``None`` or an empty string for none.
    :param api_base_url: a private address is allowed where the API itself has one.
    :returns: the address, or None.
    :raises InputError: it is not http(s), longer than 2,048 characters, or private.
    """
    if url is None or url == "":
        return None
    # The address is not repeated in the messages: it can hold a token.
    if not isinstance(url, str):
        raise InputError(f"{argument} is of type {type(url).__name__}. Give an address that begins with https://.")
    if len(url) > URL_LENGTH:
        raise InputError(f"{argument} has {len(url)} characters. BrowserAct takes at most {URL_LENGTH}.")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host or any(char.isspace() for char in url):
        raise InputError(f"{argument} is not an http or https address. Give one like https://example.com/path.")
    if is_private(host) and not is_private(urlsplit(api_base_url).hostname or ""):
        raise InputError(
            f"{argument} names the host {host}, which BrowserAct cannot reach. Give an address that is public."
        )
    return url


def is_private(host: str) -> bool:
    """Say whether a host is only reachable from near, judged by its name or IP address without asking DNS.

    :param host: host name or IP address.
    """
    try:
        return not ipaddress.ip_address(host).is_global
    except ValueError:
        name = host.rstrip(".").lower()
        return "." not in name or name.endswith((".localhost", ".local", ".internal", ".lan", ".home.arpa"))
