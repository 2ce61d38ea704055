"""A host of files, whose responses are defined byte by byte."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from tests.helpers.served import read_request

OK = b"HTTP/1.1 200 OK\r\n"
CONTENT = bytes(range(256)) * 40

Handle = Callable[[Any], object]


def reply(body: bytes = CONTENT, *headers: str, status: str = "200 OK", length: int | None = None) -> bytes:
    """Return a response, which announces its length."""
    lines = (f"HTTP/1.1 {status}", f"Content-Length: {len(body) if length is None else length}", *headers)
    return "\r\n".join((*lines, "Connection: close", "", "")).encode() + body


class FileHost:
    """Answers each request with the response for the first part of its path, or with CONTENT."""

    def __init__(self, listen: Callable[[Handle], int]) -> None:
        #: By the first part of the path: a response, the responses to the first requests, or what handles each.
        self.replies: dict[str, bytes | list[bytes] | Handle] = {}
        self.paths: list[str] = []
        self.heads: list[str] = []
        self.port = listen(self._answer)
        self.url = f"http://127.0.0.1:{self.port}"

    def _answer(self, connection: socket.socket) -> None:
        head = read_request(connection).decode()
        if not head:
            # The other side has closed the connection without a request.
            return
        path = head.split()[1]
        self.paths.append(path)
        self.heads.append(head.lower())
        found = self.replies.get(path.split("/")[1].partition("?")[0], reply())
        if isinstance(found, list):
            found = found.pop(0) if found else reply()
        if callable(found):
            found(connection)
        else:
            connection.sendall(found)

    def redirect_to(self, location: str) -> None:
        self.replies["redirect"] = reply(b"", f"Location: {location}", status="302 Found")


@pytest.fixture
def host(listen) -> FileHost:
    return FileHost(listen)
