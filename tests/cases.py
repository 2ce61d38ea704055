"""Parametrized tests whose cases have names, functions that fail, and how many examples Hypothesis tries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NoReturn

import pytest
from hypothesis import settings


def cases(names: str | tuple[str, ...], by_id: Mapping[str, Any]) -> pytest.MarkDecorator:
    """Run a test with each of the cases, by their ids."""
    return pytest.mark.parametrize(names, by_id.values(), ids=by_id)


def raising(error: BaseException) -> Callable[..., NoReturn]:
    """Return a function that raises an error."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


def examples(number: int) -> int:
    """Return how many examples a test tries: this number, or as many times more as the profile of Hypothesis wants."""
    return number * settings().max_examples // 100
