"""Faults between a client and BrowserAct that a test can add."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class RequestFault:
    """A fault of a request. Create it with one of the class methods.

    :param processed: whether the request takes effect although its sender gets no proper response
    :param http_status: the HTTP status of what is responded instead; None if nothing is
    """

    kind: Literal["slow", "hung", "status", "html", "gateway", "redirect", "lost_response", "reset", "refused"]
    processed: bool = False
    seconds: float = 0.0
    http_status: int | None = None
    retry_after: float | str | None = None
    code: int = 0
    message: str | None = None
    location: str = ""

    def __post_init__(self) -> None:
        _check("seconds", self.seconds, 0, 1e6)
        if self.http_status is not None:
            least = {"html": 200, "refused": 200, "redirect": 300}.get(self.kind, 400)
            _check("http_status", self.http_status, least, 399 if self.kind == "redirect" else 599)

    @classmethod
    def slow(cls, seconds: float) -> RequestFault:
        """Process the request at once, but respond only after ``seconds``."""
        return cls("slow", processed=True, seconds=seconds)

    @classmethod
    def hung(cls, *, processed: bool = False) -> RequestFault:
        """Never respond. The connection stays open until the client or the emulator closes it."""
        return cls("hung", processed=processed)

    @classmethod
    def status(cls, http_status: int, *, retry_after: float | str | None = None) -> RequestFault:
        """Respond with this HTTP status and the error envelope. ``retry_after`` is in seconds, or an HTTP date."""
        return cls("status", http_status=http_status, retry_after=retry_after)

    @classmethod
    def html(cls, http_status: int = 200) -> RequestFault:
        """Respond with an HTML page, as a proxy, a gateway or another host would."""
        return cls("html", http_status=http_status)

    @classmethod
    def gateway(cls, http_status: int) -> RequestFault:
        """Respond with the JSON of an API gateway or a firewall, which has no BrowserAct code."""
        return cls("gateway", http_status=http_status)

    @classmethod
    def redirect(cls, location: str = "/login", *, http_status: int = 302) -> RequestFault:
        """Redirect to another page, as a host does that requires a login."""
        return cls("redirect", http_status=http_status, location=location)

    @classmethod
    def lost_response(cls, *, status: int | None = None) -> RequestFault:
        """Process the request, then close the connection, or respond as a gateway with this HTTP ``status``."""
        return cls("lost_response", processed=True, http_status=status)

    @classmethod
    def reset(cls) -> RequestFault:
        """Reset the connection before the request is processed."""
        return cls("reset")

    @classmethod
    def refused(cls, code: int, message: str | None = None, *, http_status: int = 400) -> RequestFault:
        """Respond with the error envelope and this code, without processing the request."""
        if code == 0:
            raise ValueError("code 0 means success")
        return cls("refused", code=code, message=message, http_status=http_status)


@dataclass(frozen=True)
class CallbackFault:
    """A fault of a callback. Create it with one of the class methods."""

    kind: Literal["lost", "late", "repeated", "hung_up"]
    seconds: float = 0.0
    copies: int = 1

    def __post_init__(self) -> None:
        _check("seconds", self.seconds, 0, 1e6)

    @classmethod
    def lost(cls) -> CallbackFault:
        """Never deliver the callback."""
        return cls("lost")

    @classmethod
    def late(cls, seconds: float) -> CallbackFault:
        """Deliver the callback after ``seconds``. Later callbacks of the same run do not wait for it."""
        return cls("late", seconds=seconds)

    @classmethod
    def repeated(cls, copies: int = 2) -> CallbackFault:
        """Deliver the callback several times."""
        _check("copies", copies, 2)
        return cls("repeated", copies=copies)

    @classmethod
    def hung_up(cls) -> CallbackFault:
        """Deliver the callback, but close the connection without waiting for the response."""
        return cls("hung_up")


@dataclass(eq=False)
class ArmedFault:
    """A fault that a test has added, with the arguments of :meth:`Emulator.fault`."""

    fault: RequestFault | CallbackFault
    endpoint: str
    about: dict[str, str] = field(default_factory=dict)
    times: int | None = None
    skip: int = 0
    seen: int = 0

    def __post_init__(self) -> None:
        _check("times", 1 if self.times is None else self.times, 1)
        _check("skip", self.skip, 0)

    def applies_to(self, about: dict[str, str]) -> bool:
        """Return whether it applies to a request or callback of its endpoint, and count it."""
        if not self.about.items() <= about.items():
            return False
        self.seen += 1
        return self.skip < self.seen and (self.times is None or self.seen <= self.skip + self.times)


def _check(name: str, value: float, least: float, most: float = float("inf")) -> None:
    if not least <= value <= most:
        raise ValueError(f"{name} must be from {least} to {most}, got {value!r}")
