"""The state of a run that is stored before and after its start, so that every later try finds the run.

The stored state does not depend on the try number.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from airflow_provider_browseract.runs.request import Source
from airflow_provider_browseract.runs.stored import Count, Moment, Text, from_json, to_json

VERSION = 2
"""Version of the stored state. A newer version is refused, because this code may not understand it.

Version 1 had a fingerprint that did not depend on the API key, and no ``key_digest``.
"""


class LedgerError(Exception):
    """The stored state of an earlier run cannot be used. Nothing was started or stopped."""


class UnknownRunError(Exception):
    """BrowserAct does not know the run of an earlier try. It was not stopped, and nothing was started."""


@dataclass(frozen=True)
class Entry:
    """The stored state of a run.

    :param fingerprint: see :meth:`~airflow_provider_browseract.runs.request.RunRequest.fingerprint`; None if an older
        version of this provider has written the entry.
    :param written_at: when the entry was written, just before the start, in seconds since the epoch.
    :param deadline: when the run's time is over, in seconds since the epoch.
    :param task_id: the BrowserAct task; None until the response to the start has arrived.
    :param earlier: BrowserAct tasks of earlier runs for the same task instance.
    :param max_tries: the last try that Airflow starts by itself. Only clearing the task changes it. None if an older
        version has written the entry of a task instance that does not wait deferred.
    :param deferred: whether the task instance waits deferred.
    :param spent: credits that earlier runs have used, since the task was cleared for the last time.
    :param key_digest: digest of the API key that the fingerprint depends on. Fingerprints of two keys always differ.
    """

    source: Source
    fingerprint: Text | None
    written_at: Moment
    deadline: Moment
    task_id: Text | None = None
    profile_id: Text | None = None
    earlier: tuple[str, ...] = ()
    max_tries: int | None = None
    key_digest: Text | None = None
    deferred: bool = True
    spent: Count = 0

    def value(self) -> dict[str, Any]:
        """Return the entry as plain JSON values, none of them secret."""
        return {"version": VERSION, **to_json(self)}

    @classmethod
    def read(cls, value: Any) -> Entry:
        """Read an entry that :meth:`value` returned.

        :raises LedgerError: the value is something else, or a newer version of this provider has written it.
        """
        if not isinstance(value, Mapping):
            raise LedgerError(f"it is of type {type(value).__name__}")
        version = value.get("version")
        if type(version) is not int or not 1 <= version <= VERSION:
            shown = version if type(version) is int else type(version).__name__
            raise LedgerError(
                f"its version is {shown}, but this provider supports only versions up to {VERSION}{_named_run(value)}"
            )
        try:
            return from_json(cls, {**value, "fingerprint": None} if version == 1 else dict(value))
        except ValueError as error:
            raise LedgerError(f"it cannot be read ({error}){_named_run(value)}") from None


def _named_run(value: Mapping[Any, Any]) -> str:
    """Return the run that an unreadable entry names, and what to do about it, as the end of a sentence."""
    task_id = value.get("task_id")
    if not isinstance(task_id, str) or not re.fullmatch(r"[A-Za-z0-9_-]{1,64}", task_id):
        return ""
    return (
        f". It names BrowserAct task {task_id}: check in the BrowserAct dashboard whether that run is still running or "
        "has a result that you need"
    )
