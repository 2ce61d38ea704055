"""Checking what a user asks for, before a run is started and money is spent."""

from __future__ import annotations

import difflib
import ipaddress
import json
import socket
from collections.abc import Mapping, Sequence
from datetime import timedelta
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

from airflow_provider_browseract.api import calls

if TYPE_CHECKING:
    from airflow_provider_browseract.api.models import CreatedTask, InputParameter

URL_LENGTH = 2048
"""The longest callback address that the API takes, in characters."""

E = TypeVar("E", bound=Enum)

NAT64 = ipaddress.ip_network("64:ff9b::/96")
"""IPv6 addresses that stand for the IPv4 address in their last four bytes."""

NEAR_IPV6 = tuple(map(ipaddress.ip_network, ("64:ff9b:1::/48", "2002::/16", "::/96", "fec0::/10")))
"""IPv6 addresses that stand for an IPv4 address which a gateway nearby chooses, or that are deprecated."""

LONGEST = 366 * 24 * 3600.0
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
        save_browser_data=save_browser_data,
        profile_id=read_id("profile_id", profile_id) if profile_id else None,
        **_read_common(input_parameters, callback_url, status_change_callback_url, api_base_url),
    )


def read_template_run(
    workflow_template_id: Any,
    input_parameters: Any,
    *,
    region: Any,
    callback_url: Any,
    status_change_callback_url: Any,
    api_base_url: str,
) -> calls.Call[CreatedTask]:
    """Check everything that a template is run with, and make the call that starts it (``run-task-by-template``).

    :param workflow_template_id: the template to run.
    :param region: code of the proxy region; None for the API's default.
    :raises InputError: something of it is not usable; for the other arguments see :func:`read_run`.
    """
    return calls.run_task_by_template(
        read_id("workflow_template_id", workflow_template_id),
        region=None if region is None else read_id("region", region),
        **_read_common(input_parameters, callback_url, status_change_callback_url, api_base_url),
    )


def _read_common(
    input_parameters: Any, callback_url: Any, status_change_callback_url: Any, api_base_url: str
) -> dict[str, Any]:
    """Check what every run is started with."""
    urls = {"callback_url": callback_url, "status_change_callback_url": status_change_callback_url}
    return {
        "input_parameters": read_input_parameters(input_parameters),
        **{name: check_callback_url(name, url, api_base_url=api_base_url) for name, url in urls.items()},
    }


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
        if given is None:
            raise InputError(f"input_parameters[{name!r}] is None. Give a value, or leave the name out.")
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


def check_names(pairs: Sequence[Mapping[str, str]], declared: Sequence[InputParameter], what: str) -> None:
    """Compare the names of inputs with those that are declared.

    :param pairs: the inputs, as name/value pairs.
    :param declared: what is declared.
    :param what: what is run, for the message.
    :raises InputError: a name is not declared, or one that has to be given is not.
    """
    known = [one.name for one in declared]
    given = [pair["name"] for pair in pairs]
    wrong = [
        *(f"has the name {name!r}{_meant(name, known)}" for name in given if name not in known),
        *(
            f"lacks {one.name!r}, which has to be given"
            for one in declared
            if one.default_enabled is False and one.name not in given
        ),
    ]
    if wrong:
        needed = ", ".join(f"{one.name} (required)" if one.default_enabled is False else one.name for one in declared)
        raise InputError(f"input_parameters {'; it '.join(wrong)}. What {what} takes: {needed}.")


def _meant(name: str, known: Sequence[str]) -> str:
    folded = {one.casefold(): one for one in known}
    if same := folded.get(name.strip().casefold()):
        return f", which is written {same!r}"
    near = difflib.get_close_matches(name.casefold(), folded, n=3)
    return f" (did you mean {' or '.join(repr(folded[one]) for one in near)}?)" if near else ""


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


def check_callback_url(argument: str, url: Any, *, api_base_url: str) -> str | None:
    """Check a callback address as the API would.

    :param argument: name of the operator's argument, for the message.
    :param url: the address; ``None`` or an empty string for none.
    :param api_base_url: a private address is allowed where the API itself has one.
    :returns: the address, or None.
    :raises InputError: it is not http(s), longer than 2,048 characters, not ASCII, or private.
    """
    if url is None or url == "":
        return None
    # The address is not repeated in the messages: it can hold a token.
    if not isinstance(url, str):
        raise InputError(f"{argument} is of type {type(url).__name__}. Give an address that begins with https://.")
    if len(url) > URL_LENGTH:
        raise InputError(f"{argument} has {len(url)} characters. BrowserAct takes at most {URL_LENGTH}.")
    if odd := next((char for char in url if not "!" <= char <= "~"), None):
        raise InputError(
            f"{argument} contains the character {odd!a}, which is not allowed in a URL. Write it percent-encoded "
            f"({quote(odd, errors='replace')}) or, in the host name, in the ASCII form of the name (xn--...)."
        )
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host, parts = None, urlsplit("")
    if parts.scheme not in ("http", "https") or not host:
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
    name = host.rstrip(".").lower()
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        try:
            # Resolvers take 127.1 and 0x7f000001 for addresses, too.
            address = ipaddress.IPv4Address(socket.inet_aton(name))
        except (OSError, ValueError):
            return "." not in name or name.endswith((".localhost", ".local", ".internal", ".lan", ".home.arpa"))
    if isinstance(address, ipaddress.IPv6Address):
        if address in NAT64:
            address = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        elif any(address in network for network in NEAR_IPV6):
            return True
    return not address.is_global or address.is_multicast
