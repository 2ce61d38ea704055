from __future__ import annotations

import re
from datetime import date, timedelta
from xml.etree import ElementTree

import pytest

from airflow_provider_browseract.panel.plot import ABOVE, HEIGHT, scale, stacked_bars
from airflow_provider_browseract.panel.views import Bar, BudgetShare, CreditsPage

FIRST = date(2026, 10, 29)


def page(
    *days: tuple[int, ...], groups: tuple[str, ...] = ("Search", "Log in"), daily: int | None = None
) -> CreditsPage:
    bars = tuple(Bar(FIRST + timedelta(days=number), parts) for number, parts in enumerate(days))
    return CreditsPage((), groups, bars, BudgetShare(0, daily), None, ())


def drawn(shown: CreditsPage) -> ElementTree.Element:
    return ElementTree.fromstring(stacked_bars(shown))


def titles(plot: ElementTree.Element) -> list[str | None]:
    return [title.text for title in plot.iter("title")]


def heights(plot: ElementTree.Element) -> list[float]:
    return [float(rectangle.attrib["height"]) for rectangle in plot.iter("rect")]


@pytest.mark.parametrize(
    ("highest", "step", "steps"),
    [
        (0, 1, 1),
        (1, 1, 1),
        (5, 1, 5),
        (6, 2, 3),
        (11, 5, 3),
        (26, 10, 3),
        (2000, 500, 4),
        (2001, 500, 5),
        (2501, 1000, 3),
    ],
)
def test_axis_has_at_most_five_round_numbers_and_room_for_the_highest_bar(highest: int, step: int, steps: int) -> None:
    assert scale(highest) == (step, steps)


def test_each_part_of_a_bar_has_its_numbers_and_a_height_to_scale() -> None:
    plot = drawn(page((300, 100), (0, 50)))

    assert titles(plot) == [
        "Oct 29, Search: 300 of 400 credits",
        "Oct 29, Log in: 100 of 400 credits",
        "Oct 30, Log in: 50 of 50 credits",
    ]
    assert heights(plot) == [HEIGHT * 0.75, HEIGHT * 0.25, HEIGHT * 0.125]


def test_parts_of_a_bar_lie_on_top_of_each_other() -> None:
    lower, upper = drawn(page((300, 100))).iter("rect")

    assert float(upper.attrib["y"]) == ABOVE
    assert float(upper.attrib["y"]) + float(upper.attrib["height"]) == float(lower.attrib["y"])
    assert float(lower.attrib["y"]) + float(lower.attrib["height"]) == ABOVE + HEIGHT


def test_budget_is_a_line_with_its_number_and_within_the_plot() -> None:
    plot = drawn(page((10, 0), daily=2000))

    line = next(each for each in plot.iter("line") if each.attrib["class"] == "budget")
    assert float(line.attrib["y1"]) == ABOVE
    assert "Daily budget: 2,000" in [text.text for text in plot.iter("text")]


def test_plot_without_a_budget_has_no_line_for_it() -> None:
    assert "udget" not in stacked_bars(page((10, 0)))


def test_days_that_were_not_read_are_marked_as_such() -> None:
    shown = page((1, 2))
    shown = CreditsPage((), shown.groups, (Bar(FIRST, (0, 0), loaded=False),), BudgetShare(0), None, ())

    assert titles(drawn(shown)) == ["Oct 29: not read yet"]


def test_plot_is_summed_up_for_those_who_cannot_see_it() -> None:
    image = next(each for each in drawn(page((300, 100), (0, 50))).iter("svg") if "role" in each.attrib)

    assert image.attrib["role"] == "img"
    assert image.attrib["aria-label"] == (
        "Credits of each day from Oct 29 to Oct 30: 450 in all, 400 at most, on Oct 29"
    )


def test_last_day_and_one_day_of_each_week_before_it_are_named() -> None:
    texts = [text.text for text in drawn(page(*[(1, 1)] * 30)).iter("text") if re.match(r"\w+ \d+$", text.text or "")]

    assert texts == ["Oct 30", "Nov 6", "Nov 13", "Nov 20", "Nov 27"]


@pytest.mark.parametrize("days", [(), ((0, 0),)], ids=["no days", "no credits"])
def test_plot_without_credits_has_no_bars(days: tuple[tuple[int, ...], ...]) -> None:
    assert list(drawn(page(*days)).iter("rect")) == []


def test_names_of_groups_are_escaped() -> None:
    name = '</title><script>alert("1")</script>'

    assert titles(drawn(page((7,), groups=(name,)))) == [f"Oct 29, {name}: 7 of 7 credits"]
