"""Parametrized tests whose cases have names, functions that fail, and how many examples Hypothesis tries."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any, NoReturn, TypeVar

import pytest
from hypothesis import settings

Test = TypeVar("Test", bound=Callable[..., Any])


def cases(*given: Any) -> Callable[[Test], Test]:
    """Run a test with each row: an id, and the values of the last arguments of the test.

    The rows can also be in a dict, by their ids. If they are for other arguments, the names of these come first.
    """

    def parametrized(test: Test) -> Test:
        if not isinstance(given[-1], dict):
            last = [*signature(test).parameters][1 - len(given[0]) :]
            return pytest.mark.parametrize(last, [pytest.param(*row, id=name) for name, *row in given])(test)
        *named, by_id = given
        row = next(iter(by_id.values()))
        number = len(row) if isinstance(row, tuple) else 1
        names = named[0] if named else ",".join([*signature(test).parameters][-number:])
        return pytest.mark.parametrize(names, by_id.values(), ids=by_id)(test)

    return parametrized


def raising(error: BaseException) -> Callable[..., NoReturn]:
    """Return a function that raises an error."""

    def fail(*_: object, **__: object) -> NoReturn:
        raise error

    return fail


def examples(number: int) -> int:
    """Return how many examples a test tries: this number, or as many times more as the profile of Hypothesis wants."""
    return number * settings().max_examples // 100
