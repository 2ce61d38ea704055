"""The credits of each day as stacked bars, drawn as SVG.

Places along the axis of days are percentages and heights are pixels, so the plot is as wide as the page, and its texts
keep their size. Colors come from the style sheet.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import TypeAlias

from markupsafe import Markup

ABOVE, HEIGHT, BELOW = 20, 200, 26
"""Pixels above the highest bar, of the bars, and below them for the names of the days."""

NAMED = 7
"""Every which day is named, counted from the last one. Narrow pages have no room for more."""

FARTHEST_BUDGET = 2
"""The line of the budget is drawn up to so many times the highest bar."""

_SVG = Markup('<svg class="{}" height="{}" {}>{}</svg>')
_RECTANGLE = Markup('<rect class="{}" x="{}%" y="{}" width="{}%" height="{}"><title>{}</title></rect>')
_NUMBER = Markup('<text x="100%" y="{}" dx="-8" dy="4">{:,}</text>')
_LINE = Markup('<line class="{0}" x1="0" x2="100%" y1="{1}" y2="{1}"/>')
_DAY = Markup('<text class="{}" x="{}%" y="{}">{}</text>')
_BUDGET = Markup('<text class="budget" x="0" y="{}" dx="4" dy="-6">Daily budget: {:,}</text>')


Part: TypeAlias = "tuple[str, Mapping[date, int]]"
"""What something is called, and its credits of each day."""


def stacked_bars(days: Sequence[date], parts: Sequence[Part], budget: int | None) -> Markup:
    """Return the plot of the credits. Each part of a bar has a title with its numbers.

    :param days: the days in order.
    :param parts: the parts of each bar, from the bottom up. The style sheet has a color for each.
    :param budget: the daily budget; None if there is none.
    """
    totals = {day: sum(credits[day] for _, credits in parts) for day in days}
    highest = max(totals.values())
    # A line far above the bars would make them flat.
    line = budget if budget is not None and budget <= FARTHEST_BUDGET * highest else None
    step, steps = scale(max(highest, line or 0))
    ticks = [(number * step, _height(number, steps)) for number in range(steps + 1)]
    width = 100 / len(days)
    drawn = [_LINE.format("grid", y) for _, y in ticks]
    for index, day in enumerate(days):
        drawn += _bar(day, parts, index * width, width, step * steps)
        if (len(days) - 1 - index) % NAMED == 0:
            # The name of the last day would not fit below the middle of its bar.
            last = day == days[-1]
            x = 100 if last else round((index + 0.5) * width, 2)
            drawn.append(_DAY.format("last" if last else "day", x, ABOVE + HEIGHT + 18, _name(day)))
    if line is not None:
        y = _height(line, step * steps)
        drawn += [_LINE.format("budget", y), _BUDGET.format(y, line)]
    # In words, for those who cannot see the plot. The table below it has the numbers.
    summary = (
        f"Credits of each day from {_name(days[0])} to {_name(days[-1])}: {sum(totals.values()):,} in all, "
        f"{highest:,} at most, on {_name(max(days, key=totals.__getitem__))}"
    )
    height = ABOVE + HEIGHT + BELOW
    numbers = Markup().join(_NUMBER.format(y, number) for number, y in ticks)
    axis = _SVG.format("axis", height, Markup('aria-hidden="true"'), numbers)
    label = Markup('role="img" aria-label="{}"').format(summary)
    return Markup('<div class="plot">{}{}</div>').format(axis, _SVG.format("bars", height, label, Markup().join(drawn)))


def scale(highest: int) -> tuple[int, int]:
    """Return the distance of the numbers on an axis (1, 2 or 5 times a power of 10), and how many of them it takes."""
    step = 1
    while step * 5 < highest:
        step = step * 5 // 2 if str(step).startswith("2") else step * 2
    return step, max(1, -(-highest // step))


def _bar(day: date, parts: Sequence[Part], start: float, width: float, top: int) -> Iterator[Markup]:
    """Yield the parts of a bar, from the bottom up."""
    x, width, total = round(start + width * 0.12, 2), round(width * 0.76, 2), 0
    of_day = sum(credits[day] for _, credits in parts)
    for color, (name, credits) in enumerate(parts):
        if credits[day]:
            foot, total = _height(total, top), total + credits[day]
            y = _height(total, top)
            title = f"{_name(day)}, {name}: {credits[day]:,} of {of_day:,} credits"
            yield _RECTANGLE.format(f"c{color}", x, y, width, round(foot - y, 1), title)


def _height(credits: int, top: int) -> float:
    return round(ABOVE + HEIGHT * (1 - credits / top), 1)


def _name(day: date) -> str:
    return f"{day:%b} {day.day}"
