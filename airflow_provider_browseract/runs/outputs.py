"""Reading what a run put out."""

from __future__ import annotations

import json
from typing import Any

from airflow_provider_browseract.api.models import Output


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
        # NaN and Infinity are Python's extension of JSON, which an XCom could not keep.
        return json.loads(text.removeprefix("\ufeff"), parse_constant=_refuse)
    except (ValueError, RecursionError):
        return text


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")
