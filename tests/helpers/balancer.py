"""One address in front of several servers."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import threading
from collections.abc import Iterator, Sequence


@contextlib.contextmanager
def balancing(port: int, backends: Sequence[int]) -> Iterator[None]:
    """Pass each connection to a port of the loopback interface on to the next of several that takes it."""
    loop = asyncio.new_event_loop()
    turns = itertools.cycle(backends)
    up = threading.Event()

    async def connect() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        for _ in backends:
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", next(turns))
        raise OSError("no server takes the connection")

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await connect()
        except OSError:
            writer.close()
            return
        await asyncio.gather(pump(reader, far_writer), pump(far_reader, writer))

    def run() -> None:
        asyncio.set_event_loop(loop)
        server = loop.run_until_complete(asyncio.start_server(serve, "127.0.0.1", port))
        up.set()
        loop.run_forever()
        server.close()
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()

    thread = threading.Thread(target=run, name="balancer", daemon=True)
    thread.start()
    if not up.wait(10):
        raise RuntimeError(f"port {port} could not be listened on")
    try:
        yield
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
