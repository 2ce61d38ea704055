from __future__ import annotations

import re
from datetime import date, timedelta
from xml.etree import ElementTree

from airflow_provider_browseract.panel.plot import ABOVE, HEIGHT, scale, stacked_bars

FIRST = date(2026, 10, 29)


def drawn(*days: tuple[int, ...], groups: tuple[str, ...] = ("Search", "Log in"), daily=None):
    dates = [FIRST + timedelta(days=number) for number in range(len(days))]
    parts = [
        (name, {day: credits[index] for day, credits in zip(dates, days, strict=True)})
        for index, name in enumerate(groups[: len(days[0])])
    ]
    return ElementTree.fromstring(stacked_bars(dates, parts, daily))


def texts(plot: ElementTree.Element, element: str) -> list[str]:
    return [each.text or "" for each in plot.iter(element)]


def test_axis_has_at_most_five_round_numbers_and_room_for_the_highest_bar():
    scales = {0: (1, 1), 1: (1, 1), 5: (1, 5), 6: (2, 3), 11: (5, 3), 26: (10, 3), 2000: (500, 4), 2001: (500, 5)}
    scales[2501] = (1000, 3)
    assert {highest: scale(highest) for highest in scales} == scales


def test_parts_of_a_bar_are_to_scale_with_their_numbers_and_on_top_of_each_other():
    plot = drawn((300, 100), (0, 50))
    of_29 = ["Oct 29, Search: 300 of 400 credits", "Oct 29, Log in: 100 of 400 credits"]
    assert texts(plot, "title") == [*of_29, "Oct 30, Log in: 50 of 50 credits"]
    places = [(float(each.attrib["y"]) - ABOVE, float(each.attrib["height"])) for each in plot.iter("rect")]
    assert places == [(HEIGHT * 0.25, HEIGHT * 0.75), (0, HEIGHT * 0.25), (HEIGHT * 0.875, HEIGHT * 0.125)]
    image = next(each for each in plot.iter("svg") if each.attrib.get("role") == "img")
    summary = "Credits of each day from Oct 29 to Oct 30: 450 in all, 400 at most, on Oct 29"
    assert image.attrib["aria-label"] == summary


def test_budget_is_a_line_with_its_number_unless_it_is_so_far_above_the_bars_that_these_would_be_low():
    plot = drawn((1990, 10), daily=2000)
    line = next(each for each in plot.iter("line") if each.attrib["class"] == "budget")
    assert float(line.attrib["y1"]) == ABOVE
    assert "Daily budget: 2,000" in texts(plot, "text")
    for budget in (None, 2000):
        plot = drawn((10, 0), daily=budget)
        assert b"udget" not in ElementTree.tostring(plot)
        assert float(next(plot.iter("rect")).attrib["height"]) == HEIGHT


def test_last_day_and_one_day_of_each_week_before_it_are_named():
    named = [text for text in texts(drawn(*[(1, 1)] * 30), "text") if re.match(r"\w+ \d+$", text)]
    assert named == ["Oct 30", "Nov 6", "Nov 13", "Nov 20", "Nov 27"]


def test_hostile_name_is_text():
    name = '</title><script>alert("1")</script>'
    assert texts(drawn((7,), groups=(name,)), "title") == [f"Oct 29, {name}: 7 of 7 credits"]
