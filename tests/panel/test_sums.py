"""The sums of days that were read are made again only if they can have changed."""

from __future__ import annotations

from datetime import date, datetime, timedelta, timezone

import pytest

from airflow_provider_browseract.panel import database, sums
from airflow_provider_browseract.panel.days import DAYS, Day, DayRun
from airflow_provider_browseract.panel.sums import SumsOfDays

TODAY = date(2026, 11, 27)
YESTERDAY, BEFORE = TODAY - timedelta(days=1), TODAY - timedelta(days=2)


@pytest.fixture
def asked(monkeypatch) -> list[date]:
    """The days whose links were read."""
    days: list[date] = []

    def links_on(day: date) -> dict[str, str]:
        days.append(day)
        return {"1": "prices"}

    monkeypatch.setattr(database, "links_on", links_on)
    return days


def read(*, second: int = 0, credit: int = 5) -> Day:
    as_of = datetime(2026, 11, 27, 12, 0, second, tzinfo=timezone.utc)
    return Day((DayRun("1", "71", credit, False, True),), as_of, False, True)


def test_days_that_are_known_are_not_made_again(asked, monkeypatch):
    kept, days = SumsOfDays(), {TODAY - timedelta(days=back): read() for back in range(DAYS)}
    first = kept.of("c", days, TODAY)
    assert first[TODAY] == {("71", "prices"): (1, 5, 0)}
    monkeypatch.setattr(sums, "sums_of", lambda *_: 1 / 0)
    assert kept.of("c", days, TODAY) == first
    assert asked == list(days)


def test_day_that_was_read_again_is_made_again_without_reading_its_links(asked):
    kept = SumsOfDays()
    kept.of("c", {TODAY: read()}, TODAY)
    again = kept.of("c", {TODAY: read(second=10, credit=7)}, TODAY)
    assert again[TODAY] == {("71", "prices"): (1, 7, 0)}
    assert asked == [TODAY]


def test_links_of_yesterday_are_read_again_after_a_while(asked, monkeypatch):
    kept, days = SumsOfDays(), {YESTERDAY: read(), BEFORE: read()}
    kept.of("c", days, TODAY)
    monkeypatch.setattr(sums, "NEWEST_DAYS_AGE", 0.0)
    kept.of("c", days, TODAY)
    assert asked == [YESTERDAY, BEFORE, YESTERDAY]


def test_connections_have_sums_of_their_own_and_share_links(asked):
    kept = SumsOfDays()
    kept.of("c", {TODAY: read()}, TODAY)
    assert kept.of("other", {TODAY: read(credit=8)}, TODAY) == {TODAY: {("71", "prices"): (1, 8, 0)}}
    assert kept.of("c", {TODAY: read()}, TODAY) == {TODAY: {("71", "prices"): (1, 5, 0)}}
    assert asked == [TODAY]


def test_days_that_are_too_old_are_forgotten(asked):
    kept = SumsOfDays()
    kept.of("c", {TODAY: read()}, TODAY)
    kept.of("c", {}, TODAY + timedelta(days=DAYS))
    assert not kept._sums
    assert not kept._links
