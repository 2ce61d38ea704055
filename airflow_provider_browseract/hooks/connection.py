"""The ``browseract`` connection: its fields, their meaning, and how the form shows them.

The fields of the extra are the fields of :class:`ConnectionSettings` and
:class:`~airflow_provider_browseract.api.settings.ClientSettings` that have a title. Newer cores read the form from the
provider info (:func:`connection_type`). Airflow 3.1 gets it from the hook (:func:`form_widgets`,
:func:`field_behaviour`).
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, StringConstraints, TypeAdapter, ValidationError, WithJsonSchema

from airflow_provider_browseract.api.settings import (
    CREDITS_PER_STEP,
    DEFAULT_BASE_URL,
    ClientSettings,
    form_field,
    not_a_flag,
)
from airflow_provider_browseract.exceptions import ConnectionFailedError, ConnectionFieldError
from airflow_provider_browseract.runs.addresses import is_private
from airflow_provider_browseract.runs.hints import did_you_mean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from airflow.sdk import Connection

    from airflow_provider_browseract.runs.budget import Budget

log = logging.getLogger(__name__)

CONNECTION_TYPE = "browseract"
HOOK_NAME = "BrowserAct"
HOOK_CLASS = "airflow_provider_browseract.hooks.browseract.BrowserActHook"

HIDDEN_FIELDS = ["login", "schema"]
RELABELING = {"password": "API key", "host": "API address", "port": "API port"}
# The Test button of Airflow 3.3 sends port 0 for a connection without a port. The API server then treats the connection
# as changed and responds with 400. So the form shows the port, although hardly anybody needs it otherwise.
PLACEHOLDERS = {"host": DEFAULT_BASE_URL, "password": "app-...", "port": "443"}

_warned: set[tuple[str | None, str]] = set()
"""Connections and warnings that this process has logged."""


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
        "the id (browseract_conn_id)."
    )


def connection_type() -> dict[str, Any]:
    """Describe the connection type as provider info does (``connection-types``)."""
    return {
        "connection-type": CONNECTION_TYPE,
        "hook-class-name": HOOK_CLASS,
        "hook-name": HOOK_NAME,
        "ui-field-behaviour": {
            "hidden-fields": HIDDEN_FIELDS,
            "relabeling": RELABELING,
            "placeholders": PLACEHOLDERS,
        },
        "conn-fields": {
            name: {
                "label": field["title"],
                "description": field["description"],
                "schema": _form_schema(field),
            }
            for name, field in extra_fields().items()
        },
    }


def _form_schema(field: dict[str, Any]) -> dict[str, Any]:
    """Return the JSON schema of a field of the form, which can always be left empty."""
    schema: dict[str, Any] = {"type": [field["type"], "null"]}
    if "enum" in field:
        # The form would show a null in the list as the word null.
        schema["enum"] = field["enum"]
    if "minimum" in field:
        schema["minimum"] = field["minimum"]
    return schema


def field_behaviour() -> dict[str, Any]:
    """Describe the standard fields as a hook of Airflow 3.1 does (``get_ui_field_behaviour``)."""
    return {"hidden_fields": HIDDEN_FIELDS, "relabeling": RELABELING, "placeholders": PLACEHOLDERS}


def form_widgets() -> dict[str, Any]:
    """Describe the extra fields as a hook of Airflow 3.1 does (``get_connection_form_widgets``)."""
    # Airflow 3.1 calls this only if this library is installed. Its FAB provider depends on the library.
    from wtforms import IntegerField, StringField
    from wtforms.validators import Optional

    return {
        name: (StringField if field["type"] == "string" else IntegerField)(
            field["title"], validators=[Optional()], description=field["description"]
        )
        for name, field in extra_fields().items()
    }


Credits = Annotated[int, Field(gt=0, lt=10**18), BeforeValidator(not_a_flag)]
CREDITS = form_field("a positive whole number of credits")


@dataclass(frozen=True)
class ConnectionSettings:
    """The settings of a connection.

    :param client: how to reach the BrowserAct API.
    :param webhook_base_url: address at which BrowserAct reaches the Airflow API server; empty to use no callbacks.
    :param daily_credits: credits that all runs of the account may use on a day (UTC); None for no daily budget.
    :param monthly_credits: the same for a calendar month (UTC).
    :param budget_action: what to do about a start that a budget does not allow.
    :param credits_per_step: credits that a step costs, which count while BrowserAct reports fewer; 0 to
        count only the credits that it reports.
    :param unknown: a sentence about unknown keys in the extra; None if there are none.
    """

    client: ClientSettings
    webhook_base_url: Annotated[
        str | None,
        Field(
            title="Webhook base URL",
            description=(
                "Public address of the Airflow API server, with its path. BrowserAct then calls back when a run ends."
            ),
        ),
        StringConstraints(strip_whitespace=True),
        WithJsonSchema({"type": "string", "wanted": "an address like https://airflow.example.com"}),
    ] = None
    daily_credits: Annotated[
        Credits | None,
        Field(
            title="Daily credits",
            description="Credits that all runs of the account may use on a day (UTC). Default: no budget.",
        ),
        CREDITS,
    ] = None
    monthly_credits: Annotated[
        Credits | None,
        Field(
            title="Monthly credits",
            description="Credits that all runs of the account may use in a month (UTC). Default: no budget.",
        ),
        CREDITS,
    ] = None
    budget_action: Annotated[
        Literal["refuse", "warn"],
        Field(
            title="Budget action",
            description="What to do about a start that a budget does not allow: refuse, or only warn. Default: refuse.",
        ),
        WithJsonSchema({"type": "string", "enum": ["refuse", "warn"], "wanted": "refuse or warn"}),
    ] = "refuse"
    credits_per_step: Annotated[
        int,
        Field(
            ge=0,
            lt=10**6,
            title="Credits per step",
            description=(
                "Credits that a step costs. They count for max_credits while BrowserAct reports fewer. Default: 5."
            ),
        ),
        BeforeValidator(not_a_flag),
        form_field("a whole number of credits, or 0 to count only the credits that BrowserAct reports", minimum=0),
    ] = CREDITS_PER_STEP
    unknown: str | None = None

    def check_for_start(self) -> None:
        """Refuse the start of a run with a connection that has unknown keys: a misspelled budget would be none.

        Calls about a run that was started ignore unknown keys.

        :raises ConnectionFieldError: the extra has unknown keys.
        """
        if self.unknown is not None:
            known = ", ".join(extra_fields())
            raise ConnectionFieldError(
                f"Connection {self.client.connection!r}: {self.unknown}.\n"
                f"No run is started. Correct or remove them. The known keys are {known}."
            )

    @property
    def budget(self) -> Budget | None:
        """The budget of the account; None if there is none."""
        if self.daily_credits is None and self.monthly_credits is None:
            return None
        from airflow_provider_browseract.runs.budget import Budget, BudgetAction

        action = BudgetAction(self.budget_action)
        return Budget(self.client.connection or "", self.daily_credits, self.monthly_credits, action)


@cache
def _adapter() -> TypeAdapter[ConnectionSettings]:
    return TypeAdapter(ConnectionSettings)


@cache
def extra_fields() -> dict[str, dict[str, Any]]:
    """Return the JSON schema of each field of the extra, with its title and description."""
    schema = _adapter().json_schema()
    found = {**schema["properties"], **schema["$defs"][ClientSettings.__name__]["properties"]}
    return {name: field for name, field in found.items() if "description" in field}


def read_settings(connection: Connection, *, user_agent: str) -> ConnectionSettings:
    """Read the settings of a connection.

    Log warnings about unknown keys in its extra, and about a public address without TLS, once per process and
    connection.

    :param connection: the password is the API key. The host overrides the address of the API; it may have a port, and
        the scheme in front or in ``schema``. Numbers in the extra may also be given as text.
    :raises ConnectionFieldError: the key is missing, or a field cannot be used.
    """
    extra, conn_id = connection.extra_dejson, connection.conn_id
    base_url = _base_url(connection)
    unknown = _unknown_keys(extra)
    for warning in (f"{unknown}. They are ignored, and no run is started." if unknown else None, unencrypted(base_url)):
        if warning and (conn_id, warning) not in _warned:
            _warned.add((conn_id, warning))
            log.warning("Connection %r: %s", conn_id, warning)
    given = {name: extra[name] for name in extra_fields() if extra.get(name) not in (None, "")}
    own = {"api_key": _api_key(connection), "base_url": base_url, "user_agent": user_agent, "connection": conn_id}
    try:
        return _adapter().validate_python({**given, "client": {**given, **own}, "unknown": unknown})
    except ValidationError as error:
        wrong = next(name for each in error.errors() for name in each["loc"] if name in given)
        raise ConnectionFieldError(
            f"Connection {conn_id!r}: extra {wrong!r} is {given[wrong]!r}. Set it to {extra_fields()[wrong]['wanted']}."
        ) from None


def _unknown_keys(extra: Mapping[str, Any]) -> str | None:
    """Return a sentence about unknown keys in a connection's extra, with the known key that each of them resembles."""
    known = list(extra_fields())
    named = ", ".join(f"{key!r}{did_you_mean(key, known)}" for key in extra if key not in known)
    return f"The extra has unknown keys: {named}" if named else None


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
            f"{_misplaced_key(connection)}"
        )
    if not key.isascii() or not key.isprintable() or " " in key:
        raise ConnectionFieldError(
            f"Connection {connection.conn_id!r}: the value of the API key (password) field is not an API key, because "
            "it has spaces or characters that no key has.\nEnter only the key, without 'Bearer' before it."
        )
    return key


