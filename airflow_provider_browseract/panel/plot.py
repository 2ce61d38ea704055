"""The credits of each day as stacked bars, drawn as SVG.

Places along the axis of days are percentages and heights are pixels, so the plot is as wide as the page, and its texts
keep their size. Colors come from the style sheet.
"""

from __future__ import annotations

from datetime import date

from markupsafe import Markup

from airflow_provider_browseract.panel.credits import Bar, CreditsPage

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


def stacked_bars(page: CreditsPage) -> Markup:
    """Return the plot of the credits. Each part of a bar has a title with its numbers."""
    highest, budget = max((bar.total for bar in page.bars), default=0), page.today.budget
    # A line far above the bars would make them flat.
    line = budget if budget is not None and budget <= FARTHEST_BUDGET * highest else None
    step, steps = scale(max(highest, line or 0))
    ticks = [(number * step, _height(number, steps)) for number in range(steps + 1)]
    width = 100 / max(1, len(page.bars))
    drawn = [_LINE.format("grid", y) for _, y in ticks]
    for index, bar in enumerate(page.bars):
        drawn += _bar(bar, page.groups, index * width, width, step * steps)
        if (len(page.bars) - 1 - index) % NAMED == 0:
            # The name of the last day would not fit below the middle of its bar.
            last = bar is page.bars[-1]
            x = 100 if last else round((index + 0.5) * width, 2)
            drawn.append(_DAY.format("last" if last else "day", x, ABOVE + HEIGHT + 18, _name(bar.day)))
    if line is not None:
        y = _height(line, step * steps)
        drawn += [_LINE.format("budget", y), _BUDGET.format(y, line)]
    total = ABOVE + HEIGHT + BELOW
    axis = _SVG.format("axis", total, Markup('aria-hidden="true"'), _joined([_NUMBER.format(y, n) for n, y in ticks]))
    label = Markup('role="img" aria-label="{}"').format(_summary(page))
    return Markup('<div class="plot">{}{}</div>').format(axis, _SVG.format("bars", total, label, _joined(drawn)))


def scale(highest: int) -> tuple[int, int]:
    """Return the distance of the numbers on an axis (1, 2 or 5 times a power of 10), and how many of them it takes."""
    step = 1
    while step * 5 < highest:
        step = step * 5 // 2 if str(step).startswith("2") else step * 2
    return step, max(1, -(-highest // step))


def _bar(bar: Bar, groups: tuple[str, ...], start: float, width: float, top: int) -> list[Markup]:
    """Return the parts of a bar, from the bottom up."""
    x, width = round(start + width * 0.12, 2), round(width * 0.76, 2)
    parts, below = [], 0
    for index, (name, credits) in enumerate(zip(groups, bar.parts, strict=True)):
        if credits:
            y, foot = _height(below + credits, top), _height(below, top)
            below += credits
            title = f"{_name(bar.day)}, {name}: {credits:,} of {bar.total:,} credits"
            parts.append(_RECTANGLE.format(f"c{index}", x, y, width, round(foot - y, 1), title))
    return parts


def _height(credits: int, top: int) -> float:
    return round(ABOVE + HEIGHT * (1 - credits / top), 1)


def _name(day: date) -> str:
    return f"{day:%b} {day.day}"


def _summary(page: CreditsPage) -> str:
    """Return the plot in words, for those who cannot see it. The table below the plot has the numbers."""
    if not page.bars:
        return "No days to show"
    highest = max(page.bars, key=lambda bar: bar.total)
    return (
        f"Credits of each day from {_name(page.bars[0].day)} to {_name(page.bars[-1].day)}: {page.total:,} in all, "
        f"{highest.total:,} at most, on {_name(highest.day)}"
    )


def _joined(parts: list[Markup]) -> Markup:
    return Markup().join(parts)
