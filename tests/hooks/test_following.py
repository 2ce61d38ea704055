"""The two loops that do what a generator of steps says."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from typing import Any

import pytest

from airflow_provider_browseract.hooks.following import follow, follow_async

log: Any = logging.getLogger(__name__)


def unknown_step() -> Generator[Any, Any, None]:
    yield "stand on your head"


def test_unknown_step_is_an_error_in_the_worker():
    with pytest.raises(TypeError, match="nobody knows the step 'stand on your head'"):
        follow(unknown_step(), None, log)  # type: ignore[arg-type]


def test_unknown_step_is_an_error_in_the_triggerer():
    with pytest.raises(TypeError, match="nobody knows the step 'stand on your head'"):
        asyncio.run(follow_async(unknown_step(), None, log))  # type: ignore[arg-type]
