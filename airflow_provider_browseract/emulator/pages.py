"""What the links of tasks lead to: files, and pages with a drawn browser.

The goal of a step decides which page of an invented shop the browser shows. Inputs and outputs can be secret, so a
picture depends on the workflow and the step alone.
"""

from __future__ import annotations

import re
import textwrap
from functools import cache
from typing import TYPE_CHECKING, Any

from airflow_provider_browseract.emulator.records import Response
from airflow_provider_browseract.emulator.runs import Run
from airflow_provider_browseract.emulator.workflow import EmulatedWorkflow

if TYPE_CHECKING:
    from airflow_provider_browseract.emulator.account import Emulator

FILES, HTML = "/files/", "text/html; charset=utf-8"

SCENES = (
    (r"captcha|challenge|robot", "/check", "Security check", "captcha"),
    (r"\b(log|sign)[ -]?in\b|password", "/login", "Log in", "login"),
    (r"\b(down|up)load|export|\bfiles?\b", "/export", "Your file", "file"),
    (r"\borders\b", "/account/orders", "Your orders", "orders"),
    (r"\baccount\b", "/account", "Your account", "orders"),
    (r"search page", "/search", "Search", "search"),
    (r"open the (front |home )?page|\bshop\b", "/", "Shop", "front"),
    (r"search|result|product|price|next page", "/search", "Results", "results"),
    (r"", "/stories", "Stories", "story"),
)
"""The goals that a page of the shop fits, its address, its title and its template. The first match counts."""


def show(emulator: Emulator, path: str, now: float) -> Response | None:
    """Return the response to a request of a page or a file, or None if there is no such path."""
    if path == "/":
        page = render("start.html", emulator=emulator, differences=render("differences.md"), refresh=False)
        return Response(200, page.encode(), HTML)
    if path.startswith(FILES):
        return _file(emulator, *path.removeprefix(FILES).partition("/")[::2], now)
    found = re.fullmatch(r"/(?:(live|logs)/([^/]+)|screenshots/([^/]+)/([^/]+)\.svg)", path)
    if found is None:
        return None
    page, task_id, drawn_id, number = found.groups()
    started = emulator.runs.get(task_id or drawn_id)
    content = None
    if started is not None:
        run = started.seen(now)
        about: dict[str, Any] = {"run": run, "refresh": run.finished_at is None}
        if page == "logs":
            content = render("log.html", **about)
        elif page == "live":
            newest = next((str(number) for number, _ in reversed(run.steps)), "")
            content = render("live.html", picture=_picture(run, newest), **about)
        else:
            content = _picture(run, number)
    if content is None:
        return Response(404, b"There is no such task or step.\n", "text/plain")
    # A step that is running will look different.
    return Response(200, content.encode(), HTML if page else "image/svg+xml", {"Cache-Control": "no-store"})


def draw(workflow: EmulatedWorkflow, number: int, goal: str, status: str) -> Any:
    """Return the drawn screenshot of a step that is ``running``, ``succeed`` or ``failed``, as SVG of 1280 by 800."""
    # XML allows no control characters, not even escaped ones.
    goal = "".join(char if char.isprintable() else " " for char in goal[:200])
    texts = (goal, workflow.name)
    fitting = (scene for text in texts for scene in SCENES[:-1] if re.search(scene[0], text, re.IGNORECASE))
    _, address, title, content = next(fitting, SCENES[-1])
    if title == "Your account" and status == "failed":
        _, address, title, content = SCENES[1]
    page = 1 if workflow.step_every is None else 1 + number // len(workflow.steps)
    # Chinese characters, for example, are twice as wide.
    room = 25 if max(goal, default="") > "\u2e80" else 50
    return render(
        "picture.svg",
        number=number,
        goal=goal,
        status=status,
        title=title,
        page=page,
        address=address if content != "results" or page == 1 else f"{address}?page={page}",
        content=f"{content}.svg",
        filled=status == "failed" or re.search("fill|enter|type|submit", goal, re.IGNORECASE),
        captions=textwrap.wrap(goal, room, max_lines=2, placeholder=" …"),
        size=40 if len(goal) <= 0.84 * room else 34,
        left=90 + 26 * len(str(number)),
    )


def _picture(run: Run, wanted: str) -> Any:
    """Return the screenshot of a step, or None if there is no such step."""
    found = (
        draw(run.workflow, number, run.goal(number), status) for number, status in run.steps if str(number) == wanted
    )
    return next(found, None)


def _file(emulator: Emulator, token: str, name: str, now: float) -> Response:
    for run in emulator.runs.values():
        for stored in (*run.files, *run.downloads):
            if stored.token == token and stored.file.name == name and stored.ready(now) and now < stored.expires:
                return Response(
                    200, stored.file.content, stored.file.content_type, {"Content-Disposition": "attachment"}
                )
    return Response(403, b"The link is not valid, or has expired.\n", "text/plain")


@cache
def _environment() -> Any:
    # Imported here, because only pages need it.
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("airflow_provider_browseract.emulator"),
        autoescape=lambda name: not str(name).endswith((".txt", ".md")),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def render(template: str, **values: Any) -> Any:
    """Return a rendered template as markup, which other templates do not escape."""
    from markupsafe import Markup

    return Markup(_environment().get_template(template).render(values))
