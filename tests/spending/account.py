"""The lists of tasks of an account, without a server, and the other steps that a check of a budget yields."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta, timezone
from typing import Any

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.runs.request import Source
from airflow_provider_browseract.spending.budget import (
    Budget,
    LogLine,
    ReadDaySums,
    Verdict,
    WriteDaySums,
    check_budget,
)
from tests.steps import carry_out, read
from tests.worker.starts import SOURCE

NOON = datetime(2026, 11, 27, 12, tzinfo=timezone.utc)
"""The time at which the tests check a budget, unless they say otherwise."""

MIDNIGHT = NOON.replace(hour=0)


def listed(
    number: int,
    created_at: datetime = NOON - timedelta(hours=1),
    credit: int | None = 45,
    status: str = "finished",
    workflow_id: str | None = SOURCE.id,
) -> dict[str, Any]:
    """Return a run as the list has it."""
    return {
        "id": f"{number:03}",
        "status": status,
        "workflow_id": workflow_id,
        "created_at": created_at.isoformat(),
        "credit": credit,
    }


def days_ago(number: int, days: int, credit: int | None, **fields: Any) -> dict[str, Any]:
    return listed(number, NOON - timedelta(days=days), credit, **fields)


def listed_bot(number: int, *args: Any, bot_id: str | None = "82", **fields: Any) -> dict[str, Any]:
    """Return a run of a bot as the list of version 3 has it."""
    run = listed(number, *args, **fields)
    del run["workflow_id"]
    return {"task_id": run.pop("id"), **run, **({} if bot_id is None else {"bot_id": bot_id})}


class Account:
    """The runs of an account, and everything that a check yields.

    :param page_size: items that a page has at most, whatever is asked for.
    :param shared: whether each version of the API lists the runs of the other one too.
    :param fault: returns the error of a request, if it fails.
    """

    def __init__(
        self,
        *runs: dict[str, Any],
        now: datetime = NOON,
        page_size: int = 500,
        shared: bool = False,
        fault: Callable[[Call[Any]], Exception | None] = lambda call: None,
    ) -> None:
        self.runs = list(runs)
        self.now, self.page_size, self.shared, self.fault = now, page_size, shared, fault
        self.change: Callable[[dict[str, Any], int], dict[str, Any]] = lambda page, number: page
        """Changes a page, given its number."""
        self.stored: Mapping[date, int] = {}
        self.calls: list[Call[Any]] = []
        self.lines: list[str] = []

    def clock(self) -> float:
        return self.now.timestamp()

    def check(self, budget: Budget, source: Source = SOURCE, cap: int | None = None) -> tuple[Verdict, ...]:
        return carry_out(check_budget(budget, source, cap, self.clock), self)

    def __call__(self, step: Any) -> Any:
        match step:
            case Call():
                self.calls.append(step)
                return self.fault(step) or read(step, self._page(step.name == "page-runs", step.params))
            case ReadDaySums():
                return self.stored
            case WriteDaySums():
                self.stored = step.sums
            case LogLine():
                self.lines.append(step.text)
            case _:
                raise AssertionError(step)
        return None

    def _page(self, bots: bool, params: Mapping[str, Any]) -> dict[str, Any]:
        runs = [run for run in self.runs if self.shared or ("task_id" in run) is bots]
        listed = (run if ("task_id" in run) is bots else _by_the_other_version(run) for run in runs)
        found = [run for run in listed if _fits(run, params)]
        size, number = min(self.page_size, params["limit"]), params["page"]
        page = {"items": found[size * (number - 1) : size * number], "total_count": len(found)}
        return self.change(page, number)


def _by_the_other_version(run: dict[str, Any]) -> dict[str, Any]:
    names = {"task_id": "id", "bot_id": "workflow_id"}
    if "id" in run:
        names = {own: other for other, own in names.items()}
    return {names.get(name, name): value for name, value in run.items()}


def _fits(run: dict[str, Any], params: Mapping[str, Any]) -> bool:
    if any(params.get(name) not in (None, run.get(name)) for name in ("workflow_id", "bot_id")):
        return False
    if run.get("created_at") is None:
        return True
    created_at = datetime.fromisoformat(run["created_at"])
    begins, ends = (params.get(name) for name in ("created_at_from", "created_at_to"))
    # It is not documented whether the end is included.
    return (begins is None or _time(begins) <= created_at) and (ends is None or created_at <= _time(ends))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text.replace("Z", "+00:00"))
