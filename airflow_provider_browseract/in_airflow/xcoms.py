"""XComs of a task instance: check which values Airflow can store, and read them outside a worker."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_browseract.compat import sent_xcom, xcom, xcom_serde

ROWS_AT_ONCE = 1000
"""Items of a list that are serialized at a time, because serializing makes several copies of them."""


def why_unstorable(value: Any) -> str | None:
    """Return why Airflow cannot store a value as an XCom, or None if it can.

    Serialize the value as Airflow does before it sends an XCom to its supervisor, and read it back. The XCom backend is
    not used, because it would store the value.
    """
    try:
        serde = xcom_serde()
        if key := _reserved_key(value, serde):
            return f"it has the key {key}, which Airflow reserves"
        rows = value if isinstance(value, list) else ()
        parts = [rows[begin : begin + ROWS_AT_ONCE] for begin in range(0, len(rows), ROWS_AT_ONCE)] or [value]
        unchanged = all(_read_back(part, serde) == part for part in parts)
    except Exception as error:  # noqa: BLE001 - the caller then stores the text instead
        # The message of the error may quote the value.
        return f"Airflow refuses it ({type(error).__name__})"
    return None if unchanged else "Airflow reads it back as another value"


def _read_back(value: Any, serde: Any) -> object:
    return serde.deserialize(json.loads(json.dumps(sent_xcom(serde.serialize(value)))))


def _reserved_key(value: Any, serde: Any) -> str | None:
    """Return the key that makes Airflow read a dict as one of its serialized objects, or None.

    Reading back such a value would import a class and create an object, and a web page must not choose which one.
    """
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            for keys in ({serde.CLASSNAME}, {serde.SCHEMA_ID}, {serde.OLD_TYPE, serde.OLD_DATA}):
                if keys <= each.keys():
                    return str(min(keys))
            left.extend(each.values())
        elif isinstance(each, list):
            left.extend(each)
    return None


MAX_TRIES_XCOM = "max_tries"
"""XCom with the ``max_tries`` of the last try that has begun. A clear increases it, and a retry does not."""


def names_of(ti: Any) -> dict[str, Any]:
    """Return the arguments that identify the XComs of a task instance."""
    return {name: getattr(ti, name) for name in ("dag_id", "task_id", "run_id", "map_index")}


async def aget_xcom(ti: Any, key: str) -> Any:
    """Return an XCom of a task instance without blocking the event loop; None if there is none."""
    return await xcom().aget_one(key=key, **names_of(ti))
