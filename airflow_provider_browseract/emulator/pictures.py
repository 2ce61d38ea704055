"""The browser of a run, drawn as SVG. The goal of a step decides which page of an invented shop the browser shows.

Inputs and outputs can be secret, so a picture depends on the workflow and the step alone.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from html import escape

from airflow_provider_browseract.emulator.workflow import EmulatedWorkflow

INK, GREY, LINE, PAPER, WHITE = "#1f2937", "#5b6675", "#dbe2ea", "#f5f7fa", "#ffffff"
BRAND, PALE, SUN, NIGHT = "#0f766e", "#ccebe6", "#f2a541", "#1b2a4a"
BLUE, GREEN, RED = "#2563eb", "#15803d", "#c81e1e"
PASTELS = (("#fde8d0", "#d9822b"), ("#dbe7fd", "#4068c8"), ("#dcf1e3", "#2f8f5b"), ("#f3e0f2", "#a2549c"))
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"

PRODUCTS = (
    "M-32-24h40v8h8q14 0 14 16t-14 16h-9q-3 10-13 10h-12q-14 0-14-14zM8-8v16h6q8 0 8-8t-8-8z",
    "M-23-32h36q10 0 10 10v54h-36q-10 0-10-10v-46q0-8 6-8zM-13-18v8h26v-8z",
    "M-14-35h28l16 36h-26v26h16v8h-40v-8h16v-26h-26z",
    "M-20 3h40l-6 32h-28zM-3-1v-8q-22-2-24-22q22-2 25 14q4-20 26-18q-2 26-21 26v8z",
)
"""A mug, a book, a lamp and a plant, around the origin."""

GLASS = "M-2-9a8 8 0 1 0 .1 0M5 6l8 8"
BAG = "M-11-6h22l-3 17h-16zM-5-6q0-8 5-8t5 8"
PERSON = "M-14 14q0-14 14-14t14 14zM0-18a8 8 0 1 0 .1 0z"
ROUND = "M11-4a12 12 0 1 0 0 9M12-13v9h-9"


@dataclass(frozen=True)
class Step:
    """What a picture shows: a step, the title of its page, and the number of the page in a list of results."""

    number: int
    goal: str
    status: str
    title: str
    page: int

    @property
    def color(self) -> str:
        """The color of its status."""
        return {"succeed": GREEN, "failed": RED}.get(self.status, BLUE)


def draw(workflow: EmulatedWorkflow, number: int, goal: str, status: str) -> str:
    """Return the drawn screenshot of a step, as an SVG document of 1280 by 800.

    :param number: the number of the step, from 1
    :param status: ``running``, ``succeed`` or ``failed``
    """
    # XML allows no control characters, not even escaped ones.
    goal = "".join(char if char.isprintable() else " " for char in goal[:200])
    address, title, content = _choose(goal, workflow.name)
    if title == "Your account" and status == "failed":
        address, title, content = "/login", "Log in", _log_in
    page = 1 if workflow.step_every is None else 1 + number // len(workflow.steps)
    step = Step(number, goal, status, title, page)
    if content is _results and page > 1:
        address += f"?page={page}"
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 1280 800" width="1280" height="800" role="img" '
        f'font-family="{FONT}"><title>{escape(f"Step {number}: {goal}")}</title>'
        f'<svg y="120" width="1280" height="570">{_rect(0, 0, 1280, 570, PAPER)}{content(step)}</svg>'
        f"{_window(step, address)}{_caption(step)}</svg>\n"
    )


def _choose(goal: str, name: str) -> tuple[str, str, Callable[[Step], str]]:
    """Return address, title and content of the page that fits the goal of a step, or the name of its workflow."""
    for text in (goal, name):
        for pattern, address, title, content in PAGES:
            if re.search(pattern, text, re.IGNORECASE):
                return address, title, content
    return "/stories", "Stories", _story


def _rect(x: float, y: float, width: float, height: float, fill: str, radius: float = 0, line: str = "none") -> str:
    shape = f'x="{x}" y="{y}" width="{width}" height="{height}" rx="{radius}"'
    return f'<rect {shape} fill="{fill}" stroke="{line}" stroke-width="2"/>'


def _bar(x: float, y: float, width: float, height: float = 14, fill: str = LINE) -> str:
    """Return a bar that stands for a text."""
    return _rect(x, y, width, height, fill, height / 2)


def _circle(x: float, y: float, radius: float, fill: str) -> str:
    return f'<circle cx="{x}" cy="{y}" r="{radius}" fill="{fill}"/>'


def _text(x: float, y: float, size: float, text: str, fill: str = INK, weight: int = 400, at: str = "start") -> str:
    style = f'font-size="{size}" font-weight="{weight}" fill="{fill}" text-anchor="{at}"'
    return f'<text x="{x}" y="{y}" {style}>{escape(text)}</text>'


def _shape(x: float, y: float, path: str, fill: str, scale: float = 1) -> str:
    return f'<path transform="translate({x} {y}) scale({scale:.2f})" d="{path}" fill="{fill}" fill-rule="evenodd"/>'


def _lines(x: float, y: float, path: str, color: str, width: float = 5) -> str:
    style = f'fill="none" stroke="{color}" stroke-width="{width}" stroke-linecap="round" stroke-linejoin="round"'
    return f'<path transform="translate({x} {y})" d="{path}" {style}/>'


def _mark(x: float, y: float, status: str, color: str) -> str:
    """Return a tick, a cross, or three dots while the step is running."""
    paths = {"succeed": "M-12 1l8 8l16-17", "failed": "M-10-10l20 20m0-20l-20 20"}
    return _lines(x, y, paths.get(status, "M-15 0h0m15 0h0m15 0h0"), color, 7)


def _window(step: Step, address: str) -> str:
    buttons = (_circle(34 + 28 * n, 26, 8, color) for n, color in enumerate(("#e5685e", "#e9b64c", "#62b56f")))
    return (
        f"{_rect(0, 0, 1280, 52, LINE)}{''.join(buttons)}"
        f"{_shape(130, 10, 'M0 42q12 0 12-12v-18q0-12 12-12h330q12 0 12 12v18q0 12 12 12z', WHITE)}"
        f"{_rect(164, 20, 22, 22, BRAND, 6)}{_text(198, 40, 25, step.title, weight=500)}"
        f"{_lines(468, 31, 'M-7-7l14 14m0-14l-14 14', GREY, 3)}"
        f"{_rect(0, 53, 1280, 66, WHITE)}{_rect(0, 118, 1280, 2, LINE)}"
        f"{_lines(40, 86, 'M7-11l-11 11l11 11', GREY)}{_lines(88, 86, 'M-5-11l11 11l-11 11', LINE)}"
        f"{_lines(136, 86, ROUND, GREY, 4)}{_rect(172, 62, 1068, 48, PAPER, 24)}{_rect(196, 83, 20, 16, GREY, 3)}"
        f"{_lines(206, 83, 'M-6 0v-4a6 6 0 0 1 12 0v4', GREY, 4)}{_text(232, 96, 28, 'shop.example' + address)}"
        + (_rect(0, 116, 700, 5, BLUE) if step.status == "running" else "")
    )


def _caption(step: Step) -> str:
    """Return number, goal and status below the page, and a frame around a page that failed."""
    failed = step.status == "failed"
    back, sign, tick = (RED, WHITE, RED) if failed else (NIGHT, step.color, WHITE)
    # Chinese characters, for example, are twice as wide.
    room = 25 if max(step.goal, default="") > "\u2e80" else 50
    lines = textwrap.wrap(step.goal, room, max_lines=2, placeholder=" …")
    size, left = 40 if len(step.goal) <= 0.84 * room else 34, 90 + 26 * len(str(step.number))
    goal = (_text(0, (48, 90)[n] if len(lines) > 1 else 69, size, line, WHITE) for n, line in enumerate(lines))
    frame = f'<rect x="6" y="126" width="1268" height="562" fill="none" stroke="{RED}" stroke-width="12"/>'
    return (
        f"{frame if failed else ''}{_rect(0, 690, 1280, 110, back)}{_rect(32, 715, left - 56, 60, WHITE, 14)}"
        f"{_text(left / 2 + 4, 759, 38, str(step.number), back, 700, 'middle')}"
        f'<svg x="{left}" y="690" width="{1160 - left}" height="110">{"".join(goal)}</svg>'
        f"{_circle(1208, 745, 32, sign)}{_mark(1208, 745, step.status, tick)}"
    )


def _header(field: str = "") -> str:
    """Return the top of a page of the shop, with what is in its search field."""
    return (
        f"{_rect(0, 0, 1280, 76, WHITE)}{_rect(0, 75, 1280, 2, LINE)}{_rect(40, 18, 40, 40, BRAND, 10)}"
        f"{_lines(60, 39, BAG, WHITE, 4)}{_text(94, 49, 32, 'Shop', BRAND, 700)}"
        f"{_rect(300, 15, 620, 46, PAPER, 23, LINE)}{_lines(330, 37, GLASS, GREY)}{field}"
        f"{_lines(1132, 38, 'M-20-14h8l6 22h22l6-16h-32M-4 17h0M14 17h0', INK)}"
        f"{_circle(1216, 38, 23, PALE)}{_shape(1216, 40, PERSON, BRAND)}"
    )


def _product(x: float, y: float, width: float, height: float, kind: int) -> str:
    back, front = PASTELS[kind % 4]
    return _rect(x, y, width, height, back, 12) + _shape(
        x + width / 2, y + height / 2, PRODUCTS[kind % 4], front, height / 108
    )


def _price(page: int, row: int) -> str:
    return f"${5 + (37 * page + 23 * row) % 90}.{(35 * page + 45 * row) % 100:02}"


def _front(_: Step) -> str:
    cards = (
        f"{_rect(x, 308, 282, 238, WHITE, 16, LINE)}{_product(x + 14, 322, 254, 126, n)}"
        f"{_bar(x + 18, 466, 180)}{_text(x + 18, 526, 34, _price(1, n), weight=700)}"
        for n, x in enumerate(range(40, 1200, 306))
    )
    return (
        f"{_header()}{_rect(40, 100, 1200, 184, BRAND, 16)}{_text(84, 180, 56, 'New in our shop', WHITE, 700)}"
        f"{_bar(84, 208, 420, 16, '#5fb3aa')}{_bar(84, 236, 300, 16, '#5fb3aa')}"
        f"{_circle(1060, 192, 72, SUN)}{_shape(1060, 192, PRODUCTS[3], WHITE, 1.2)}{''.join(cards)}"
    )


def _search(_: Step) -> str:
    topics = (_rect(x, 390, 168, 56, WHITE, 28, LINE) + _bar(x + 30, 411, 108) for x in range(274, 1000, 188))
    return (
        f"{_text(640, 190, 60, 'Find what you need', weight=700, at='middle')}"
        f"{_rect(230, 248, 820, 92, WHITE, 46, BRAND)}{_lines(286, 292, GLASS, GREY)}{_rect(326, 272, 4, 44, INK)}"
        f"{_rect(842, 260, 196, 68, BRAND, 34)}{_text(940, 306, 34, 'Search', WHITE, 600, 'middle')}{''.join(topics)}"
    )


def _results(step: Step) -> str:
    filters = (
        _rect(40, y, 28, 28, BRAND if n in (0, 3) else WHITE, 7, LINE) + _bar(84, y + 7, 130 - 22 * (n % 3))
        for n, y in enumerate(range(152, 520, 56))
    )
    rows = (
        f"{_rect(300, y, 940, 96, WHITE, 14, LINE)}{_product(310, y + 9, 116, 78, step.page + n)}"
        f"{_bar(452, y + 24, 420 - 60 * ((step.page + n) % 3), 18)}{_bar(452, y + 58, 240)}"
        f"{_text(1210, y + 61, 38, _price(step.page, n), weight=700, at='end')}"
        for n, y in enumerate(range(144, 520, 104))
    )
    return (
        f"{_header(_bar(360, 30, 220, 16, GREY))}{_text(40, 126, 34, 'Filter', weight=700)}{''.join(filters)}"
        f"{_text(300, 126, 34, 'Results', weight=700)}{_text(1240, 126, 30, f'Page {step.page}', GREY, at='end')}"
        f"{''.join(rows)}"
    )


def _log_in(step: Step) -> str:
    failed = step.status == "failed"
    # The same for all inputs.
    values = f"{_bar(452, 223, 200, 16, GREY)}{''.join(_circle(460 + 26 * n, 355, 7, INK) for n in range(8))}"
    filled = failed or re.search("fill|enter|type|submit", step.goal, re.IGNORECASE)
    return (
        f"{_rect(390, 40, 500, 490, WHITE, 20, LINE)}{_rect(430, 76, 56, 56, BRAND, 12)}{_lines(458, 105, BAG, WHITE)}"
        f"{_text(506, 120, 46, 'Log in', weight=700)}"
        f"{_text(430, 184, 28, 'Username', GREY)}{_rect(430, 198, 420, 66, PAPER, 12, RED if failed else LINE)}"
        f"{_text(430, 308, 28, 'Password', GREY)}{_rect(430, 322, 420, 66, PAPER, 12, RED if failed else LINE)}"
        f"{_rect(430, 424, 420, 66, BRAND, 12)}{_text(640, 468, 34, 'Log in', WHITE, 600, 'middle')}"
        f"{values if filled else ''}"
    )


def _orders(step: Step) -> str:
    rows = (
        f"{_rect(40, y, 1200, 88, WHITE, 14, LINE)}{_product(52, y + 8, 104, 72, n)}"
        f"{_bar(184, y + 22, 300 - 50 * (n % 2), 18)}{_bar(184, y + 54, 180)}"
        f"{_rect(640, y + 19, 230, 50, PALE if n else '#fdecd2', 25)}"
        f"{_text(755, y + 54, 28, 'Delivered' if n else 'On its way', BRAND if n else '#92400e', 500, 'middle')}"
        f"{_text(1210, y + 57, 36, _price(4, n), weight=700, at='end')}"
        for n, y in enumerate(range(168, 540, 96))
    )
    return f"{_header()}{_text(40, 142, 46, step.title, weight=700)}{''.join(rows)}"


def _captcha(step: Step) -> str:
    ended = step.status != "running"
    return (
        f"{_rect(320, 52, 640, 466, WHITE, 20, LINE)}{_text(640, 132, 50, 'Are you a human?', weight=700, at='middle')}"
        f"{_bar(440, 160, 400, 16)}{_rect(364, 206, 552, 112, PAPER, 14, LINE)}"
        f"{_rect(394, 234, 56, 56, WHITE, 10, step.color if ended else GREY)}"
        f"{_mark(422, 262, step.status, step.color) if ended else ''}{_text(482, 275, 36, 'I am not a robot')}"
        f"{_lines(870, 264, ROUND, BLUE)}{''.join(_product(364 + 142 * n, 348, 126, 126, n) for n in range(4))}"
    )


def _file(step: Step) -> str:
    share = {"succeed": 1.0, "failed": 0.35}.get(step.status, 0.6)
    sheet = "M0 0h92l44 44v126h-136zM92 0v44h44"
    return (
        f'{_results(step)}<rect width="1280" height="570" fill="{INK}" opacity=".45"/>'
        f"{_rect(340, 110, 600, 350, WHITE, 20)}{_shape(400, 158, sheet, PALE)}{_lines(400, 158, sheet, BRAND)}"
        f"{_lines(468, 256, 'M0-32v58m-26-24l26 26l26-26', BRAND, 9)}"
        f"{_text(580, 222, 46, 'Your file', weight=700)}{_bar(580, 256, 280, 18)}{_bar(580, 294, 180)}"
        f"{_bar(400, 380, 480, 28)}{_bar(400, 380, 480 * share, 28, step.color)}"
    )


def _story(_: Step) -> str:
    texts = (_bar(40, 290 + 42 * n, 640 - 70 * (n % 3), 16) for n in range(6))
    return (
        f"{_header()}{_text(40, 166, 52, 'Stories', weight=700)}{_bar(40, 204, 520, 28, '#b6c2cf')}{''.join(texts)}"
        f"{_rect(760, 116, 480, 414, WHITE, 16, LINE)}{_rect(778, 134, 444, 378, PASTELS[1][0])}"
        f"{_circle(1110, 232, 52, SUN)}{_shape(778, 134, 'M0 340l150-200l120 150l70-80l104 120v48h-444z', '#7fa3d9')}"
        f"{_shape(778, 134, 'M0 378v-70q110-50 240-14t204 64v20z', '#2f8f5b')}"
    )


PAGES: tuple[tuple[str, str, str, Callable[[Step], str]], ...] = (
    (r"captcha|challenge|robot", "/check", "Security check", _captcha),
    (r"\b(log|sign)[ -]?in\b|password", "/login", "Log in", _log_in),
    (r"\b(down|up)load|export|\bfiles?\b", "/export", "Your file", _file),
    (r"\borders\b", "/account/orders", "Your orders", _orders),
    (r"\baccount\b", "/account", "Your account", _orders),
    (r"search page", "/search", "Search", _search),
    (r"open the (front |home )?page|\bshop\b", "/", "Shop", _front),
    (r"search|result|product|price|next page", "/search", "Results", _results),
)
"""The goals that a page fits, its address, title and content. The first match counts."""
