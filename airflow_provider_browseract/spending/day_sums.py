"""Sums of credits of past days, in an Airflow Variable that all workers can read and write.

If the Variable cannot be read or written, the days are counted again. This sends more requests to BrowserAct, but never
changes a result. Two workers that write at the same time write the same sums.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, timedelta
from typing import Any

from airflow.sdk import Variable

from airflow_provider_browseract.in_airflow.tolerance import tolerate_errors
from airflow_provider_browseract.runs.log import Log

VERSION = 1

KEPT_FOR = timedelta(days=62)
"""How long sums are kept: for this month and the last one."""


def key_of(conn_id: str) -> str:
    """Return the key of the Variable for a connection."""
    return f"browseract_spend_{conn_id}"


def read_day_sums(conn_id: str, key_digest: str, log: Log) -> dict[date, int]:
    """Return the stored sums by day; an empty dict if there are none, or if they belong to another API key.

    :param key_digest: digest of the API key of the connection.
    """
    with tolerate_errors(log.warning, "The stored sums of credits could not be read, so they are counted again: %s"):
        stored = Variable.get(key_of(conn_id), default=None)
        return {} if stored is None else _read(json.loads(stored), key_digest)
    return {}


def write_day_sums(conn_id: str, key_digest: str, sums: Mapping[date, int], log: Log) -> None:
    """Store sums by day. They replace the stored ones."""
    oldest = max(sums) - KEPT_FOR
    days = {day.isoformat(): credits for day, credits in sorted(sums.items()) if day >= oldest}
    value = json.dumps({"version": VERSION, "key_digest": key_digest, "days": days})
    with tolerate_errors(log.warning, "The sums of credits could not be stored: %s"):
        Variable.set(key_of(conn_id), value, description="Credits that BrowserAct reported, by day (UTC)")


def _read(stored: Any, key_digest: str) -> dict[date, int]:
    """Read what :func:`write_day_sums` has stored.

    :raises ValueError: it is something else, because someone has edited it.
    """
    if not isinstance(stored, dict) or stored.get("version") != VERSION or not isinstance(stored.get("days"), dict):
        raise ValueError("it has another form")
    if stored.get("key_digest") != key_digest:
        return {}
    if not all(type(credits) is int and credits >= 0 for credits in stored["days"].values()):
        raise ValueError("a sum is not a whole number of credits")
    return {date.fromisoformat(day): credits for day, credits in stored["days"].items()}