def _misplaced_key(connection: Connection) -> str:
    """Return where in a connection the key may be instead, and that the connection has another type, as sentences."""
    places = ["the field login"] if connection.login else []
    places += [f"{name!r} of the extra" for name in connection.extra_dejson if name not in extra_fields()][:3]
    hint = f" If the API key is in {' or '.join(places)}, move it there." if places else ""
    if connection.conn_type not in (None, "", CONNECTION_TYPE):
        hint += f" The type of the connection is {connection.conn_type!r}. Change it to {CONNECTION_TYPE!r}."
    return hint


def _base_url(connection: Connection) -> str:
    host = (connection.host or "").strip() or DEFAULT_BASE_URL
    url = host if "://" in host else f"{connection.schema or 'https'}://{host}"
    try:
        parts = urlsplit(url)
        port = parts.port or connection.port
        usable = (
            parts.scheme in ("http", "https")
            and bool(parts.hostname)
            and not (parts.query or parts.fragment or "@" in parts.netloc)
            and not any(char.isspace() for char in url)
        )
    except ValueError:
        usable = False
    if not usable:
        raise ConnectionFieldError(
            f"Connection {connection.conn_id!r}: the host is not an http or https address.\n"
            f"Put one like {DEFAULT_BASE_URL} into the API address (host) field, or leave the field empty."
        )
    # The form's placeholder proposes the default port of the scheme, which is left out of the address.
    implied = not port or port == {"http": 80, "https": 443}[parts.scheme]
    netloc = parts.netloc if parts.port or implied else f"{parts.netloc}:{port}"
    return f"{parts.scheme}://{netloc}{parts.path.rstrip('/')}"
