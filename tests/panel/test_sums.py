"""The sums of days that were read are made again only if they can have changed."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import pytest

from airflow_provider_browseract.panel import links, sums
from airflow_provider_browseract.panel.days import DAYS, Day, DayRun
from airflow_provider_browseract.panel.sums import SumsOfDays

TODAY = date(2026, 11, 27)
YESTERDAY, BEFORE = TODAY - timedelta(days=1), TODAY - timedelta(days=2)


@pytest.fixture
def asked(monkeypatch) -> list[date]:
    days: list[date] = []

    def links_on(day: date) -> dict[str, str]:
        days.append(day)
        return {"1": "prices"}

    monkeypatch.setattr(links, "links_on", links_on)
    return days


def read(*, second: int = 0, credit: int = 5) -> Day:
    as_of = datetime(2026, 11, 27, 12, 0, second, tzinfo=timezone.utc)
    return Day((DayRun("1", "71", credit, False, True),), as_of, False, True)


def of_today(credit: int) -> dict:
    return {TODAY: {("71", "prices"): (1, credit, 0)}}


def test_days_that_are_known_are_not_made_again_and_forgotten_when_they_are_too_old(asked, monkeypatch):
    kept, days = SumsOfDays(), {TODAY - timedelta(days=back): read() for back in range(DAYS)}
    first = kept.of("c", days, TODAY)
    assert first[TODAY] == of_today(5)[TODAY]
    monkeypatch.setattr(sums, "sums_of", lambda *_: 1 / 0)
    assert kept.of("c", days, TODAY) == first
    assert asked == list(days)
    kept.of("c", {}, TODAY + timedelta(days=DAYS))
    assert (kept._sums, kept._links) == ({}, {})


def test_day_that_was_read_again_is_made_again_and_other_connections_share_its_links(asked):
    kept = SumsOfDays()
    assert kept.of("c", {TODAY: read()}, TODAY) == of_today(5)
    assert kept.of("c", {TODAY: read(second=10, credit=7)}, TODAY) == of_today(7)
    assert kept.of("other", {TODAY: read(credit=8)}, TODAY) == of_today(8)
    assert kept.of("c", {TODAY: read()}, TODAY) == of_today(5)
    assert asked == [TODAY]


def test_links_of_yesterday_are_read_again_after_a_while(asked, monkeypatch):
    kept, days = SumsOfDays(), {YESTERDAY: read(), BEFORE: read()}
    kept.of("c", days, TODAY)
    monkeypatch.setattr(sums, "NEWEST_DAYS_AGE", 0.0)
    kept.of("c", days, TODAY)
    assert asked == [YESTERDAY, BEFORE, YESTERDAY]
