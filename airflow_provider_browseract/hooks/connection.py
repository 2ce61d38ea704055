"""The ``browseract`` connection: how its settings are read, and how the form shows them.

Newer cores read the form from the provider info (:func:`connection_type`). Airflow 3.1 gets it from the hook
(:data:`STANDARD_FIELDS`, :func:`form_widgets`).
"""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from airflow_provider_browseract import __version__
from airflow_provider_browseract.api.settings import DEFAULT_BASE_URL, EXTRA_FIELDS, TEXT, Settings
from airflow_provider_browseract.api.validation import first_problem
from airflow_provider_browseract.exceptions import ConnectionFailedError, ConnectionFieldError, InputError
from airflow_provider_browseract.runs.addresses import is_private

if TYPE_CHECKING:
    from airflow.sdk import Connection

    from airflow_provider_browseract.spending.budget import Budget

log = logging.getLogger(__name__)

CONNECTION_TYPE = "browseract"
HOOK_NAME = "BrowserAct"

STANDARD_FIELDS: dict[str, Any] = {
    "hidden_fields": ["login", "schema"],
    "relabeling": {"password": "API key", "host": "API address", "port": "API port"},
    # The Test button of Airflow 3.3 sends port 0 for a connection without a port. The API server then treats the
    # connection as changed and responds with 400. So the form shows the port, although hardly anybody needs it.
    "placeholders": {"host": DEFAULT_BASE_URL, "password": "app-... (required)", "port": "443"},
}
"""How the form shows the standard fields, as a hook of Airflow 3.1 returns it (``get_ui_field_behaviour``)."""


def unreadable(conn_id: str, error: Exception) -> ConnectionFailedError:
    """Return the error of a call whose Airflow connection cannot be read now.

    Airflow also reports a connection as missing if its database or a secrets backend does not respond.
    """
    return ConnectionFailedError(
        f"Airflow connection {conn_id!r} cannot be read ({type(error).__name__}: {error})",
        remedy="Check that the connection exists, and that Airflow's database or secrets backend responds.",
    )


def variable_of(conn_id: str) -> str:
    """Return the environment variable that can hold a connection."""
    return f"AIRFLOW_CONN_{conn_id.upper()}"


def check_type(connection: Connection, remedy: str = "Use a connection of this type.") -> None:
    """Refuse the connection of another service, whose password is no API key.

    :raises InputError: it is not of type BrowserAct.
    """
    if connection.conn_type != CONNECTION_TYPE:
        raise InputError(f"Connection {connection.conn_id!r} is not of type BrowserAct.\n{remedy}")


def no_connection(conn_id: str) -> str:
    """Return a message that there is no such connection, and how to add one."""
    variable = variable_of(conn_id)
    if variable in os.environ:
        return (
            f"There is no connection {conn_id!r}: Airflow cannot read the value of {variable}.\n"
            "In a URI, characters such as / in the API key have to be percent-encoded (%2F). JSON needs no encoding: "
            """'{"conn_type": "browseract", "password": "app-..."}'."""
        )
    return (
        f"There is no connection {conn_id!r}.\n"
        f"Add one of type BrowserAct with the API key in its API key (password) field, or set {variable}. Or correct "
        "the id."
    )


def connection_type() -> dict[str, Any]:
    """Describe the connection type as provider info does (``connection-types``)."""
    return {
        "connection-type": CONNECTION_TYPE,
        "hook-class-name": "airflow_provider_browseract.hooks.browseract.BrowserActHook",
        "hook-name": HOOK_NAME,
        "ui-field-behaviour": {name.replace("_", "-"): shown for name, shown in STANDARD_FIELDS.items()},
        "conn-fields": {
            name: {"label": field.title, "description": field.description, "schema": field.json_schema_extra}
            for name, field in EXTRA_FIELDS.items()
        },
    }


def form_widgets() -> dict[str, Any]:
    """Describe the extra fields as a hook of Airflow 3.1 does (``get_connection_form_widgets``)."""
    # Airflow 3.1 calls this only if this library is installed. Its FAB provider depends on the library.
    from wtforms import IntegerField, StringField
    from wtforms.validators import Optional

    return {
        name: (StringField if field.json_schema_extra == TEXT else IntegerField)(
            field.title, validators=[Optional()], description=field.description
        )
        for name, field in EXTRA_FIELDS.items()
    }


def check_for_start(settings: Settings) -> None:
    """Refuse the start of a run with a connection that has unknown keys: a misspelled budget would be none.

    Calls about a run that was started ignore unknown keys.

    :raises ConnectionFieldError: the extra has unknown keys.
    """
    if settings.unknown is not None:
        raise ConnectionFieldError(
            f"Connection {settings.connection!r}: {settings.unknown}.\n"
            f"No run is started. Correct or remove them. The known keys are {', '.join(EXTRA_FIELDS)}."
        )


