"""The two loops that carry out steps."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Generator
from typing import Any

import pytest

from airflow_provider_browseract.hooks.steps import run_steps, run_steps_async

log: Any = logging.getLogger(__name__)


def unknown_step() -> Generator[Any, Any, None]:
    yield "stand on your head"


def test_unknown_step_is_an_error_in_the_worker():
    with pytest.raises(TypeError, match="unknown step 'stand on your head'"):
        run_steps(unknown_step(), None, log)  # type: ignore[arg-type]


def test_unknown_step_is_an_error_in_the_triggerer():
    with pytest.raises(TypeError, match="unknown step 'stand on your head'"):
        asyncio.run(run_steps_async(unknown_step(), None, log))  # type: ignore[arg-type]
