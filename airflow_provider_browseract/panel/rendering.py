"""The pages as HTML: the templates, and how they show times, numbers and addresses."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import cache
from urllib.parse import parse_qsl, quote, urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined, pass_context
from jinja2.runtime import Context
from markupsafe import Markup

from airflow_provider_browseract.panel.plot import stacked_bars
from airflow_provider_browseract.panel.views import Frame

LONGEST_ID = 20
"""Characters of an id that a table shows in full."""


def render(template: str, frame: Frame, page: object, *, fragment: bool) -> str:
    """Return a page as HTML.

    :param template: name of a file in ``templates``.
    :param page: the value that the template shows.
    :param fragment: return only what is inside the ``main`` element, which is what the script refreshes.
    """
    now = datetime.now(timezone.utc)
    return _environment().get_template(template).render(frame=frame, page=page, fragment=fragment, now=now)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("airflow_provider_browseract", "panel/templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        age=_age,
        count=_count,
        duration=duration,
        fields=_fields,
        iso=_iso,
        mean=_mean,
        short=_short,
        stamp=_stamp,
        web=_web,
    )
    environment.globals.update(url=_url, stacked_bars=stacked_bars)
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


def _count(number: int) -> str:
    return f"{number:,}"


def _mean(number: float) -> str:
    return f"{number:,.0f}" if number >= 100 else f"{number:,.1f}"


def _short(text: str) -> str:
    """Return an id with its middle left out if it is long. Its ends tell ids apart."""
    return text if len(text) <= LONGEST_ID else f"{text[:8]}\u2026{text[-8:]}"


def _stamp(moment: datetime) -> Markup:
    """Return a time that the script shows in the viewer's language and time zone."""
    moment = moment.astimezone(timezone.utc)
    return Markup('<time datetime="{}">{}</time>').format(_iso(moment), f"{moment:%Y-%m-%d %H:%M} UTC")


@pass_context
def _age(context: Context, moment: datetime, suffix: str = " ago") -> Markup:
    """Return how long ago a time was. The script keeps it up to date."""
    now: datetime = context["now"]
    moment = moment.astimezone(timezone.utc)
    element = Markup('<time datetime="{}" data-age="{}" title="{}">{}</time>')
    return element.format(
        _iso(moment), suffix, f"{moment:%Y-%m-%d %H:%M} UTC", duration((now - moment).total_seconds()) + suffix
    )


def _iso(moment: datetime) -> str:
    moment = moment.astimezone(timezone.utc)
    return f"{moment:%Y-%m-%dT%H:%M:%SZ}"


def _web(address: str | None) -> str | None:
    """Return an address if a browser may open it: ``javascript:`` and the like are left out."""
    return address if address and address.startswith(("https://", "http://")) else None


def _fields(query: str) -> list[tuple[str, str]]:
    """Return what a search form has to send along, so that it keeps the chosen filter."""
    return [(name, value) for name, value in parse_qsl(query) if name not in ("search", "page")]


@pass_context
def _url(context: Context, *segments: str, **query: str) -> str:
    """Return the address of a page of the panel, with the connection that is shown."""
    frame: Frame = context["frame"]
    if frame.conn_id is not None:
        query = {"conn": frame.conn_id, **query}
    path = frame.panel + "/".join(quote(segment, safe="") for segment in segments)
    return f"{path}?{urlencode(query)}" if query else path
