"""Reading what a run put out."""

from __future__ import annotations

import json
import math
from typing import Any

from airflow_provider_browseract.api.models import Output

AIRFLOW_KEYS = frozenset({"__classname__", "__version__", "__data__", "__type", "__var"})
"""Keys by which Airflow recognises objects that it serialised itself."""


def read_output(output: Output | None) -> Any:
    """Turn a task's output into the value that an Airflow task returns.

    :param output: the output as the API sent it.
    :returns: JSON text as the value it describes, other text as it is, ``None`` for an empty output. Where there are
        files, a dict with that value under ``output`` and the files' addresses under ``files``.
    """
    if output is None:
        return None
    value = _read_text(output.string)
    return {"output": value, "files": list(output.files)} if output.files else value


def _read_text(text: str | None) -> Any:
    if not text:
        return None
    try:
        value = json.loads(text.removeprefix("\ufeff"))
        if _fits_an_xcom(value):
            return value
    except (ValueError, RecursionError):
        pass
    # A lone surrogate, which JSON can write, could not be stored.
    return text.encode("utf-8", "replace").decode("utf-8")


def _fits_an_xcom(value: Any) -> bool:
    """Say whether Airflow can keep a value as it is; else the text is, so that no paid result is lost."""
    if isinstance(value, dict):
        return not AIRFLOW_KEYS & value.keys() and all(map(_fits_an_xcom, (*value.keys(), *value.values())))
    if isinstance(value, list):
        return all(map(_fits_an_xcom, value))
    if isinstance(value, str):
        return value.isascii() or not any("\ud800" <= char <= "\udfff" for char in value)
    if isinstance(value, int):
        return -(2**63) <= value < 2**63
    return not isinstance(value, float) or math.isfinite(value)
