"""Read requests strictly. Anything that cannot be understood raises an ``ApiError`` and is never ignored."""

from __future__ import annotations

import ipaddress
import json
import re
import socket
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from airflow_provider_browseract.emulator.errors import parameter_error

INT32_MAX = 2**31 - 1
MAX_URL_LENGTH = 2048

_INTEGER = re.compile(r"-?[0-9]{1,10}", re.ASCII)
_DATE_TIME = re.compile(r"(\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d)(\.\d{1,9})?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class Query:
    """The query of a request.

    :param raw: the query string as it was sent
    :param known: the parameters of the endpoint; any other is an error
    :param ids: the ids in the path, which are parameters too
    """

    def __init__(self, raw: bytes, known: Iterable[str], ids: Mapping[str, str] | None = None) -> None:
        try:
            pairs = parse_qsl(raw.decode("ascii"), keep_blank_values=True, errors="strict")
        except ValueError:
            raise parameter_error("the query is not UTF-8") from None
        self._values: dict[str, str] = _without_duplicates(pairs)
        for name in self._values.keys() - set(known):
            raise parameter_error(f"there is no query parameter {name!r}")
        self._values.update(ids or {})

    def text(self, name: str) -> str | None:
        """Return a parameter, or None if it was not sent."""
        return self._values.get(name)

    def required(self, name: str) -> str:
        """Return a parameter that must be sent and not be empty."""
        value = self._values.get(name)
        if not value:
            raise parameter_error(f"{name} is required")
        return value

    def integer(self, name: str, minimum: int, maximum: int = INT32_MAX) -> int | None:
        """Return an integer within bounds, or None if it was not sent."""
        value = self._values.get(name)
        if value is None:
            return None
        if not _INTEGER.fullmatch(value) or not minimum <= int(value) <= maximum:
            raise parameter_error(f"{name} must be an integer from {minimum} to {maximum}")
        return int(value)

    def moment(self, name: str) -> float | None:
        """Return a date-time as seconds since the epoch, or None if it was not sent."""
        value = self._values.get(name)
        if value is None:
            return None
        message = f"{name} must be an ISO 8601 date-time such as 2026-01-31T12:00:00Z"
        parts = _DATE_TIME.fullmatch(value)
        if parts is None:
            raise parameter_error(message)
        whole, fraction, zone = parts.groups()
        try:
            # Python 3.10 can read neither "Z" nor fractions of any length.
            moment = datetime.fromisoformat(whole.upper() + ("+00:00" if zone in "Zz" else zone))
            return moment.timestamp() + float(fraction or 0)
        except (ValueError, OverflowError):
            raise parameter_error(message) from None


def read_object(raw: bytes, content_type: str, fields: Mapping[str, type]) -> dict[str, Any]:
    """Read a JSON body.

    :param fields: the fields of the endpoint, and their types; any other is an error
    """
    if content_type.split(";")[0].strip().lower() != "application/json":
        raise parameter_error("the Content-Type must be application/json")
    try:
        body = json.loads(raw.decode("utf-8"), object_pairs_hook=_without_duplicates, parse_constant=_refuse)
        # JSON can contain a lone surrogate, but UTF-8 cannot.
        json.dumps(body, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise parameter_error("the body is not JSON") from None
    if not isinstance(body, dict):
        raise parameter_error("the body must be a JSON object")
    for name, value in body.items():
        if name not in fields:
            raise parameter_error(f"there is no field {name!r}")
        if not isinstance(value, fields[name]):
            raise parameter_error(f"{name} must be of type {fields[name].__name__}")
    return body


def read_inputs(items: Iterable[Any]) -> list[tuple[str, str]]:
    """Read ``input_parameters``."""
    inputs: dict[str, str] = {}
    for item in items:
        if not isinstance(item, dict) or item.keys() != {"name", "value"}:
            raise parameter_error("each of input_parameters must be an object of name and value")
        name, value = item["name"], item["value"]
        if not isinstance(name, str) or not isinstance(value, str):
            raise parameter_error("name and value of each of input_parameters must be strings")
        if name in inputs:
            raise parameter_error(f"the input parameter {name!r} is given twice")
        inputs[name] = value
    return list(inputs.items())


def check_callback_url(name: str, url: str, *, allow_private: bool) -> None:
    """Check a callback URL as the API does.

    :param allow_private: whether its host may have a private or an unknown address
    """
    if len(url) > MAX_URL_LENGTH:
        raise parameter_error(f"{name} must not be longer than {MAX_URL_LENGTH} characters")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        host = None
    printable = url.isascii() and url.isprintable() and " " not in url
    if not host or not printable or parts.scheme not in ("http", "https"):
        raise parameter_error(f"{name} must be an HTTP or HTTPS URL")
    if allow_private:
        return
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        addresses = [ipaddress.ip_address(address[0]) for *_, address in found]
    except (OSError, ValueError):
        addresses = []
    if not addresses or not all(address.is_global for address in addresses):
        raise parameter_error(f"{name} must be publicly reachable")


def _without_duplicates(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise parameter_error(f"{name} is given twice")
        found[name] = value
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
