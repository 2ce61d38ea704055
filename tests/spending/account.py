"""The lists of tasks of an account, and its Airflow Variable, without servers."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from datetime import date, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any
from unittest import mock

from airflow_provider_browseract.api.calls import Call
from airflow_provider_browseract.runs.request import Source
from airflow_provider_browseract.spending import day_sums
from airflow_provider_browseract.spending.budget import Budget, Verdict
from airflow_provider_browseract.worker.budget import refusal_of, verdicts_of
from tests.helpers.steps import read
from tests.worker.starts import KEY_DIGEST, SOURCE

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
    """The runs of an account, the client that lists them, and the Variable with sums of past days.

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
        self.variable: str | None = None
        self.calls: list[Call[Any]] = []

    def check(self, budget: Budget, source: Source = SOURCE, cap: int | None = None) -> list[Verdict]:
        return self._checked(verdicts_of, budget, cap, source)

    def refusal(self, budget: Budget, source: Source = SOURCE, cap: int | None = None) -> Verdict | None:
        return self._checked(refusal_of, budget, cap, SimpleNamespace(source=source))

    def _checked(self, function: Callable[..., Any], *arguments: Any) -> Any:
        hook = SimpleNamespace(client=self, settings=SimpleNamespace(key_digest=KEY_DIGEST))
        run = SimpleNamespace(hook=hook, log=logging.getLogger(__name__))
        with mock.patch.object(day_sums, "Variable", self), mock.patch("time.time", self.now.timestamp):
            return function(run, *arguments)

    def send(self, call: Call[Any]) -> Any:
        self.calls.append(call)
        if (error := self.fault(call)) is not None:
            raise error
        return read(call, self._page(call.name == "page-runs", call.params))

    def get(self, key: str, default: None) -> str | None:
        return self.variable

    def set(self, key: str, value: str, description: str) -> None:
        self.variable = value

    @property
    def stored(self) -> dict[date, int]:
        """The sums in the Variable."""
        days: dict[str, int] = json.loads(self.variable or '{"days": {}}')["days"]
        return {date.fromisoformat(day): credits for day, credits in days.items()}

    @stored.setter
    def stored(self, sums: Mapping[date, int]) -> None:
        days = {str(day): credits for day, credits in sums.items()}
        self.variable = json.dumps({"key_digest": KEY_DIGEST, "days": days})

    def _page(self, bots: bool, params: Mapping[str, Any]) -> dict[str, Any]:
        runs = [run for run in self.runs if self.shared or ("task_id" in run) is bots]
        listed = (run if ("task_id" in run) is bots else _by_the_other_version(run) for run in runs)
        found = [run for run in listed if _fits(run, params)]
        size, number = min(self.page_size, params["limit"]), params["page"]
        return {"items": found[size * (number - 1) : size * number], "total_count": len(found)}


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
