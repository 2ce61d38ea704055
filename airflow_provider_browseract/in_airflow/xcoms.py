"""XComs of a task instance: check which values Airflow can store, and read them outside a worker."""

from __future__ import annotations

from typing import Any

from airflow_provider_browseract.compat import xcom

RESERVED: tuple[set[str], ...] = ({"__classname__"}, {"__id__"}, {"__type", "__var"})
"""Keys with which Airflow reads a dict as one of its serialized objects."""


def why_unstorable(value: Any) -> str | None:
    """Return why Airflow cannot store a JSON value as an XCom, or None if it can.

    Reading back a dict with a reserved key would import a class and create an object, and a web page must not choose
    which one.
    """
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            for keys in RESERVED:
                if keys <= each.keys():
                    return f"it has the key {min(keys)}, which Airflow reserves"
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