def budget_of(settings: Settings) -> Budget | None:
    """Return the budget of the account; None if there is none."""
    if settings.daily_credits is None and settings.monthly_credits is None:
        return None
    from airflow_provider_browseract.spending.budget import Budget

    return Budget(settings.connection or "", settings.daily_credits, settings.monthly_credits)


def read_settings(connection: Connection) -> Settings:
    """Read the settings of a connection.

    Log warnings about unknown keys in its extra, and about a public address without TLS, once per process and
    connection.

    :param connection: the password is the API key. The host overrides the address of the API; it may have a port, and
        the scheme in front or in ``schema``. Numbers in the extra may also be given as text.
    :raises ConnectionFieldError: the key is missing, or a field cannot be used.
    """
    # Not at the top: when Airflow is imported, it may import this module.
    from airflow import __version__ as airflow_version

    extra, conn_id = _extra_of(connection), connection.conn_id
    user_agent = f"airflow-provider-browseract/{__version__} apache-airflow/{airflow_version}"
    base_url, unknown = _base_url(connection), _unknown_keys(extra)
    if unknown:
        _warn_once(conn_id, f"{unknown}. Polls and stops ignore them. New runs are refused until they are corrected.")
    if warning := unencrypted(base_url):
        _warn_once(conn_id, warning)
    given = {name: extra[name] for name in EXTRA_FIELDS if extra.get(name) not in (None, "")}
    given |= {"base_url": base_url, "user_agent": user_agent, "connection": conn_id, "unknown": unknown}
    try:
        return Settings(api_key=_api_key(connection), **given)
    except ValidationError as error:
        name, why = first_problem(error)
        raise ConnectionFieldError(
            f"Connection {conn_id!r}: extra {name!r}: {why}.\nCorrect it in the extra of the connection."
        ) from None


def _extra_of(connection: Connection) -> dict[str, Any]:
    # Airflow reads an extra that is no JSON as an empty one, and a misspelled budget would be none.
    with suppress(ValueError):
        if isinstance(json.loads(connection.extra or "{}"), dict):
            return connection.extra_dejson
    raise ConnectionFieldError(
        f"Connection {connection.conn_id!r}: the extra is not a JSON object.\n"
        'Write it like {"daily_credits": 1000}, or leave it empty.'
    )


def _unknown_keys(extra: Mapping[str, Any]) -> str | None:
    """Return a sentence about unknown keys in the extra, without a key that may be the API key in the wrong place."""
    others = [key for key in extra if key not in EXTRA_FIELDS]
    shown = (repr(key) if re.fullmatch("[A-Za-z_ -]*", key) else "one that is not a name" for key in others)
    return f"The extra has unknown keys: {', '.join(shown)}" if others else None


@cache
def _warn_once(conn_id: str | None, warning: str) -> None:
    log.warning("Connection %r: %s", conn_id, warning)


def unencrypted(base_url: str) -> str | None:
    """Return a warning if the API key would be sent over the internet unencrypted."""
    parts = urlsplit(base_url)
    if parts.scheme == "https" or is_private(parts.hostname or ""):
        return None
    return "The API address begins with http://, so the API key is sent unencrypted. Use https://."


def _api_key(connection: Connection) -> str:
    key = (connection.password or "").strip()
    if not key:
        raise ConnectionFieldError(
            f"Connection {connection.conn_id!r} has no API key.\n"
            "Put one (BrowserAct dashboard: Integrations, Manage API Keys) into its API key (password) field."
        )
    if not key.isascii() or not key.isprintable() or set(key) & set(" '\""):
        raise ConnectionFieldError(
            f"Connection {connection.conn_id!r}: the value of the API key (password) field is not an API key, because "
            "it has spaces, quotes or other characters that no key has.\n"
            "Enter only the key, without quotes and without 'Bearer' before it."
        )
    return key


def _base_url(connection: Connection) -> str:
    host = (connection.host or "").strip() or DEFAULT_BASE_URL
    url = host if "://" in host else f"{connection.schema or 'https'}://{host}"
    with suppress(ValueError):
        parts = urlsplit(url)
        port = parts.port or connection.port
        if re.fullmatch(r"(?i)https?://[^\s?#@]+", url) and parts.hostname:
            # The form's placeholder proposes the default port of the scheme, which is left out of the address.
            shown = "" if parts.port or port in (None, 0, {"http": 80, "https": 443}[parts.scheme]) else f":{port}"
            return f"{parts.scheme}://{parts.netloc}{shown}{parts.path.rstrip('/')}"
    raise ConnectionFieldError(
        f"Connection {connection.conn_id!r}: the host is not an http or https address.\n"
        f"Put one like {DEFAULT_BASE_URL} into the API address (host) field, or leave the field empty."
    )
