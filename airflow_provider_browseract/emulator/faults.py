"""Faults between a client and BrowserAct that a test can add."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

RequestFaultKind = Literal["slow", "hung", "status", "html", "gateway", "redirect", "lost_response", "reset", "refused"]
CallbackFaultKind = Literal["lost", "late", "repeated", "out_of_order", "hung_up"]

#: The endpoint name for faults of every endpoint of the API (files are not part of it).
EVERY_ENDPOINT = "*"

#: The endpoint name for downloads of exported files.
DOWNLOAD_FILE = "download-file"


@dataclass(frozen=True)
class RequestFault:
    """A fault of a request. Create it with one of the class methods.

    :param processed: whether the request takes effect although its sender gets no proper response
    """

    kind: RequestFaultKind
    processed: bool = False
    seconds: float = 0.0
    http_status: int | None = None
    retry_after: str | None = None
    code: int = 0
    message: str | None = None
    location: str | None = None

    @classmethod
    def slow(cls, seconds: float) -> RequestFault:
        """Process the request at once, but respond only after ``seconds``."""
        if not seconds >= 0:
            raise ValueError(f"seconds must not be negative, got {seconds!r}")
        return cls("slow", processed=True, seconds=seconds)

    @classmethod
    def hung(cls, *, processed: bool = False) -> RequestFault:
        """Never respond. The connection stays open until the client or the emulator closes it."""
        return cls("hung", processed=processed)

    @classmethod
    def status(cls, http_status: int, *, retry_after: float | str | None = None) -> RequestFault:
        """Respond with this HTTP status and the error envelope, without processing the request.

        :param retry_after: value of the ``Retry-After`` header: seconds or an HTTP date
        """
        _check_status(http_status, 400, 599)
        return cls("status", http_status=http_status, retry_after=_header(retry_after))

    @classmethod
    def html(cls, http_status: int = 200) -> RequestFault:
        """Respond with an HTML page, as a proxy, a gateway or another host would."""
        _check_status(http_status, 200, 599)
        return cls("html", http_status=http_status)

    @classmethod
    def gateway(cls, http_status: int) -> RequestFault:
        """Respond with the JSON of an API gateway or a firewall, which has no BrowserAct code."""
        _check_status(http_status, 400, 599)
        return cls("gateway", http_status=http_status)

    @classmethod
    def redirect(cls, location: str = "/login", *, http_status: int = 302) -> RequestFault:
        """Redirect to another page, as a host does that requires a login.

        :param location: value of the ``Location`` header
        """
        _check_status(http_status, 300, 399)
        return cls("redirect", http_status=http_status, location=location)

    @classmethod
    def lost_response(cls, *, status: int | None = None) -> RequestFault:
        """Process the request, then lose the response.

        :param status: HTTP status with which a gateway responds instead, such as 502; None closes the connection
        """
        if status is not None:
            _check_status(status, 400, 599)
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

    kind: CallbackFaultKind
    seconds: float = 0.0
    copies: int = 1

    @classmethod
    def lost(cls) -> CallbackFault:
        """Never deliver the callback."""
        return cls("lost")

    @classmethod
    def late(cls, seconds: float) -> CallbackFault:
        """Deliver the callback after ``seconds``. Later callbacks do not wait for it."""
        if not seconds >= 0:
            raise ValueError(f"seconds must not be negative, got {seconds!r}")
        return cls("late", seconds=seconds)

    @classmethod
    def repeated(cls, copies: int = 2) -> CallbackFault:
        """Deliver the callback several times."""
        if copies < 2:
            raise ValueError(f"copies must be 2 or more, got {copies!r}")
        return cls("repeated", copies=copies)

    @classmethod
    def out_of_order(cls) -> CallbackFault:
        """Deliver the callback after the next callback of the same run.

        The last callback of a run is delivered as usual.
        """
        return cls("out_of_order")

    @classmethod
    def hung_up(cls) -> CallbackFault:
        """Deliver the callback, but close the connection without waiting for the response."""
        return cls("hung_up")


Fault = TypeVar("Fault", RequestFault, CallbackFault)


@dataclass
class _Armed(Generic[Fault]):
    fault: Fault
    concerns: Callable[..., bool]
    skip: int
    times: float
    seen: int = 0


class FaultPlan(Generic[Fault]):
    """Faults that apply to later requests or callbacks, in the order in which they were added."""

    def __init__(self) -> None:
        self._armed: list[_Armed[Fault]] = []
        self._lock = threading.Lock()

    def arm(
        self, fault: Fault, concerns: Callable[..., bool], *, times: int | None, skip: int = 0
    ) -> Callable[[], None]:
        """Add a fault, and return a function that removes it.

        :param fault: the fault
        :param concerns: returns whether the fault applies to the arguments of :meth:`take`
        :param times: how often it applies; None means until cleared
        :param skip: how often it is skipped before
        """
        if times is not None and times < 1:
            raise ValueError(f"times must be 1 or more, or None, got {times!r}")
        if skip < 0:
            raise ValueError(f"skip must not be negative, got {skip!r}")
        armed = _Armed(fault, concerns, skip, float("inf") if times is None else times)
        with self._lock:
            self._armed.append(armed)

        def disarm() -> None:
            with self._lock:
                self._armed = [each for each in self._armed if each is not armed]

        return disarm

    def take(self, *about: Any) -> Fault | None:
        """Return the first fault that applies, and count it."""
        with self._lock:
            for armed in self._armed:
                if armed.concerns(*about):
                    armed.seen += 1
                    if armed.skip < armed.seen <= armed.skip + armed.times:
                        return armed.fault
        return None

    def clear(self) -> None:
        """Remove all faults."""
        with self._lock:
            self._armed.clear()


def _check_status(http_status: int, lowest: int, highest: int) -> None:
    if not lowest <= http_status <= highest:
        raise ValueError(f"the HTTP status of this fault is from {lowest} to {highest}, got {http_status!r}")


def _header(value: float | str | None) -> str | None:
    return value if value is None or isinstance(value, str) else f"{value:g}"
