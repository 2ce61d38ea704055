"""How the triggers are stored: as a class path, and as those attributes that are arguments too."""

from __future__ import annotations

from dataclasses import is_dataclass
from typing import Any

from airflow_provider_browseract.runs.stored import to_json


def serialized(trigger: object, *arguments: str) -> tuple[str, dict[str, Any]]:
    """Return what ``serialize`` of a trigger returns: plain JSON values, none of them secret.

    :param trigger: the trigger.
    :param arguments: the names of its arguments, which are also its attributes.
    """
    values = {name: getattr(trigger, name) for name in arguments}
    stored = {name: to_json(value) if is_dataclass(value) else value for name, value in values.items()}
    return f"{type(trigger).__module__}.{type(trigger).__qualname__}", stored
