"""Read the bodies of responses, within a limit."""

from __future__ import annotations

import io
import zlib
from collections.abc import Iterator, Mapping
from typing import Any

from airflow_provider_browseract.api.exchange import Call
from airflow_provider_browseract.exceptions import ResponseTooLargeError

MAX_RESPONSE = 256 * 1024 * 1024
"""Bytes of an uncompressed body after which a client stops reading.

Reading a response takes about three times its size in memory. A workflow that returns more should write files instead.
"""

CHUNK_SIZE = 256 * 1024
"""Bytes that are read, or decompressed, at a time."""


GZIP = 16 + zlib.MAX_WBITS
"""The format gzip, as zlib numbers it."""


class Body:
    """The body of a response, while it arrives.

    A compressed body is kept as it arrives, and first only measured. Otherwise some hundred kilobytes could become
    hundreds of megabytes before the limit is reached.

    :param limit: bytes that it may have without compression; None for :data:`MAX_RESPONSE`.
    """

    def __init__(self, call: Call[Any], status: int, headers: Mapping[str, str], limit: int | None = None) -> None:
        self._call = call
        self._status = status
        self._limit = limit
        self._arrived = io.BytesIO()
        self._compressed = headers.get("content-encoding", "").strip().lower() in ("gzip", "x-gzip")
        self._measuring = Decompressor(GZIP)
        self.size = 0

    def add(self, chunk: bytes) -> None:
        """Add the next bytes that arrived.

        :raises ResponseTooLargeError: the body is larger than the limit.
        :raises zlib.error: the bytes cannot be decompressed.
        """
        limit = MAX_RESPONSE if self._limit is None else self._limit
        self._arrived.write(chunk)
        for piece in self._measuring.pieces_of(chunk) if self._compressed else (chunk,):
            self.size += len(piece)
            if max(self.size, self._arrived.tell()) > limit:
                parameter, remedy = "", None
                if self._limit is not None:
                    parameter = " (max_response)"
                    remedy = f"Raise max_response. {ResponseTooLargeError.remedy}"
                raise ResponseTooLargeError(
                    f"The response to {self._call.name} is larger than {limit} bytes{parameter}",
                    http_status=self._status,
                    remedy=remedy,
                )

    def whole(self) -> bytes:
        """Return the complete body without compression.

        :raises zlib.error: the compressed body is incomplete.
        """
        arrived = self._arrived.getvalue()
        if not self._compressed or not arrived:
            return arrived
        if not self._measuring.complete:
            raise zlib.error("incomplete")
        gunzip, begins = Decompressor(GZIP), range(0, len(arrived), CHUNK_SIZE)
        return b"".join(piece for begin in begins for piece in gunzip.pieces_of(arrived[begin : begin + CHUNK_SIZE]))


class Decompressor:
    """Decompress content in pieces of limited size, because a few compressed bytes can expand to very many.

    :param wbits: the format, as :func:`zlib.decompressobj` takes it.
    """

    def __init__(self, wbits: int) -> None:
        self._wbits = wbits
        self._stream = zlib.decompressobj(wbits)

    @property
    def complete(self) -> bool:
        """Whether the bytes so far are complete."""
        return self._stream.eof

    def pieces_of(self, chunk: bytes) -> Iterator[bytes]:
        """Yield the content of the next bytes. It can consist of several compressed streams."""
        while chunk:
            if self._stream.eof:
                self._stream = zlib.decompressobj(self._wbits)
            yield self._stream.decompress(chunk, CHUNK_SIZE)
            chunk = self._stream.unconsumed_tail or self._stream.unused_data
