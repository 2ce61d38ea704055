"""The settings of a connection, each declared once: the form, the checks and the documentation follow from it."""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import urlsplit

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, StringConstraints

from airflow_provider_browseract import __version__
from airflow_provider_browseract.api.arguments import LONGEST_TIME

if TYPE_CHECKING:
    from typing_extensions import Self

DEFAULT_BASE_URL = "https://api.browseract.com"

NUMBER: dict[str, Any] = {"type": ["integer", "null"], "minimum": 1}
TEXT: dict[str, Any] = {"type": ["string", "null"]}
"""The JSON schemas of the fields of the form, which can always be left empty."""


def _not_a_flag(value: Any) -> Any:
    # For pydantic, True is the number 1.
    if isinstance(value, bool):
        raise ValueError("it should be a number")
    return value


def _number(default: float | None, title: str, description: str) -> Any:
    return Field(default, title=title, description=description, json_schema_extra=NUMBER)


Seconds = Annotated[float, Field(gt=0, le=LONGEST_TIME), BeforeValidator(_not_a_flag)]
Count = Annotated[int, Field(gt=0, lt=10**18), BeforeValidator(_not_a_flag)]


class Settings(BaseModel):
    """The settings of a connection. Those with a title are fields of its extra.

    :param base_url: address of the API without the version.
    :param connection: id of the Airflow connection, for error messages.
    :param first_pause: upper bound in seconds of the pause before the second try of a call. It doubles with each try.
    :param longest_pause: upper bound in seconds of any pause without ``Retry-After``.
    :param unknown: a sentence about unknown keys in the extra; None if there are none.
    """

    model_config = ConfigDict(frozen=True, defer_build=True)

    api_key: Annotated[str, Field(repr=False)]
    base_url: str = DEFAULT_BASE_URL
    user_agent: str = f"airflow-provider-browseract/{__version__}"
    connection: str | None = None
    first_pause: float = 0.5
    longest_pause: float = 15.0
    unknown: str | None = None

    webhook_base_url: Annotated[str, StringConstraints(strip_whitespace=True)] | None = Field(
        default=None,
        title="Webhook base URL",
        description="Public address of the Airflow API server, such as https://airflow.example.com. BrowserAct then "
        "calls back when a run ends.",
        json_schema_extra=TEXT,
    )
    daily_credits: Count | None = _number(
        None, "Daily credits", "Credits that all runs of the account may use on a day (UTC). Default: no budget."
    )
    monthly_credits: Count | None = _number(
        None, "Monthly credits", "Credits that all runs of the account may use in a month (UTC). Default: no budget."
    )
    connect_timeout: Seconds = _number(
        10.0, "Connect timeout", "Seconds to wait for a connection to BrowserAct. Default: 10."
    )
    read_timeout: Seconds = _number(
        30.0, "Read timeout", "Seconds to wait for the next bytes of a response. Default: 30."
    )
    retry_budget: Seconds = _number(
        60.0, "Retry time", "Seconds during which a call is retried after a temporary error. Default: 60."
    )
    # After 30 minutes, BrowserAct does not prepare any more files.
    files_timeout: Seconds = _number(
        1800.0,
        "Files timeout",
        "Seconds to wait, after the end of a run, for files that BrowserAct is still preparing. Default: 1800.",
    )

    @property
    def shown_url(self) -> str:
        """The address of the API for messages, unless its host may be an API key in the wrong field."""
        host = urlsplit(self.base_url).netloc
        return self.base_url if set(host) & set(".:") or host == "localhost" else "the API address"

    @property
    def longest_call(self) -> float:
        """Seconds that a call can take with all its tries, unless the response arrives byte by byte."""
        return self.retry_budget + self.connect_timeout + self.read_timeout

    def within(self, seconds: float | None) -> Self:
        """Return settings with which a call ends within some seconds; ``None`` changes nothing."""
        if seconds is None:
            return self
        # Together they are the limit. Opening a connection is quick, and a stop can take a while.
        quarter = seconds / 4
        limits = {"connect_timeout": quarter, "read_timeout": 2 * quarter, "retry_budget": quarter}
        return self.model_copy(update={**limits, "longest_pause": quarter})

    @property
    def key_digest(self) -> str:
        """A digest of the API key that may be stored. Connections with the same key have the same digest."""
        return hashlib.sha256(derived_key(self.api_key)).hexdigest()[:16]


EXTRA_FIELDS = {name: field for name, field in Settings.model_fields.items() if field.title}
"""The fields of the extra."""


@cache
def derived_key(api_key: str) -> bytes:
    """Derive from an API key what digests that are stored depend on.

    BrowserAct makes the keys at random, so nobody can try them all. It is still slow, in case a key is short.
    """
    return hashlib.pbkdf2_hmac("sha256", api_key.encode(), b"airflow-provider-browseract", 20_000)
