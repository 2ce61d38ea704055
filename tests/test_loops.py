"""The loop that carries out steps in the triggerer."""

from __future__ import annotations

import asyncio
from collections.abc import Generator
from typing import Any

from airflow_provider_browseract.loops import run_steps_async
from airflow_provider_browseract.runs.steps import LogLine


def test_other_triggers_get_a_turn_between_any_two_log_lines():
    order: list[str] = []

    async def other_trigger() -> None:
        while True:
            order.append("other")
            await asyncio.sleep(0)

    class Log:
        def log(self, level: int, text: str, *args: Any) -> None:
            order.append("line")

    def lines() -> Generator[Any, Any, None]:
        for _ in range(5):
            yield LogLine("read")

    async def run() -> None:
        other = asyncio.ensure_future(other_trigger())
        await run_steps_async(lines(), None, Log())  # type: ignore[arg-type]
        other.cancel()

    asyncio.run(run())
    assert order == ["line", "other"] * 5
