"""Times, which are seconds since the epoch in the emulator, as the API and the records have them."""

from __future__ import annotations

from datetime import datetime, timezone


def utc(moment: float) -> datetime:
    """Return a time with its time zone, UTC."""
    return datetime.fromtimestamp(moment, timezone.utc)


def iso(moment: float) -> str:
    """Return a time as most fields of the API have it: UTC, whole seconds."""
    return f"{utc(int(moment)):%Y-%m-%dT%H:%M:%SZ}"


def milliseconds(moment: float) -> int:
    """Return a time as the other fields of the API have it."""
    return int(moment * 1000)
