"""Execute the steps of ``airflow_provider_browseract.runs`` with responses that a test defines."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T")


def carry_out(steps: Generator[Any, Any, T], answer: Callable[[Any], object]) -> T:
    """Execute steps, and return their result or raise their exception.

    :param steps: the steps.
    :param answer: returns the answer to a step. An error is thrown in.
    """
    reply: object = None
    try:
        while True:
            reply = answer(steps.throw(reply) if isinstance(reply, Exception) else steps.send(reply))
    except StopIteration as stop:
        over: T = stop.value
        return over
