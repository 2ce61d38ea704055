"""What is written down of a run before and after its start, so that every later try finds it.

Nothing in it depends on the number of the try.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_browseract.runs.request import Source
from airflow_provider_browseract.runs.stored import Moment, Text, from_json, to_json

STATE_KEY = "browseract_run"
"""Key of the entry in Airflow's task state; the number of the try is not in it."""

VERSION = 1
"""Version of what is written down. A newer one is refused, because it may contain what is not understood here."""


class LedgerError(Exception):
    """What is written down of an earlier run cannot be used; nothing was started or stopped."""


@dataclass(frozen=True)
class Entry:
    """What is written down of a run.

    :param source: what is run.
    :param fingerprint: see :attr:`~airflow_provider_browseract.runs.request.RunRequest.fingerprint`.
    :param written_at: moment before the start, in seconds since the epoch.
    :param deadline: moment at which the run's time is over, in seconds since the epoch.
    :param callback_token_sha256: digest of the token in the run's callback address; None if it has none.
    :param task_id: the BrowserAct task; None until the response to the start is there.
    :param profile_id: its browser profile, if one is known.
    :param earlier: BrowserAct tasks of earlier runs for the same task instance.
    :param max_tries: up to which try Airflow retries by itself; None if the task instance does not wait deferred.
    """

    source: Source
    fingerprint: Text
    written_at: Moment
    deadline: Moment
    callback_token_sha256: Text | None = None
    task_id: Text | None = None
    profile_id: Text | None = None
    earlier: tuple[str, ...] = ()
    max_tries: int | None = None

    def value(self) -> dict[str, Any]:
        """Return it as plain JSON values, none of them secret."""
        return {"version": VERSION, **to_json(self)}

    @classmethod
    def read(cls, value: Any) -> Entry:
        """Read what :meth:`value` returned.

        :raises LedgerError: it is something else, or from a newer version of this provider.
        """
        if not isinstance(value, Mapping):
            raise LedgerError(f"it is of type {type(value).__name__}")
        version = value.get("version")
        if type(version) is not int or version > VERSION:
            raise LedgerError(f"its version is {version!r}, and this provider knows {VERSION}")
        try:
            return from_json(cls, dict(value))
        except ValueError as error:
            raise LedgerError(f"it cannot be read ({error})") from None
