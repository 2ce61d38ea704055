"""Callback addresses: what they contain, how they are created, and which of the API's two fields contains them.

An address contains the task instance that waits, and a token that is sent only to BrowserAct. The trigger's arguments
and the XCom :data:`WAIT_XCOM` contain only the SHA-256 of the token.
"""

from __future__ import annotations

import base64
import json
import re
import secrets
from typing import Any, NamedTuple

from airflow_provider_browseract.api.models import Word
from airflow_provider_browseract.exceptions import InputError, NoCallbackError
from airflow_provider_browseract.runs.addresses import URL_LENGTH, check_callback_url
from airflow_provider_browseract.runs.routes import CALLBACK_PATH, URL_PREFIX
from airflow_provider_browseract.runs.waiting import Wait, WokenBy

UNKNOWN_RESPONSE = b'{"outcome":"unknown"}'
"""The response of the route to an unknown token. Other paths of our application respond with something else."""

TOKEN_BYTES = 32

WAIT_XCOM = "wait"
"""XCom that describes how a task instance waits and what ended the wait. Its value is a dict."""

TOKEN_KEY = "callback_token_sha256"
"""Field of the wait that a trigger stores, and key in :data:`WAIT_XCOM`, with the digest of the token.

The callback route reads the field while a trigger waits, and the XCom before and after that.
"""

CHECK_VARIABLE = "browseract_check_"
"""Prefix of the keys of the Variables by which an Airflow recognizes the callback of the command ``check``. The key
ends with the run id of :meth:`TaskInstanceKey.of_check`, and the value is the digest of the token."""

AIRFLOW_ID_LENGTH = 250
"""Characters that Airflow's database columns allow for the ids of DAG, run and task."""

_TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
_UNSTORABLE = re.compile("[\0\ud800-\udfff\U00010000-\U0010ffff]")


class CallbackOutcome(Word):
    """The outcome of a callback."""

    RESUMED = "resumed"
    """The task was waiting, and was resumed."""

    ALREADY_RESUMED = "already resumed"
    """An earlier callback had resumed the task."""

    TOO_EARLY = "too early"
    """The task has not deferred yet, or has just deferred. Its trigger will poll the run."""

    NOT_WAITING = "not waiting"
    """The task continued without this callback, or is over."""

    IGNORED = "ignored"
    """Several callbacks for this wait came before the end of the run, so no further one resumes the task."""

    RUN_ACTIVE = "run active"
    """The callback reported a change that is not the end of the run."""

    CHECKED = "checked"
    """The command ``check`` of this Airflow has sent the callback."""

    UNKNOWN = "unknown"
    """There is no such task instance, or it does not wait for this token."""


class TaskInstanceKey(NamedTuple):
    """The task instance that a callback is for, whichever of its tries waits.

    :param map_index: index of a mapped task, -1 otherwise.
    """

    dag_id: str
    run_id: str
    task_id: str
    map_index: int

    @classmethod
    def of_check(cls, name: str) -> TaskInstanceKey:
        """Return the key of a callback that only tests an address. No task instance can have it.

        :param name: end of the key of the Variable; "" if there is none.
        """
        return cls("", name, "", -1)

    @property
    def is_check(self) -> bool:
        """Whether :meth:`of_check` returned the key."""
        return self == self.of_check(self.run_id)

    @property
    def fits(self) -> bool:
        """Whether every database of Airflow can look it up without an error."""
        ids = self.dag_id, self.run_id, self.task_id
        # MySQL's older character set ends at U+FFFF. NUL and lone surrogates are errors in PostgreSQL.
        writable = all(len(each) <= AIRFLOW_ID_LENGTH and not _UNSTORABLE.search(each) for each in ids)
        return writable and -1 <= self.map_index < 2**31

    def encode(self) -> str:
        """Return the key as one segment of a path, whatever characters the ids contain."""
        text = json.dumps(self, ensure_ascii=False, separators=(",", ":"))
        return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")

    @classmethod
    def decode(cls, part: str) -> TaskInstanceKey:
        """Read a segment that :meth:`encode` returned.

        :raises ValueError: it is something else.
        """
        try:
            fields = json.loads(base64.b64decode(part + "=" * (-len(part) % 4), altchars=b"-_", validate=True))
        except RecursionError:
            raise ValueError("it is nested") from None
        if not isinstance(fields, list) or [type(field) for field in fields] != [str, str, str, int]:
            raise ValueError("it is not a list of three ids and an index")
        key = cls(*fields)
        # A segment with another spelling was not created by encode.
        if not key.fits or key.encode() != part:
            raise ValueError("it does not name a task instance")
        return key


def new_token() -> str:
    """Return a token that cannot be guessed: 256 bits in 43 characters."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def is_token(text: str) -> bool:
    """Return whether a text has the form of a token."""
    return _TOKEN.fullmatch(text) is not None


def resumed_wait(wait: Wait) -> dict[str, Any]:
    """Return the value of :data:`WAIT_XCOM` for a wait that a callback has ended."""
    return {
        "woken_by": WokenBy.CALLBACK.value,
        "first_poll_at": wait.first_poll_at,
        TOKEN_KEY: wait.callback_token_sha256,
    }


def is_resumed_wait(wait: Any, first_poll_at: float) -> bool:
    """Return whether a callback has ended a certain wait of a task instance.

    A task instance can wait several times, and each wait has its own trigger.

    :param wait: value of the XCom :data:`WAIT_XCOM`, or None if there is none.
    :param first_poll_at: moment of the first poll of that wait. It identifies the wait, because Airflow reuses the ids
        of triggers.
    """
    if not isinstance(wait, dict) or wait.get("woken_by") != WokenBy.CALLBACK.value:
        return False
    found = wait.get("first_poll_at")
    # Databases may store the number with fewer digits.
    return isinstance(found, (int, float)) and abs(found - first_poll_at) < 0.001


def route(base_url: str, key: TaskInstanceKey, token: str) -> str:
    """Return the address of a callback, unchecked."""
    return f"{base_url.rstrip('/')}{URL_PREFIX}{CALLBACK_PATH}/{key.encode()}/{token}"


def address(base_url: str, key: TaskInstanceKey, token: str, *, conn_id: str, api_base_url: str) -> str:
    """Return the address for the callback of a run, after the checks that BrowserAct makes too.

    :param base_url: public address of the Airflow API server, with the path of ``[api] base_url``.
    :param conn_id: id of the connection that has the base URL, for the messages.
    :param api_base_url: address of the BrowserAct API. If it is private, the base URL may be private too.
    :raises InputError: BrowserAct would not accept the base URL.
    :raises NoCallbackError: the names of the task instance do not fit into an address.
    """
    if not key.fits:
        raise NoCallbackError("The names of DAG, run or task have characters that do not fit into a callback address")
    named = f"webhook_base_url of connection {conn_id!r}"
    check_callback_url(named, base_url, api_base_url=api_base_url)
    if "?" in base_url or "#" in base_url or "@" in base_url:
        raise InputError(f"{named} has a query, a fragment or a login. Set it to only scheme, host and path.")
    if f"{URL_PREFIX}{CALLBACK_PATH}/" in f"{base_url}/":
        raise InputError(
            f"{named} contains the path of the callback route. Remove {URL_PREFIX}{CALLBACK_PATH} and what follows it."
        )
    url = route(base_url, key, token)
    if len(url) > URL_LENGTH:
        raise NoCallbackError(
            f"The callback address, which contains {named} and the names of DAG, run and task, has {len(url)} "
            f"characters, and BrowserAct accepts at most {URL_LENGTH}"
        )
    return url
