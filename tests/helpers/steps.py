"""Execute the steps of ``airflow_provider_browseract.runs`` with responses that a test defines."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Generator
from typing import Any, TypeVar

from pydantic import BaseModel

from airflow_provider_browseract.api.calls import Call

T = TypeVar("T")


def carry_out(steps: Generator[Any, Any, T], answer: Callable[[Any], object]) -> T:
    """Execute steps, and return their result or raise their exception. An answer that is an error is thrown in."""
    reply: object = None
    try:
        while True:
            reply = answer(steps.throw(reply) if isinstance(reply, Exception) else steps.send(reply))
    except StopIteration as stop:
        return stop.value


def read(call: Call[T], data: object) -> T:
    """Return the result of a call whose response has the status 200 and this JSON."""
    return call.read(200, json.dumps(data).encode(), {})


def replace(value: T, **changes: Any) -> T:
    """Return a dataclass or a model with other values of some fields."""
    if isinstance(value, BaseModel):
        return value.model_copy(update=changes)
    return dataclasses.replace(value, **changes)  # type: ignore[type-var]
