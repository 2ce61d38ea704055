"""Carrying out the steps of ``airflow_provider_browseract.runs`` with answers that a test makes up."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeVar

T = TypeVar("T")


def carry_out(steps: Generator[Any, Any, T], answer: Callable[[Any], object]) -> T:
    """Carry out steps, and return what they come to; what they raise is raised.

    :param steps: what to do.
    :param answer: returns the answer to a step. An error is thrown in.
    """
    reply: object = None
    try:
        while True:
            reply = answer(steps.throw(reply) if isinstance(reply, Exception) else steps.send(reply))
    except StopIteration as stop:
        over: T = stop.value
        return over
