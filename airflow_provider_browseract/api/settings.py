"""The settings of both clients. Those with a title are fields in the extra of the Airflow connection."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, TypeAdapter, WithJsonSchema

from airflow_provider_browseract import __version__
from airflow_provider_browseract.api.arguments import LONGEST_TIME
from airflow_provider_browseract.api.retries import RetryPolicy

DEFAULT_BASE_URL = "https://api.browseract.com"

CREDITS_PER_STEP = 5
"""Credits that a step costs, according to BrowserAct's documents."""


def not_a_flag(value: Any) -> Any:
    # For pydantic, True is the number 1.
    if isinstance(value, bool):
        raise ValueError("it is not a number")
    return value


def form_field(wanted: str, *, minimum: int = 1) -> WithJsonSchema:
    """Describe a number in the form of the connection.

    :param wanted: a valid value, in words, for error messages.
    """
    return WithJsonSchema({"type": "integer", "minimum": minimum, "wanted": wanted})


SECONDS = form_field("a positive number of seconds")
Duration = Annotated[float, Field(gt=0, le=LONGEST_TIME), BeforeValidator(not_a_flag), SECONDS]
Bytes = Annotated[int, Field(gt=0), BeforeValidator(not_a_flag), form_field("a positive whole number of bytes")]


def _policy(budget: Any) -> RetryPolicy:
    return RetryPolicy(budget=TypeAdapter(Duration).validate_python(budget))


@dataclass(frozen=True)
class ClientSettings:
    """The settings of both clients.

    :param base_url: address of the API without the version.
    :param connection: id of the Airflow connection that the settings come from, for error messages.
    """

    api_key: str = field(repr=False)
    base_url: str = DEFAULT_BASE_URL
    connect_timeout: Annotated[
        Duration,
        Field(title="Connect timeout", description="Seconds to wait for a connection to BrowserAct. Default: 10."),
    ] = 10.0
    read_timeout: Annotated[
        Duration,
        Field(title="Read timeout", description="Seconds to wait for the next bytes of a response. Default: 30."),
    ] = 30.0
    retries: Annotated[
        RetryPolicy,
        Field(
            validation_alias="retry_budget",
            title="Retry budget",
            description="Seconds during which a call is retried after a temporary error. Default: 60.",
        ),
        BeforeValidator(_policy),
        SECONDS,
    ] = field(default_factory=RetryPolicy)
    user_agent: str = f"airflow-provider-browseract/{__version__}"
    connection: str | None = None
    # After 30 minutes, BrowserAct does not prepare any more files.
    files_timeout: Annotated[
        Duration,
        Field(
            title="Files timeout",
            description=(
                "Seconds to wait, after the end of a run, for files that BrowserAct is still preparing. Default: 1800."
            ),
        ),
    ] = 1800.0
    # The limits are BrowserAct's own.
    max_file_size: Annotated[
        Bytes,
        Field(title="Largest file", description="Bytes that a file of a run may have. Default: 52428800 (50 MiB)."),
    ] = 50 * 1024 * 1024
    max_run_size: Annotated[
        Bytes,
        Field(
            title="Largest run",
            description=("Bytes that all files of a run may have together. Default: 5242880000 (100 files of 50 MiB)."),
        ),
    ] = 100 * 50 * 1024 * 1024

    @property
    def longest_call(self) -> float:
        """Seconds that a call can take with all its tries, unless the response arrives byte by byte."""
        return self.retries.budget + self.connect_timeout + self.read_timeout

    def within(self, seconds: float | None) -> ClientSettings:
        """Return settings with which a call ends within some seconds; ``None`` changes nothing."""
        if seconds is None:
            return self
        # Together they are the limit. Opening a connection is quick, and a stop can take a while.
        return replace(
            self,
            connect_timeout=seconds / 4,
            read_timeout=seconds / 2,
            retries=RetryPolicy(budget=seconds / 4, longest_pause=seconds / 4),
        )

    @property
    def key_digest(self) -> str:
        """A digest of the API key that may be stored. Connections with the same key have the same digest."""
        return _digest_of_key(self.api_key)

    @property
    def headers(self) -> dict[str, str]:
        """Headers of every request, without the key."""
        return {"User-Agent": self.user_agent, "Accept": "application/json", "Accept-Encoding": "gzip"}


@cache
def _digest_of_key(api_key: str) -> str:
    # Slow on purpose, so that nobody can try many keys.
    return hashlib.pbkdf2_hmac("sha256", api_key.encode(), b"airflow-provider-browseract key", 200_000, 8).hex()
