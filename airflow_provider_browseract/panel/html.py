"""The pages as HTML: the templates, and how they show texts, times, numbers and addresses.

Every text that a template shows is cut and cleaned, whoever wrote it, and then escaped. Only what a filter or function
below returns as ``Markup`` is shown whole.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import cache
from typing import Any, NamedTuple
from urllib.parse import quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup, escape

from airflow_provider_browseract.panel.database import TaskInstanceKey

MAX_TEXT = 200
"""Characters of a text that a page shows."""

LONGEST_ID = 20
"""Characters of an id that a table shows in full."""


class Notice(NamedTuple):
    """A line at the top of a page.

    :param kind: ``info``, ``warning`` or ``error``.
    :param remedy: what the viewer can do about it.
    """

    kind: str
    text: str
    remedy: str = ""


class Choice(NamedTuple):
    """Something to choose in a list, as a link.

    :param query: the query string of the link.
    :param number: how many it has; None if that is not known.
    """

    label: str
    query: str
    chosen: bool = False
    number: int | None = None


@dataclass(frozen=True)
class Frame:
    """What every page shows around its content.

    :param root: path of ``[api] base_url`` with a slash at its end, below which Airflow's pages are.
    :param tab: which page this is: ``runs``, ``credits``, ``workflows``, or empty for a page without tabs.
    :param conn_id: the connection whose account is shown; None if there is none.
    :param connections: the connections that the viewer may choose from.
    :param as_of: when the shown data were read from BrowserAct; None if they were not read yet.
    :param reading: they are so old that they must not be taken for what is true now, and are being read again.
    :param refresh: seconds after which the script reads the page again; 0 if it does not change.
    :param sees_account: the viewer may read the connection, so the pages about the account are open.
    """

    root: str
    tab: str = ""
    title: str = "BrowserAct"
    conn_id: str | None = None
    connections: tuple[str, ...] = ()
    notices: tuple[Notice, ...] = ()
    as_of: datetime | None = None
    reading: bool = False
    refresh: int = 0
    sees_account: bool = False

    @property
    def panel(self) -> str:
        """Path of the overview, below which the other pages are."""
        return f"{self.root}browseract/panel/"

    @property
    def loading(self) -> bool:
        """Whether nothing was read yet, and no error is why."""
        return self.as_of is None and not any(notice.kind == "error" for notice in self.notices)


def foreign_text(text: str | None, length: int = MAX_TEXT) -> str:
    """Return a text in one line of limited length, without characters that control how others are shown.

    Right-to-left marks would change the order of the text around it, and NUL is no character of HTML.
    """
    # Cut first: a name can have a megabyte.
    cut = (text or "")[: length + 1]
    shown = cut if cut.isprintable() else "".join(map(_shown, cut))
    return shown if len(shown) <= length else f"{shown[: length - 1]}\u2026"


def _shown(character: str) -> str:
    return " " if unicodedata.category(character) in ("Cc", "Cf", "Cs", "Zl", "Zp") else character


def label_of(key: TaskInstanceKey) -> str:
    """Return what a task instance is called, such as ``prices / search [17]``."""
    index = f" [{key.map_index}]" if key.map_index >= 0 else ""
    return foreign_text(f"{key.dag_id} / {key.task_id}{index}")


def render(template: str, frame: Frame, *, fragment: bool, **content: Any) -> str:
    """Return a page as HTML.

    :param template: name of a file in ``templates``.
    :param fragment: return only what is inside the ``main`` element, which is what the script refreshes.
    :param content: what the template shows.
    """
    now = datetime.now(timezone.utc)
    return _environment().get_template(template).render(frame=frame, fragment=fragment, now=now, **content)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("airflow_provider_browseract", "panel/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: (
            value if isinstance(value, Markup) or not isinstance(value, str) else foreign_text(value)
        ),
    )
    environment.filters.update(
        age=_age,
        count=lambda number: "" if number is None else f"{number:,}",
        duration=lambda seconds: "" if seconds is None else duration(seconds),
        iso=_iso,
        label=label_of,
        mean=lambda number: "" if number is None else f"{number:,.{0 if number >= 100 else 1}f}",
        short=_short,
        stamp=_stamp,
        text=lambda text, length: escape(foreign_text(text, length)),
        web=_web,
        whole=escape,
    )
    environment.globals.update(airflow=_airflow, url=_url)
    return environment


def duration(seconds: float) -> str:
    """Return a duration in at most two units. ``panel.js`` words it in the same way."""
    # The clocks of two hosts differ, so a duration can seem to be negative.
    minutes = max(0, int(seconds)) // 60
    if not minutes:
        return f"{max(0, int(seconds))} s"
    hours, minutes = divmod(minutes, 60)
    if not hours:
        return f"{minutes} min"
    days, hours = divmod(hours, 24)
    units = ((days, "d"), (hours, "h")) if days else ((hours, "h"), (minutes, "min"))
    return " ".join(f"{number} {unit}" for number, unit in units if number)


def _short(text: str) -> str:
    """Return an id with its middle left out if it is long. Its ends tell ids apart."""
    return text if len(text) <= LONGEST_ID else f"{text[:8]}\u2026{text[-8:]}"


def _stamp(moment: datetime | None) -> Markup:
    """Return a time that the script shows in the viewer's language and time zone; nothing if it is not known."""
    if moment is None:
        return Markup()
    return Markup('<time datetime="{}">{}</time>').format(_iso(moment), _utc(moment))


@pass_context
def _age(context: Context, moment: datetime | None, suffix: str = " ago") -> Markup:
    """Return how long ago a time was, which the script keeps up to date, or the time if the page is read only once."""
    if moment is None or not context["frame"].refresh:
        return _stamp(moment)
    passed = (context["now"] - moment).total_seconds()
    element = Markup('<time datetime="{}" data-age="{}" title="{}">{}</time>')
    return element.format(_iso(moment), suffix, _utc(moment), duration(passed) + suffix)


def _iso(moment: datetime) -> str:
    return f"{moment.astimezone(timezone.utc):%Y-%m-%dT%H:%M:%SZ}"


def _utc(moment: datetime) -> str:
    return f"{moment.astimezone(timezone.utc):%Y-%m-%d %H:%M} UTC"


def _web(address: str | None) -> Markup | None:
    """Return an address if a browser may open it: ``javascript:`` and the like are left out."""
    return escape(address) if address and address.startswith(("https://", "http://")) else None


@pass_context
def _url(context: Context, *segments: str, **query: str) -> Markup:
    """Return the address of a page of the panel, with the connection that is shown."""
    frame: Frame = context["frame"]
    if frame.conn_id is not None:
        query = {"conn": frame.conn_id, **query}
    path = frame.panel + "/".join(quote(str(segment), safe="") for segment in segments)
    return escape(f"{path}?{urlencode(query)}" if query else path)


@pass_context
def _airflow(context: Context, key: TaskInstanceKey, tab: str = "") -> Markup:
    """Return the address of a page of a task instance in Airflow."""
    dag_id, run_id, task_id = (quote(each, safe="") for each in key[:3])
    mapped = f"/mapped/{key.map_index}" if key.map_index >= 0 else ""
    return escape(f"{context['frame'].root}dags/{dag_id}/runs/{run_id}/tasks/{task_id}{mapped}{tab}")
